"""Owns lock, denied builds, the commander's lease and the schedule: what people have said beforehand. Pure.

Writing them is left to `checkpoint.writing`; what a lock or a lapsed lease means to a rollout, to `checkpoint.rollout`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, TypeVar

import msgspec

from artifact import ManifestRef, Refused
from checkpoint.windows import Moment
from fleet import Entry

VERSION: Final = 1


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A document of Checkpoint in Consul."""


class Lock(_Document, frozen=True):
    """Nothing new starts until somebody unlocks."""

    by: str
    reason: str
    at: Moment


class Denied(_Document, frozen=True):
    """A build that is not to be deployed until somebody lifts it."""

    id: str
    digest: str
    by: str
    reason: str
    at: Moment


class Guards(_Document, frozen=True, kw_only=True):
    """The app's lock, and its denied builds."""

    v: int = VERSION
    lock: Lock | None = None
    denied: tuple[Denied, ...] = ()

    def denial(self, build: ManifestRef) -> Denied | None:
        """Why the build is denied; by its digest, so that another name does not help, and by its id."""
        return next((each for each in self.denied if build.digest == each.digest or build.id == each.id), None)


class Lease(_Document, frozen=True, kw_only=True):
    """Who is the commander, until when, and what the one before said."""

    v: int = VERSION
    holder: str
    since: Moment
    until: Moment
    note: str = ""

    def is_live(self, now: datetime) -> bool:
        """Whether it has not lapsed."""
        return now < self.until

    def is_of(self, person: str) -> bool:
        """Whether that person holds it, from whichever machine."""
        return name_of(self.holder) == name_of(person)


class Scheduled(_Document, frozen=True):
    """One deploy of the schedule."""

    at: Moment
    commander: str
    note: str = ""


class Schedule(_Document, frozen=True, kw_only=True):
    """The deploys that are to come, by time."""

    v: int = VERSION
    deploys: tuple[Scheduled, ...] = ()


_Kind = TypeVar("_Kind", Guards, Lease, Schedule)


def read_document(entry: Entry, kind: type[_Kind]) -> _Kind:
    """Decode strictly.

    Raises:
        Refused: not JSON, an unknown, missing or mistyped field, or another version.
    """
    try:
        document = msgspec.json.decode(entry.value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(
            f"{entry.key} holds something else: {error}; `consul kv get {entry.key}` shows it", kind="document_invalid"
        ) from error
    if document.v != VERSION:
        raise Refused(f"{entry.key} has version {document.v}; this hotcold reads {VERSION}", kind="document_version")
    return document


def name_of(person: str) -> str:
    """The person in `person@machine`."""
    return person.partition("@")[0]


def check_guards(guards: Guards, build: ManifestRef, *, remedy: str) -> None:
    """Refuse a build that is denied, and any build while the app is locked.

    Raises:
        Refused: it is so; the message says by whom, why, and what to do.
    """
    denied = guards.denial(build)
    if denied is not None:
        raise Refused(
            f"build {build.id} is denied by {denied.by} since {denied.at.isoformat(timespec='seconds')}: "
            f"{denied.reason}; lift it with `hotcold rollout unlock --build {build.id}`, {remedy}",
            kind="build_denied",
        )
    if guards.lock is not None:
        lock = guards.lock
        raise Refused(
            f"locked by {lock.by} since {lock.at.isoformat(timespec='seconds')}: {lock.reason}; "
            f"lift it with `hotcold rollout unlock`, {remedy}",
            kind="locked",
        )
