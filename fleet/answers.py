"""Owns the reading of Consul's JSON answers into our types; asking is left to `fleet.consul` and its neighbours.

Strict about what we use, blind to the rest: another version of Consul may say more, but not less.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from fleet.store import Entry, ServiceHealth, StoreUnreachable

TTL_META = "hotcold-ttl-s"
"""Meta key that carries the check's TTL, because Consul does not tell it back."""

_MAINTENANCE = ("_service_maintenance:", "_node_maintenance")
_SEVERITY = ("passing", "warning", "critical")

T = TypeVar("T")


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


def convert(data: Any, kind: type[T]) -> T:
    """Read decoded JSON as `kind`.

    Raises:
        StoreUnreachable: it is something else, so whoever answered is no healthy Consul.
    """
    try:
        # Values are bytes already: py-consul decodes their base64, and msgspec must not do it again.
        return msgspec.convert(data, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise StoreUnreachable(
            f"Consul's answer is not what Consul sends: {error}; is there a proxy between?"
        ) from error


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
    """A list of key-value pairs, sorted by key; none for None."""
    if data is None:
        return ()
    return tuple(sorted((_entry(each) for each in convert(data, list[_KV])), key=lambda each: each.key))


def _entry(pair: _KV) -> Entry:
    return Entry(pair.key, pair.value or b"", pair.create_index, pair.modify_index, pair.session or None)


def health(data: Any) -> tuple[ServiceHealth, ...]:
    """The instances of a service, sorted by id."""
    instances = (_health(each) for each in convert(data or [], list[_Instance]))
    return tuple(sorted(instances, key=lambda each: (each.id, each.node)))


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
