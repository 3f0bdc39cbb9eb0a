"""Fuzzes one reader, guided by coverage: `fuzz.py TARGET [SECONDS]`, or `fuzz.py TARGET` and libFuzzer's own arguments.

What reaches new code goes to `.cache/fuzz/TARGET`, where the next run begins again; what crashes, or takes too long,
goes to `.cache/fuzz/` and ends the run with an error. `fuzz.py TARGET --keep` adds to the kept corpus what reaches code
that it does not reach yet, the smallest inputs first.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import atheris

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "fuzz"
SECONDS = 60
INPUT_BYTES_MAX = 8192
SLOW_S = 20

with atheris.instrument_imports(include=["artifact", "tarfile", "zipfile"]):
    from tests.fuzz.seeds import seeds
    from tests.fuzz.targets import TARGETS
    from tests.hostile.build import BLOCK, summed


def mutated_tar(data: bytes, max_bytes: int, seed: int) -> bytes:
    """Mutate as libFuzzer does, and mostly mend the checksums of headers, which would end it all there."""
    archive = bytearray(atheris.Mutate(data, max_bytes))
    if seed % 4:
        for at in range(0, len(archive) - BLOCK + 1, BLOCK):
            if archive[at + 257 : at + 262] == b"ustar":
                archive[at : at + BLOCK] = summed(archive[at : at + BLOCK])
    return bytes(archive)


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(
            f"usage: make fuzz ARGS='TARGET [SECONDS | --keep | OPTIONS OF LIBFUZZER]'; targets: {', '.join(TARGETS)}"
        )
    target, options = sys.argv[1], sys.argv[2:]
    kept, cache = HERE / "corpus" / target, CACHE / target
    cache.mkdir(parents=True, exist_ok=True)
    kept.mkdir(parents=True, exist_ok=True)
    for data in seeds(target, INPUT_BYTES_MAX):
        (cache / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)  # as libFuzzer names them
    common = [f"-max_len={INPUT_BYTES_MAX}", f"-timeout={SLOW_S}", f"-artifact_prefix={CACHE}/{target}-"]
    match options:
        case []:
            arguments = [f"-max_total_time={SECONDS}", *common, str(cache), str(kept)]
        case [seconds] if seconds.isdecimal():
            arguments = [f"-max_total_time={seconds}", *common, str(cache), str(kept)]
        case ["--keep"]:
            arguments = ["-merge=1", *common, str(kept), str(cache)]
        case _:
            arguments = options
    mutators = {"custom_mutator": mutated_tar} if target == "tar" else {}
    # libFuzzer takes the first word for its program, and starts that again where it merges.
    atheris.Setup([f"{sys.executable} {sys.argv[0]} {target}", *arguments], TARGETS[target], **mutators)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
