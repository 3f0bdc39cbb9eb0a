"""Owns a server of ours before a hostile provider, and what its pages say; leaves lies and questions to the tests."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from html import unescape
from pathlib import Path
from typing import Any

from aiohttp import web as server

from tests.oidc_hostile import Hostile, as_json
from tests.web_world import Answer, Client, WebWorld, web_world


@asynccontextmanager
async def world_of(provider: Hostile, directory: Path, **more: Any) -> AsyncIterator[WebWorld]:
    """`public_url` names this machine, but no port of it: nobody follows it here."""
    async with web_world(directory, sizes={}, web=provider.table(**more)) as web:
        yield at_its_port(web)


def at_its_port(web: WebWorld) -> WebWorld:
    made, url = web.client, f"http://127.0.0.1:{web.serving.port}"

    def client(**facts: Any) -> Client:
        found = made(**facts)
        found.url = url
        return found

    web.client = client  # type: ignore[method-assign]
    return web


async def told(web: WebWorld, part: str) -> None:
    """Wait until the audit has a refusal that says so."""
    async with asyncio.timeout(30):
        while not any(part in json.loads(record)["message"] for record in await web.audit()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def is_out(client: Client) -> bool:
    """Whether the browser has no session."""
    return (await client.get("/")).status == 303


def said(answer: Answer) -> str:
    """What the banner of the page says."""
    found = re.search(r'role="alert">(.*?)</p>', answer.text, re.DOTALL)
    return "" if found is None else unescape(found[1])


def part(content: Any) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(as_json(content)).decode().rstrip("=")


def says(body: bytes | str, status: int = 200, **headers: str) -> Callable[[server.Request], Any]:
    async def answer(_: server.Request) -> server.Response:
        return server.Response(
            body=body.encode() if isinstance(body, str) else body,
            status=status,
            headers={"Content-Type": "application/json", **headers},
        )

    return answer


async def off_loop(work: Callable[[], object]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, work)
