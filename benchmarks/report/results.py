"""Owns the results as data: every run of every case, in one file per table, so that anybody can compute anew."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.options import ROOT

OURS: Final = "hotcold"
DIRECTORY: Final = ROOT / "benchmarks" / "results"


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run of one case.

    Attributes:
        durable_s: until all was written and durable. Ours: from order seen to cold complete, verified and durable; of a
            rollback, to the links exchanged.
        done_s: until the command had ended, its data perhaps in memory only; None for ours, which does both at once.
        cpu_s: of the client's processes.
        received_bytes: over the network, index and manifest included.
        request_count: of nginx.
        swap_s: the exchange and its fsync, of a rollback.
    """

    durable_s: float
    received_bytes: int
    cpu_s: float = 0.0
    done_s: float | None = None
    request_count: int = 0
    swap_s: float | None = None


class Case(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All runs of one side in one phase; `failure`: why there are fewer than rounds."""

    phase: str
    name: str
    runs: tuple[Run, ...]
    failure: str | None = None

    @property
    def median_s(self) -> float:
        return statistics.median(run.durable_s for run in self.runs)

    @property
    def received_bytes(self) -> float:
        return statistics.median(run.received_bytes for run in self.runs)


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it was measured."""

    processor: str
    core_count: int
    memory_bytes: int
    kernel: str
    python: str


def this_machine() -> Machine:
    """What of this machine decides the figures."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return Machine(
        processor=facts.get("model name", platform.machine()),
        core_count=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        kernel=".".join(platform.release().split(".")[:2]),  # what its builder appends says nothing
        python=platform.python_version(),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class _Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What all results have: how often, where and when."""

    rounds: int
    machine: Machine = msgspec.field(default_factory=this_machine)
    at: str = msgspec.field(default_factory=_now)


class Table(_Measured, frozen=True, kw_only=True, tag="deploy"):
    """The runs of one place, made together; only figures of one table may be compared with each other."""

    file_system: str
    link: str
    cases: tuple[Case, ...]

    @property
    def key(self) -> str:
        return f"deploy-{self.file_system}-{self.link}"

    def case(self, phase: str, name: str) -> Case | None:
        """The case, or None where it was not measured."""
        return next((case for case in self.cases if (case.phase, case.name) == (phase, name) and case.runs), None)


class Pack(_Measured, frozen=True, kw_only=True, tag="pack"):
    """Seconds of every run, and sizes.

    Attributes:
        ours_s: packing the first version.
        ours_bytes: of the artifact and what belongs to it.
        tar_s: `tar | zstd -T0 -3` of the same tree.
        tar_bytes: what that made.
        alone_s: packing the second version.
        patched_s: the same with a patch against the first.
        patch_bytes: what the patch adds.
    """

    ours_s: tuple[float, ...]
    ours_bytes: int
    tar_s: tuple[float, ...]
    tar_bytes: int
    alone_s: tuple[float, ...]
    patched_s: tuple[float, ...]
    patch_bytes: int

    @property
    def key(self) -> str:
        return "pack"


class Manners(_Measured, frozen=True, kw_only=True, tag="manners"):
    """What the agent takes and leaves to others during a deploy; by phase, one value per round.

    Attributes:
        peak_bytes: agent and children together.
        loop_lag_max_s: longest time that a callback waited for the event loop.
        loop_lag_p99_s: the same for 99 of 100 callbacks.
        health_max_s: slowest answer to `/healthz`.
        health_p99_s: 99 of 100 answers are quicker.
        status_max_s: slowest answer to `/v1/status`.
        status_p99_s: 99 of 100 answers are quicker.
        unanswered_count: questions to the status socket without an answer, in all rounds.
        unpatched_bytes: what a host fetches for the small change where no patch was made.
        changed_compressed_bytes: what new and changed files of the small change compress to.
        swap_call_us: the exchange of the links without its fsync, median.
        swap_call_p99_us: 99 of 100 exchanges are quicker.
    """

    peak_bytes: dict[str, tuple[float, ...]]
    loop_lag_max_s: dict[str, tuple[float, ...]]
    loop_lag_p99_s: dict[str, tuple[float, ...]]
    health_max_s: dict[str, tuple[float, ...]]
    health_p99_s: dict[str, tuple[float, ...]]
    status_max_s: dict[str, tuple[float, ...]]
    status_p99_s: dict[str, tuple[float, ...]]
    unanswered_count: int
    unpatched_bytes: int
    changed_compressed_bytes: int
    swap_call_us: float
    swap_call_p99_us: float

    @property
    def key(self) -> str:
        return "manners"


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One number of changed files in a tree of one size."""

    file_count: int
    changed_count: int
    ours_s: tuple[float, ...]
    ours_bytes: tuple[int, ...]
    rsync_s: tuple[float, ...]


class Growth(_Measured, frozen=True, kw_only=True, tag="growth"):
    """How cost grows with the tree and with the change."""

    points: tuple[Point, ...]

    @property
    def key(self) -> str:
        return "growth"


Results = Table | Pack | Manners | Growth


def keep(results: Results, directory: Path = DIRECTORY) -> None:
    """Write the results into their file, over former ones."""
    directory.mkdir(exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(results), indent=1)
    (directory / f"{results.key}.json").write_bytes(text + b"\n")


def kept(directory: Path = DIRECTORY) -> Iterator[Results]:
    """All results that there are."""
    for path in sorted(directory.glob("*.json")):
        yield msgspec.json.decode(path.read_bytes(), type=Results)
