"""Owns the smoke test of the demo's staging: does the app answer, whole, from the build that is rolled out?

`python -m hotcold.demo.rollouts.smoke_test PORT` exits with 0 if so. When it is run is left to Checkpoint, which says
in HOTCOLD_BUILD what is rolled out.
"""

from __future__ import annotations

import json
import os
import sys
from http.client import HTTPConnection
from typing import Final

from hotcold.demo.app import SAMPLED_COUNT
from hotcold.demo.verdict import Verdict, judge

_ASKED_COUNT: Final = 20
_TIMEOUT_S: Final = 30.0


def main() -> None:
    """Ask, and say what is wrong."""
    port, wanted = int(sys.argv[1]), os.environ["HOTCOLD_BUILD"]
    for _ in range(_ASKED_COUNT):
        connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
        connection.request("GET", "/")
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if judge(answer.status, body, file_count=SAMPLED_COUNT) is not Verdict.WHOLE:
            sys.exit(f"status {answer.status}: {body[:200]!r}")
        served = set(json.loads(body)["builds"].values())
        if served != {wanted}:
            sys.exit(f"the app serves {', '.join(served)}, not {wanted}")
    sys.stdout.write(f"{_ASKED_COUNT} pages of {wanted}\n")


if __name__ == "__main__":
    main()
