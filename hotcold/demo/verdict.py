"""Owns what an answer of the app is worth: whole, mixed of two builds, or failed. Pure.

Sending requests and counting is left to `hotcold.demo.load`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePosixPath
from typing import Any, Final

_OK: Final = 200


class Verdict(Enum):
    """What a client got."""

    WHOLE = "whole"
    MIXED = "mixed"
    FAILED = "failed"


def judge(status: int, body: bytes, *, file_count: int) -> Verdict:
    """Judge one answer.

    Args:
        status: of the HTTP answer.
        body: the app's document: which release directory was open, and what each file said of its build.
        file_count: files that must have been read at least; fewer would make "whole" cheap.
    """
    if status != _OK:
        return Verdict.FAILED
    try:
        document: Mapping[str, Any] = json.loads(body)
        builds: Mapping[str, str] = document["builds"]
        directory = PurePosixPath(document["release"]).name
    except (ValueError, KeyError, TypeError):
        return Verdict.FAILED
    if len(builds) < file_count:
        return Verdict.FAILED
    # The directory is called `<build>~<n>`: a tree all of one build, but not of the one in its name, is mixed too.
    return Verdict.WHOLE if set(builds.values()) == {directory.rpartition("~")[0]} else Verdict.MIXED
