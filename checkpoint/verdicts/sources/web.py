"""Owns HTTP to sources of counts: one session, deadlines, tokens, and every failure as `SourceFailed`.

What is asked and what the answer means is left to the sources.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import aiohttp

from artifact.httperrors import said
from checkpoint.verdicts.sources.asking import SourceFailed

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
_OK: Final = 200
_CHUNK_BYTES: Final = 64 * 1024


class Web:
    """A session that is opened when it is first needed, in the loop that needs it."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        """Close all connections. Calling it twice is harmless."""
        if self._session is not None:
            await self._session.close()

    async def get(self, url: str, *, timeout_s: float, bearer_file: str | None) -> bytes:
        """The body of a 200 answer to GET.

        Raises:
            SourceFailed: no such answer within `timeout_s`.
        """
        return await self._request("GET", url, None, timeout_s, bearer_file)

    async def post(self, url: str, form: Mapping[str, str], *, timeout_s: float, bearer_file: str | None) -> bytes:
        """The body of a 200 answer to a form, which has no limit of length as a query string has.

        Raises:
            SourceFailed: no such answer within `timeout_s`.
        """
        return await self._request("POST", url, form, timeout_s, bearer_file)

    async def _request(
        self, method: str, url: str, form: Mapping[str, str] | None, timeout_s: float, bearer_file: str | None
    ) -> bytes:
        try:
            async with asyncio.timeout(timeout_s):
                headers = {} if bearer_file is None else {"Authorization": f"Bearer {await _token(bearer_file)}"}
                return await self._answer(method, url, form, headers)
        except TimeoutError as error:
            raise SourceFailed(f"{url} gave no answer within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise SourceFailed(f"{url} failed: {said(error)}") from error

    async def _answer(self, method: str, url: str, form: Mapping[str, str] | None, headers: Mapping[str, str]) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Asked once in a while: a kept connection may be dead by then, and would cost an interval.
                connector=aiohttp.TCPConnector(force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        async with self._session.request(method, url, data=form, headers=headers, allow_redirects=False) as response:
            body = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise SourceFailed(f"{url} answered more than {MAX_ANSWER_BYTES >> 20} MiB")
            if response.status != _OK:
                raise SourceFailed(f"{url} answered {response.status}: {bytes(body[:200]).decode(errors='replace')!r}")
            return bytes(body)


async def _token(file: str) -> str:
    try:
        # Reading only, so a thread that a cancelled caller leaves behind harms nothing.
        text = await asyncio.get_running_loop().run_in_executor(None, Path(file).read_text)
    except (OSError, UnicodeDecodeError) as error:
        raise SourceFailed(f"cannot read the token from {file}: {error}; check bearer_file") from error
    token = text.strip()
    if not token or not token.isprintable():
        raise SourceFailed(f"{file} holds no token: one line is expected; check bearer_file")
    return token
