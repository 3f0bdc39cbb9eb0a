"""Owns the Consul adapter: `Store` by py-consul over `fleet.transport`.

Leaves slots to `fleet.slots`, services to `fleet.services`, and the rules of watching to `fleet.watch_rules`.
"""

from __future__ import annotations

import asyncio
import base64
import random
import re
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar, assert_never

import msgspec

from artifact import ConfigError
from fleet import answers
from fleet.acl import rule_needed
from fleet.contact import ContactLog
from fleet.services import Services
from fleet.settings import ConsulSettings
from fleet.slots import Slots
from fleet.store import (
    CheckUnchanged,
    Contact,
    Delete,
    Entry,
    Operation,
    Put,
    Service,
    ServiceHealth,
    Slot,
    StoreRefused,
)
from fleet.transport import GRACE_S, Answer, AnsweredNo, ConsulClient, Transport
from fleet.watch_rules import RATE_PER_S
from fleet.watcher import Ask, Watcher

MAX_VALUE_BYTES: Final = 512 * 1024
MAX_OPERATION_COUNT: Final = 64
"""Operations that the oldest supported Consul takes in one transaction."""

_KEY = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*/?")
_CONFLICT: Final = 409
_NONE: Final = 404

T = TypeVar("T")


class ConsulStore:
    """A `Store` on Consul. An asynchronous context manager; usable without, then closed with `aclose`.

    Reads are linearised by the leader (Consul's "default" mode): a stale one could show a host an order that was
    already replaced.

    Args:
        settings: where Consul is.
        clock: monotonic, in seconds.
        sleep: as `asyncio.sleep`; only between questions of a watch.
        rng: for back-off and for the choice among free slots.
        grace_s: how long an answer may take beyond the time that the question itself asks for.
    """

    def __init__(
        self,
        settings: ConsulSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._log = ContactLog(clock)
        self._transport = Transport(settings, self._log, grace_s=grace_s)
        self._client = ConsulClient(self._transport, datacenter=settings.datacenter)
        self._slots = Slots(self._client, rng=self._rng)
        self._services = Services(self._client)
        self._watchers: weakref.WeakSet[Watcher[Any]] = weakref.WeakSet()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def contact(self) -> Contact:
        """The state of the connection, live."""
        return self._log.contact

    async def open(self) -> None:
        """Read token and certificates now rather than at the first request. Connects to nothing.

        Raises:
            ConfigError: a file that the settings name cannot be used.
        """
        await self._transport.open()

    async def aclose(self) -> None:
        """Close every connection and end every watch. Calling it twice is harmless."""
        for watcher in list(self._watchers):
            await watcher.aclose()
        await self._transport.close()

    async def read(self, key: str) -> Entry | None:
        """See `Store.read`."""
        _, data = await self._get(_checked(key))
        return answers.entry(data)

    async def read_prefix(self, prefix: str) -> tuple[Entry, ...]:
        """See `Store.read_prefix`."""
        return (await self._list(_checked(prefix), answers.pairs()))[1]

    def watch(self, key: str) -> Watcher[Entry | None]:
        """See `Store.watch`."""
        _checked(key)

        async def ask(index: int | None) -> tuple[int, Entry | None]:
            found, data = await self._get(key, index=index)
            return found, answers.entry(data)

        return self._watcher(key, ask)

    def watch_prefix(self, prefix: str, *, rate_per_s: float = RATE_PER_S) -> Watcher[tuple[Entry, ...]]:
        """See `Store.watch_prefix`."""
        _checked(prefix)
        pairs = answers.pairs()

        async def ask(index: int | None) -> tuple[int, tuple[Entry, ...]]:
            return await self._list(prefix, pairs, index)

        return self._watcher(prefix, ask, rate_per_s)

    async def put(self, key: str, value: bytes, *, cas: int | None = None) -> bool:
        """See `Store.put`.

        Raises:
            StoreRefused: also a value above 512 KiB, before it is sent.
        """
        _check_size(key, value)
        return answers.convert(await self._client.kv.put(_checked(key), value, cas=cas), bool)

    async def delete(self, key: str, *, cas: int | None = None) -> bool:
        """See `Store.delete`."""
        return answers.convert(await self._client.kv.delete(_checked(key), cas=cas), bool)

    async def transact(self, operations: Sequence[Operation]) -> bool:
        """See `Store.transact`."""
        if not operations:
            return True
        if len(operations) > MAX_OPERATION_COUNT:
            raise StoreRefused(
                f"a transaction of {len(operations)} operations is too large: Consul takes {MAX_OPERATION_COUNT}",
                kind="too_large",
            )
        body = msgspec.json.encode([{"KV": _operation(each)} for each in operations])
        datacenter = [("dc", self._settings.datacenter)] if self._settings.datacenter else None
        # Not by py-consul's `txn.put`: it forgets the datacenter, and hides the reasons of a conflict in a text.
        answer = await self._client.http.put(_as_it_is, "/v1/txn", params=datacenter, data=body)
        if answer.status != _CONFLICT:
            return True
        _raise_if_denied(answer, operations)
        return False

    async def acquire_slot(self, prefix: str, count: int, *, holder: str, ttl_s: float = 60.0) -> Slot | None:
        """See `Store.acquire_slot`."""
        return await self._slots.acquire(_checked(prefix), count, holder=holder, ttl_s=ttl_s)

    async def renew_slot(self, slot: Slot) -> None:
        """See `Store.renew_slot`."""
        await self._slots.renew(slot)

    async def release_slot(self, slot: Slot) -> None:
        """See `Store.release_slot`."""
        await self._slots.release(slot)

    async def register(self, service: Service) -> None:
        """See `Store.register`."""
        await self._services.register(service)

    async def deregister(self, service: Service) -> None:
        """See `Store.deregister`."""
        await self._services.deregister(service)

    async def pass_check(self, service: Service, note: str) -> None:
        """See `Store.pass_check`."""
        await self._services.pass_check(service, note)

    async def fail_check(self, service: Service, note: str) -> None:
        """See `Store.fail_check`."""
        await self._services.fail_check(service, note)

    async def set_maintenance(self, service_id: str, *, on: bool, reason: str = "") -> None:
        """See `Store.set_maintenance`."""
        await self._services.set_maintenance(service_id, on=on, reason=reason)

    async def services(self, name: str) -> tuple[ServiceHealth, ...]:
        """See `Store.services`."""
        return await self._services.instances(name)

    async def _get(self, key: str, *, index: int | None = None) -> tuple[int, Any]:
        found, data = await self._client.kv.get(key, index=index, wait=self._wait)
        return answers.index_of(found), data

    async def _list(
        self, prefix: str, pairs: answers.Lists[Entry], index: int | None = None
    ) -> tuple[int, tuple[Entry, ...]]:
        # Not by py-consul's `kv.get`, which reads all of thousands of entries anew, and each twice.
        params = [("recurse", "1"), *([] if index is None else [("index", index), ("wait", self._wait)])]
        if self._settings.datacenter:
            params.append(("dc", self._settings.datacenter))

        def read(response: Any) -> tuple[int, tuple[Entry, ...]]:
            found = pairs(response.body) if response.code != _NONE else ()
            return answers.index_of(response.headers.get("X-Consul-Index")), answers.by_key(found)

        answer: tuple[int, tuple[Entry, ...]] = await self._client.http.get(read, f"/v1/kv/{prefix}", params=params)
        return answer

    @property
    def _wait(self) -> str:
        return f"{self._settings.wait_s:.3f}s"  # Three decimals, because Go reads no exponents.

    def _watcher(self, name: str, ask: Ask[T], rate_per_s: float = RATE_PER_S) -> Watcher[T]:
        # Entries are compared whole: Consul keeps the index of an entry that is rewritten with the same value, and
        # where a slot was taken and given back unseen, nothing but that index tells a waiting host to try again.
        watcher: Watcher[T] = Watcher(
            f"watch of {name}",
            ask,
            wait_s=self._settings.wait_s,
            log=self._log,
            clock=self._clock,
            sleep=self._sleep,
            draw=lambda ceiling_s: self._rng.uniform(0.0, ceiling_s),
            rate_per_s=rate_per_s,
        )
        self._watchers.add(watcher)
        return watcher


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key) or ".." in key:
        raise ConfigError(
            f"{key!r} is no key that every Consul takes: parts of letters, digits, '.', '_' and '-', joined by '/', "
            "without '..'",
            kind="bad_name",
        )
    return key


def _check_size(key: str, value: bytes) -> None:
    if len(value) > MAX_VALUE_BYTES:
        raise StoreRefused(
            f"the value for {key} has {len(value)} bytes; Consul takes {MAX_VALUE_BYTES}: store it elsewhere and "
            "refer to it",
            kind="too_large",
        )


def _operation(operation: Operation) -> dict[str, Any]:
    match operation:
        case Put(key, value, cas):
            _check_size(key, value)
            written = {"Key": _checked(key), "Value": base64.b64encode(value).decode()}
            return written | ({"Verb": "set"} if cas is None else {"Verb": "cas", "Index": cas})
        case Delete(key, cas):
            return {"Verb": "delete-cas", "Key": _checked(key), "Index": cas}
        case CheckUnchanged(key, 0):
            return {"Verb": "check-not-exists", "Key": _checked(key)}
        case CheckUnchanged(key, modify_index):
            return {"Verb": "check-index", "Key": _checked(key), "Index": modify_index}
        case _:
            assert_never(operation)


class _TransactionError(msgspec.Struct, rename={"index": "OpIndex", "what": "What"}):
    index: int
    what: str


class _TransactionErrors(msgspec.Struct, rename={"errors": "Errors"}):
    errors: list[_TransactionError]


def _as_it_is(response: Any) -> Answer:
    return Answer(response.code, response.headers, response.body)


def _raise_if_denied(answer: Answer, operations: Sequence[Operation]) -> None:
    """A denied operation comes with the status of a conflict; only the words differ."""
    try:
        errors = msgspec.json.decode(answer.text, type=_TransactionErrors).errors
    except msgspec.DecodeError:
        errors = [_TransactionError(0, answer.text)]
    for error in errors:
        if "Permission denied" in error.what or "ACL not found" in error.what:
            operation = operations[error.index]
            access = "GET" if isinstance(operation, CheckUnchanged) else "PUT"
            raise AnsweredNo(
                f"Consul refused the transaction ({error.what}); the token needs "
                f"{rule_needed(access, f'/v1/kv/{operation.key}')}",
                answer,
                kind="store_denied",
            )
