"""Bytes go over a pipe, and the end is only the end when the writer says so."""

import asyncio
import os
import threading

import pytest

from artifact.feed import Feed
from artifact.handover import HandoverAborted, HandoverReader

DATA = bytes(range(256)) * 20_000


class Collector(threading.Thread):
    """Reads to the end in a thread, as the opener does in its process."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        self.fd, self.write_fd = os.pipe()
        self._reader = HandoverReader(self.fd, size_bytes)
        self.data = b""
        self.ended = False
        self.start()

    def run(self) -> None:
        try:
            while data := self._reader.read(100_000):
                self.data += data
            self.ended = self._reader.read(1) == b""
        except HandoverAborted:
            pass
        finally:
            os.close(self.fd)


async def test_all_bytes_and_the_end_come_through() -> None:
    """More than a pipe holds; the writer waits for room, and does not block."""
    collector = Collector(len(DATA))
    feed = Feed(collector.write_fd)
    for at in range(0, len(DATA), 300_000):
        await feed.put(DATA[at : at + 300_000])
    await feed.finish()
    feed.close()
    collector.join()
    assert (collector.data == DATA, collector.ended) == (True, True)


@pytest.mark.parametrize("put_bytes", [0, 1, len(DATA) - 1, len(DATA)])
async def test_a_writer_that_goes_away_is_no_end(put_bytes: int) -> None:
    """Also when all bytes are there: only the writer knows whether they are the right ones."""
    collector = Collector(len(DATA))
    feed = Feed(collector.write_fd)
    await feed.put(DATA[:put_bytes])
    feed.close()
    feed.close()
    collector.join()
    assert (len(collector.data), collector.ended) == (put_bytes, False)


async def test_bytes_beyond_the_size_are_no_end() -> None:
    collector = Collector(10)
    feed = Feed(collector.write_fd)
    await feed.put(bytes(11))
    await feed.finish()
    feed.close()
    collector.join()
    assert (len(collector.data), collector.ended) == (10, False)


async def test_nobody_who_reads_is_waited_for() -> None:
    """A reader that is gone has made up its mind; the rest is swallowed."""
    read_fd, write_fd = os.pipe()
    feed = Feed(write_fd)
    putting = asyncio.create_task(feed.put(bytes(3 << 20)))
    await asyncio.sleep(0)
    assert not putting.done()
    os.close(read_fd)
    await putting
    await feed.put(DATA)
    await feed.finish()
    feed.close()


async def test_a_cancelled_put_leaves_the_loop_clean() -> None:
    read_fd, write_fd = os.pipe()
    feed = Feed(write_fd)
    putting = asyncio.create_task(feed.put(bytes(3 << 20)))
    await asyncio.sleep(0)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert asyncio.get_running_loop().remove_writer(write_fd) is False
    feed.close()
    os.close(read_fd)
