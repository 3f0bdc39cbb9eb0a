"""Owns the documents that agents and commanders exchange: orders, reports, builds; frozen, strict, versioned.

What follows from an order is left to `fleet.orders`; where documents lie, to `fleet.keys`.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from artifact import ManifestRef, Refused

VERSION = 1
"""Version of these documents. A host refuses an order of another version and keeps what it runs."""


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the hosts of one tier shall run: the JSON document in the tier's key.

    Attributes:
        v: `VERSION`.
        serial: rises with every order of the tier, for ever; a rollback is a new serial too.
        build: what a host below `cutoff` runs.
        previous: what the others run; None: they keep what they have.
        percent: what the commander asked for, for people; `cutoff` decides.
        cutoff: in [0, 1]; see `fleet.orders.position`.
        salt: mixed into the hash, so that another rollout chooses other hosts.
        known_index: Consul's index by which the hosts that `cutoff` was chosen for had reported; a host that reported
            for the first time after it runs `previous` while `cutoff` is below 1. Absent: every host has its place.
        max_unavailable: hosts of the tier that may be out of service at once; None: no limit.
        not_after: RFC 3339 time after which no host starts to obey; None: for ever.
        reason, by: why and who, for people.
        at: RFC 3339 time of writing.
    """

    v: int
    app: str
    tier: str
    serial: int
    build: ManifestRef
    previous: ManifestRef | None = None
    percent: float = 100.0
    cutoff: float = 1.0
    salt: str = ""
    max_unavailable: int | None = None
    not_after: str | None = None
    reason: str = ""
    by: str = ""
    at: str = ""
    known_index: int | msgspec.UnsetType = msgspec.UNSET  # absent, not null: agents that do not know it obey the rest


class Problem(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Why something is not as wanted: `kind` for machines, `message` for people."""

    kind: str
    message: str


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one host says of itself, written at transitions.

    Attributes:
        v: `VERSION`.
        serial: of the order that the host obeys, 0 before the first.
        highest: highest serial it ever obeyed; a lower order is refused.
        state: the state machine's state, e.g. `steady`, `fetching`, `rolled_back`.
        wanted: id of the build that the order asks this host for, or None.
        hot: id of the build that `hot` shows, or None.
        standby: id of the build kept for instant rollback, or None.
        problem: why the host does not run what is wanted, or None.
        agent: version of the agent.
        since: RFC 3339 time at which `state` was entered.
    """

    v: int
    app: str
    tier: str
    host: str
    serial: int
    highest: int
    state: str
    wanted: str | None = None
    hot: str | None = None
    standby: str | None = None
    problem: Problem | None = None
    agent: str = ""
    since: str = ""


class Commit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One commit, for people; author and subject are cut to what a line holds."""

    sha: str
    author: str
    subject: str


class Build(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A build that was released: the JSON document in its key, written once, after all of it was uploaded.

    Attributes:
        v: `VERSION`.
        build: what hosts need to fetch it.
        manifest: url of its manifest.
        revision: git commit that it was made from.
        branch: its release branch.
        tag: its git tag.
        by: who cut it, for people.
        at: RFC 3339 time at which it was cut.
        since: id of the build whose commits are not counted here, or None.
        commits: what came in since that build, the newest first; the first of them where there are many.
        commit_count: how many came in.
        not_yet: what the main branch had and the build has not, as it was when the build was recorded; likewise.
        not_yet_count: how many.
        hotfix_of: id of the build that this one mends, or None.
        picks: commits that were picked onto that build, as they were named on the main branch.
        notes: what is new, for people.
    """

    v: int
    app: str
    build: ManifestRef
    manifest: str
    revision: str
    branch: str
    tag: str
    by: str
    at: str
    since: str | None = None
    commits: tuple[Commit, ...] = ()
    commit_count: int = 0
    not_yet: tuple[Commit, ...] = ()
    not_yet_count: int = 0
    hotfix_of: str | None = None
    picks: tuple[str, ...] = ()
    notes: str | None = None


MAX_TEXT = 4096
MAX_UNAVAILABLE = 100_000

_Document = TypeVar("_Document", Order, Report, Build)


class _Versioned(msgspec.Struct):
    v: int


def _decode(data: bytes, kind: type[_Document]) -> _Document:
    name = kind.__name__.lower()
    try:
        version = msgspec.json.decode(data, type=_Versioned).v
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(f"{name} is not a JSON document with a version `v`: {error}", kind=f"{name}_invalid") from error
    except UnicodeDecodeError as error:
        raise Refused(f"{name} is not UTF-8: {error}", kind=f"{name}_invalid") from error
    if version != VERSION:
        raise Refused(
            f"{name} has version {version}; this hotcold reads version {VERSION}: upgrade the older side",
            kind=f"{name}_version",
        )
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"{name} is malformed: {error}", kind=f"{name}_invalid") from error


def decode_order(data: bytes) -> Order:
    """Decode an order strictly.

    Raises:
        Refused: not JSON, another version, an unknown, missing or mistyped field.
    """
    order = _decode(data, Order)
    if not 0.0 <= order.cutoff <= 1.0:
        raise Refused(f"order is malformed: cutoff {order.cutoff} is not within 0 and 1", kind="order_invalid")
    if order.serial < 1:
        raise Refused(f"order is malformed: serial {order.serial} is not positive", kind="order_invalid")
    if any(not text.isprintable() or len(text) > MAX_TEXT for text in (order.reason, order.by)):
        raise Refused(
            f"order is malformed: reason and by must be printable and at most {MAX_TEXT} characters",
            kind="order_invalid",
        )
    if order.max_unavailable is not None and order.max_unavailable > MAX_UNAVAILABLE:
        raise Refused(
            f"order is malformed: max_unavailable {order.max_unavailable} is above {MAX_UNAVAILABLE}",
            kind="order_invalid",
        )
    if order.max_unavailable is not None and order.max_unavailable < 1:
        raise Refused(
            f"order is malformed: max_unavailable {order.max_unavailable} would stop every host", kind="order_invalid"
        )
    return order


def decode_report(data: bytes) -> Report:
    """Decode a report strictly.

    Raises:
        Refused: not JSON, another version, an unknown, missing or mistyped field.
    """
    return _decode(data, Report)


def decode_build(data: bytes) -> Build:
    """Decode the record of a build strictly.

    Raises:
        Refused: not JSON, another version, an unknown, missing or mistyped field.
    """
    return _decode(data, Build)


def encode(document: Order | Report | Build) -> bytes:
    """Encode with fields in the order of their definition, so that equal documents are equal bytes."""
    return msgspec.json.encode(document)
