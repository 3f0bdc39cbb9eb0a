"""Owns how an app's tiers and hosts are drawn; leaves what they are to `checkpoint.overview`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from checkpoint import HostView, Overview, Standing, TierKey, TierView
from fleet import Order
from hotcold.terminal import ago, many, state_text

FULL_LIST: Final = 30
"""Up to so many hosts of a tier are all listed; of more, only those that do not run what is wanted."""
SHOWN_HOSTS: Final = 50
"""Rows of a tier where not all are asked for: what does not fit on a screen is counted instead."""

_BAR_WIDTH: Final = 30

# standing: colour, how a count of such hosts is called.
_STANDINGS: Final[Mapping[Standing, tuple[str, str]]] = {
    Standing.GOOD: ("green", "as wanted"),
    Standing.BUSY: ("cyan", "on the way"),
    Standing.BEHIND: ("bright_black", "not begun"),
    Standing.HELD: ("blue", "held"),
    Standing.RETRYING: ("yellow", "retrying"),
    Standing.SILENT: ("bright_magenta", "silent"),
    Standing.FAILED: ("red", "failed"),
}


def draw(
    seen: Overview, now: datetime, *, show_all: bool, max_rows: int = SHOWN_HOSTS, has_bar: bool = True
) -> RenderableType:
    """The whole app; `max_rows` is for each tier, where not all are asked for."""
    parts: list[RenderableType] = []
    for tier in seen.tiers:
        taken = sum(host.slot is not None for host in tier.hosts)
        parts.append(_header(seen.app, tier.key, now, taken))
        if tier.hosts:
            parts.append(_summary(tier, has_bar=has_bar))
            parts.append(_hosts(tier, now, None if show_all else max_rows))
        else:
            parts.append(Text("  no host has reported yet", "dim"))
        parts.append(Text())
    return Group(*parts[:-1])


def document(seen: Overview) -> dict[str, Any]:
    """The same for machines."""
    return {
        "app": seen.app,
        "tiers": [
            {
                "tier": tier.key.tier,
                "order": None if tier.key.order is None else msgspec.to_builtins(tier.key.order),
                "order_problem": None if tier.key.fault is None else str(tier.key.fault),
                "counts": {standing.name.lower(): tier.counts.get(standing, 0) for standing in Standing},
                "hosts": [_host_document(host) for host in tier.hosts],
            }
            for tier in seen.tiers
        ],
    }


def one_line(host: HostView) -> str:
    """The gist, for a log of changes."""
    gist = (
        f"{host.tier}/{host.host}: {host.state.replace('_', ' ')}, hot {host.hot or '-'}, wanted {host.wanted or '-'}"
    )
    return gist + (f"; {host.note}" if host.note else "")


def _host_document(host: HostView) -> dict[str, Any]:
    return {
        "host": host.host,
        "standing": host.standing.name.lower(),
        "state": host.state,
        "hot": host.hot,
        "wanted": host.wanted,
        "serial": host.serial,
        "since": host.since or None,
        "health": host.health,
        "slot": host.slot,
        "note": host.note,
    }


def _header(app: str, key: TierKey, now: datetime, taken: int) -> Text:
    title = Text.assemble((f"{app} / {key.tier}", "bold"))
    if key.fault is not None:
        return title.append(f"  the key holds no order: {key.fault}", "bold red")
    if key.order is None:
        return title.append("  nothing is ordered", "dim")
    order = key.order
    title.append(f"  {order.build.id}", "bold cyan")
    title.append(f" {_share(order)}")
    facts = [f"order {order.serial}"]
    facts += [f"by {order.by}"] if order.by else []
    facts += [ago(order.at, now)] if order.at else []
    facts += [f"at most {order.max_unavailable} out of service"] if order.max_unavailable is not None else []
    facts += [f"{many(taken, 'slot')} taken"] if taken else []
    title.append("  " + ", ".join(facts), "dim")
    return title.append(f": {order.reason}" if order.reason else "", "dim")


def _share(order: Order) -> str:
    if order.cutoff >= 1:
        return "on all hosts"
    rest = "the rest as it is" if order.previous is None else f"the rest on {order.previous.id}"
    return f"on {order.percent:g} %, {rest}"


def _summary(tier: TierView, *, has_bar: bool) -> RenderableType:
    text = Text()
    if has_bar:
        text.append(_bar(tier)).append("  ")
    text.append(f"{tier.good_count} of {many(len(tier.hosts), 'host')} as wanted", "bold")
    for standing, (colour, words) in _STANDINGS.items():
        if standing is not Standing.GOOD and tier.counts.get(standing):
            text.append(f"  {tier.counts[standing]} {words}", colour)
    return Padding(text, (0, 0, 0, 2))


def _bar(tier: TierView) -> Text:
    """Cells in the colours of the hosts' standings; every standing that occurs gets at least one."""
    counts = {standing: tier.counts[standing] for standing in _STANDINGS if tier.counts.get(standing)}
    cells = {standing: max(1, count * _BAR_WIDTH // len(tier.hosts)) for standing, count in counts.items()}
    largest = max(cells, key=lambda standing: cells[standing])
    cells[largest] += _BAR_WIDTH - sum(cells.values())
    return Text.assemble(*(("━" * width, _STANDINGS[standing][0]) for standing, width in cells.items()))


def _hosts(tier: TierView, now: datetime, max_rows: int | None) -> RenderableType:
    shown = tier.hosts
    if max_rows is not None and len(shown) > min(FULL_LIST, max_rows):
        shown = tuple(host for host in shown if host.standing is not Standing.GOOD)[:max_rows]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in ("host", "state", "hot", "wanted", "order", "since"):
        table.add_column(name, no_wrap=True)
    # One line per host: the whole message is on the host's own status, and in --all.
    table.add_column("", no_wrap=max_rows is not None, overflow="ellipsis" if max_rows is not None else "fold")
    for host in shown:
        table.add_row(*_row(host, now))
    parts: list[RenderableType] = [table] if shown else []
    parts.extend(_omitted(tier, len(shown)))
    return Padding(Group(*parts), (0, 0, 0, 2))


def _omitted(tier: TierView, shown_count: int) -> Iterator[Text]:
    omitted = len(tier.hosts) - shown_count
    if omitted:
        kind = "as wanted" if omitted == tier.good_count else "not shown"
        yield Text(f"{many(omitted, 'more host')} {kind}; --all lists every one", "dim")


def _slot(host: HostView) -> str:
    return "" if host.slot is None else f"holds slot {host.slot}"


def _row(host: HostView, now: datetime) -> tuple[RenderableType, ...]:
    colour = _STANDINGS[host.standing][0]
    state = state_text(host.state)
    if host.standing is Standing.SILENT:
        state = Text(f"? {host.state.replace('_', ' ')}", colour)  # what it said last
    hot = Text(host.hot or "-", "" if host.wanted in {None, host.hot} else "yellow")
    return (
        Text(host.host, "bold"),
        state,
        hot,
        Text(host.wanted or "as it is", "" if host.wanted else "dim"),
        Text(str(host.serial or "-"), "yellow" if host.standing is Standing.BEHIND else "dim"),
        Text(ago(host.since, now), "dim"),
        Text("; ".join(filter(None, (_slot(host), host.note))), "" if host.standing is Standing.GOOD else colour),
    )
