"""Owns what builds are called, and what a release's git tag says of it. Pure.

Making tags is left to `checkpoint.release.git`. A build's tag is what reserves its id: it is made before anything else,
and never moved, so that an id that was ever begun is never given to another build.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Final

_ID: Final = re.compile(r"(\d{4}-\d{2}-\d{2})\.([1-9]\d{0,5})")
_FIELD: Final = re.compile(r"^Hotcold-([A-Za-z-]+): (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Begun:
    """A release as its tag tells it: begun; whether it was finished, the records in Consul say.

    Attributes:
        id: of the build.
        app: the app.
        commit: what it is made from.
        branch: the release branch.
        by: who began it.
        at: RFC 3339 time.
        hotfix_of: id of the build that it mends, or None.
        picks: commits that were picked.
        notes: what is new, for people.
    """

    id: str
    app: str
    commit: str
    branch: str
    by: str
    at: str
    hotfix_of: str | None = None
    picks: tuple[str, ...] = ()
    notes: str | None = None


def order_of(build_id: str) -> tuple[str, int]:
    """What ids are sorted by: day, then number. Ids of another make come first."""
    match = _ID.fullmatch(build_id)
    return ("", 0) if match is None else (match[1], int(match[2]))


def is_id(build_id: str) -> bool:
    """Whether a release could have this id."""
    return _ID.fullmatch(build_id) is not None


def next_id(day: date, taken: Iterable[str]) -> str:
    """The id after all that were ever taken that day."""
    numbers = [number for taken_day, number in map(order_of, taken) if taken_day == day.isoformat()]
    return f"{day.isoformat()}.{max(numbers, default=0) + 1}"


def message_of(begun: Begun) -> str:
    """The message of a release's tag."""
    fields = {
        "App": begun.app,
        "Branch": begun.branch,
        "By": begun.by,
        "At": begun.at,
        "Hotfix-Of": begun.hotfix_of or "",
        "Picks": " ".join(begun.picks),
        "Notes": " ".join((begun.notes or "").split()),
    }
    lines = [f"Hotcold-{name}: {value}" for name, value in fields.items() if value]
    return f"Build {begun.id} of {begun.app}\n\n" + "\n".join(lines) + "\n"


def read_message(build_id: str, commit: str, message: str) -> Begun | None:
    """What a tag tells; None where it is no release's."""
    fields = {match[1]: match[2] for match in _FIELD.finditer(message)}
    if not is_id(build_id) or not {"App", "Branch", "By", "At"} <= fields.keys():
        return None
    return Begun(
        id=build_id,
        app=fields["App"],
        commit=commit,
        branch=fields["Branch"],
        by=fields["By"],
        at=fields["At"],
        hotfix_of=fields.get("Hotfix-Of"),
        picks=tuple(fields.get("Picks", "").split()),
        notes=fields.get("Notes"),
    )
