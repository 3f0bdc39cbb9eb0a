"""Owns what `deploy` and `rollback` say and wait for after an order was written; leaves writing to `checkpoint`."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime

import click
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from artifact import ManifestRef, Refused
from artifact.statement import comment
from artifact.trust import read_signature
from checkpoint import Commander, Placed, Progress, follow
from checkpoint.audit import Record
from checkpoint.insisting import Insistence
from checkpoint.writing import Writer
from fleet import Order, Store, StoreUnreachable
from hotcold.command import Failure
from hotcold.terminal import console, duration, many

_ATTEMPTS = 20


def commander(store: Store) -> Commander:
    """A commander of this machine's clock and chance."""
    return Commander(
        store,
        now=lambda: datetime.now(UTC),
        new_salt=lambda: secrets.token_hex(8),
        pause=asyncio.sleep,
        on_retry=_say_retry,
    )


def _say_retry(error: StoreUnreachable) -> None:
    click.echo(f"Consul does not answer ({error}); trying again", err=True)


async def note_override(store: Store, order: Order) -> None:
    """Put into the audit that an order pierced lock and denied builds."""
    record = Record(
        v=1,
        number=0,
        at=datetime.now(UTC),
        by=order.by,
        via="cli",
        what="deploy_overridden",
        message=f"{order.build.id} is ordered for {order.percent:g} % of {order.tier}, whatever is locked or denied",
        reason=order.reason,
    )
    writer = Writer(store, order.app, Insistence(asyncio.sleep, _say_retry))
    for _ in range(_ATTEMPTS):
        if await writer.write([], [record]) is not None:
            return
    raise Refused("the order stands, but others write to the audit all the time: it does not have it", kind="lost_race")


def describe(placed: Placed) -> list[str]:
    """What was written, for people."""
    order, before = placed.order, placed.before
    old = f"{before.build.id} ({before.percent:g} %)" if before is not None else "nothing"
    lines = [f"order {order.serial} for {order.app}/{order.tier}: {old} -> {order.build.id} ({order.percent:g} %)"]
    if placed.host_count == 0:
        lines.append("  no host of this tier has reported yet; each obeys as soon as its agent starts")
    else:
        lines.append(f"  {len(placed.chosen)} of {many(placed.host_count, 'host')} shall run {order.build.id}")
    rest = placed.host_count - len(placed.chosen)
    if order.cutoff < 1 and order.previous is None:
        lines.append("  the others keep what they have: no build before it is known in this tier")
    elif order.previous is not None and rest:
        lines.append(f"  {many(rest, 'host')} shall run {order.previous.id}")
    if order.max_unavailable is not None:
        lines.append(f"  at most {many(order.max_unavailable, 'host')} out of service at once")
    if order.not_after is not None:
        lines.append(f"  not obeyed after {order.not_after}")
    return lines


def doubts(order: Order) -> Iterator[str]:
    """Say why hosts that trust keys will refuse the order, as far as that can be seen without their keys."""
    rest = order.previous if order.cutoff < 1 else None
    for build in dict.fromkeys((order.build, rest)):
        doubt = None if build is None else _doubt(order.app, build)
        if doubt is not None:
            yield f"warning: {doubt}; hosts with `trusted_keys` will refuse it. Sign the manifest with `hotcold sign`"


def _doubt(app: str, build: ManifestRef) -> str | None:
    if build.signature is None:
        return f"build {build.id} is not signed"
    try:
        signature = read_signature(build)
    except Refused as error:
        return str(error)
    if signature.comment != comment(app, build.id):
        return f"the signature of build {build.id} was made for something else: {signature.comment!r}"
    return None


async def conclude(store: Store, placed: Placed, wait_s: float | None) -> None:
    """Say what was ordered and either name the next command or wait until it is carried out.

    Raises:
        Failure: after waiting, some host does not run what is wanted; the message names each.
    """
    for line in describe(placed):
        click.echo(line)
    order = placed.order
    for doubt in doubts(order):
        click.echo(doubt, err=True)
    if wait_s is None:
        click.echo(f"watch it with: hotcold fleet --app {order.app} --tier {order.tier} --watch")
        return
    started_s = asyncio.get_running_loop().time()
    last = Progress((), {}, {})
    try:
        async with asyncio.timeout(wait_s), aclosing(follow(store, order)) as steps:
            with _display() as show:
                async for last in steps:
                    show(last)
    except asyncio.CancelledError:  # Ctrl-C
        click.echo(f"no longer waiting; order {order.serial} stands", err=True)
        raise
    except TimeoutError:
        raise Failure(_unfinished(order, last, wait_s)) from None
    if last.superseded_by is not None:
        raise Failure(f"order {order.serial} was superseded by order {last.superseded_by}")
    if last.failed:
        raise Failure(f"{len(last.failed)} of {many(last.host_count, 'host')} did not take it:{_list(last.failed)}")
    took_s = asyncio.get_running_loop().time() - started_s
    click.echo(f"order {order.serial} is carried out on {many(last.host_count, 'host')}, after {duration(took_s)}")


def _unfinished(order: Order, last: Progress, wait_s: float) -> str:
    if last.host_count == 0:
        return f"no host of {order.app}/{order.tier} has reported within {duration(wait_s)}: do agents run there?"
    waiting = f"{len(last.pending)} of {many(last.host_count, 'host')} not there after {duration(wait_s)}"
    return f"{waiting}; the order stands and they go on trying:{_list({**last.failed, **last.pending})}"


def _list(hosts: Mapping[str, str]) -> str:
    return "".join(f"\n  {host}: {what}" for host, what in sorted(hosts.items()))


@contextmanager
def _display() -> Iterator[Callable[[Progress], None]]:
    """Show steps as a bar on a terminal, and as a line per change elsewhere."""
    screen = console()
    if not screen.is_terminal:
        said: dict[str, str] = {}

        def tell(step: Progress) -> None:
            done = dict.fromkeys(step.done, "done")
            for host, what in sorted({**done, **step.failed, **step.pending}.items()):
                if said.get(host) != what:
                    said[host] = what
                    click.echo(f"{host}: {what}")

        yield tell
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Bar(*columns, TimeElapsedColumn(), console=screen, transient=True) as bar:
        task = bar.add_task("waiting for reports", total=None)

        def draw(step: Progress) -> None:
            busy = Counter(what.partition(":")[0] for what in {**step.pending, **step.failed}.values())
            summary = ", ".join(f"{count} {what}" for what, count in busy.most_common(3))
            bar.update(task, completed=len(step.done), total=step.host_count, description=summary)

        yield draw
