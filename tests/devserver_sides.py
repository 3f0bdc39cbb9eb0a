"""Asks the dev server and a real Consul the same raw HTTP requests and puts their answers into comparable form.

Compared are status, the headers that clients read, and bodies; not the numbers and ids that each chooses itself, but
their order and which of them are equal. What is asked is left to the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from fleet.devserver import DevServer

SETTLE_S = 5.0
HEADERS = (
    *("Content-Type", "Allow", "X-Consul-Knownleader", "X-Consul-Lastcontact"),
    *("X-Consul-Effective-Consistency", "X-Content-Type-Options", "Content-Security-Policy"),
)
PRESENT = ("X-Consul-Index", "X-Consul-Contenthash")
INDEX_FIELDS = ("CreateIndex", "ModifyIndex")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
UNKNOWN = "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"
DECODE_PROBLEM = re.compile(r"^((?:Request decode failed|Failed to parse body): ).*", re.DOTALL)


@dataclass(frozen=True)
class Step:
    """One request. `<name>` in path and body stands for what an earlier step saved.

    Attributes:
        save: name for the session id that is answered.
        save_index: name for the ModifyIndex that is answered.
        vague: the refusal's details are the JSON decoder's own words and are not compared.
    """

    method: str
    path: str
    body: Any = None
    save: str = ""
    save_index: str = ""
    vague: bool = False


def get(path: str, **more: Any) -> Step:
    return Step("GET", path, **more)


def put(path: str, body: Any = None, **more: Any) -> Step:
    return Step("PUT", path, body, **more)


def delete(path: str) -> Step:
    return Step("DELETE", path)


def txn(*operations: dict, **more: Any) -> Step:
    return put("/v1/txn", [{"KV": operation} for operation in operations], **more)


def op(verb: str, key: Any, **more: Any) -> dict:
    return {"Verb": verb, "Key": key} | more


@dataclass
class Side:
    """One of the two servers, what it answered so far, and what it saved."""

    address: str
    http: aiohttp.ClientSession
    saved: dict[str, str] = field(default_factory=dict)
    indexes: list[int] = field(default_factory=list)
    last_index: int = 0

    async def ask(self, step: Step) -> dict[str, Any]:
        """The answer in a form that can be compared."""
        path = self._filled(step.path)
        body = step.body if isinstance(step.body, str | bytes | None) else json.dumps(step.body)
        data = self._filled(body) if isinstance(body, str) else body
        url = URL(self.address + path, encoded=True)
        async with self.http.request(step.method, url, data=data, allow_redirects=False) as answer:
            text = (await answer.read()).decode()
            shown: Any = json.loads(text) if answer.content_type == "application/json" and text else text
            if step.save:
                self.saved[step.save] = shown["ID"]
            if step.save_index:
                self.saved[step.save_index] = str(shown[0]["ModifyIndex"])
            headers: dict[str, Any] = {name: answer.headers.get(name) for name in HEADERS}
            headers |= {name: name in answer.headers for name in PRESENT}
            if "X-Consul-Index" in answer.headers:
                self.last_index = int(answer.headers["X-Consul-Index"])
                self.indexes.append(self.last_index)
            if step.vague:
                shown = DECODE_PROBLEM.sub(r"\1", shown)
            return {"status": answer.status, "headers": headers, "body": self._neutral(shown)}

    def _filled(self, text: str) -> str:
        return re.sub(r"<(\w+)>", lambda match: self.saved[match[1]], text)

    def _neutral(self, value: Any) -> Any:
        """The value without what each server chooses itself; indexes are noted for `ranks`."""
        match value:
            case dict():
                self.indexes += [value[name] for name in INDEX_FIELDS if name in value]
                kept = {name: inner for name, inner in value.items() if name not in INDEX_FIELDS}
                if "ContentHash" in kept:
                    kept["ContentHash"] = "HASH"
                return {name: self._neutral(inner) for name, inner in kept.items()}
            case list():
                # Sessions come sorted by an id that each server draws at random.
                is_sessions = bool(value) and isinstance(value[0], dict) and "Behavior" in value[0]
                ordered = sorted(value, key=lambda session: session["CreateIndex"]) if is_sessions else value
                return [self._neutral(inner) for inner in ordered]
            case str():
                named = {session: f"<{name}>" for name, session in self.saved.items() if UUID.fullmatch(session)}
                value = UUID.sub(lambda match: named.get(match[0], "<id>"), value)
                return re.sub(r"(modify index )\d+|^127\.0\.0\.1:\d+$", r"\1N", value)
            case _:
                return value

    def ranks(self) -> list[int]:
        """The indexes seen so far, each replaced by its place among them: equal where order and equality agree."""
        places = {index: place for place, index in enumerate(sorted(set(self.indexes)))}
        return [places[index] for index in self.indexes]


async def until_ready(http: aiohttp.ClientSession, address: str) -> None:
    """A leader is known, keys can be read, and the node has its own check."""
    async with asyncio.timeout(SETTLE_S * 4):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(f"{address}/v1/health/node/dev") as answer:
                    if answer.status == 200 and await answer.json():
                        return
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def both_sides(consul_address: str) -> AsyncIterator[tuple[Side, Side]]:
    """A Consul without what earlier tests left, and a new dev server."""
    async with DevServer() as server, aiohttp.ClientSession() as http:
        await until_ready(http, consul_address)
        consul, dev = Side(consul_address, http), Side(server.address, http)
        await consul.ask(delete("/v1/kv/?recurse"))
        async with http.get(f"{consul_address}/v1/session/list") as answer:
            for session in await answer.json():
                await consul.ask(put(f"/v1/session/destroy/{session['ID']}"))
        for kind in ("check", "service"):
            async with http.get(f"{consul_address}/v1/agent/{kind}s") as answer:
                for name in await answer.json():
                    await consul.ask(put(f"/v1/agent/{kind}/deregister/{name}"))
        consul.indexes.clear()
        yield consul, dev


async def same(sides: tuple[Side, Side], *steps: Step, ranks: bool = True) -> None:
    """Both sides answer every step alike, and their indexes tell the same story."""
    for number, step in enumerate(steps, start=1):
        consul, dev = [await side.ask(step) for side in sides]
        assert dev == consul, f"step {number}: {step}"
    if ranks:
        assert sides[1].ranks() == sides[0].ranks()


async def same_soon(sides: tuple[Side, Side], *steps: Step) -> None:
    """As `same`, for what Consul's agent tells its catalogue in the background, so without ranks."""
    consul_side, dev_side = sides
    for step in steps:
        dev = await dev_side.ask(step)
        consul = None
        with contextlib.suppress(TimeoutError):  # the assertion tells more
            async with asyncio.timeout(SETTLE_S):
                while consul != dev:
                    if consul is not None:
                        await asyncio.sleep(0.02)
                    consul = await consul_side.ask(step)
        assert dev == consul, step
