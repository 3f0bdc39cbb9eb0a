"""Owns an agent that deploys again and again in one life, and what that costs it: `long_life.py DIRECTORY COUNT`.

Prints a JSON array of `Sample`s: one after each tenth of the deploys, all at the same point of the cycle of builds.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

import msgspec
import psutil
import structlog

from tests.agent_builds import Builds, make_builds
from tests.agent_life import AgentHost, living

BUILD_IDS = ("b1", "b2", "b3", "b4", "b5")
"""More than are kept, so that each deploy is a pull into the tree of an earlier one."""
_WARM_UP = 2 * len(BUILD_IDS)


class Sample(msgspec.Struct, frozen=True):
    """What the agent holds after so many deploys: `memory_bytes` of its own, and what there is of the rest."""

    deploys: int
    memory_bytes: int
    descriptors: int
    threads: int
    tasks: int
    children: int
    objects: int
    files: int
    state_files: int


def _sample(deploys: int, host: AgentHost) -> Sample:
    process = psutil.Process()
    gc.collect()
    return Sample(
        deploys=deploys,
        memory_bytes=process.memory_full_info().uss,
        descriptors=process.num_fds(),
        threads=process.num_threads(),
        tasks=len(asyncio.all_tasks()),
        children=len(process.children()),
        objects=len(gc.get_objects()),
        files=sum(1 for _ in host.layout.root.rglob("*")),
        state_files=sum(1 for _ in host.layout.state_dir.rglob("*")),
    )


async def live(host: AgentHost, builds: Builds, count: int) -> list[Sample]:
    """Deploy so many times, after a warm-up."""
    samples = []
    step = max(count // 10 // len(BUILD_IDS), 1) * len(BUILD_IDS)
    async with living(host) as life:
        for serial in range(1, _WARM_UP + count + 1):
            build = builds[BUILD_IDS[serial % len(BUILD_IDS)]]
            life.order(serial, build)
            await life.until_steady(build)
            done = serial - _WARM_UP
            if done >= 0 and done % step == 0:
                samples.append(_sample(done, host))
        assert life.workshop.observed.swap_count == _WARM_UP + count
    return samples


def main() -> None:
    """Live, and tell."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    directory, count = Path(sys.argv[1]), int(sys.argv[2])
    builds = make_builds(directory / "builds", BUILD_IDS)
    samples = asyncio.run(live(AgentHost(directory / "host"), builds, count))
    sys.stdout.write(msgspec.json.encode(samples).decode())


if __name__ == "__main__":
    main()
