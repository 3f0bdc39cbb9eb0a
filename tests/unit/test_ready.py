"""A process for the next pull: there before it is needed if that is wanted, and never left behind."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psutil

from agent.ready import ReadyPuller


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if is_puller(child)]


def is_puller(child: psutil.Process) -> bool:
    try:
        return "artifact.puller" in child.cmdline()
    except psutil.NoSuchProcess:  # a zombie, which has no command line, included
        return False


def has_ended(child: psutil.Process) -> bool:
    """A process that was killed loses its memory, and so its command line, before it has ended."""
    try:
        return child.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(pullers: ReadyPuller) -> AsyncIterator[None]:
    task = asyncio.create_task(pullers.run(), name="ready puller")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_one_waits_and_another_follows_it() -> None:
    """The process that waits is the one that is used, it ends with its use, and the next one starts then."""
    pullers = ReadyPuller(lambda: True)
    async with running(pullers):
        await until(lambda: pullers.is_waiting)
        [first] = children()
        async with pullers.taken():
            assert children() == [first]
        await until(lambda: pullers.is_waiting and children() != [first])
    assert children() == []


async def test_without_the_wish_none_waits() -> None:
    """A process is started for each use, and is gone after it."""
    pullers = ReadyPuller(lambda: False)
    async with running(pullers):
        async with pullers.taken():
            assert len(children()) == 1
        assert children() == []


async def test_one_that_was_killed_is_replaced() -> None:
    """An out-of-memory killer that takes the waiting process fails no deploy."""
    pullers = ReadyPuller(lambda: True)
    async with running(pullers):
        await until(lambda: pullers.is_waiting)
        [first] = children()
        first.kill()
        await until(lambda: has_ended(first))
        async with pullers.taken() as puller:
            assert puller.is_alive
            assert len(children()) == 1
    assert children() == []
