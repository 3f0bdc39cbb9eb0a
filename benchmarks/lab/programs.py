"""Owns the C programs of the benchmarks: compiled when first needed, kept beside their results."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

_HERE = Path(__file__).resolve().parent.parent


def compiled(source: str, scratch: Path, *libraries: str) -> Path:
    """The program of the one source file with that name below `benchmarks`.

    Raises:
        subprocess.CalledProcessError: the compiler refuses it; it has said why.
    """
    [path] = _HERE.rglob(source)
    program = scratch / f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        unfinished = program.with_suffix(".unfinished")
        libs = [f"-l{library}" for library in libraries]
        subprocess.run(
            ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", unfinished, path, *libs], check=True
        )
        unfinished.rename(program)
    return program
