"""Owns the constant load: clients that ask every host, again and again, and count what they get.

A process of its own, so that drawing never slows it. What an answer is worth is left to `hotcold.demo.verdict`.

    python -m hotcold.demo.load NAME=PORT... writes one line of JSON every fifth of a second: for each name a `Count`.

With `--serve` the first line is an address that answers for the same counts, see `hotcold.demo.counting`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

import msgspec

from hotcold.demo.app import CURRENCY, SAMPLED_COUNT
from hotcold.demo.verdict import Verdict, judge

CLIENT_TIMEOUT_S: Final = 30.0
"""A client waits so long for a host that changes its build; then the request has failed."""
_TOLD_S: Final = 0.2
_PAID_IN: Final = (CURRENCY, CURRENCY, "USD", "JPY")
"""What the customers of a host pay in, each as often as any other."""
_BODY_BYTES: Final = 1 << 20
_TOLD_CHARACTERS: Final = 500


class Count(msgspec.Struct, kw_only=True):
    """What clients got from one host so far. `first_fault` is the first answer that was not whole."""

    requests: int = 0
    failed: int = 0
    mixed: int = 0
    longest_s: float = 0.0
    first_fault: str = ""

    def add(self, verdict: Verdict, took_s: float, answer: str) -> None:
        """Count one answer."""
        self.requests += 1
        self.failed += verdict is Verdict.FAILED
        self.mixed += verdict is Verdict.MIXED
        self.longest_s = max(self.longest_s, took_s)
        if verdict is not Verdict.WHOLE and not self.first_fault:
            self.first_fault = f"{verdict.value}: {answer[:_TOLD_CHARACTERS]}"


def decode_counts(line: bytes) -> dict[str, Count]:
    """Read one line of this process."""
    return msgspec.json.decode(line, type=dict[str, Count])


def main() -> None:
    """Ask until SIGTERM, finish the requests in hand, write the last line."""
    parser = argparse.ArgumentParser(prog="python -m hotcold.demo.load", description="The clients of the demo.")
    parser.add_argument("hosts", nargs="+", metavar="NAME=PORT")
    parser.add_argument("--clients", type=int, default=4, help="for each host")
    parser.add_argument("--pause-s", type=float, default=0.04, help="of each client between two requests, on average")
    parser.add_argument("--customers", nargs="*", default=[], metavar="NAME", help="hosts that are paid abroad, too")
    parser.add_argument("--serve", action="store_true", help="answer for the counts over HTTP, too")
    arguments = parser.parse_args()
    ports = {name: int(port) for name, _, port in (host.partition("=") for host in arguments.hosts)}
    paid_in = {name: _PAID_IN if name in arguments.customers else (CURRENCY,) for name in ports}
    asyncio.run(_ask_all(ports, paid_in, arguments.clients, arguments.pause_s, is_served=arguments.serve))


async def _ask_all(
    ports: Mapping[str, int], paid_in: Mapping[str, Sequence[str]], clients: int, pause_s: float, *, is_served: bool
) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    counts = {name: Count() for name in ports}
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        if is_served:
            from hotcold.demo.counting import serving_counts  # noqa: PLC0415 - loads a server

            address = await stack.enter_async_context(serving_counts(counts))
            sys.stdout.write(f"{address}\n")
            sys.stdout.flush()
        for name, port in ports.items():
            for number in range(clients):
                asking = _ask_until(stop, port, counts[name], paid_in[name], pause_s)
                group.create_task(asking, name=f"client {number} of {name}")
        group.create_task(_tell_until(stop, counts), name="tell")
    _tell(counts)


async def _ask_until(stop: asyncio.Event, port: int, count: Count, paid_in: Sequence[str], pause_s: float) -> None:
    while not stop.is_set():
        started_s = time.monotonic()
        currency = random.choice(paid_in)  # noqa: S311 - spreads the clients, guards nothing
        try:
            async with asyncio.timeout(CLIENT_TIMEOUT_S):
                status, body = await _ask(port, currency)
            verdict, answer = judge(status, body, file_count=SAMPLED_COUNT), f"{status} {body.decode(errors='replace')}"
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            verdict, answer = Verdict.FAILED, f"{type(error).__name__}: {error}"
        count.add(verdict, time.monotonic() - started_s, answer)
        await asyncio.sleep(random.uniform(0, 2 * pause_s))  # noqa: S311 - spreads the clients, guards nothing


async def _ask(port: int, currency: str) -> tuple[int, bytes]:
    """One request over a connection of its own, so that every worker and every moment of a swap gets its share.

    Raises:
        OSError, ValueError, asyncio.IncompleteReadError: there was no whole answer.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        target = "/" if currency == CURRENCY else f"/?currency={currency}"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n".encode())
        return await read_answer(reader)
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read status and body of an HTTP answer.

    Raises:
        OSError, ValueError, asyncio.IncompleteReadError: there was no whole answer.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(None, 2)[1])
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        return status, await reader.readexactly(min(_BODY_BYTES, int(fields[b"content-length"])))
    except (KeyError, IndexError, asyncio.LimitOverrunError) as error:
        raise ValueError("the answer is no HTTP") from error


async def _tell_until(stop: asyncio.Event, counts: Mapping[str, Count]) -> None:
    while not stop.is_set():
        _tell(counts)
        await asyncio.sleep(_TOLD_S)


def _tell(counts: Mapping[str, Count]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(counts) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
