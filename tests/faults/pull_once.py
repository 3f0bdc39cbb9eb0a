"""Pulls one build and prints how it went, as JSON: `pull_once.py REFERENCE INTO SETTINGS`."""

import asyncio
import sys
from pathlib import Path

import msgspec

from artifact import HotcoldError, ManifestRef, PullSettings
from artifact.pull import pull


async def main() -> None:
    ref = msgspec.json.decode(sys.argv[1], type=ManifestRef)
    settings = msgspec.json.decode(sys.argv[3], type=PullSettings)
    gaps: list[str] = []
    told: dict[str, object] = {"gaps": gaps, "error": None}
    try:
        await pull(ref, Path(sys.argv[2]), settings=settings, on_progress=lambda _: None, on_gaps=gaps.extend)
    except HotcoldError as error:
        told["error"] = [type(error).__name__, error.kind, str(error)]
    sys.stdout.write(msgspec.json.encode(told).decode())


if __name__ == "__main__":
    asyncio.run(main())
