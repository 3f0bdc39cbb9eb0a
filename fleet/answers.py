"""Owns the reading of Consul's JSON answers into our types; asking is left to `fleet.consul` and its neighbours.

Strict about what we use, blind to the rest: another version of Consul may say more, but not less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import msgspec

from fleet.store import Entry, ServiceHealth, StoreUnreachable

TTL_META = "hotcold-ttl-s"
"""Meta key that carries the check's TTL, because Consul does not tell it back."""

_MAINTENANCE = ("_service_maintenance:", "_node_maintenance")
_SEVERITY = ("passing", "warning", "critical")

T = TypeVar("T")
S = TypeVar("S")


class _KV(msgspec.Struct, rename="pascal"):
    key: str
    create_index: int
    modify_index: int
    value: bytes | None = None
    session: str | None = None


class ServiceSeen(msgspec.Struct, rename="pascal"):
    """A service as an agent or the catalogue shows it."""

    id: str = msgspec.field(name="ID")
    service: str
    meta: dict[str, str] | None = None
    tags: list[str] | None = None
    address: str = ""
    port: int = 0


class _Node(msgspec.Struct, rename="pascal"):
    node: str


class _Check(msgspec.Struct, rename="pascal"):
    check_id: str = msgspec.field(name="CheckID")
    status: str
    output: str = ""


class _Instance(msgspec.Struct, rename="pascal"):
    node: _Node
    service: ServiceSeen
    checks: list[_Check]


class Lists(Generic[T]):
    """Reads lists that come again and again: an element that the list before had, byte for byte, is not read again.

    So the next look at thousands of hosts costs what changed, and what did not change is the same object.

    Args:
        read: makes an element of its JSON; the same for the same text.
    """

    def __init__(self, read: Callable[[msgspec.Raw], T]) -> None:
        self._read = read
        self._known: dict[bytes, T] = {}

    def __call__(self, text: str) -> list[T]:
        """The elements of a JSON list; none for `null`.

        Raises:
            StoreUnreachable: it is something else, so whoever answered is no healthy Consul.
        """
        known, found, elements = self._known, {}, []
        try:
            for raw in _LIST.decode(text) or ():
                content = bytes(raw)
                element = known[content] if content in known else self._read(raw)
                found[content] = element
                elements.append(element)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _no_answer(error) from error
        self._known = found
        return elements


_LIST = msgspec.json.Decoder(list[msgspec.Raw] | None)


def pairs() -> Lists[Entry]:
    """A reader of lists of key-value pairs."""
    return Lists(lambda raw: _entry(_PAIR.decode(raw)))


def instances() -> Lists[ServiceHealth]:
    """A reader of a service's instances."""
    return Lists(lambda raw: _health(_INSTANCE.decode(raw)))


def convert(data: Any, kind: type[T]) -> T:
    """Read decoded JSON as `kind`.

    Raises:
        StoreUnreachable: it is something else, so whoever answered is no healthy Consul.
    """
    try:
        # Values are bytes already: py-consul decodes their base64, and msgspec must not do it again.
        return msgspec.convert(data, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise _no_answer(error) from error


def _no_answer(error: Exception) -> StoreUnreachable:
    return StoreUnreachable(f"Consul's answer is not what Consul sends: {error}; is there a proxy between?")


def index_of(text: Any) -> int:
    """The index header as a number; py-consul hands it on as text.

    Raises:
        StoreUnreachable: it is none.
    """
    try:
        return int(text)
    except (TypeError, ValueError) as error:
        raise StoreUnreachable(f"Consul's answer has the index {text!r}, which is no number") from error


def entry(data: Any) -> Entry | None:
    """One key-value pair, or None for none."""
    return None if data is None else _entry(convert(data, _KV))


def entries(data: Any) -> tuple[Entry, ...]:
    """A list of key-value pairs, as py-consul decodes it, sorted by key; none for None."""
    return () if data is None else by_key(_entry(each) for each in convert(data, list[_KV]))


def by_key(found: Iterable[Entry]) -> tuple[Entry, ...]:
    """Sorted by key."""
    return tuple(sorted(found, key=lambda each: each.key))


_PAIR = msgspec.json.Decoder(_KV)
_INSTANCE = msgspec.json.Decoder(_Instance)


def _entry(pair: _KV) -> Entry:
    return Entry(pair.key, pair.value or b"", pair.create_index, pair.modify_index, pair.session or None)


def _health(instance: _Instance) -> ServiceHealth:
    is_out = any(check.check_id.startswith(_MAINTENANCE) for check in instance.checks)
    # An instance counts as its worst check, the node's own among them: a dead host's TTL check says "passing" for long.
    worst = max((check.status for check in instance.checks), key=_severity, default="passing")
    own = (check for check in instance.checks if check.check_id == f"{instance.service.id}:alive")
    meta = {key: value for key, value in (instance.service.meta or {}).items() if key != TTL_META}
    return ServiceHealth(
        id=instance.service.id,
        node=instance.node.node,
        status="maintenance" if is_out else worst,
        output=next((check.output for check in own), ""),
        meta=meta,
    )


def _severity(status: str) -> int:
    return _SEVERITY.index(status) if status in _SEVERITY else len(_SEVERITY)
