"""Blocking work has one door, and a cancellation never leaves a thread behind it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable

import pytest

from agent.blocking import outlast, run_blocking, run_until_cancelled


class Gate:
    """Blocking work that a test holds open: it has `started`, and ends when the test says `end`."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.end = threading.Event()
        self.finished = False

    def work(self, error: Exception | None = None) -> str:
        self._loop.call_soon_threadsafe(self.started.set)
        assert self.end.wait(10)
        self.finished = True
        if error is not None:
            raise error
        return "done"


async def _begun(gate: Gate) -> None:
    async with asyncio.timeout(10):
        await gate.started.wait()


async def _turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_returns_what_the_function_returns() -> None:
    """Arguments go in, the result comes out, and it ran in another thread."""
    name = await run_blocking(lambda prefix, *, end: prefix + threading.current_thread().name + end, "<", end=">")
    assert name.startswith("<hotcold-blocking")
    assert name.endswith(">")


async def test_raises_what_the_function_raises() -> None:
    """An error of the work is the caller's error, unchanged."""
    with pytest.raises(OSError, match="no space"):
        await run_blocking(Gate.work, _ended(), OSError("no space"))


async def test_context_variables_reach_the_thread() -> None:
    """What the log has bound for this task is seen in the thread."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("bound")
    assert await run_blocking(variable.get) == "bound"


async def test_a_cancelled_caller_waits_for_its_thread() -> None:
    """Two cancellations do not abandon the thread; the cancellation arrives when the work has ended."""
    gate = Gate()
    task = asyncio.create_task(run_blocking(gate.work))
    await _begun(gate)
    task.cancel()
    await _turns()
    task.cancel()
    await _turns()
    assert not task.done()
    gate.end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gate.finished


async def test_an_error_behind_a_cancellation_is_kept_as_its_cause() -> None:
    """The cancellation wins, and what went wrong in the thread is not lost."""
    gate = Gate()
    task = asyncio.create_task(run_blocking(gate.work, OSError("torn")))
    await _begun(gate)
    task.cancel()
    await _turns()
    gate.end.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert isinstance(caught.value.__cause__, OSError)


async def test_work_that_has_not_begun_is_dropped_at_once() -> None:
    """A cancelled caller in the queue neither waits nor runs later."""
    gates = [Gate() for _ in range(6)]
    queued = Gate()
    async with asyncio.TaskGroup() as group:
        for gate in gates:
            group.create_task(run_blocking(gate.work))
        for gate in gates:
            await _begun(gate)
        task = asyncio.create_task(run_blocking(queued.work))
        await _turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for gate in gates:
            gate.end.set()
    await run_blocking(int)
    assert not queued.started.is_set()


async def test_a_deadline_around_the_work_ends_after_the_work() -> None:
    """`asyncio.timeout` still turns the cancellation into TimeoutError, once the thread is done."""
    gate = Gate()

    async def pass_deadline(deadline: asyncio.Timeout) -> None:
        await _begun(gate)
        deadline.reschedule(asyncio.get_running_loop().time())
        await _turns()
        assert not gate.finished
        gate.end.set()

    async def work() -> None:
        async with asyncio.timeout(None) as deadline:
            tasks.append(asyncio.create_task(pass_deadline(deadline)))
            await run_blocking(gate.work)

    tasks: list[asyncio.Task[None]] = []
    with pytest.raises(TimeoutError):
        await work()
    await tasks[0]
    assert gate.finished


async def test_clean_up_outlasts_cancellations() -> None:
    """A clean-up task is neither cancelled with its caller nor left behind."""
    go = asyncio.Event()
    cleaned: list[str] = []

    async def clean_up() -> None:
        await go.wait()
        cleaned.append("all")

    async def caller() -> None:
        await outlast(asyncio.create_task(clean_up()))

    task = asyncio.create_task(caller())
    for _ in range(3):
        await _turns()
        task.cancel()
    await _turns()
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == ["all"]


def _ended() -> Gate:
    gate = Gate()
    gate.end.set()
    return gate


async def test_long_work_is_told_of_a_cancellation_and_ends_first() -> None:
    """It looks at its flag, ends by itself, and only then the cancellation goes on."""
    has_begun, ended = threading.Event(), threading.Event()

    def work(is_cancelled: Callable[[], bool]) -> None:
        has_begun.set()
        while not is_cancelled():
            pass
        ended.set()

    task = asyncio.create_task(run_until_cancelled(work))
    await run_blocking(has_begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_long_work_that_is_left_alone_gives_its_result() -> None:
    """The flag says no all the time."""
    assert await run_until_cancelled(lambda is_cancelled: is_cancelled()) is False
