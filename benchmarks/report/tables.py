"""Owns what results look like as rows: the same for the terminal and for the page."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.lab.links import LINKS
from benchmarks.report.results import OURS, Case, Growth, Manners, Pack, Results, Table

PHASE_TITLES: Final = {
    "full": "Full: into an empty directory",
    "small": "Small change: the bumps of a week",
    "tiny": "Tiny change: ten files",
    "rollback": "Rollback to the standby tree, from order seen to swapped",
}


@dataclass(frozen=True)
class Grid:
    """A title, a head, rows, and notes below them; all columns but the first are numbers."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        yield f"\n{self.title}"
        widths = [max(len(row[column]) for row in (self.head, *self.rows)) for column in range(len(self.head))]
        for first, *rest in (self.head, *self.rows):
            cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
            yield "  ".join((first.ljust(widths[0]), *cells)).rstrip()
        yield from self.notes

    def markdown(self) -> Iterator[str]:
        """For the page."""
        yield f"**{self.title}**\n"
        yield f"| {' | '.join(self.head)} |"
        yield f"| --- |{' ---: |' * (len(self.head) - 1)}"
        for row in self.rows:
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
        for note in self.notes:
            yield f"\n{note}"
        yield ""


def print_grids(results: Results) -> None:
    """Print results of any kind for people at a terminal."""
    for grid in grids(results):
        print(*grid.lines(), sep="\n", flush=True)


def grids(results: Results) -> Iterator[Grid]:
    """The results as grids."""
    match results:
        case Table():
            yield from _of_table(results)
        case Pack():
            yield _of_pack(results)
        case Manners():
            yield _of_manners(results)
        case Growth():
            yield _of_growth(results)


def seconds(value_s: float) -> str:
    """With as many digits as mean something."""
    return f"{value_s:.4f}" if value_s < 0.1 else f"{value_s:.3f}" if value_s < 10 else f"{value_s:.1f}"


def _of_table(table: Table) -> Iterator[Grid]:
    head = ("", "durable, s", "min to max", "of ours", "CPU, s", "MB received", "requests")
    for phase, title in PHASE_TITLES.items():
        cases = [case for case in table.cases if case.phase == phase and case.runs]
        ours = table.case(phase, OURS)
        if cases:
            place = f"{table.file_system}, {LINKS[table.link].title}, median of {table.rounds}"
            rows = [_row(case, ours) for case in sorted(cases, key=lambda each: each.median_s)]
            notes = tuple(f"{case.name} failed: {case.failure}" for case in cases if case.failure)
            yield Grid(f"{title}; {place}", head, rows, notes)


def _row(case: Case, ours: Case | None) -> tuple[str, ...]:
    times = [run.durable_s for run in case.runs]
    return (
        f"{case.name} (failed, see below)" if case.failure else case.name,
        seconds(case.median_s),
        f"{seconds(min(times))} to {seconds(max(times))}",
        "" if ours is None else f"{case.median_s / ours.median_s:.2f}",
        f"{statistics.median(run.cpu_s for run in case.runs):.2f}",
        f"{case.received_bytes / 1e6:.3f}",
        f"{statistics.median_low([run.request_count for run in case.runs])}",
    )


def _of_pack(pack: Pack) -> Grid:
    tar_s = statistics.median(pack.tar_s)

    def row(name: str, times: Sequence[float], size_bytes: int) -> tuple[str, ...]:
        middle_s = statistics.median(times)
        ratios = (f"{middle_s / tar_s:.2f}", f"{size_bytes / 1e6:.2f}", f"{size_bytes / pack.tar_bytes:.2f}")
        return (name, seconds(middle_s), f"{seconds(min(times))} to {seconds(max(times))}", *ratios)

    return Grid(
        f"Packing, median of {pack.rounds}",
        ("", "s", "min to max", "of tar's", "MB", "of tar's"),
        [
            row("tar, zstd -T0 -3", pack.tar_s, pack.tar_bytes),
            row("hotcold pack", pack.ours_s, pack.ours_bytes),
            row("hotcold pack, the next version", pack.alone_s, pack.ours_bytes),
            row("the same --against the former; size: of the patch", pack.patched_s, pack.patch_bytes),
        ],
    )


def _of_manners(manners: Manners) -> Grid:
    def row(name: str, values: dict[str, tuple[float, ...]], factor: float, unit: str) -> tuple[str, ...]:
        worst = (f"{max(values[phase]) * factor:.1f} {unit}" for phase in ("full", "small"))
        return (name, *worst)

    return Grid(
        f"What the agent takes, worst of {manners.rounds}",
        ("", "full", "small change, no patch"),
        [
            row("memory of agent and children (sum of PSS)", manners.peak_bytes, 1 / (1 << 20), "MiB"),
            row("a callback waited for the event loop, longest", manners.loop_lag_max_s, 1e3, "ms"),
            row("99 of 100 callbacks waited less than", manners.loop_lag_p99_s, 1e3, "ms"),
            row("slowest answer of /healthz", manners.health_max_s, 1e3, "ms"),
            row("99 of 100 answers of it, less than", manners.health_p99_s, 1e3, "ms"),
            row("slowest answer of /v1/status", manners.status_max_s, 1e3, "ms"),
            row("99 of 100 answers of it, less than", manners.status_p99_s, 1e3, "ms"),
            ("unanswered", str(manners.unanswered_count), ""),
            ("fetched", "", f"{manners.unpatched_bytes / 1e6:.2f} MB"),
            ("what the change compresses to", "", f"{manners.changed_compressed_bytes / 1e6:.2f} MB"),
            ("the exchange, median", f"{manners.swap_call_us:.1f} µs", ""),
            ("the exchange, 99 of 100 less than", f"{manners.swap_call_p99_us:.1f} µs", ""),
        ],
    )


def _of_growth(growth: Growth) -> Grid:
    return Grid(
        f"Growth, median of {growth.rounds}",
        ("files", "changed", "ours, s", "rsync in place, s", "rsync, of ours", "ours, MB"),
        [
            (
                f"{point.file_count:,}",
                f"{point.changed_count:,}",
                seconds(statistics.median(point.ours_s)),
                seconds(statistics.median(point.rsync_s)),
                f"{statistics.median(point.rsync_s) / statistics.median(point.ours_s):.2f}",
                f"{statistics.median(point.ours_bytes) / 1e6:.3f}",
            )
            for point in growth.points
        ],
    )
