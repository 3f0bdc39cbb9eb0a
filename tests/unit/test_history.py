"""What has happened is kept over restarts and told as it happens; what cannot be kept stops nothing."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
import structlog

from agent.config import LogTable, SocketAccess
from agent.history import FILE, KEPT_IN_MEMORY, MAX_FILE_BYTES, History
from agent.logs import configure_logs
from agent.server import StatusServer, Writers
from agent.work import Observed


@asynccontextmanager
async def living(path: Path) -> AsyncIterator[History]:
    """A history that is written down."""
    history = await History.open(path)
    task = asyncio.create_task(history.run())
    try:
        yield history
        await settled(history)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settled(history: History) -> None:
    """Until what was noted before has been taken."""
    last = -1
    while history.last_id != last:
        last = history.last_id
        await asyncio.sleep(0.01)


def note(history: History, event: str, **facts: object) -> None:
    history.note(None, "info", {"event": event, "level": "info", "timestamp": "2026-11-23T10:00:00Z", **facts})


async def test_events_are_numbered_over_restarts_and_read_back(tmp_path: Path) -> None:
    async with living(tmp_path) as history:
        note(history, "order", serial=1, path=tmp_path)
        note(history, "state", state="fetching")
    async with living(tmp_path) as history:
        note(history, "swapped", took_us=31)
        await settled(history)
        assert [(event.id, event.event) for event in history.events()] == [(1, "order"), (2, "state"), (3, "swapped")]
        assert history.events(limit=1)[0].facts == {"took_us": 31}
        assert [event.id for event in history.events(after=1)] == [2, 3]
        assert history.events(limit=0) == []
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert lines[0] == {
        "id": 1,
        "at": "2026-11-23T10:00:00Z",
        "event": "order",
        "level": "info",
        "facts": {"serial": 1, "path": str(tmp_path)},
    }


async def test_torn_lines_are_passed_over(tmp_path: Path) -> None:
    async with living(tmp_path) as history:
        note(history, "order")
        note(history, "state")
    with (tmp_path / FILE).open("ab") as file:
        file.write(bytes(100) + b'\n{"id": 3, "at"')
    async with living(tmp_path) as history:
        assert [event.id for event in history.events()] == [1, 2]


async def test_the_file_is_rotated_and_both_parts_are_read(tmp_path: Path) -> None:
    text = "x" * 10_000
    async with living(tmp_path) as history:
        for number in range(MAX_FILE_BYTES // 10_000 + 5):
            note(history, "hook ran", output=text, number=number)
            if number % 50 == 0:
                await settled(history)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]  # noqa: ASYNC240 - nothing else runs
    assert len(sizes) == 2
    assert max(sizes) <= MAX_FILE_BYTES
    async with living(tmp_path) as history:
        assert [event.id for event in history.events()] == list(range(1, MAX_FILE_BYTES // 10_000 + 6))


async def test_memory_is_bounded(tmp_path: Path) -> None:
    async with living(tmp_path) as history:
        for _ in range(KEPT_IN_MEMORY + 10):
            note(history, "state")
        await settled(history)
        assert [event.id for event in history.events()][:: KEPT_IN_MEMORY - 1] == [11, KEPT_IN_MEMORY + 10]


async def test_a_disk_that_takes_nothing_stops_nothing(tmp_path: Path) -> None:
    async with living(tmp_path / "gone") as history:
        note(history, "state")
        await settled(history)
        assert [event.event for event in history.events()] == ["state"]


@pytest.mark.parametrize("level", ["debug", "warning", "error"])
async def test_the_history_has_more_than_a_log_that_shows_little(tmp_path: Path, level: str) -> None:
    stream = io.StringIO()
    before = structlog.get_config()
    try:
        async with living(tmp_path) as history:
            configure_logs(LogTable(level=level), {}, stream, note=history.note)
            log = structlog.get_logger()
            log.debug("too small")
            log.info("state", state="fetching")
            log.warning("drain failed")
            await settled(history)
            assert [event.event for event in history.events()] == ["state", "drain failed"]
    finally:
        structlog.configure(**before)
    shown = {"debug": 3, "warning": 1, "error": 0}[level]
    assert len(stream.getvalue().splitlines()) == shown


# --- over the socket --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def served(history: History, path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    async def no_status() -> dict[str, object]:
        return {}

    server = StatusServer(
        path,
        SocketAccess(),
        writers=lambda: Writers(None, "x"),
        status=no_status,
        observed=Observed(),
        unhealthy=lambda: None,
        post=lambda _: None,
        refusal=lambda: None,
        history=history,
    )
    await server.start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
            yield session
    finally:
        await server.aclose()


async def next_event(response: aiohttp.ClientResponse) -> tuple[int, str]:
    lines = []
    async with asyncio.timeout(10):
        while (line := (await response.content.readline()).decode().rstrip("\n")) or not lines:
            lines.append(line)
    fields = dict(line.split(": ", 1) for line in lines)
    assert json.loads(fields["data"])["id"] == int(fields["id"])
    return int(fields["id"]), fields["event"]


async def test_listeners_hear_what_happens_and_go_on_where_they_were(tmp_path: Path) -> None:
    async with living(tmp_path) as history, served(history, tmp_path / "socket") as session:
        note(history, "before")
        await settled(history)
        async with session.get("http://agent/v1/events") as response:
            assert response.content_type == "text/event-stream"
            note(history, "state")
            assert await next_event(response) == (2, "state")
        note(history, "missed")
        await settled(history)
        async with session.get("http://agent/v1/events", headers={"Last-Event-ID": "2"}) as response:
            assert await next_event(response) == (3, "missed")
            note(history, "next")
            assert await next_event(response) == (4, "next")
        async with session.get("http://agent/v1/history?limit=2") as response:
            assert [event["event"] for event in (await response.json())["events"]] == ["missed", "next"]


@pytest.mark.parametrize(("target", "headers"), [("history?limit=x", {}), ("events", {"Last-Event-ID": "x"})])
async def test_nonsense_is_refused(tmp_path: Path, target: str, headers: dict[str, str]) -> None:
    async with (
        living(tmp_path) as history,
        served(history, tmp_path / "socket") as session,
        session.get(f"http://agent/v1/{target}", headers=headers) as response,
    ):
        assert response.status == 400
        assert "must be" in (await response.json())["error"]["message"]
