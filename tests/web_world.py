"""Owns what the tests of Checkpoint's pages need around them: a server with people of every role, and a client each."""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import aiohttp
from multidict import CIMultiDictProxy

from checkpoint.web.app import Serving, serving
from checkpoint.web.tokens import new_token
from fleet import ConsulStore, consul_settings
from fleet.devserver import DevServer
from fleet.keys import audit_prefix
from tests.rollout_world import PIPELINE, Fleet, RolloutWorld, names

ROLES: tuple[Literal["read", "deploy", "admin"], ...] = ("read", "deploy", "admin")
SMALL = {"staging": 2, "canary": 3, "prod": 10}


@dataclass
class Answer:
    """What came back."""

    status: int
    text: str
    headers: CIMultiDictProxy[str]


@dataclass
class Client:
    """A browser without a window: keeps cookies, follows nothing."""

    session: aiohttp.ClientSession
    url: str
    csrf: str = ""

    async def get(self, path: str, **facts: Any) -> Answer:
        async with self.session.get(self.url + path, allow_redirects=False, **facts) as response:
            return Answer(response.status, await response.text(), response.headers)

    async def post(self, path: str, form: Mapping[str, str] | None = None, **facts: Any) -> Answer:
        data = {"csrf": self.csrf} | dict(form or {}) if "data" not in facts and "json" not in facts else None
        facts = {"data": data} | facts
        async with self.session.post(self.url + path, allow_redirects=False, **facts) as response:
            return Answer(response.status, await response.text(), response.headers)

    async def sign_in(self, token: str) -> Answer:
        answer = await self.post("/sign-in", {"token": token, "next": "/"})
        page = await self.get("/")
        found = re.search(r'name="csrf" value="([^"]+)"', page.text)
        self.csrf = found[1] if found else ""
        return answer


@dataclass
class WebWorld:
    """A server, the rollout world behind it, and tokens of every role."""

    serving: Serving
    server: DevServer
    world: RolloutWorld
    tokens: dict[str, str]
    tokens_file: Path
    sessions: list[aiohttp.ClientSession] = field(default_factory=list)

    def client(self, **facts: Any) -> Client:
        """Nobody, so far."""
        session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), **facts)
        self.sessions.append(session)
        return Client(session, self.serving.url)

    async def as_(self, role: str) -> Client:
        """Somebody of that role, signed in."""
        client = self.client()
        answer = await client.sign_in(self.tokens[role])
        assert answer.status == 303
        return client

    async def shown(self) -> None:
        """Wait until the pages show what is in the store now."""
        site = self.serving.site
        async with asyncio.timeout(30):
            while True:
                latest = await self.world.desk.ledger.latest()
                snapshot = site.live.snapshot
                entries = await self.world.store.read_prefix(audit_prefix("shop"))
                known = snapshot is not None and snapshot.head.number == len(entries)
                if known and (latest is None or (snapshot.shown is not None and snapshot.shown.index == latest.index)):
                    return
                await asyncio.sleep(0.02)

    async def audit(self) -> list[str]:
        """All records, as text."""
        return [entry.value.decode() for entry in await self.world.store.read_prefix(audit_prefix("shop"))]

    async def everything(self) -> dict[str, bytes]:
        """All that is in the store, but for the audit."""
        return {
            entry.key: entry.value
            for entry in await self.world.store.read_prefix("hotcold/")
            if "/audit" not in entry.key
        }


@cache
def made_tokens() -> tuple[str, dict[str, str]]:
    """A tokens file, and the tokens by their roles; made once, for it takes its time on purpose."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "tokens.toml"
        tokens = {role: new_token(file, f"{role}er", role) for role in ROLES}
        return file.read_text(), tokens


@asynccontextmanager
async def web_world(
    directory: Path,
    *,
    sizes: Mapping[str, int] = SMALL,
    web: str | None = None,
    listen: str = "127.0.0.1:0",
    pipeline: str = PIPELINE,
    store_kind: type[ConsulStore] = ConsulStore,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[WebWorld]:
    """A server on this machine with its own store. `web`: the `[web]` table; by default, tokens of every role."""
    tokens_file = directory / "tokens.toml"
    text, tokens = await asyncio.get_running_loop().run_in_executor(None, made_tokens)
    if web is None:
        await asyncio.get_running_loop().run_in_executor(None, tokens_file.write_text, text)
        web = f'tokens_file = "{tokens_file}"\n'
    text = f'{pipeline}\n[web]\nlisten = "{listen}"\nkey_file = "{directory / "key"}"\n{web}'
    async with DevServer() as server, store_kind(consul_settings({}, {"address": server.address})) as store:
        world = RolloutWorld(store, Fleet(store, names(sizes)), text)
        await world.order_everywhere()
        settings = world.settings
        async with serving(
            store,
            settings,
            name="checkpoint@test",
            launcher="anna@desk",
            now=lambda: world.time.wall,
            monotonic=monotonic,
        ) as served:
            made = WebWorld(served, server, world, tokens, tokens_file)
            try:
                yield made
            finally:
                for session in made.sessions:
                    await session.close()
