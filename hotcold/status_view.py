"""Owns how one host's status is drawn; leaves asking for it to `hotcold.status_command`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hotcold.options import without_credentials
from hotcold.status_document import (
    BUSY,
    NOT_AS_WANTED,
    STEADY,
    Artifacts,
    Fetched,
    HookRun,
    Status,
    Tree,
    Workers,
)
from hotcold.terminal import ago, duration, many, size, state_text

SHOWN_WORKERS: Final = 8
_SHOWN_REASONS: Final = 2
_BORDERS: Final = {STEADY: "green", BUSY: "cyan", NOT_AS_WANTED: "red"}
_LOW_DISK: Final = 0.1


def draw(status: Status, now: datetime) -> RenderableType:
    """A framed picture for a terminal."""
    agent = status.agent
    foot = f"agent {agent.version} · pid {agent.pid} · up {duration(agent.up_for_s)} · {size(agent.rss_bytes)}"
    return Panel(
        plain(status, now, has_bar=True),
        title=Text.assemble((status.app, "bold"), f" / {status.tier} on ", (status.host, "bold")),
        title_align="left",
        subtitle=Text(foot, "dim"),
        subtitle_align="right",
        border_style=_BORDERS[status.exit_code],
        padding=(1, 2),
    )


def plain(status: Status, now: datetime, *, has_bar: bool = False) -> RenderableType:
    """The same without a frame, for pipes and logs."""
    parts: list[RenderableType] = []
    if not has_bar:
        parts.append(Text(f"{status.app}/{status.tier} on {status.host}"))
    parts.append(_headline(status))
    if status.progress is not None:
        parts.append(_fetched(status.progress, has_bar=has_bar))
    if status.waiting_for:
        parts.append(_workers(status))
    parts.extend(_troubles(status))
    parts.append(Padding(_facts(status, now), (1, 0, 0, 0) if has_bar else 0))
    return Group(*parts)


def one_line(status: Status) -> str:
    """The gist, for a log of changes."""
    hot = status.hot.build if status.hot is not None else None
    wanted = status.order.build if status.order is not None else None
    gist = f"{status.state.name.replace('_', ' ')}: hot {hot or '-'}, wanted {wanted or 'as it is'}"
    return gist + (f"; {status.problem.message}" if status.problem is not None else "")


def _headline(status: Status) -> Text:
    text = state_text(status.state.name, note=f"for {duration(status.state.for_s)}")
    told = {trouble.message for trouble in (status.problem, status.order_problem) if trouble is not None}
    if status.state.detail and status.state.detail not in told:
        text.append(f"  {status.state.detail}")
    if status.retry_in_s is not None:
        text.append(f"  next attempt in {duration(status.retry_in_s)}", "yellow")
    return text


def _fetched(progress: Fetched, *, has_bar: bool) -> RenderableType:
    share = progress.bytes_done / progress.bytes_total if progress.bytes_total else 0.0
    numbers = f"{share:.0%}  {size(progress.bytes_done)} of {size(progress.bytes_total)}"
    if progress.rate_bytes is not None:
        numbers += f"  {size(round(progress.rate_bytes))}/s"
    if progress.left_s is not None:
        numbers += f"  {duration(progress.left_s)} left"
    files = many(progress.files_total, "file") if progress.files_total else many(progress.files_done, "file")
    if progress.files_total:
        files = f"{progress.files_done} of {files}"
    text = Text.assemble(numbers, (f"  {files}  {without_credentials(progress.url)}", "dim"))
    if not has_bar:
        return text
    line = Table.grid(padding=(0, 1))
    bar = ProgressBar(
        total=max(1, progress.bytes_total), completed=progress.bytes_done, width=30, complete_style="cyan"
    )
    line.add_row(bar, text)
    return line


def _workers(status: Status) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for busy in status.waiting_for[:SHOWN_WORKERS]:
        reasons = ", ".join(busy.reasons[:_SHOWN_REASONS])
        more = len(busy.reasons) - _SHOWN_REASONS
        table.add_row(
            Text("" if busy.pid is None else f"pid {busy.pid}", "yellow"),
            Text(busy.command, overflow="ellipsis", no_wrap=True),
            Text(reasons + (f" and {more} more" if more > 0 else ""), "dim"),
        )
    rest = len(status.waiting_for) - SHOWN_WORKERS
    title = Text(f"waiting for {many(len(status.waiting_for), 'worker', 'workers')} to leave hot")
    return Group(title, Padding(table, (0, 0, 0, 2)), *([Text(f"  and {rest} more")] if rest > 0 else []))


def _troubles(status: Status) -> Iterator[Text]:
    if status.problem is not None:
        yield Text.assemble(("problem: ", "bold red"), status.problem.message, (f"  [{status.problem.kind}]", "dim"))
    if status.order_problem is not None and status.order_problem != status.problem:
        title = ("order not obeyed: ", "bold red")
        yield Text.assemble(title, status.order_problem.message, (f"  [{status.order_problem.kind}]", "dim"))
    for problem in status.disk_problems:
        yield Text.assemble(("disk: ", "bold red"), problem)
    if status.config.problem is not None:
        title = ("configuration not taken over: ", "bold yellow")
        yield Text.assemble(title, status.config.problem, ("  [the former one is in force]", "dim"))
    for point, run in status.hooks.items():
        if run.exit != 0 or run.timed_out:
            yield _failed_hook(point, run)


def _failed_hook(point: str, run: HookRun) -> Text:
    how = "did not finish in time" if run.timed_out else f"exited with {run.exit}"
    output = run.output.strip().splitlines()
    last = f": {output[-1]}" if output else ""
    return Text.assemble((f"hook {point} ", "bold yellow"), f"{how} after {duration(run.duration_s)}{last}")


def _facts(status: Status, now: datetime) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_row("wanted", *_wanted(status, now))
    table.add_row("hot", *_tree(status.hot))
    if status.standby is not None:
        table.add_row("standby", *_tree(status.standby))
    if status.cold is not None and status.cold != status.standby:
        table.add_row("cold", *_tree(status.cold))
    if status.workers.count or status.workers.problem:
        table.add_row("workers", *_in_builds(status.workers))
    table.add_row("Consul", *_contact(status))
    if status.artifacts is not None:
        table.add_row("artifacts", *_artifacts(status.artifacts))
    if status.disk is not None:
        share = status.disk.free_bytes / status.disk.total_bytes if status.disk.total_bytes else 1.0
        free = Text(f"{size(status.disk.free_bytes)} free", "" if share > _LOW_DISK else "bold yellow")
        table.add_row("disk", free, Text(f"of {size(status.disk.total_bytes)}", "dim"))
    return table


def _wanted(status: Status, now: datetime) -> tuple[Text, Text]:
    order = status.order
    if order is None:
        return Text("nothing", "dim"), Text("no order has been seen", "dim")
    is_hot = status.hot is not None and status.hot.build == order.build
    build = Text("as it is") if order.build is None else Text(order.build, "green" if is_hot else "bold yellow")
    facts = [f"order {order.serial} ({order.percent:g} %)"]
    facts += [f"by {order.by}"] if order.by else []
    facts += [ago(order.at, now)] if order.at else []
    facts += [f"signed by key {order.signed_by}"] if order.signed_by else []
    return build, Text(", ".join(facts) + (f": {order.reason}" if order.reason else ""), "dim")


def _tree(tree: Tree | None) -> tuple[Text, Text]:
    if tree is None:
        return Text("nothing", "bold yellow"), Text("nothing is deployed here yet", "dim")
    note = tree.path + ("" if tree.proved else ", not proved")
    return Text(tree.build or tree.name, "bold"), Text(note, "dim")


def _in_builds(workers: Workers) -> tuple[Text, Text]:
    if workers.problem is not None:
        return Text("unknown", "bold yellow"), Text(workers.problem, "dim")
    parts = [
        f"{len(use.pids)} in {use.build}" + ("" if use.is_hot else f" (pid {', '.join(map(str, use.pids[:3]))})")
        for use in sorted(workers.uses, key=lambda use: not use.is_hot)
    ]
    if workers.unseen:
        parts.append(f"{len(workers.unseen)} may not be looked at")
    is_behind = any(not use.is_hot for use in workers.uses) or bool(workers.unseen)
    return Text(str(workers.count), "bold yellow" if is_behind else ""), Text(
        ", ".join(parts) or "none holds anything of a build", "dim"
    )


def _artifacts(artifacts: Artifacts) -> tuple[Text, Text]:
    where = without_credentials(artifacts.url or "")
    answered = "" if artifacts.last_answer_s_ago is None else f"{where}, {duration(artifacts.last_answer_s_ago)} ago"
    if artifacts.failing_for_s is None:
        return Text("answered", "green"), Text(answered, "dim")
    note = f"last answer {answered}: " if answered else ""
    return Text(f"failing for {duration(artifacts.failing_for_s)}", "bold yellow"), Text(
        f"{note}{artifacts.error or ''}", "dim"
    )


def _contact(status: Status) -> tuple[Text, Text]:
    store = status.store
    answered = f", last answer {duration(store.last_answer_s_ago)} ago" if store.last_answer_s_ago is not None else ""
    if store.is_connected:
        return Text("connected", "green"), Text(f"{store.address}{answered}", "dim")
    since = f" for {duration(store.failing_for_s)}" if store.failing_for_s is not None else ""
    note = f"{store.address}{answered}" + (f": {store.error}" if store.error else "")
    return Text(f"cut off{since}", "bold yellow"), Text(note, "dim")
