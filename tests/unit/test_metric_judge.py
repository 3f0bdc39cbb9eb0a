"""Metrics judge a rollout: sources are asked beside it, evidence outlives its engine, and no data is no pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from msgspec.structs import replace as changed

from checkpoint.metric_judge import MetricJudge, Record, sides
from checkpoint.reading import HostKey
from checkpoint.recordings import KEPT_RECORDINGS, Recordings
from checkpoint.rollout import states as st
from checkpoint.rollout.kept_evidence import Kept
from checkpoint.rollout.machine import begin
from checkpoint.rollout.plan import Plan
from checkpoint.rollout.tally import Tally
from checkpoint.rollout.verdict import Question, Ruling
from checkpoint.verdicts import Metric
from checkpoint.verdicts.metric import ReportsTable
from checkpoint.verdicts.recording import Line, Observed, decode_lines, replay
from checkpoint.verdicts.sources import Sources
from tests.rollout_world import MONDAY, PIPELINE, SIZES, a_plan, a_report, by, names

METRIC = """
[[metrics]]
name = "errors"
tiers = ["prod"]
http = {{ url = "{url}?updated=$hosts" }}
"""
REQUESTS = 2000.0
LOOK = timedelta(seconds=30)


@dataclass
class Shop:
    """Answers for every host of prod: what share of its requests failed since the last look."""

    rates: dict[str, float] = field(default_factory=dict)
    is_down: bool = False
    asked: int = 0

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        if self.is_down:
            return web.Response(status=503)
        rates = {host: self.rates.get(host, 0.005) for tier, host in names() if tier == "prod"}
        hosts = [{"host": host, "bad": rate * REQUESTS, "total": REQUESTS} for host, rate in rates.items()]
        return web.json_response({"hosts": hosts})


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
async def plan(shop: Shop) -> AsyncIterator[Plan]:
    application = web.Application()
    application.router.add_get("/counts", shop.answer)
    async with TestServer(application) as server:
        yield a_plan(PIPELINE + METRIC.format(url=server.make_url("/counts")))


def at_step(plan: Plan, step: int, **facts: object) -> st.Rollout:
    """A rollout whose step is ordered; its hosts run the build since long."""
    rollout, _ = begin(plan, by())
    return changed(rollout, phase=st.Baking(step=step, since=MONDAY, until=MONDAY), ordered=MONDAY, **facts)


def question(plan: Plan, rollout: st.Rollout) -> Question:
    step = rollout.phase.step
    reached = {*plan.hosts_of(step)}
    since = (MONDAY - timedelta(hours=1)).isoformat()
    hosts = [
        HostKey(tier, host, a_report(tier, host, serial=2, hot="b2" if host in reached else "b1", since=since))
        for tier, host in names()
    ]
    return Question(
        plan=plan, rollout=rollout, evidence=b"", seen=Tally(), hosts=hosts, silent=(), now=MONDAY + timedelta(hours=1)
    )


@asynccontextmanager
async def judging(plan: Plan, record: Record | None = None) -> AsyncIterator[MetricJudge]:
    metrics = plan.pipeline.metrics
    async with Sources(metrics) as sources, aclosing(MetricJudge(metrics, sources, record=record)) as judge:
        yield judge


async def looked(judge: MetricJudge, asked: Question, looks: int = 1) -> tuple[Ruling, Question]:
    """After so many looks at the sources, half a minute apart; the question as it would be asked next."""
    ruling = Ruling("none", "")
    for _ in range(looks):
        async with asyncio.timeout(20):
            while True:
                answer = await judge.ask(asked)
                ruling, asked = answer.ruling, replace(asked, evidence=answer.evidence)
                if msgspec.json.decode(answer.evidence, type=Kept).at == asked.now:
                    break
                await asyncio.sleep(0.005)
        asked = replace(asked, now=asked.now + LOOK)
    return ruling, asked


PROD_10, PROD_50 = 2, 4
assert SIZES["prod"] == 20


async def test_a_good_build_passes_once_enough_is_seen(plan: Plan) -> None:
    """Before the first look there is no verdict, and no look is made twice in its interval."""
    async with judging(plan) as judge:
        asked = question(plan, at_step(plan, PROD_10))
        assert (await judge.ask(asked)).ruling == Ruling("none", "errors: not looked at yet in this step")
        ruling, asked = await looked(judge, asked, 3)
        assert ruling.outcome == "pass"
        assert "errors" in ruling.reason
        asked = replace(asked, now=asked.now - timedelta(seconds=1))
        assert (await judge.ask(asked)).evidence == asked.evidence


async def test_a_bad_build_rolls_back(plan: Plan, shop: Shop) -> None:
    """By several hosts together; the reason has the counts."""
    async with judging(plan) as judge:
        asked = question(plan, at_step(plan, PROD_50))
        shop.rates = dict.fromkeys(plan.hosts_of(PROD_50), 0.03)
        ruling, _ = await looked(judge, asked)
        assert ruling.outcome == "roll_back"
        assert "updated hosts: 600 bad" in ruling.reason


async def test_one_bad_host_is_named_and_can_be_set_aside(plan: Plan, shop: Shop) -> None:
    """Evidence without it says nothing against the build; when it counts again, so does what it does."""
    async with judging(plan) as judge:
        rollout = at_step(plan, PROD_50)
        culprit = plan.hosts_of(PROD_50)[0]
        asked = question(plan, rollout)
        _, asked = await looked(judge, asked, 2)
        shop.rates = {culprit: 0.2}
        ruling, asked = await looked(judge, asked, 2)
        assert ruling.outcome == "pause"
        assert f"`hotcold rollout set-aside {culprit}`" in ruling.reason

        aside = st.SetAside(tier="prod", host=culprit, by="anna@desk", reason="bad disk", at=MONDAY)
        resumed = changed(rollout, set_aside=(aside,), ordered=MONDAY + timedelta(minutes=50))
        ruling, asked = await looked(judge, replace(asked, rollout=resumed), 3)
        assert ruling.outcome == "pass"
        ruling, _ = await looked(judge, replace(asked, rollout=changed(resumed, set_aside=())), 3)
        assert ruling.outcome == "pause"


async def test_whoever_resumes_after_a_pause_takes_the_risk(plan: Plan, shop: Shop) -> None:
    """The evidence begins anew: it would pause again at once otherwise."""
    async with judging(plan) as judge:
        rollout = at_step(plan, PROD_50)
        shop.rates = {plan.hosts_of(PROD_50)[0]: 0.2}
        ruling, asked = await looked(judge, question(plan, rollout), 2)
        assert ruling.outcome == "pause"
        shop.rates = {}
        resumed = changed(rollout, ordered=MONDAY + timedelta(minutes=50))
        ruling, _ = await looked(judge, replace(asked, rollout=resumed), 3)
        assert ruling.outcome == "pass"


@pytest.mark.parametrize("harm", ["down", "silent"])
async def test_no_data_is_no_pass(plan: Plan, shop: Shop, harm: str) -> None:
    """Whatever was known before."""
    async with judging(plan) as judge:
        asked = question(plan, at_step(plan, PROD_10))
        _, asked = await looked(judge, asked, 3)
        shop.is_down = harm == "down"
        gone = plan.hosts_of(PROD_10) if harm == "silent" else ()
        hosts = [host for host in asked.hosts if host.host not in gone]
        ruling, _ = await looked(judge, replace(asked, hosts=hosts))
        assert ruling.outcome == "none"


async def test_a_new_step_is_seen_anew_and_what_speaks_against_the_build_stays(plan: Plan, shop: Shop) -> None:
    async with judging(plan) as judge:
        asked = question(plan, at_step(plan, PROD_10))
        shop.rates = dict.fromkeys(plan.hosts_of(PROD_10), 0.012)
        _, asked = await looked(judge, asked)
        before = msgspec.json.decode(asked.evidence, type=Kept).metrics["errors"].evidence
        following = replace(question(plan, at_step(plan, PROD_50)), evidence=asked.evidence, now=asked.now)
        answer = await judge.ask(following)
        assert answer.ruling == Ruling("none", "errors: not looked at yet in this step")
        after = msgspec.json.decode(answer.evidence, type=Kept).metrics["errors"].evidence
        assert (after.sums, after.step_total) == (before.sums, 0.0)


async def test_another_engine_goes_on_with_the_same_evidence(plan: Plan, shop: Shop) -> None:
    """Two looks by one engine, or one by each of two: the evidence is the same."""
    shop.rates = dict.fromkeys(plan.hosts_of(PROD_50), 0.01)
    asked = question(plan, at_step(plan, PROD_50))
    async with judging(plan) as one:
        _, by_one = await looked(one, asked, 2)
    async with judging(plan) as first:
        _, half = await looked(first, asked)
    async with judging(plan) as second:
        _, by_two = await looked(second, half)
    assert by_one.evidence == by_two.evidence


@pytest.mark.parametrize("counters", ["false", "true"])
async def test_what_happened_while_no_engine_led_is_not_lost(counters: str) -> None:
    """A leader that dies, ten minutes nobody, a next one: both sides have all of that time, by its first look.

    The source tells of the interval that it is asked for, or counts since it began; in each minute a host has a hundred
    requests, and one of the build's is bad.
    """
    plan = a_plan()
    began = MONDAY
    clock = {"now": MONDAY + timedelta(hours=1)}
    on_build = set(plan.hosts_of(PROD_50))

    async def answer(request: web.Request) -> web.Response:
        minutes = float(request.query["seconds"]) / 60
        if counters == "true":
            minutes = (clock["now"] - began).total_seconds() / 60
        hosts = [
            {"host": host, "bad": minutes if host in on_build else 0.0, "total": 100 * minutes}
            for host in request.query["hosts"].split(",")
        ]
        return web.json_response({"hosts": hosts})

    application = web.Application()
    application.router.add_get("/counts", answer)
    async with TestServer(application) as server:
        url = f"{server.make_url('/counts')}?hosts=$hosts&seconds=$interval"
        text = f'[[metrics]]\nname = "errors"\ntiers = ["prod"]\nhttp = {{ url = "{url}", counters = {counters} }}\n'
        plan = a_plan(PIPELINE + text)
        asked = question(plan, at_step(plan, PROD_50))
        asked = replace(asked, rollout=changed(asked.rollout, ordered=asked.now - timedelta(minutes=5)))
        lines: list[Line] = []

        async def record(_: Question, __: object, told: Sequence[Line]) -> None:
            lines.extend(told)

        async with judging(plan, record) as dying:
            _, asked = await looked(dying, asked)
            clock["now"] += LOOK
            _, asked = await looked(dying, asked)
        gap = timedelta(minutes=10)
        clock["now"] += gap
        asked = replace(asked, now=asked.now + gap - LOOK)
        async with judging(plan, record) as following:
            _, asked = await looked(following, asked)
            clock["now"] += LOOK
            _, asked = await looked(following, asked)

    looks = [line.interval for line in lines if isinstance(line, Observed)]
    assert len(looks) == 4
    for length, interval in zip((0.5, 10.0, 0.5), looks[1:], strict=True):
        assert {each.host for each in interval.updated} == on_build
        assert all((each.bad, each.total) == (length, 100 * length) for each in interval.updated)
        assert all((each.bad, each.total) == (0.0, 100 * length) for each in interval.others)


async def test_hosts_that_changed_while_no_engine_led_count_on_neither_side_once(plan: Plan) -> None:
    """What they did is of both builds. A new step begins with its own interval."""
    asked = question(plan, at_step(plan, PROD_50))
    swapped = plan.hosts_of(PROD_50)[0]
    at = asked.now + timedelta(minutes=5)
    async with judging(plan) as first:
        _, asked = await looked(first, asked)
    hosts = [
        replace(each, report=changed(each.report, since=at.isoformat()))
        if each.host == swapped and each.report is not None
        else each
        for each in asked.hosts
    ]
    asked = replace(asked, hosts=hosts, now=asked.now + timedelta(minutes=10))
    lines: list[Line] = []

    async def record(_: Question, __: object, told: Sequence[Line]) -> None:
        lines.extend(told)

    async with judging(plan, record) as second:
        _, asked = await looked(second, asked)
        _, asked = await looked(second, asked)
    seen = [{each.host for each in line.interval.updated} for line in lines if isinstance(line, Observed)]
    assert [swapped in hosts for hosts in seen] == [False, True]


async def test_a_metric_that_only_the_plan_has_is_never_asked(plan: Plan, shop: Shop) -> None:
    """Whoever may write to Consul must not thereby send an engine to an address, or run a command."""
    others: tuple[Metric, ...] = ()
    async with Sources(others) as sources, aclosing(MetricJudge(others, sources)) as judge:
        ruling = (await judge.ask(question(plan, at_step(plan, PROD_10)))).ruling
    assert ruling.outcome == "none"
    assert ruling.reason.startswith("metric errors of the plan is not in this engine's own configuration")
    assert shop.asked == 0


async def test_deploys_that_failed_count_on_the_side_of_the_build(plan: Plan) -> None:
    """A host that rolled back runs the build before, and is the one that a metric of reports is about."""
    rollout = at_step(plan, PROD_10, reached=("staging", "canary", "prod"))
    chosen = plan.hosts_of(PROD_10)
    asked = question(plan, rollout)
    hosts = [
        HostKey(each.tier, each.host, a_report(each.tier, each.host, serial=2, hot="b1", state="rolled_back"))
        if each.host == chosen[0]
        else each
        for each in asked.hosts
    ]
    metric = Metric(name="deploys", tiers=("prod",), reports=ReportsTable(), limit=0.02)
    updated, others = sides(replace(asked, hosts=hosts), metric, LOOK)
    assert set(updated) == set(chosen)
    assert len(others) == SIZES["prod"] - len(chosen)


async def test_a_step_of_another_tier_is_not_judged(plan: Plan, shop: Shop) -> None:
    """Staging has no traffic to judge by; it would never pass else."""
    async with judging(plan) as judge:
        answer = await judge.ask(question(plan, at_step(plan, 0)))
    assert (answer.ruling, answer.evidence, shop.asked) == (Ruling("pass", "none is for staging"), b"", 0)


async def test_what_was_observed_is_recorded_for_a_replay(plan: Plan, shop: Shop, tmp_path: Path) -> None:
    """A replay of the record comes to the same decision; a directory that is not there costs nothing but the record."""
    asked = question(plan, at_step(plan, PROD_50))
    shop.rates = dict.fromkeys(plan.hosts_of(PROD_50), 0.03)
    async with judging(plan, Recordings(tmp_path).record) as judge:
        ruling, _ = await looked(judge, asked, 2)
    assert ruling.outcome == "roll_back"
    lines = decode_lines((tmp_path / "shop-1.jsonl").read_bytes())
    assert replay(lines).first("roll_back") is not None
    async with judging(plan, Recordings(tmp_path / "nowhere").record) as judge:
        ruling, _ = await looked(judge, asked, 2)
    assert ruling.outcome == "roll_back"


async def test_recordings_of_long_ago_are_removed(plan: Plan, tmp_path: Path) -> None:
    """When a new one begins; what is another app's, or no recording, stays."""
    directory = tmp_path / "recordings"
    directory.mkdir()
    others = ["bank-1.jsonl", "shop-x.jsonl", "shop-1.txt", "shop-eu-1.jsonl"]
    for name in [*others, "shop-1.jsonl", "shop-50.jsonl", "shop-51.jsonl", "shop-249.jsonl"]:
        (directory / name).write_text("kept\n")
    later = changed(plan, number=50 + KEPT_RECORDINGS)
    await Recordings(directory).record(question(later, at_step(later, PROD_10)), {}, [])
    left = sorted(path.name for path in directory.iterdir())
    assert left == sorted([*others, "shop-51.jsonl", "shop-249.jsonl", "shop-250.jsonl"])
