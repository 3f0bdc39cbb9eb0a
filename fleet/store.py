"""Owns what hotcold asks of a store: read, watch, write with check-and-set, slots, TTL checks, maintenance.

How a store is reached is left to its adapter (`fleet.consul`); every implementation passes `tests/contract`.

Errors, of every method::

    StoreUnreachable (TransientError)   no answer, no leader, a broken answer: nothing is known to have changed
    StoreRefused (ConfigError)          answered "no": token without the right, bad request
    SlotLost (TransientError)           the slot's session is gone: start nothing new that needs it
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from artifact import ConfigError, TransientError
from fleet.watch_rules import RATE_PER_S


class StoreUnreachable(TransientError):
    """The store did not answer as a healthy one does. Whether a write arrived is not known."""

    kind = "store_unreachable"


class StoreRefused(ConfigError):
    """The store answered that it will not: usually the token lacks a right."""

    kind = "store_refused"


class SlotLost(TransientError):
    """The session that held a slot is gone; somebody else may hold the slot already."""

    kind = "slot_lost"


@dataclass(frozen=True)
class Entry:
    """One key as it was read. `value` is never None: an empty value is `b""`."""

    key: str
    value: bytes
    create_index: int
    modify_index: int
    session: str | None = None


@dataclass(frozen=True)
class Put:
    """Write in a transaction. `cas` None: whatever is there; 0: only where nothing is; else that modify index."""

    key: str
    value: bytes
    cas: int | None = None


@dataclass(frozen=True)
class Delete:
    """Delete in a transaction, only at that modify index."""

    key: str
    cas: int


@dataclass(frozen=True)
class CheckUnchanged:
    """Let the transaction fail unless the key stands at `modify_index`; 0: unless it does not exist."""

    key: str
    modify_index: int


Operation = Put | Delete | CheckUnchanged


@dataclass(frozen=True)
class Service:
    """A service with one TTL check on the local Consul agent."""

    id: str
    name: str
    ttl_s: float
    meta: Mapping[str, str] = field(default_factory=dict)
    tags: Sequence[str] = ()
    address: str = ""
    port: int = 0

    @property
    def check_id(self) -> str:
        """Id of the TTL check."""
        return f"{self.id}:alive"


@dataclass(frozen=True)
class ServiceHealth:
    """One instance of a service as the catalogue sees it. `status`: passing, warning, critical or maintenance."""

    id: str
    node: str
    status: str
    output: str
    meta: Mapping[str, str]


@dataclass(frozen=True)
class Slot:
    """A held slot. The holder renews it every `ttl_s` / 3."""

    key: str
    session: str
    ttl_s: float


@dataclass
class Contact:
    """When the store last answered; updated by the store at every answer and failure.

    Attributes:
        last_answer_s: monotonic time of the last good answer, None before the first.
        failing_since_s: monotonic time of the first failure since then; None while it answers.
        error: text of the latest failure; None while it answers.
    """

    last_answer_s: float | None = None
    failing_since_s: float | None = None
    error: str | None = None


_T_co = TypeVar("_T_co", covariant=True)


class Changes(Protocol[_T_co]):
    """What a watch gives: an asynchronous iterator. Close it, e.g. by `contextlib.aclosing`, to end its request."""

    def __aiter__(self) -> AsyncIterator[_T_co]: ...

    async def __anext__(self) -> _T_co: ...

    async def aclose(self) -> None:
        """End the watch. Calling it twice is harmless."""


class Store(Protocol):
    """What agents and commanders need of Consul."""

    @property
    def contact(self) -> Contact:
        """The state of the connection, live."""

    async def read(self, key: str) -> Entry | None:
        """The key's current entry, or None where there is none."""

    async def read_prefix(self, prefix: str) -> tuple[Entry, ...]:
        """All entries below `prefix`, sorted by key."""

    def watch(self, key: str) -> Changes[Entry | None]:
        """The key's entry now, and again whenever its content changes; None: it does not exist (now).

        Never raises for an unreachable store: it retries with back-off and goes on; `contact` tells. Intermediate
        values may be skipped, the last one never. Close it with `aclose()`.
        """

    def watch_prefix(self, prefix: str, *, rate_per_s: float = RATE_PER_S) -> Changes[tuple[Entry, ...]]:
        """All entries below `prefix` now, and again whenever one changes, appears or goes; as `watch`.

        An entry that did not change is the same object as before. While changes go on, the store is asked so often a
        second: each answer has all entries, so who asks for more pays for it.
        """

    async def put(self, key: str, value: bytes, *, cas: int | None = None) -> bool:
        """Write; with `cas` only where the key stands at that modify index (0: does not exist).

        Returns:
            False where `cas` did not match: nothing was written.
        """

    async def delete(self, key: str, *, cas: int | None = None) -> bool:
        """Delete; a key that does not exist is deleted already. False where `cas` did not match."""

    async def transact(self, operations: Sequence[Operation]) -> bool:
        """All of the operations (at most 64), or none. False where a `cas` or check did not match."""

    async def acquire_slot(self, prefix: str, count: int, *, holder: str, ttl_s: float = 60.0) -> Slot | None:
        """Take one of the slots `<prefix>0` to `<prefix><count-1>`; None while all are taken.

        `holder` is written into the slot for people. A holder that already holds one under a live session of a
        former life gets None for that slot like anybody else: it frees itself after the TTL.
        """

    async def renew_slot(self, slot: Slot) -> None:
        """Keep the slot for another `ttl_s`.

        Raises:
            SlotLost: it is no longer ours.
        """

    async def release_slot(self, slot: Slot) -> None:
        """Give the slot back. One that is gone already is released already."""

    async def register(self, service: Service) -> None:
        """Make the service and its check known, without a write where they are as wanted; else keep the status."""

    async def deregister(self, service: Service) -> None:
        """Remove the service and its check; unknown ones are removed already."""

    async def pass_check(self, service: Service, note: str) -> None:
        """Report alive for another TTL. Registers first where the store has forgotten the service."""

    async def fail_check(self, service: Service, note: str) -> None:
        """Report not alive. Registers first where the store has forgotten the service."""

    async def set_maintenance(self, service_id: str, *, on: bool, reason: str = "") -> None:
        """Take a registered service out of, or back into, what load balancers see.

        Raises:
            StoreRefused: no such service on this Consul agent.
        """

    async def services(self, name: str) -> tuple[ServiceHealth, ...]:
        """All instances of a service with their health, sorted by id."""

    async def aclose(self) -> None:
        """Close every connection; afterwards the store is unusable. Calling it twice is harmless."""
