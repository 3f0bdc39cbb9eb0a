"""How long a swap takes, and what readers see of it: exchange, two renames, unlink and symlink, `ln -sfn`.

    python -m benchmarks.bench_swap [--rounds 5] [--swaps 2000] [--readers 2] [--directory /srv]

Latency is measured without readers, around the call that makes the new build hot; "durable" includes the fsync of the
directory. Then as many swaps run while processes read through `hot`, and the reads that failed are counted. GNU ln
replaces a link by a rename, like us, but moves one link only and starts a process; "unlink + symlink" is what
`rm hot && ln -s`, and libraries that offer no rename, do.
"""

from __future__ import annotations

import argparse
import errno
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.options import DEFAULT_ROUNDS
from swapper import LINUX, Kernel, Layout, Release, Swapper
from swapper.kernel import LinuxKernel
from swapper.links import Links

READER = """
import os, signal, sys
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
reads = failed = 0
os.write(1, b"ready\\n")
while not stopped:
    reads += 1
    try:
        os.close(os.open(sys.argv[1], os.O_RDONLY))
    except OSError:
        failed += 1
print(reads, failed)
"""


class RenameOnly(LinuxKernel):
    """A file system without RENAME_EXCHANGE."""

    def exchange(self, first: str, second: str, *, dir_fd: int) -> None:
        raise OSError(errno.EINVAL, f"cannot exchange {first} and {second} in {dir_fd}")


class Unsecured(LinuxKernel):
    """Skips fsync: what the flip costs apart from the disk."""

    def fsync(self, fd: int) -> None:
        """Do nothing."""


class UnsecuredRenameOnly(Unsecured, RenameOnly):
    """Both."""


@dataclass(frozen=True)
class Result:
    name: str
    median_us: float
    p99_us: float
    reads: int
    failed: int


def make_root(base: Path) -> tuple[Layout, list[Release]]:
    layout = Layout(base / "root", base / "state")
    swapper = Swapper.open(layout, now=lambda: datetime.now(UTC))
    releases = []
    for build_id in ("old", "new"):
        release = swapper.prepare(build_id, "sha256:" + "0" * 64)
        (release.path / "file").write_text(build_id)
        release = swapper.complete(release)
        swapper.swap_in(release)
        releases.append(swapper.mark_proved(release))
    swapper.close()
    return layout, releases


def flipper(layout: Layout, kernel: Kernel) -> Callable[[int], None]:
    descriptor = os.open(layout.root, os.O_RDONLY | os.O_DIRECTORY)
    links = Links(layout.root, descriptor, kernel)

    def swap(_number: int) -> None:
        links.flip()

    return swap


def ln_sfn(layout: Layout, releases: list[Release]) -> Callable[[int], None]:
    """Run the command, as a shell script does."""
    targets = [f"releases/{release.name}" for release in releases]

    def swap(number: int) -> None:
        subprocess.run(["ln", "-sfn", targets[number % 2], layout.hot], check=True)

    return swap


def unlink_and_symlink(layout: Layout, releases: list[Release]) -> Callable[[int], None]:
    """Remove the link and make it anew."""
    targets = [f"releases/{release.name}" for release in releases]

    def swap(number: int) -> None:
        layout.hot.unlink()
        layout.hot.symlink_to(targets[number % 2])

    return swap


def durations_us(swap: Callable[[int], None], *, swaps: int) -> list[float]:
    durations = []
    for number in range(swaps):
        started = time.perf_counter()
        swap(number)
        durations.append((time.perf_counter() - started) * 1e6)
    return durations


def p99(durations: list[float]) -> float:
    return statistics.quantiles(durations, n=100)[98]


def measure(name: str, swap: Callable[[int], None], hot: Path, *, swaps: int, readers: int) -> Result:
    durations = durations_us(swap, swaps=swaps)
    processes = [
        subprocess.Popen([sys.executable, "-c", READER, hot / "file"], stdout=subprocess.PIPE, text=True)
        for _ in range(readers)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for number in range(swaps):
        swap(number)
    for process in processes:
        process.terminate()
    counts = [tuple(map(int, process.communicate()[0].split())) for process in processes]
    reads, failed = (sum(column) for column in zip(*counts, strict=True))
    return Result(name, statistics.median(durations), p99(durations), reads, failed)


def _combined(results: Sequence[Result]) -> Result:
    return Result(
        results[0].name,
        statistics.median(result.median_us for result in results),
        statistics.median(result.p99_us for result in results),
        sum(result.reads for result in results),
        sum(result.failed for result in results),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS, help="medians of so many; reads are added up")
    parser.add_argument("--swaps", type=int, default=2000)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--directory", type=Path, help="on the file system to measure (default: the temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as base:
        layout, releases = make_root(Path(base))
        cases = {
            "exchange": flipper(layout, Unsecured()),
            "exchange, durable": flipper(layout, LINUX),
            "two renames": flipper(layout, UnsecuredRenameOnly()),
            "two renames, durable": flipper(layout, RenameOnly()),
            "unlink + symlink": unlink_and_symlink(layout, releases),
            "ln -sfn (process)": ln_sfn(layout, releases),
        }
        rounds = [
            [
                measure(name, swap, layout.hot, swaps=arguments.swaps, readers=arguments.readers)
                for name, swap in cases.items()
            ]
            for _ in range(arguments.rounds)
        ]
    results = [_combined(same) for same in zip(*rounds, strict=True)]
    fastest = results[0].median_us
    print("swap                    median us     p99 us   ratio      reads  failed")
    for each in results:
        latency = f"{each.median_us:>10.1f} {each.p99_us:>10.1f} {each.median_us / fastest:>6.1f}x"
        print(f"{each.name:<22} {latency} {each.reads:>10} {each.failed:>7}")


if __name__ == "__main__":
    main()
