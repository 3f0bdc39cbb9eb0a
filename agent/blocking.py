"""Owns waiting that a cancellation must not cut short: blocking work in threads, and clean-up that has to finish.

What the work is stays with the caller; the event loop's own default executor is left to name resolution, so that a
dead resolver never stands in front of a swap.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

# Threads start on demand and are joined when the interpreter ends. More of them would only queue on the same disk.
_THREADS: Final = ThreadPoolExecutor(max_workers=6, thread_name_prefix="hotcold-blocking")


async def run_blocking(function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run `function` in a thread and return what it returns.

    Cancelling the caller never abandons the thread: work that has not begun is dropped, work that has begun is waited
    for, however often the caller is cancelled, and then the cancellation goes on its way. So after this returns or
    raises, `function` is not running. For work that may take long there is `run_until_cancelled`.

    Raises:
        asyncio.CancelledError: the caller was cancelled; an error of `function` is then its `__cause__`, and a result
            is lost: whoever needs it reads it from the disk.
        Exception: whatever `function` raised.
    """
    work = _THREADS.submit(partial(contextvars.copy_context().run, partial(function, *args, **kwargs)))
    return await _outlast(asyncio.wrap_future(work), on_cancel=work.cancel)


async def run_until_cancelled(function: Callable[[Callable[[], bool]], _T], /) -> _T:
    """As `run_blocking`, for work that may take long: `function` is given one that tells when to end early.

    Raises:
        asyncio.CancelledError: the caller was cancelled; `function` has noticed and is not running any more.
        Exception: whatever `function` raised.
    """
    is_cancelled = threading.Event()
    work = _THREADS.submit(contextvars.copy_context().run, function, is_cancelled.is_set)

    def end_early() -> None:
        is_cancelled.set()
        work.cancel()

    return await _outlast(asyncio.wrap_future(work), on_cancel=end_early)


async def outlast(clean_up: asyncio.Task[_T]) -> _T:
    """Wait for `clean_up` to its end, however often the caller is cancelled; the cancellation goes on afterwards.

    The task must set its own deadline: nothing from outside ends it.

    Raises:
        asyncio.CancelledError: the caller was cancelled meanwhile; an error of the task is then its `__cause__`.
        Exception: whatever the task raised.
    """
    return await _outlast(clean_up)


async def _outlast(future: asyncio.Future[_T], *, on_cancel: Callable[[], object] | None = None) -> _T:
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            # Unlike `await future`, this does not hand a cancellation of the caller down to the future.
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
            if on_cancel is not None:
                on_cancel()
    if cancelled is not None:
        raise cancelled from (None if future.cancelled() else future.exception())
    return future.result()
