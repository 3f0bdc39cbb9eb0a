"""Owns which commits a build brings, and which it lacks, as lists of a bounded size. Pure.

Asking git is left to `checkpoint.release.git`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fleet import Commit

MAX_COMMITS: Final = 50
"""Kept in a record: it stays below a few KiB, and whoever wants more has git."""
MAX_SUBJECT: Final = 120
MAX_AUTHOR: Final = 60

LOG_FORMAT: Final = "%H%x00%an%x00%s"
"""What `read_log` reads, a line per commit."""


@dataclass(frozen=True)
class Commits:
    """Commits, the newest first.

    Attributes:
        shown: the first `MAX_COMMITS` of them.
        count: how many there are.
    """

    shown: tuple[Commit, ...] = ()
    count: int = 0


def read_log(text: str) -> Commits:
    """Read git's log in `LOG_FORMAT`."""
    lines = [line for line in text.split("\n") if line]
    return Commits(tuple(map(_read_line, lines[:MAX_COMMITS])), len(lines))


def _read_line(line: str) -> Commit:
    sha, author, subject = line.split("\0", 2)
    return Commit(sha=sha, author=_cut(author, MAX_AUTHOR), subject=_cut(subject, MAX_SUBJECT))


def _cut(text: str, length: int) -> str:
    """Printable, on one line, and no longer than that."""
    clean = "".join(each if each.isprintable() else " " for each in text)
    return clean if len(clean) <= length else f"{clean[: length - 3]}..."
