"""Jobs: one at a time, in order, with cancellation that is waited for and never heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.jobs import Job, Jobs


class Stage:
    """Effects are names; each job waits until the test lets it go."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.idle = asyncio.Event()
        self.jobs: Jobs[str, str] = Jobs(self.perform, self.heard, self.idle.set)
        self.began: dict[str, asyncio.Event] = {}

    async def perform(self, effect: str) -> str | None:
        self.log.append(f"begin {effect}")
        self.began.setdefault(effect, asyncio.Event()).set()
        try:
            await self.gates.setdefault(effect, asyncio.Event()).wait()
        except asyncio.CancelledError:
            self.log.append(f"clean up {effect}")
            raise
        return f"{effect} done"

    def heard(self, _job: Job[str], outcome: str) -> None:
        self.log.append(outcome)

    def let_go(self, effect: str) -> None:
        self.gates.setdefault(effect, asyncio.Event()).set()

    async def begun(self, effect: str) -> None:
        await self.began.setdefault(effect, asyncio.Event()).wait()


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    stage = Stage()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        runner = group.create_task(stage.jobs.run(group))
        yield stage
        runner.cancel()


async def test_jobs_run_one_after_the_other() -> None:
    """The second begins when the first has ended, whenever it was started."""
    async with staged() as stage:
        stage.jobs.start("a")
        stage.jobs.start("b")
        stage.let_go("b")
        stage.let_go("a")
        await stage.idle.wait()

        assert stage.log == ["begin a", "a done", "begin b", "b done"]
        assert stage.jobs.is_idle


async def test_cancelled_work_is_cleaned_up_before_the_next_begins() -> None:
    """The outcome of cancelled work is never heard, and new work waits for its clean-up."""
    async with staged() as stage:
        stage.jobs.start("a")
        await stage.begun("a")
        stage.jobs.cancel()
        stage.jobs.start("b")
        stage.let_go("b")
        await stage.idle.wait()

        assert stage.log == ["begin a", "clean up a", "begin b", "b done"]


async def test_work_that_must_not_stop_half_way_is_not_cancelled() -> None:
    """A swap or a return to service goes on; waiting work that may be cancelled goes."""
    async with staged() as stage:
        stage.jobs.start("swap", is_interruptible=False)
        stage.jobs.start("never")
        await stage.begun("swap")
        stage.jobs.cancel()
        stage.let_go("swap")
        await stage.idle.wait()

        assert stage.log == ["begin swap", "swap done"]


async def test_cancelled_before_its_first_step() -> None:
    """A job that is cancelled in the queue never begins."""
    async with staged() as stage:
        stage.jobs.start("a")
        stage.jobs.cancel()
        stage.jobs.start("b")
        stage.let_go("b")
        await stage.idle.wait()

        assert stage.log == ["begin b", "b done"]


async def test_outcome_that_waits_to_be_looked_at_is_cancelled_too() -> None:
    """The job has ended, but its owner was busy: a cancellation now must still reach it."""
    async with staged() as stage:
        kept: list[Job[str]] = []
        stage.jobs = Jobs(stage.perform, lambda job, _outcome: kept.append(job), stage.idle.set)
        async with asyncio.TaskGroup() as group:
            runner = group.create_task(stage.jobs.run(group))
            stage.let_go("a")
            stage.jobs.start("a")
            await stage.idle.wait()
            stage.jobs.cancel()
            runner.cancel()

        assert [job.is_cancelled for job in kept] == [True]
