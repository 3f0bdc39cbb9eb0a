"""Owns when an order has been carried out: who runs what it asks, who said no, who is still at it.

Writing the order is left to `checkpoint.placing`, and drawing to the command.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from checkpoint.reading import HostKey, read_host_keys
from fleet import Order, Report, Store, wanted_build
from fleet.keys import hosts_prefix

FAILED_STATES: Final[Mapping[str, str]] = {"rolled_back": "rolled back", "build_refused": "refused the build"}


# What a host complains of until it sees the order, which is no news to whoever just wrote it.
_ANSWERED_KINDS: Final = frozenset({"order_absent"})


@dataclass(frozen=True)
class Progress:
    """How far an order has come.

    Attributes:
        done: hosts that run what the order asks of them, steadily.
        failed: hosts that rolled back or refused, with what they say.
        pending: the others, with what they do at present.
        superseded_by: a higher serial that some host obeys already, or None.
    """

    done: tuple[str, ...]
    failed: Mapping[str, str]
    pending: Mapping[str, str]
    superseded_by: int | None = None

    @property
    def host_count(self) -> int:
        """Hosts of the tier that have reported so far."""
        return len(self.done) + len(self.failed) + len(self.pending)

    @property
    def is_settled(self) -> bool:
        """Whether nothing more will come of this order. Not while no host has reported: no data is no success."""
        return self.superseded_by is not None or (self.host_count > 0 and not self.pending)

    @property
    def is_success(self) -> bool:
        """Whether every known host, and at least one, runs what the order asks."""
        return self.is_settled and not self.failed and self.superseded_by is None


def progress(order: Order, hosts: tuple[HostKey, ...]) -> Progress:
    """Judge the tier's reports by an order."""
    done: list[str] = []
    failed: dict[str, str] = {}
    pending: dict[str, str] = {}
    superseded_by: int | None = None
    for host in hosts:
        report = host.report
        if report is None:
            pending[host.host] = f"its report cannot be read: {host.fault}"
            continue
        if report.serial > order.serial:
            superseded_by = max(report.serial, superseded_by or 0)
        if report.serial != order.serial:
            pending[host.host] = "has not obeyed the order yet" + _because(report)
        elif report.state in FAILED_STATES:
            failed[host.host] = FAILED_STATES[report.state] + _because(report)
        elif report.state == "steady" and _runs_wanted(order, report, host.joined):
            done.append(host.host)
        else:
            pending[host.host] = _doing(report)
    return Progress(tuple(done), failed, pending, superseded_by)


async def follow(store: Store, order: Order) -> AsyncGenerator[Progress]:
    """The order's progress now and after every change, until it is settled."""
    async with aclosing(store.watch_prefix(hosts_prefix(order.app, order.tier))) as changes:
        async for entries in changes:
            now = progress(order, read_host_keys(order.app, entries))
            yield now
            if now.is_settled:
                return


def _runs_wanted(order: Order, report: Report, joined: int) -> bool:
    wanted = wanted_build(order, report.host, joined)
    return wanted is None or report.hot == wanted.id


def _doing(report: Report) -> str:
    return report.state.replace("_", " ") + _because(report)


def _because(report: Report) -> str:
    if report.problem is None or report.problem.kind in _ANSWERED_KINDS:
        return ""
    return f": {report.problem.message}"
