"""Owns the one thing that the agent does at a time: effects become jobs, run strictly one after the other.

What a job does is left to the caller's function; what follows from its outcome, to the machine.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Effect = TypeVar("Effect")
Outcome = TypeVar("Outcome")


class Job(Generic[Effect]):
    """One effect under way. `is_cancelled`: its outcome must not be heard any more."""

    def __init__(self, effect: Effect, *, is_interruptible: bool) -> None:
        self.effect = effect
        self.is_interruptible = is_interruptible
        self.is_cancelled = False
        self.task: asyncio.Task[None] | None = None


class Jobs(Generic[Effect, Outcome]):
    """A queue of jobs with one runner, `run`, that its owner keeps in a task group.

    Args:
        perform: carries one effect out; must translate its own failures into outcomes.
        heard: is called with the job and its outcome, unless the job was cancelled.
        emptied: is called when the last job has ended.
    """

    def __init__(
        self,
        perform: Callable[[Effect], Awaitable[Outcome | None]],
        heard: Callable[[Job[Effect], Outcome], None],
        emptied: Callable[[], None],
    ) -> None:
        self._perform = perform
        self._heard = heard
        self._emptied = emptied
        self._waiting: deque[Job[Effect]] = deque()
        self._current: Job[Effect] | None = None
        self._heard_last: Job[Effect] | None = None
        self._changed = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs or waits."""
        return self._current is None and not self._waiting

    def start(self, effect: Effect, *, is_interruptible: bool = True) -> None:
        """Run the effect after those that were started before."""
        self._waiting.append(Job(effect, is_interruptible=is_interruptible))
        self._changed.set()

    def cancel(self) -> None:
        """Interrupt whatever may be interrupted. Returns at once; a later job waits until the clean-up is done.

        A job that has ended, but whose outcome the caller has not looked at yet, is marked too.
        """
        for job in (self._heard_last, self._current, *self._waiting):
            if job is not None and job.is_interruptible:
                job.is_cancelled = True
                if job.task is not None:
                    job.task.cancel()
        self._waiting = deque(job for job in self._waiting if not job.is_cancelled)

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Run jobs until cancelled; a job that is under way then is cancelled and awaited."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._waiting:
                await self._run_one(self._waiting.popleft(), group)
            self._emptied()

    async def _run_one(self, job: Job[Effect], group: asyncio.TaskGroup) -> None:
        self._current = job
        job.task = group.create_task(self._carry_out(job), name=f"job {type(job.effect).__name__}")
        try:
            await asyncio.wait({job.task})
        except asyncio.CancelledError:
            # The owner ends: what may be interrupted is ended and waited for, the rest finishes.
            if job.is_interruptible:
                job.task.cancel()
            await asyncio.wait({job.task})
            raise
        finally:
            self._current = None

    async def _carry_out(self, job: Job[Effect]) -> None:
        outcome = await self._perform(job.effect)
        if outcome is not None and not job.is_cancelled:
            self._heard_last = job
            self._heard(job, outcome)
