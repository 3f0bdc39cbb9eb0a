"""A server that misbehaves in every way: the watch always converges on the truth and never asks in a hot loop."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

import pytest

from fleet import ConsulStore, Entry, StoreRefused, StoreUnreachable, consul_settings
from tests.listening import listening

Script = Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]
KEY = "hotcold/web/tiers/prod"
WAIT_S = 0.2
GRACE_S = 0.3


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass
class Server:
    """Answers the scripted way, one script per request, then for ever as the last one says."""

    scripts: list[Script]
    asked: list[Asked] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._listening = listening(self._serve)
        self.address = f"http://127.0.0.1:{await self._listening.__aenter__()}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._listening.__aexit__(kind, error, trace)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split()
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        await reader.readexactly(int(headers.get("content-length", 0)))
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        asked = Asked(method, parts.path, query, headers)
        script = self.scripts[min(len(self.asked), len(self.scripts) - 1)]
        self.asked.append(asked)
        await script(asked, writer)
        await writer.drain()


def answer(status: int, body: bytes, *, length: int | None = None, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def pair(value: bytes, index: int) -> bytes:
    encoded = base64.b64encode(value).decode()
    return json.dumps([{"Key": KEY, "Value": encoded, "CreateIndex": 1, "ModifyIndex": index, "Flags": 0}]).encode()


def says(raw: bytes) -> Script:
    async def script(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return script


def holds(value: bytes, index: int, *, modify_index: int = 5) -> Script:
    """Answers at once, whatever is asked."""
    return says(answer(200, pair(value, modify_index), X_Consul_Index=str(index)))


def blocks(value: bytes, index: int) -> Script:
    """A healthy server without changes: it waits when asked with the current index."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.query.get("index") == str(index):
            await asyncio.sleep(float(asked.query["wait"].rstrip("s")) + 0.01)
        writer.write(answer(200, pair(value, 5), X_Consul_Index=str(index)))

    return script


async def hangs(_: Asked, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(5)
    writer.write(answer(500, b"too late"))


async def resets(_: Asked, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


BAD: dict[str, Script] = {
    "500": says(answer(500, b"No cluster leader")),
    "429": says(answer(429, b"Your IP is issuing too many concurrent connections")),
    "503": says(answer(503, b"retry later")),
    "403": says(answer(403, b"Permission denied")),
    "400": says(answer(400, b"bad")),
    "redirect": says(answer(302, b"", Location="http://127.0.0.1:1/")),
    "reset": resets,
    "hang": hangs,
    "half a body": says(answer(200, pair(b"half", 5)[:20], length=500, X_Consul_Index="9")),
    "no index header": says(answer(200, pair(b"wrong", 5))),
    "garbage index": says(answer(200, pair(b"wrong", 5), X_Consul_Index="nine")),
    "garbage": says(answer(200, b"<html>captive portal</html>", X_Consul_Index="9")),
    "truncated JSON": says(answer(200, pair(b"wrong", 5)[:-5], X_Consul_Index="9")),
    "not UTF-8": says(answer(200, b"\xff\xfe", X_Consul_Index="9")),
    "no HTTP": says(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a number": says(answer(200, b"7", X_Consul_Index="9")),
    "a list of numbers": says(answer(200, b"[7]", X_Consul_Index="9")),
    "an object without fields": says(answer(200, b"[{}]", X_Consul_Index="9")),
    "bad base64": says(
        answer(200, pair(b"wrong", 5).replace(base64.b64encode(b"wrong"), b"d3Jvbm"), X_Consul_Index="9")
    ),
    "a 404 of something else": says(answer(404, b"no such page")),
}


@dataclass
class Pauses:
    """Time that passes only while the watch pauses on purpose, so that minutes of back-off cost nothing."""

    now_s: float = 0.0
    longest_s: float = 0.0

    def clock(self) -> float:
        return self.now_s + asyncio.get_running_loop().time()

    async def sleep(self, pause_s: float) -> None:
        self.now_s += pause_s
        self.longest_s = max(self.longest_s, pause_s)
        await asyncio.sleep(0)


@asynccontextmanager
async def watching(server: Server, pauses: Pauses, **settings: object) -> AsyncIterator[ConsulStore]:
    chosen = consul_settings({}, {"address": server.address, "wait_s": WAIT_S, **settings})
    async with ConsulStore(
        chosen, clock=pauses.clock, sleep=pauses.sleep, rng=random.Random(7), grace_s=GRACE_S
    ) as store:
        yield store


async def values(store: ConsulStore, count: int) -> list[bytes | None]:
    found = []
    watch = store.watch(KEY)
    async with asyncio.timeout(60):
        async for entry in watch:
            found.append(None if entry is None else entry.value)
            if len(found) == count:
                return found
    raise AssertionError


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_answer_is_never_news_and_the_watch_goes_on_without_index(name: str) -> None:
    """Between two good answers, a bad one is told to `contact` only; above all it never says that the key is gone."""
    async with Server([holds(b"1", 9), BAD[name], BAD[name], holds(b"2", 8)]) as server:
        pauses = Pauses()
        async with watching(server, pauses) as store:
            assert await values(store, 2) == [b"1", b"2"]
            assert store.contact.error is None

    assert [each.query.get("index") for each in server.asked] == [None, "9", None, None]
    assert pauses.longest_s > 0, "it backed off"


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_answer_to_a_read_is_an_error_that_says_where_and_what_to_do(name: str) -> None:
    async with Server([BAD[name]]) as server, watching(server, Pauses()) as store:
        expected = StoreRefused if name in {"403", "400", "redirect"} else StoreUnreachable
        with pytest.raises(expected, match="Consul"):
            await store.read(KEY)
        assert (store.contact.error is None) is (
            expected is StoreRefused or name in {"an object without fields", "garbage index"}
        )


async def test_a_refusal_names_the_rule_to_grant() -> None:
    async with Server([BAD["403"]]) as server, watching(server, Pauses()) as store:
        with pytest.raises(StoreRefused, match=f'the token needs key "{KEY}" {{ policy = "write" }}') as caught:
            await store.put(KEY, b"")
        assert caught.value.kind == "store_denied"


async def test_a_list_with_entries_filtered_by_acls_is_refused_rather_than_taken_for_deletions() -> None:
    filtered = says(answer(200, b"[]", X_Consul_Index="9", X_Consul_Results_Filtered_By_ACLs="true"))
    async with Server([filtered]) as server, watching(server, Pauses()) as store:
        with pytest.raises(StoreRefused, match="left entries out"):
            await store.read_prefix("hotcold/")


async def test_while_the_watch_is_refused_contact_says_so_until_it_is_allowed() -> None:
    async with Server([BAD["403"]]) as server:
        pauses = Pauses()
        async with watching(server, pauses) as store:
            watch = store.watch(KEY)
            waiting = asyncio.create_task(anext(watch))
            async with asyncio.timeout(10):
                while True:
                    if len(server.asked) > 3:
                        break
                    await asyncio.sleep(0)
            assert "Permission denied" in (store.contact.error or "")
            assert store.contact.last_answer_s is None

            server.scripts = [holds(b"1", 9)]
            entry = await asyncio.wait_for(waiting, 10)
            assert isinstance(entry, Entry)
            assert store.contact.error is None
            await watch.aclose()


async def test_an_index_that_goes_backwards_is_dropped_and_the_value_told() -> None:
    scripts = [holds(b"1", 900), holds(b"2", 12), blocks(b"3", 13)]
    async with Server(scripts) as server, watching(server, Pauses()) as store:
        assert await values(store, 3) == [b"1", b"2", b"3"]

    assert [each.query.get("index") for each in server.asked] == [None, "900", None]


async def test_an_early_answer_with_the_same_index_is_read_again_at_once() -> None:
    """After a restored snapshot the truth is one plain question away."""
    async with Server([holds(b"bad", 9), holds(b"bad", 9), holds(b"good", 8)]) as server:
        pauses = Pauses()
        async with watching(server, pauses) as store:
            assert await values(store, 2) == [b"bad", b"good"]

    assert [each.query.get("index") for each in server.asked] == [None, "9", None]
    assert pauses.longest_s == 0


async def test_an_index_of_zero_does_not_spin() -> None:
    async with Server([holds(b"1", 0), blocks(b"2", 1)]) as server, watching(server, Pauses()) as store:
        assert await values(store, 2) == [b"1", b"2"]
    assert [each.query.get("index") for each in server.asked] == [None, "1"]


@pytest.mark.parametrize("name", ["early same index", "rising index", "flapping", "down", "dropped at once"])
async def test_a_server_that_never_behaves_is_asked_a_bounded_number_of_times_per_minute(name: str) -> None:
    rising = iter(range(10, 10**9))

    async def rises(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await holds(b"1", next(rising))(asked, writer)

    flap = iter(_endless(holds(b"1", 9), BAD["500"]))

    async def flaps(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await next(flap)(asked, writer)

    script = {
        "early same index": holds(b"1", 9),
        "rising index": rises,
        "flapping": flaps,
        "down": BAD["500"],
        "dropped at once": resets,
    }[name]
    async with Server([script]) as server:
        pauses = Pauses()
        async with watching(server, pauses) as store:
            watch = store.watch(KEY)
            if name not in {"down", "dropped at once"}:
                await anext(watch)
            waiting = asyncio.create_task(anext(watch))
            async with asyncio.timeout(30):
                while True:
                    if pauses.now_s > 600:
                        break
                    await asyncio.sleep(0.001)
            await watch.aclose()
            with pytest.raises(StopAsyncIteration):
                await waiting

    # In the ten minutes that passed for the watch.
    assert 5 < len(server.asked) < 200


async def test_a_thousand_flaps_lose_nothing() -> None:
    """Each change is bracketed by failures; the last value is told, in order, and none is invented."""
    rng = random.Random(3)
    bad = [script for name, script in BAD.items() if name != "hang"]
    scripts: list[Script] = []
    for number in range(1000):
        scripts += [rng.choice(bad), holds(b"%d" % number, rng.randint(1, 50), modify_index=number)]
    async with Server(scripts) as server, watching(server, Pauses()) as store:
        found = await values(store, 1000)
    assert found == [b"%d" % number for number in range(1000)]


async def test_the_question_is_held_open_and_asked_in_the_default_mode() -> None:
    async with Server([blocks(b"1", 9)]) as server, watching(server, Pauses(), datacenter="dc2") as store:
        watch = store.watch(KEY)
        await anext(watch)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 1)
    assert server.asked[1].query == {"index": "9", "wait": "0.200s", "dc": "dc2"}
    assert 3 <= len(server.asked) <= 6, "one question per wait"


async def test_a_write_is_never_sent_twice() -> None:
    """A repeated check-and-set would answer False for the one that won."""
    async with Server([resets]) as server, watching(server, Pauses()) as store:
        with pytest.raises(StoreUnreachable):
            await store.put(KEY, b"", cas=0)
        assert len(server.asked) == 1


class TestTokens:
    async def test_the_token_and_credentials_go_with_every_request_and_the_environment_with_none(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The library underneath would let the environment win over what it is told."""
        for name, text in {
            "CONSUL_HTTP_TOKEN": "environment",
            "CONSUL_HTTP_ADDR": "127.0.0.1:1",
            "CONSUL_HTTP_SSL": "true",
            "CONSUL_HTTP_SSL_VERIFY": "false",
        }.items():
            monkeypatch.setenv(name, text)
        async with Server([says(answer(200, b"true"))]) as server:
            async with watching(server, Pauses(), token="given", http_auth="user:pass") as store:
                await store.put(KEY, b"")
                await store.transact([])
                await store.set_maintenance("x", on=True)
            async with watching(server, Pauses()) as store:
                await store.put(KEY, b"")

        assert [each.headers.get("x-consul-token") for each in server.asked] == ["given", "given", None]
        assert server.asked[0].headers["authorization"] == "basic " + "dXNlcjpwYXNz".lower()

    async def test_a_rotated_token_file_is_read_again_when_the_old_token_is_refused(self, tmp_path: Path) -> None:
        """The caller sees no failure: a refused request changed nothing, so it is asked again."""
        file = tmp_path / "token"
        file.write_text("old\n")

        async def checks(asked: Asked, writer: asyncio.StreamWriter) -> None:
            good = asked.headers.get("x-consul-token") == file.read_text().strip()
            writer.write(answer(200, b"true") if good else answer(403, b"ACL not found"))

        async with Server([checks]) as server, watching(server, Pauses(), token_file=str(file)) as store:
            assert await store.put(KEY, b"")
            file.write_text("new\n")
            assert await store.put(KEY, b"")
            file.write_text("newer, but the server never gets it: refused once, not in a loop")
            assert await store.put(KEY, b"")

        assert len(server.asked) == 5

    async def test_a_refused_token_that_did_not_change_is_refused_once(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("old")
        async with Server([BAD["403"]]) as server, watching(server, Pauses(), token_file=str(file)) as store:
            with pytest.raises(StoreRefused):
                await store.read(KEY)
            file.unlink()
            with pytest.raises(StoreRefused):
                await store.read(KEY)
        assert len(server.asked) == 2

    @pytest.mark.parametrize("content", [None, b"", b"\n", b"a\nb", b"\xff"])
    async def test_a_token_file_without_a_token_is_an_error_that_names_it(
        self, tmp_path: Path, content: bytes | None
    ) -> None:
        file = tmp_path / "token"
        if content is not None:
            file.write_bytes(content)
        store = ConsulStore(consul_settings({"CONSUL_HTTP_TOKEN_FILE": str(file)}))
        with pytest.raises(Exception, match=str(file)) as caught:
            await store.open()
        assert caught.value.kind == "token_file"
        await store.aclose()


async def test_a_path_prefix_stands_before_every_request() -> None:
    async with Server([says(answer(200, b"true"))]) as server:
        chosen = consul_settings({}, {"address": f"{server.address}/behind/proxy/"})
        async with ConsulStore(chosen) as store:
            await store.put(KEY, b"")
    assert server.asked[0].path == f"/behind/proxy/v1/kv/{KEY}"


def _endless(*scripts: Script) -> Iterable[Script]:
    while True:
        yield from scripts
