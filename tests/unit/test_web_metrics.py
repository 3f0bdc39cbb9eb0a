"""Verdicts and charts of metrics on the pages: what is drawn, who may see it, that it follows, and is never markup."""

from __future__ import annotations

import asyncio
import html
import json
import math
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web as aio
from aiohttp.test_utils import TestServer
from msgspec.structs import replace as changed

from checkpoint.charting import Charts
from checkpoint.metric_judge import MetricJudge
from checkpoint.rollout import events as ev
from checkpoint.rollout import states
from checkpoint.rollout.document import document
from checkpoint.rollout.kept_evidence import JUDGE, AllKept, Judged, Kept, metric_views
from checkpoint.rollout.ledger import KEPT_ROLLOUTS
from checkpoint.rollout.machine import begin
from checkpoint.series import Mark, Point, Series
from checkpoint.verdicts import Evidence, Metric, Verdict
from checkpoint.verdicts.metric import CommandTable, HttpTable, PrometheusTable, ReportsTable
from checkpoint.verdicts.sources import Sources
from checkpoint.web.metrics import drawing, metric_rows, newest, source_of
from fleet import decode_report, encode
from fleet.keys import evidence_key, hosts_prefix, series_key
from hotcold.rollout_view import status_lines
from tests.metric_world import METRICS, Course
from tests.rollout_world import MONDAY, PIPELINE, RolloutWorld, a_plan, by
from tests.web_world import Client, WebWorld, web_world

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path, pipeline=PIPELINE + METRICS) as made:
        yield made


async def baking(web: WebWorld, step: int = 3) -> Course:
    """A rollout whose step is on, and its metrics."""
    await web.world.start()
    await web.world.until(lambda now: now.rollout.phase_name == "baking" and now.rollout.phase.step == step)
    return Course(web.world)


async def charted(client: Client, count: int, path: str = "/rollouts/1/charts") -> dict[str, Any]:
    """The course, once it has so many intervals of the first metric."""
    async with asyncio.timeout(60):
        while True:
            drawn: dict[str, Any] = json.loads((await client.get(path)).text)
            if len(drawn["metrics"][0]["at"]) == count:
                return drawn
            await asyncio.sleep(0.02)


def test_a_drawing_has_columns_lines_and_marks() -> None:
    """Logarithms of lines, as many times higher as there are metrics; a gap is null in every column but the time."""
    plan = a_plan(PIPELINE + METRICS)
    rollout, _ = begin(plan, by())
    rollout = changed(rollout, phase=states.RolledBack(step=2, since=MONDAY, by="anna", reason="errors"))
    point = Point(
        60, is_gap=False, bad=3, total=600, other_bad=1, other_total=500, log10_evidence=1.5, log10_without=-3.0,
        estimate=None, lower=1.25, upper=None,
    )  # fmt: skip
    series = Series(metrics={"errors": (point, Point(120, is_gap=True))}, marks=(Mark(0, "prod to 10 %"),))
    drawn = drawing(plan, rollout, metric_views(plan, rollout, None), series)
    assert json.loads(json.dumps(drawn, allow_nan=False)) == drawn
    assert drawn["marks"] == [{"at": 0, "name": "prod to 10 %"}, {"at": int(MONDAY.timestamp()), "name": "rolled back"}]
    errors, slow, deploys = drawn["metrics"]
    assert errors["at"] == [60, 120]
    assert {name: errors[name] for name in ("updated", "others", "evidence", "without", "ratio", "lower", "upper")} == {
        "updated": [0.005, None], "others": [0.002, None], "evidence": [1.5, None], "without": [-3.0, None],
        "ratio": [None, None], "lower": [1.25, None], "upper": [None, None],
    }  # fmt: skip
    lines = {line["name"]: line["at"] for line in slow["lines"]}
    assert lines == pytest.approx({"wait": 1, "pause": math.log10(300), "roll back": math.log10(3000)}, abs=1e-3)
    assert (errors["tolerance"], errors["limit"]) == (1.5, None)
    assert (deploys["tolerance"], deploys["limit"], deploys["at"]) == (1.0, 0.02, [])

    news = newest(rollout, metric_views(plan, rollout, None), series)
    assert (news["metrics"][0]["at"], news["metrics"][0]["before"]) == ([120], 60)
    assert (news["metrics"][1]["at"], news["metrics"][1]["before"]) == ([], None)
    assert news["marks"] == drawn["marks"]


def test_a_row_says_what_the_chart_shows() -> None:
    """Verdict in words, weak, lost, and the last values; a z-score once there are enough."""
    plan = a_plan(PIPELINE + METRICS)
    rollout, _ = begin(plan, by())
    verdict = Verdict(
        outcome="fail",
        action="set_aside_host",
        reason="it is the host",
        host="prod-01",
        is_weak=True,
        log10_evidence=0.5,
    )
    judged = Judged(evidence=Evidence(), verdict=verdict, problem="gone")
    kept = AllKept(judges={JUDGE: msgspec.Raw(msgspec.json.encode(Kept(at=MONDAY, metrics={"errors": judged})))})
    views = metric_views(plan, rollout, msgspec.json.encode(kept))
    points = tuple(
        Point(60 * number, is_gap=False, bad=number % 3, total=600, other_bad=1, other_total=600, log10_evidence=0.5)
        for number in range(16)
    )
    errors, slow, deploys = metric_rows(views, Series(metrics={"errors": points, "deploys": (Point(1, is_gap=True),)}))
    assert (errors.words, errors.source) == ("fail: set a host aside", "Prometheus at prometheus.example:9090")
    last = dict(errors.last)
    assert last["Updated hosts"] == "0 %: 0 of 600"
    assert last["Not yet updated"] == "0.167 %: 1 of 600"
    assert last["Evidence"] == "3.2"
    assert "Without any one host" not in last
    assert float(last["z-score, decides nothing"]) == pytest.approx(-1.2, abs=0.1)
    assert (slow.words, slow.last) == ("none", ())
    assert deploys.last == (("Last interval", "nothing is known of it"),)


def test_a_source_is_named_without_its_secrets() -> None:
    url = "https://anna:hunter2@metrics.example:8443/counts?token=hunter2"
    for facts in (
        {"prometheus": PrometheusTable(url=url, bad="bad", total="total")},
        {"http": HttpTable(url=url)},
        {"command": CommandTable(argv=("count", "--token", "hunter2"))},
        {"reports": ReportsTable(), "limit": 0.1},
    ):
        said = source_of(Metric(name="errors", **facts))  # type: ignore[arg-type]
        assert "hunter2" not in said
        assert "metrics.example:8443" in said or said in {"the command count", "the agents' reports"}


async def test_pages_show_verdicts_and_their_reasons(web: WebWorld) -> None:
    """Chips on Train and the rollout's page, words and tables for everybody; then a source fails, and that is told."""
    course = await baking(web)
    course.worse = {"errors": 20.0}
    await course.minutes(3)
    client = await web.as_("read")
    drawn = await charted(client, 3)
    assert [mark["name"] for mark in drawn["marks"]] == ["prod to 25 %"]
    assert drawn["metrics"][0]["evidence"][-1] > 2
    train, page = (await client.get("/")).text, (await client.get("/rollouts/1")).text
    for text in (train, page):
        assert 'data-v="roll_back"' in text
        assert 'href="/rollouts/1#metric-0"' in text
        assert "fail: roll back" in text
        assert "roll-back line 300" in text
    assert 'data-from="/rollouts/1/charts"' in page
    assert "<caption" in page
    assert "Times as frequent" in page
    assert "secret" not in page
    course.lost = {"slow-checkouts": "it did not end within 30 s"}
    await course.minutes(1)
    drawn = await charted(client, 4)
    assert drawn["metrics"][1]["updated"][-1] is None
    page = (await client.get("/rollouts/1")).text
    assert "<b>The source failed</b> when it was asked last: the command /usr/local/bin/count-slow: it did not" in page
    assert "source failed" in (await client.get("/")).text


async def test_without_metrics_it_says_what_to_do(tmp_path: Path) -> None:
    async with web_world(tmp_path) as web:
        await web.world.start()
        await web.shown()
        client = await web.as_("read")
        page = (await client.get("/rollouts/1")).text
        assert "No metrics are configured for this rollout" in page
        assert 'id="charts"' not in page
        assert json.loads((await client.get("/rollouts/1/charts")).text) == {"number": 1, "metrics": [], "marks": []}
        assert (await client.get("/rollouts/7/charts")).status == 404


async def test_nobody_who_is_not_signed_in_sees_a_course(web: WebWorld) -> None:
    await baking(web)
    assert (await web.client().get("/rollouts/1/charts")).status == 401
    bearer = {"Authorization": f"Bearer {web.tokens['read']}"}
    assert (await web.client().get("/rollouts/1/charts", headers=bearer)).status == 200


async def test_names_and_reasons_are_never_markup(web: WebWorld) -> None:
    """A plan and evidence that somebody wrote into Consul by hand."""
    await web.world.start()
    ongoing = await web.world.now()
    metric = Metric(name=EVIL, command=CommandTable(argv=(EVIL,)))
    pipeline = changed(ongoing.plan.pipeline, metrics=(metric,))
    course = Course(web.world)
    verdict = Verdict(outcome="fail", action="pause", reason=EVIL, metric=EVIL, host=EVIL)
    course.kept = Kept(at=MONDAY, metrics={EVIL: Judged(verdict=verdict, problem=EVIL)})
    course.series = Series(metrics={EVIL: (Point(1, is_gap=True),)}, marks=(Mark(1, EVIL),))
    await course.write(web.world.store, ongoing.plan)
    plan_key = f"hotcold/shop/checkpoint/rollouts/{ongoing.plan.number}/plan"
    entry = await web.world.store.read(plan_key)
    assert entry is not None
    hostile = msgspec.json.encode(changed(ongoing.plan, pipeline=pipeline, salt="another"))
    assert await web.world.store.put(plan_key, hostile, cas=entry.modify_index)
    state_key = plan_key.replace("/plan", "/state")
    entry = await web.world.store.read(state_key)
    assert entry is not None
    state = msgspec.json.encode(changed(ongoing.rollout, salt="another"))
    assert await web.world.store.put(state_key, state, cas=entry.modify_index)
    await web.world.desk.guarding.lock(web.world.origin())  # a record, so that all of it is read anew
    client = await web.as_("read")
    page = ""
    async with asyncio.timeout(60):
        while html.escape(EVIL) not in page:
            await asyncio.sleep(0.02)
            page = (await client.get("/rollouts/1")).text
    page += (await client.get("/")).text
    async with client.session.get(f"{client.url}/events?page=rollout&number=1") as response:
        text = ""
        async with asyncio.timeout(60):
            while "event: pulse" not in text:
                text += (await response.content.readany()).decode()
    parts, _, rest = text.partition("event: charts")
    for shown in (page, parts):
        assert "<script>alert" not in shown
        assert "<img src=x" not in shown
    assert EVIL in json.loads(rest.partition("data: ")[2].partition("\n")[0])["metrics"][0]["name"]
    answer = await client.get("/rollouts/1/charts")
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_the_stream_brings_each_interval_to_open_charts(web: WebWorld) -> None:
    """Only the newest point, with the time of the one before; nothing where nothing is new."""
    course = await baking(web)
    await course.minutes(2)
    client = await web.as_("read")
    await charted(client, 2)
    async with asyncio.timeout(60), client.session.get(f"{client.url}/events?page=rollout&number=1") as response:
        text = ""

        async def news(after: int) -> dict[str, Any]:
            nonlocal text
            while text.count("event: charts") <= after or not text.endswith("\n\n"):
                text += (await response.content.readany()).decode()
            data: dict[str, Any] = json.loads(
                text.split("event: charts")[after + 1].partition("data: ")[2].split("\n")[0]
            )
            return data

        first = (await news(0))["metrics"][0]
        await course.minutes(1)
        number = 1
        while (second := (await news(number))["metrics"][0])["at"] == first["at"]:
            number += 1
        assert second["before"] == first["at"][0]
        assert second["at"][0] == first["at"][0] + 60
        assert len(second["updated"]) == 1
        assert 'id="part-metric-0"' in text
        assert 'id="part-verdicts"' in text


async def test_past_rollouts_keep_their_charts_and_one_watch_follows_the_latest(web: WebWorld) -> None:
    """As far as evidence is kept; and what is too old is deleted with the plan."""
    course = await baking(web)
    await course.minutes(2)
    client = await web.as_("read")
    before = await charted(client, 2)
    await web.world.act(ev.AbortRequested(), reason="again")
    await web.world.start("b3")
    await web.shown()
    assert (await client.get("/rollouts/2/charts")).status == 200
    past = json.loads((await client.get("/rollouts/1/charts")).text)
    assert past["metrics"] == before["metrics"]
    assert past["marks"][-1]["name"] == "aborted"
    page = (await client.get("/rollouts/1")).text
    assert 'data-from="/rollouts/1/charts"' in page
    assert "Last values of errors" in page
    again = Course(web.world)
    await web.world.until(lambda now: now.rollout.phase_name == "baking" and now.rollout.phase.step == 2)
    await again.minutes(1)
    await charted(client, 1, "/rollouts/2/charts")

    await web.world.act(ev.AbortRequested(), reason="again")
    for number in range(3, KEPT_ROLLOUTS + 2):
        await web.world.start(f"b{number % 2 + 2}")
        await web.world.act(ev.AbortRequested(), reason=f"number {number}")
    for key in (evidence_key, series_key):
        assert await web.world.store.read(key("shop", 1)) is None
        assert await web.world.store.read(key("shop", 2)) is not None


async def settled_long_ago(world: RolloutWorld) -> None:
    """Hosts that changed within an interval count on neither side of it; let them have done so before."""
    for entry in await world.store.read_prefix(hosts_prefix("shop")):
        report = decode_report(entry.value)
        if not report.since:
            since = (world.time.wall - timedelta(hours=1)).isoformat()
            await world.store.put(entry.key, encode(changed(report, since=since)), cas=entry.modify_index)


async def test_an_engine_writes_what_pages_show(tmp_path: Path) -> None:
    """A source by HTTP, the judge that asks it, evidence and course in Consul, and the pages: all real."""
    rates = dict.fromkeys(("prod", "canary", "staging"), 0.002)

    async def answer(request: aio.Request) -> aio.Response:
        hosts = [host for host in request.query["hosts"].split(",") if host]
        return aio.json_response(
            {"hosts": [{"host": host, "bad": 1000 * rates["prod"], "total": 1000} for host in hosts]}
        )

    application = aio.Application()
    application.router.add_get("/counts", answer)
    async with TestServer(application) as source:
        url = str(source.make_url("/counts"))
        pipeline = (
            f'{PIPELINE}\n[[metrics]]\nname = "errors"\ntiers = ["prod"]\nhttp = {{ url = "{url}?hosts=$hosts" }}\n'
        )
        async with (
            web_world(tmp_path, pipeline=pipeline) as web,
            Sources(web.world.settings.pipeline.metrics) as sources,
        ):
            world = web.world
            judge = MetricJudge(world.settings.pipeline.metrics, sources, plot=Charts(world.store).plot)
            try:
                world.judges = {JUDGE: judge}
                world.engine = world.new_engine(world.store)
                await world.start()
                client = await web.as_("read")
                drawn: dict[str, Any] = {"metrics": [{"at": []}]}
                shown, told = None, []
                async with asyncio.timeout(90):
                    while len(drawn["metrics"][0]["at"]) < 3 or told[0]["ratio"] is None:
                        await world.settle()
                        await settled_long_ago(world)
                        await asyncio.sleep(0.01)
                        world.time.pass_(5)
                        drawn = json.loads((await client.get("/rollouts/1/charts")).text)
                        shown = await world.desk.look()
                        assert shown is not None
                        told = msgspec.to_builtins(document(shown).metrics)
                assert drawn["marks"][0]["name"] == "prod to 10 %"
                assert pytest.approx(0.002) in drawn["metrics"][0]["updated"]
                assert pytest.approx(0.002) in drawn["metrics"][0]["others"]
                assert [(each["metric"], each["ratio"]["estimate"]) for each in told] == [
                    ("errors", pytest.approx(1, rel=0.02))
                ]
                assert told[0]["ratio"]["lower"] < 1 < told[0]["ratio"]["upper"]
                assert shown is not None
                lines = list(status_lines(shown, world.time.wall))
                assert any(line.startswith("  metric errors: ") and "(95 %: " in line for line in lines)
                assert "Last values of errors" in (await client.get("/rollouts/1")).text
            finally:
                await judge.aclose()
