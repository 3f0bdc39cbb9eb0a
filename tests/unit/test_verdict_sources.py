"""Sources of counts: what a good one gives, and that every failure and every lie is told and is no verdict."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from checkpoint.verdicts import Counts, Evidence, Interval, Metric, judge, parse_metrics
from checkpoint.verdicts.metric import CommandTable, HttpTable, PrometheusTable, ReportsTable
from checkpoint.verdicts.sources import Asked, Sources
from fleet import Report
from tests.listening import listening

ASKED = Asked(app="shop", tiers=("prod",), updated=("web-1", "web-2"), others=("web-3.eu",), interval_s=60.0)
GOOD = {
    "hosts": [
        {"host": "web-3.eu", "bad": 0, "total": 50},
        {"host": "web-1", "bad": 1, "total": 100},
        {"host": "web-2", "bad": 0, "total": 90.5},
    ]
}
INTERVAL = Interval(
    updated=(Counts("web-1", 1.0, 100.0), Counts("web-2", 0.0, 90.5)), others=(Counts("web-3.eu", 0.0, 50.0),)
)


async def observed(metric: Metric, asked: Asked = ASKED) -> Interval:
    async with Sources([metric]) as sources:
        return await sources.observe(metric, asked)


def told(interval: Interval) -> str:
    """Why there is no verdict: a source never raises, and no failure of it may pass."""
    _, verdict = judge(Metric(name="m", reports=ReportsTable()), Evidence(), interval)
    assert (verdict.outcome, verdict.action) == ("none", "wait")
    return verdict.reason


# --- a command --------------------------------------------------------------------------------------------------------


def command(code: str, *, timeout_s: float = 60.0, counters: bool = False) -> Metric:
    argv = (sys.executable, "-c", code)
    return Metric(name="m", command=CommandTable(argv=argv, timeout_s=timeout_s, counters=counters))


async def test_a_command_reads_what_is_asked_and_prints_counts() -> None:
    """Hosts in any order; the question stands on its standard input."""
    code = (
        "import json, sys; asked = json.load(sys.stdin)\n"
        "assert asked == {'app': 'shop', 'tiers': ['prod'], 'updated': ['web-1', 'web-2'], 'others': ['web-3.eu'],"
        " 'interval_s': 60.0}\n"
        f"print({json.dumps(GOOD)!r})"
    )
    assert await observed(command(code)) == INTERVAL


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import sys; sys.exit('database is away')", "ended with status 1: database is away"),
        ("print('[]')", "expected is"),
        ('print(\'{"hosts": [{"host": "web-1", "bad": NaN, "total": 1}]}\')', "expected is"),
        ('print(\'{"hosts": [{"host": "web-1", "good": 1, "total": 1}]}\')', "expected is"),
        ("", "expected is"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "ended with status -15"),
        ("print('x' * (17 << 20))", "printed more than 16 MiB"),
    ],
)
async def test_a_command_that_fails_is_no_verdict(code: str, why: str) -> None:
    """With its own words, where it has some."""
    assert why in told(await observed(command(code)))


async def test_a_command_that_is_not_there_is_no_verdict() -> None:
    """Nothing is raised for it."""
    metric = Metric(name="m", command=CommandTable(argv=("/nonexistent/counts",)))
    assert "cannot run /nonexistent/counts: No such file" in told(await observed(metric))


async def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    """When its time is over, nothing of its process group is left."""
    fifo = tmp_path / "held"
    os.mkfifo(fifo)
    # The child keeps the other end of the pipe open, for ever, unless it is ended, too.
    code = f"import subprocess, time; subprocess.Popen(['sh', '-c', 'exec 9>{fifo}; sleep 600']); time.sleep(600)"
    end = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        interval = await observed(command(code, timeout_s=3.0))
        assert "did not end within 3 s" in told(interval)
        async with asyncio.timeout(30):
            while _is_held(end):  # noqa: ASYNC110 - by another process, which tells nobody
                await asyncio.sleep(0.02)
    finally:
        os.close(end)


def _is_held(end: int) -> bool:
    """Whether anybody has the pipe open for writing."""
    try:
        return os.read(end, 1) != b""
    except BlockingIOError:
        return True


# --- a URL ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def answering(answer: Callable[[str, str], tuple[int, Any]], seen: list[str] | None = None) -> AsyncIterator[str]:
    """A server that answers each request (its first line and its body) with a status and JSON or bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode().split("\r\n")
            lengths = [line.partition(":")[2] for line in lines if line.lower().startswith("content-length:")]
            body = (await reader.readexactly(int(lengths[0]) if lengths else 0)).decode()
            if seen is not None:
                seen.append(head.decode())
            status, content = answer(lines[0], body)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(data), data))
            await writer.drain()

    async with listening(handle) as port:
        yield f"http://127.0.0.1:{port}"


def http(url: str, **settings: Any) -> Metric:
    return Metric(name="m", http=HttpTable(url=url, **settings))


async def test_a_url_is_told_what_is_asked(tmp_path: Path) -> None:
    """Words are quoted; the token of a file is sent."""
    token, seen = tmp_path / "token", list[str]()
    token.write_text("s3cret\n")
    async with answering(lambda *_: (200, GOOD), seen) as url:
        metric = http(f"{url}/counts?app=$app&hosts=$hosts&s=$interval&t=$tiers", bearer_file=str(token))
        assert await observed(metric) == INTERVAL
    assert seen[0].startswith("GET /counts?app=shop&hosts=web-1,web-2,web-3.eu&s=60&t=prod HTTP/1.1\r\n")
    assert "Authorization: Bearer s3cret" in seen[0]


@pytest.mark.parametrize(
    ("status", "content", "why"),
    [
        (500, b"no", "answered 500: 'no'"),
        (302, b"", "answered 302"),
        (200, b"<html>", "expected is"),
        (200, {"hosts": [{"host": "web-9", "bad": 0, "total": 1}]}, "host web-9, of which it was not asked"),
        (200, {"hosts": [{"host": "web-1", "bad": 0, "total": 1}] * 2}, "speaks of host web-1 twice"),
        (200, {"hosts": [{"host": "web-1", "bad": 2, "total": 1}]}, "web-1: 2 bad are more than the total of 1"),
        (200, {"hosts": [{"host": "web-1", "bad": -1, "total": 1}]}, "web-1: bad -1 of 1 is negative"),
        (200, {"hosts": []}, "nothing is known of any updated host"),
        (200, {"hosts": GOOD["hosts"][:2]}, "1 of 2 updated hosts are silent: web-2"),
        (200, b"x" * (17 << 20), "answered more than 16 MiB"),
    ],
)
async def test_a_url_that_fails_or_lies_is_no_verdict(status: int, content: Any, why: str) -> None:
    """And what was wrong is said."""
    async with answering(lambda *_: (status, content)) as url:
        assert why in told(await observed(http(f"{url}/counts")))


async def test_a_url_that_does_not_answer_is_no_verdict(tmp_path: Path) -> None:
    """Refused, cut off, slow, or without its token."""

    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(hang) as port:
        assert "gave no answer within 0.2 s" in told(await observed(http(f"http://127.0.0.1:{port}/x", timeout_s=0.2)))
    assert "failed: Connection refused" in told(await observed(http(f"http://127.0.0.1:{port}/x")))
    missing = http(f"http://127.0.0.1:{port}/x", bearer_file=str(tmp_path / "none"))
    assert "cannot read the token" in told(await observed(missing))


async def test_counters_are_compared_with_the_reading_before() -> None:
    """The first reading tells nothing; a reset is told, and costs that host one interval."""
    readings = iter(
        [
            {"web-1": (5, 1000), "web-2": (7, 900), "web-3.eu": (0, 10)},
            {"web-1": (6, 1100), "web-2": (7, 990), "web-3.eu": (0, 60)},
            {"web-1": (0, 40), "web-2": (9, 1090), "web-3.eu": (0, 110)},
            {"web-1": (1, 140), "web-2": (9, 1190), "web-3.eu": (0, 160)},
        ]
    )

    def answer(*_: str) -> tuple[int, Any]:
        rows = next(readings).items()
        return 200, {"hosts": [{"host": host, "bad": bad, "total": total} for host, (bad, total) in rows]}

    async with answering(answer) as url:
        metric = http(f"{url}/counts", counters=True)
        async with Sources([metric]) as sources:
            first, second, third, fourth = [await sources.observe(metric, ASKED) for _ in range(4)]
    assert "read for the first time" in told(first)
    assert (second.updated, second.others) == (
        (Counts("web-1", 1.0, 100.0), Counts("web-2", 0.0, 90.0)),
        (Counts("web-3.eu", 0.0, 50.0),),
    )
    assert third.silent == ("web-1",)
    assert "web-1: its counters were reset: bad 6 to 0, total 1100 to 40" in told(third)
    assert fourth.updated[0] == Counts("web-1", 1.0, 100.0)


async def test_counters_go_on_from_what_another_engine_read() -> None:
    """And a host that was left out of a look, since it changed its build, begins anew."""
    readings = iter([("web-1", 11, 1400), ("web-1", 12, 1500), ("web-2", 0, 5), ("web-1", 21, 1700)])

    def answer(*_: str) -> tuple[int, Any]:
        host, bad, total = next(readings)
        return 200, {"hosts": [{"host": host, "bad": bad, "total": total}]}

    before = (Counts("web-1", 5.0, 1000.0), Counts("gone", 1.0, 1.0))
    only = replace(ASKED, updated=("web-1",), others=())
    async with answering(answer) as url:
        metric = http(f"{url}/counts", counters=True)
        async with Sources([metric]) as sources:
            first = await sources.observe(metric, replace(only, readings=before))
            second = await sources.observe(metric, replace(only, readings=before))
            assert sources.readings(metric) == (Counts("web-1", 12.0, 1500.0),)
            await sources.observe(metric, replace(only, updated=("web-2",)))
            third = await sources.observe(metric, only)
    assert (first.updated, second.updated) == ((Counts("web-1", 6.0, 400.0),), (Counts("web-1", 1.0, 100.0),))
    assert "read for the first time" in told(third)


# --- Prometheus -------------------------------------------------------------------------------------------------------


def vector(**values: str) -> dict[str, Any]:
    result = [{"metric": {"instance": f"{host}:9100"}, "value": [1.0, value]} for host, value in values.items()]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def prometheus(url: str, **settings: Any) -> Metric:
    table = PrometheusTable(url=url, bad='bad{app="$app",host=~"$hosts"}[$interval]', total="total$$", **settings)
    return Metric(name="m", prometheus=table)


NAMED = {"web-1": "1.07", "web-2": "0", "web-3.eu": "0"}
TOTALS = {"web-1": "100", "web-2": "90.5", "web-3.eu": "50"}


def answers(bad: Any, total: Any) -> Callable[[str, str], tuple[int, Any]]:
    """By which query it is."""
    return lambda _, body: (200, bad if parse_qs(body)["query"][0].startswith("bad") else total)


async def test_prometheus_is_asked_for_bad_and_total() -> None:
    """With the words filled in; whole failures are made of what `increase` stretched."""
    asked: list[str] = []

    def answer(line: str, body: str) -> tuple[int, Any]:
        assert line == "POST /api/v1/query HTTP/1.1"
        asked.append(parse_qs(body)["query"][0])
        return answers(vector(**NAMED), vector(**TOTALS))(line, body)

    async with answering(answer) as url:
        assert await observed(prometheus(url)) == INTERVAL
    assert asked == ['bad{app="shop",host=~"web-1|web-2|web-3[.]eu"}[60s]', "total$"]


@pytest.mark.parametrize(
    ("bad", "total", "why"),
    [
        ({"status": "error", "error": "parse error"}, vector(**TOTALS), "(bad) refused: parse error"),
        (vector(**NAMED), {"status": "success"}, "(total) refused"),
        ({**vector(**NAMED), "warnings": ["a store is away"]}, vector(**TOTALS), "warns: a store is away"),
        ({"status": "success", "data": {"resultType": "scalar", "result": [1, "2"]}}, vector(**TOTALS), "a scalar"),
        ({"status": "success", "data": {"resultType": "vector", "result": 5}}, vector(**TOTALS), "is it Prometheus?"),
        (b"<html>", vector(**TOTALS), "is it Prometheus?"),
        (vector(**{**NAMED, "web-1": "NaN"}), vector(**TOTALS), "web-1: bad nan of 100 is no number"),
        (vector(**{**NAMED, "web-1": "-1"}), vector(**TOTALS), "web-1: bad -1 of 100 is negative"),
        (vector(**{**NAMED, "web-1": "101"}), vector(**TOTALS), "101 bad are more than the total of 100"),
        (vector(**{**NAMED, "web-1": "+Inf"}), vector(**TOTALS), "is no number"),
        (vector(**{**NAMED, "web-8": "1"}), vector(**{**TOTALS, "web-8": "1"}), "web-8, of which it was not asked"),
        (vector(), vector(), "nothing is known of any updated host"),
        (vector(), vector(**TOTALS), "it has `total`, but no `bad`"),
        (vector(**NAMED), vector(), "it has `bad`, but no `total`"),
    ],
)
async def test_prometheus_that_fails_or_lies_is_no_verdict(bad: Any, total: Any, why: str) -> None:
    """Whatever it says instead of one number for each host."""
    async with answering(answers(bad, total)) as url:
        assert why in told(await observed(prometheus(url)))


async def test_prometheus_values_have_to_name_their_host_once() -> None:
    """Else failures of one would be another's."""
    nameless = {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "1"]}]}}
    twice = vector(**NAMED)
    twice["data"]["result"] *= 2
    for bad, why in ((nameless, "without label `instance`"), (twice, "two values for host web-1")):
        async with answering(answers(bad, vector(**TOTALS))) as url:
            assert why in told(await observed(prometheus(url)))


async def test_no_series_of_failures_may_be_said_to_mean_none() -> None:
    """Only where it was said so."""
    async with answering(answers(vector(), vector(**TOTALS))) as url:
        interval = await observed(prometheus(url, absent_bad_is_zero=True))
    assert interval.updated == (Counts("web-1", 0.0, 100.0), Counts("web-2", 0.0, 90.5))


# --- reports ----------------------------------------------------------------------------------------------------------


def report(host: str, state: str, *, wanted: str = "b2", since: str = "") -> Report:
    return Report(
        v=1, app="shop", tier="prod", host=host, serial=2, highest=2, state=state, wanted=wanted, hot="b1", since=since
    )


async def test_each_deploy_counts_once_when_its_end_shows() -> None:
    """Failed, refused, or done; whoever is still at it has nothing to count, and silence is silence."""
    metric = Metric(name="deploys", limit=0.02, reports=ReportsTable())
    steps = [
        [report("web-1", "steady", wanted="b1"), report("web-2", "steady", wanted="b1"), report("web-3.eu", "steady")],
        [report("web-1", "fetching"), report("web-2", "draining"), report("web-3.eu", "steady")],
        [report("web-1", "steady"), report("web-2", "rolled_back", since="t1"), report("web-3.eu", "steady")],
        [report("web-1", "steady"), report("web-2", "rolled_back", since="t1"), report("web-3.eu", "steady")],
        [report("web-1", "steady"), report("web-2", "rolled_back", since="t2")],
        [report("web-1", "build_refused", since="t3")],
    ]
    async with Sources([metric]) as sources:
        seen = [await sources.observe(metric, replace(ASKED, reports=tuple(reports))) for reports in steps]
    told_of = [[(each.bad, each.total) for each in interval.updated] for interval in seen]
    assert told_of == [
        [(0, 0), (0, 0)],
        [(0, 0), (0, 0)],
        [(0, 1), (1, 1)],
        [(0, 0), (0, 0)],
        [(0, 0), (1, 1)],
        [(1, 1)],
    ]
    assert seen[5].silent == ("web-2",)
    assert all(each.total == 0 for interval in seen for each in interval.others)


async def test_the_first_look_of_an_engine_counts_what_came_since_the_last_one_of_another() -> None:
    """By the hosts' own times; one that tells none, or an earlier one, was counted before or is not known."""
    metric = Metric(name="deploys", limit=0.02, reports=ReportsTable())
    last = datetime(2026, 11, 23, 15, tzinfo=UTC)
    asked = replace(
        ASKED,
        updated=("web-1", "web-2", "web-4", "web-5"),
        last_look=last,
        reports=(
            report("web-1", "steady", since="2026-11-23T15:00:01+00:00"),
            report("web-2", "rolled_back", since="2026-11-23T15:20:00+00:00"),
            report("web-4", "rolled_back", since="2026-11-23T14:59:59+00:00"),
            report("web-5", "rolled_back", since="yesterday"),
            report("web-3.eu", "steady"),
        ),
    )
    async with Sources([metric]) as sources:
        first = await sources.observe(metric, asked)
        second = await sources.observe(metric, asked)
    assert [(each.host, each.bad, each.total) for each in first.updated if each.total] == [
        ("web-1", 0.0, 1.0),
        ("web-2", 1.0, 1.0),
    ]
    assert all(each.total == 0 for each in second.updated)


def test_every_source_can_be_configured() -> None:
    """And each has its own class behind it."""
    metrics = parse_metrics(
        '[[metrics]]\nname = "a"\nlimit = 0.02\n[metrics.reports]\n'
        '[[metrics]]\nname = "b"\n[metrics.command]\nargv = ["x"]\ncounters = true\n'
        '[[metrics]]\nname = "c"\n[metrics.http]\nurl = "http://x/y"\n'
        '[[metrics]]\nname = "d"\n[metrics.prometheus]\nurl = "http://x"\nbad = "b"\ntotal = "t"\n'
    )
    assert len({type(source) for source in Sources(metrics)._sources.values()}) == 4
