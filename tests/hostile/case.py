"""Owns what one archive of the corpus is and what must become of it; leaves making them to the modules beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from artifact import Limits
from tests.hostile.build import END, entry

DEFAULT_LIMITS = Limits()
Outcome = Literal["archive_hostile", "archive_broken", "archive_too_big", "archive_unstorable", "opened"]


@dataclass(frozen=True)
class Case:
    """One archive.

    Attributes:
        name: what is special about it.
        archive_format: as it is said to be.
        make: its bytes, the same at each call.
        outcomes: kinds of the error that it may end in, or "opened": it looks bad and is harmless.
        says: words that the error must have: the entry's name, where there is one.
        tree: of one that is opened: every path below the directory.
        limits: under which it is opened.
    """

    name: str
    archive_format: str
    make: Callable[[], bytes]
    outcomes: tuple[Outcome, ...]
    says: str = ""
    tree: frozenset[str] = frozenset()
    limits: Limits = DEFAULT_LIMITS


@dataclass
class Family:
    """Archives that try the same.

    Attributes:
        name: what they try.
        known: where the world has met it.
        cases: in the order in which they were added.
    """

    name: str
    known: str
    cases: list[Case] = field(default_factory=list)

    def hostile(self, name: str, *blocks: bytes, says: str) -> None:
        """Add a tar with a good first entry and then these blocks, to be refused by name."""
        self.add(name, "tar", entry("first", content=b"good") + b"".join(blocks) + END, "archive_hostile", says=says)

    def broken(self, name: str, *blocks: bytes, says: str) -> None:
        """Add a tar of these blocks that is not sound; the end is the caller's."""
        self.add(name, "tar", b"".join(blocks), "archive_broken", says=says)

    def harmless(self, name: str, *blocks: bytes, tree: set[str]) -> None:
        """Add a tar that looks bad and is opened, with exactly this tree."""
        self.add(name, "tar", b"".join(blocks) + END, "opened", tree=tree)

    def add(
        self,
        name: str,
        archive_format: str,
        data: bytes | Callable[[], bytes],
        *outcomes: Outcome,
        says: str = "",
        tree: set[str] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Add any archive; large ones as a function."""
        make = data if callable(data) else lambda: data
        self.cases.append(Case(name, archive_format, make, outcomes, says, frozenset(tree or ()), limits))
