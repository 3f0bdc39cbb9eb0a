"""Owns an HTTP server of files that knows ranges, and that fails as it is told to."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from tests.listening import listening

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass(frozen=True)
class Request:
    """One request, and the right answer to it.

    Attributes:
        path: as it was asked for, decoded.
        number: among all requests, from 0.
        start, end: of the range, the end excluded; `start` is None where the whole was asked for.
        body: the bytes that were asked for.
        total: size of the file.
    """

    path: str
    number: int
    start: int | None
    end: int
    body: bytes
    total: int


@dataclass(frozen=True)
class Answer:
    """What the server says; the defaults are right."""

    status: str
    body: bytes
    headers: tuple[str, ...]
    length: int | None


Fault = Callable[[Request, Answer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Answer | None]]
"""Changes an answer, or gives one itself and returns None."""


async def well(_: Request, answer: Answer, __: asyncio.StreamReader, ___: asyncio.StreamWriter) -> Answer:
    """No fault at all."""
    return answer


@dataclass
class RangedServer:
    """Serves the files below a directory; `fault` may be changed at any time."""

    directory: Path
    fault: Fault = well
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, answer = self._right(head)
        self.requests.append(request)
        said = await self.fault(request, answer, reader, writer)
        if said is not None:
            length = () if said.length is None else (f"Content-Length: {said.length}",)
            lines = (f"HTTP/1.1 {said.status}", "Connection: close", *said.headers, *length, "", "")
            writer.write("\r\n".join(lines).encode() + said.body)
            await writer.drain()

    def _right(self, head: str) -> tuple[Request, Answer]:
        path = unquote(head.split(" ", 2)[1])
        file = self.directory / path.lstrip("/")
        data = file.read_bytes() if file.is_file() else b""
        match = re.search(r"(?im)^range: *(.*?)\r$", head)
        ends = None if match is None else _RANGE.fullmatch(match[1])
        start, end = (None, len(data)) if ends is None else (int(ends[1]), min(int(ends[2]) + 1, len(data)))
        body = data[start or 0 : end]
        request = Request(path, len(self.requests), start, end, body, len(data))
        if not file.is_file():
            return request, Answer("404 Not Found", b"", (), 0)
        if start is None:
            return request, Answer("200 OK", body, (), len(body))
        return request, Answer(
            "206 Partial Content", body, (f"Content-Range: bytes {start}-{end - 1}/{len(data)}",), len(body)
        )


@asynccontextmanager
async def serving(directory: Path, fault: Fault = well) -> AsyncIterator[RangedServer]:
    """A server on a port of 127.0.0.1."""
    server = RangedServer(directory, fault)
    async with listening(server.handle) as port:
        server.url = f"http://127.0.0.1:{port}"
        yield server
