"""Owns what makes a moment of a deploy last until an agent was killed in it: slow network, slow client, slow start.

Real hosts meet all three. Without them a deploy can be through before a busy machine lets the demo strike. When they
begin and end is left to `hotcold.demo.story`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from hotcold.demo.app import SAMPLED_COUNT
from hotcold.demo.load import read_answer
from hotcold.demo.verdict import Verdict, judge

_DRIP_S: Final = 0.2
_UPLOAD_BYTES: Final = 10_000


@contextmanager
def marked(mark: Path) -> Iterator[Callable[[], None]]:
    """Let the file `mark` exist until the function that is given is called, at the latest until the end."""
    mark.touch()
    remove = partial(mark.unlink, missing_ok=True)
    try:
        yield remove
    finally:
        remove()


async def upload(port: int, *, in_hand: asyncio.Event, may_end: asyncio.Event) -> Verdict:
    """Send a request that takes its time, and judge the answer: a worker that has it in hand has `hot` open.

    Args:
        port: of the app.
        in_hand: set here when a worker has begun with the request.
        may_end: set by the caller when the rest of it may be sent.

    Raises:
        OSError, ValueError, asyncio.IncompleteReadError: there was no whole answer.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"POST / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nExpect: 100-continue\r\n")
        writer.write(f"Content-Length: {_UPLOAD_BYTES}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        in_hand.set()
        sent_bytes = 0
        while not may_end.is_set():
            writer.write(b".")
            sent_bytes += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(_DRIP_S):
                    await may_end.wait()
        writer.write(b"." * (_UPLOAD_BYTES - sent_bytes))
        status, body = await read_answer(reader)
        return judge(status, body, file_count=SAMPLED_COUNT)
    finally:
        writer.close()
