"""Owns what a commander makes of the entries in Consul: orders and reports, each with its fault where it has one. Pure.

Fetching the entries is left to the stores, and what follows from them to `checkpoint.ordering` and
`checkpoint.overview`. One damaged document never hides the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from artifact import Refused
from fleet import Entry, Order, Report, decode_order, decode_report
from fleet.keys import all_slots_prefix


@dataclass(frozen=True)
class TierKey:
    """One tier's key as it stands.

    Attributes:
        order: None where there is none, or where it cannot be read: see `fault`.
        fault: why the key's content is no order for this tier, or None.
        modify_index: what a check-and-set write must name; 0 where the key does not exist.
        value: the bytes of the key; None where it does not exist.
        claimed_serial: the serial as far as even a faulty document shows one, else 0.
    """

    tier: str
    order: Order | None = None
    fault: Refused | None = None
    modify_index: int = 0
    value: bytes | None = None
    claimed_serial: int = 0


@dataclass(frozen=True)
class HostKey:
    """One host's report as it stands.

    Attributes:
        report: None where it cannot be read: see `fault`.
        joined: Consul's index at which the host reported for the first time.
    """

    tier: str
    host: str
    report: Report | None
    fault: Refused | None = None
    joined: int = 0


class _Claim(msgspec.Struct):
    serial: int = 0


def read_tier_key(app: str, tier: str, entry: Entry | None) -> TierKey:
    """Judge what a tier's key holds; never raises for its content."""
    if entry is None:
        return TierKey(tier)
    order: Order | None = None
    fault: Refused | None = None
    try:
        order = decode_order(entry.value)
    except Refused as error:
        fault = error
    if order is not None and (order.app, order.tier) != (app, tier):
        fault = Refused(
            f"order is for {order.app}/{order.tier}: somebody wrote it into the wrong key", kind="order_wrong_tier"
        )
        order = None
    return TierKey(tier, order, fault, entry.modify_index, entry.value, _claimed_serial(entry.value))


def read_tier_keys(app: str, entries: Iterable[Entry]) -> tuple[TierKey, ...]:
    """Judge all orders of an app, in the order of their keys."""
    return tuple(read_tier_key(app, entry.key.rpartition("/")[2], entry) for entry in entries)


def read_host_keys(app: str, entries: Iterable[Entry]) -> tuple[HostKey, ...]:
    """Judge reports of an app's hosts, in the order of their keys; never raises for their content."""
    return tuple(_read_host_key(app, entry) for entry in entries)


class HostReader:
    """Reads reports that are looked at again and again: those whose entries did not change are not read again.

    Args:
        app: whose hosts they are of.
    """

    def __init__(self, app: str) -> None:
        self._app = app
        self._known: dict[str, tuple[Entry, HostKey]] = {}

    def __call__(self, entries: Iterable[Entry]) -> tuple[HostKey, ...]:
        """As `read_host_keys`; a host that did not change is the same object as before."""
        known, self._known = self._known, {}
        for entry in entries:
            before = known.get(entry.key)
            if before is None or (before[0] is not entry and before[0] != entry):
                before = (entry, _read_host_key(self._app, entry))
            self._known[entry.key] = before
        return tuple(host for _, host in self._known.values())


def _read_host_key(app: str, entry: Entry) -> HostKey:
    tier, host = entry.key.split("/")[-2:]
    try:
        report = decode_report(entry.value)
    except Refused as error:
        return HostKey(tier, host, None, error, entry.create_index)
    if (report.app, report.tier, report.host) != (app, tier, host):
        said = f"{report.app}/{report.tier}/{report.host}"
        fault = Refused(f"report is of {said}: it lies in the wrong key", kind="report_invalid")
        return HostKey(tier, host, None, fault, entry.create_index)
    return HostKey(tier, host, report, joined=entry.create_index)


def _claimed_serial(value: bytes) -> int:
    """The serial of a document that may be of another version, so that the order which replaces it is higher."""
    try:
        return max(0, msgspec.json.decode(value, type=_Claim).serial)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0


def read_slots(app: str, entries: Iterable[Entry]) -> dict[tuple[str, str], int]:
    """Number of the slot that each (tier, host) holds at present; a slot without a session is free."""
    held = {}
    for entry in entries:
        tier, _, number = entry.key.removeprefix(all_slots_prefix(app)).partition("/")
        if entry.session is not None and number.isdecimal():
            held[tier, entry.value.decode(errors="replace")] = int(number)
    return held
