"""Owns our own targets: what each demands, and whether the kept results reach it.

They are aims that we set ourselves before measuring, in ratios, because seconds are those of one machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from benchmarks.report.results import OURS, Case, Manners, Pack, Results, Table

_MAIN = "deploy-ext4-loopback"
_TAR, _SQUASH, _FLOOR = "curl | tar --zstd -x", "curl; unsquashfs", "C program (floor)"
_RSYNC, _GIT = "rsync, in place", "git fetch; git reset --hard"


@dataclass(frozen=True)
class Target:
    """One aim. `value` is in `unit` and must not be above `limit`; None: not measured."""

    what: str
    limit: float
    unit: str
    value: float | None

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        return "reached" if self.value <= self.limit else "**not reached**"


def targets(results: Mapping[str, Results]) -> Iterator[Target]:
    """All of them, against the results by key."""
    table, pack, manners = results.get(_MAIN), results.get("pack"), results.get("manners")
    yield from _of_times(table if isinstance(table, Table) else None)
    yield from _of_bytes(table if isinstance(table, Table) else None, manners if isinstance(manners, Manners) else None)
    yield from _of_rollback(table if isinstance(table, Table) else None)
    yield from _of_manners(manners if isinstance(manners, Manners) else None)
    yield from _of_pack(pack if isinstance(pack, Pack) else None)


def _of_times(table: Table | None) -> Iterator[Target]:
    for phase, peer, limit in (
        ("full", _TAR, 0.5),
        ("full", _SQUASH, 1.0),
        ("full", _FLOOR, 1.35),
        ("small", _RSYNC, 0.18),
        ("small", _GIT, 1.0),
        ("tiny", _RSYNC, 0.1),
        ("tiny", _GIT, 0.4),
    ):
        ours, theirs = _case(table, phase, OURS), _case(table, phase, peer)
        value = None if ours is None or theirs is None else ours.median_s / theirs.median_s
        yield Target(f"{phase}: time, of {peer}", limit, "times", value)


def _of_bytes(table: Table | None, manners: Manners | None) -> Iterator[Target]:
    small, git, tiny = _case(table, "small", OURS), _case(table, "small", _GIT), _case(table, "tiny", OURS)
    value = None if small is None or git is None else small.received_bytes / git.received_bytes
    yield Target("small: bytes fetched with patches, index included, of git's", 0.3, "times", value)
    bare = None if manners is None else manners.unpatched_bytes / manners.changed_compressed_bytes
    yield Target("small: bytes fetched without patches, of what the changed files compress to", 1.5, "times", bare)
    yield Target("tiny: bytes fetched with patches", 0.2, "MB", None if tiny is None else tiny.received_bytes / 1e6)


def _of_rollback(table: Table | None) -> Iterator[Target]:
    back = _case(table, "rollback", OURS)
    yield Target("rollback: order seen to swapped", 20, "ms", None if back is None else back.median_s * 1e3)


def _of_manners(manners: Manners | None) -> Iterator[Target]:
    def measured(value: Callable[[Manners], float]) -> float | None:
        return None if manners is None else value(manners)

    yield Target("rollback: the exchange itself", 100, "µs", measured(lambda seen: seen.swap_call_us))
    peak = measured(lambda seen: max(seen.peak_bytes["full"]) / (1 << 20))
    yield Target("full: memory of agent and children", 160, "MiB", peak)
    lag = measured(lambda seen: max(seen.loop_lag_max_s["full"]) * 1e3)
    yield Target("full: event loop blocked", 50, "ms", lag)
    yield Target("status socket: questions unanswered", 0, "", measured(lambda seen: seen.unanswered_count))


def _of_pack(pack: Pack | None) -> Iterator[Target]:
    time = None if pack is None else statistics.median(pack.ours_s) / statistics.median(pack.tar_s)
    yield Target("pack: time, of tar, zstd -T0 -3", 1.2, "times", time)
    size = None if pack is None else pack.ours_bytes / pack.tar_bytes
    yield Target("pack: size, of tar, zstd -T0 -3", 1.1, "times", size)


def _case(table: Table | None, phase: str, name: str) -> Case | None:
    return None if table is None else table.case(phase, name)
