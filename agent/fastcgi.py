"""Owns one request to a FastCGI application, such as PHP-FPM; what the answer means is its caller's.

The protocol is the FastCGI Specification 1.0, as far as a responder without input needs it.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from typing import Final

_HEADER: Final = struct.Struct(">BBHHBx")  # version, type, request id, content length, padding length
_BEGIN: Final = struct.Struct(">HB5x")  # role, flags
_VERSION: Final = 1
_REQUEST: Final = 1
_RESPONDER: Final = 1
_BEGIN_REQUEST, _END_REQUEST, _PARAMS, _STDIN, _STDOUT = 1, 3, 4, 5, 6
_SHORT: Final = 0x80
_MAX_ANSWER_BYTES: Final = 4 << 20


class BrokenAnswer(Exception):
    """What came back is no FastCGI answer, or more than anybody would want."""


async def get(socket: str, parameters: Mapping[str, str]) -> tuple[bytes, bytes]:
    """Ask once, on a connection of its own.

    Args:
        socket: an absolute path, or `host:port`.
        parameters: the CGI variables.

    Returns:
        The header lines and the body of the answer.

    Raises:
        OSError: nobody listens there, or the connection broke.
        BrokenAnswer: as the class says.
    """
    if socket.startswith("/"):
        reader, writer = await asyncio.open_unix_connection(socket)
    else:
        host, _, port = socket.rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        variables = b"".join(_pair(name.encode(), value.encode()) for name, value in parameters.items())
        writer.write(
            _record(_BEGIN_REQUEST, _BEGIN.pack(_RESPONDER, 0))
            + _record(_PARAMS, variables)
            + _record(_PARAMS, b"")
            + _record(_STDIN, b"")
        )
        await writer.drain()
        answer = await _answer(reader)
    finally:
        writer.close()
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        raise BrokenAnswer("its answer has no end of the header")
    return head, body


async def _answer(reader: asyncio.StreamReader) -> bytes:
    answer = bytearray()
    try:
        while True:
            version, kind, _, length, padding = _HEADER.unpack(await reader.readexactly(_HEADER.size))
            if version != _VERSION:
                raise BrokenAnswer("it does not speak FastCGI")
            content = (await reader.readexactly(length + padding))[:length]
            if kind == _END_REQUEST:
                return bytes(answer)
            if kind == _STDOUT:
                answer += content
            if len(answer) > _MAX_ANSWER_BYTES:
                raise BrokenAnswer(f"its answer is longer than {_MAX_ANSWER_BYTES} bytes")
    except asyncio.IncompleteReadError as error:
        raise BrokenAnswer("it hung up within its answer") from error


def _record(kind: int, content: bytes) -> bytes:
    return _HEADER.pack(_VERSION, kind, _REQUEST, len(content), 0) + content


def _pair(name: bytes, value: bytes) -> bytes:
    return _length(name) + _length(value) + name + value


def _length(text: bytes) -> bytes:
    return bytes([len(text)]) if len(text) < _SHORT else struct.pack(">I", len(text) | 1 << 31)
