"""A real Prometheus that scrapes hosts: its counts become verdicts, and whatever it cannot say is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from checkpoint.verdicts import Evidence, Interval, Metric, judge
from checkpoint.verdicts.metric import PrometheusTable, check_metrics
from checkpoint.verdicts.sources import Asked, Sources
from tests.prometheus_process import NO_PROMETHEUS, Prometheus, ScrapedHosts, deadline, find_prometheus

UPDATED, OTHERS = ("web-1", "web-2"), ("web-3.eu", "web-4", "web-5", "web-6")
ASKED = Asked(app="shop", tiers=("prod",), updated=UPDATED, others=OTHERS, interval_s=60.0)
BAD = 'sum by (host) (increase(requests_total{app="$app",outcome="bad",host=~"$hosts"}[$interval]))'
TOTAL = 'sum by (host) (increase(requests_total{app="$app",host=~"$hosts"}[$interval]))'


@pytest.fixture
def hosts() -> Iterator[ScrapedHosts]:
    with ScrapedHosts([*UPDATED, *OTHERS, "elsewhere"]) as scraped:
        yield scraped


@pytest.fixture
def prometheus(hosts: ScrapedHosts, tmp_path: Path) -> Iterator[Prometheus]:
    if find_prometheus() is None:
        pytest.skip(NO_PROMETHEUS)
    with Prometheus(tmp_path, hosts) as server:
        yield server


def metric(prometheus: Prometheus, **settings: str) -> Metric:
    table = PrometheusTable(url=prometheus.url, bad=BAD, total=TOTAL, host_label="host", lag_s=2.0, timeout_s=30.0)
    made = Metric(name="errors", prometheus=msgspec.structs.replace(table, **settings))
    check_metrics([made])
    return made


async def until(sources: Sources, asked: Metric, condition: Callable[[Interval], bool]) -> Interval:
    """Observe until the interval is as it must become."""
    over = deadline()
    while not condition(interval := await sources.observe(asked, ASKED)):
        assert not over(), interval
        await asyncio.sleep(0.1)
    return interval


async def all_scraped_twice(sources: Sources, asked: Metric) -> None:
    """A counter has an increase from its second sample on."""
    await until(sources, asked, lambda seen: len(seen.updated) == len(UPDATED) and len(seen.others) == len(OTHERS))


async def test_counts_of_a_bad_build_become_a_roll_back(prometheus: Prometheus, hosts: ScrapedHosts) -> None:
    """Of the hosts that were asked for, each with its own; hosts of other rollouts are not seen."""
    errors = metric(prometheus)
    async with Sources([errors]) as sources:
        await all_scraped_twice(sources, errors)
        for host in (*UPDATED, *OTHERS, "elsewhere"):
            hosts.serve(host, bad=40 if host in UPDATED else 4, total=4_000)
        seen = await until(
            sources, errors, lambda now: all(each.total >= 4_000 for each in (*now.updated, *now.others))
        )
    assert [each.host for each in seen.updated] == list(UPDATED)
    assert [each.host for each in seen.others] == list(OTHERS)
    for each in (*seen.updated, *seen.others):
        assert each.bad == round(each.bad)
        assert each.bad / each.total == pytest.approx(0.01 if each.host in UPDATED else 0.001, rel=0.2)
    _, verdict = judge(errors, Evidence(), seen)
    assert verdict.action == "roll_back"


async def test_a_host_that_is_not_scraped_falls_silent(prometheus: Prometheus, hosts: ScrapedHosts) -> None:
    """It has no failures either, and that is no pass."""
    short = metric(prometheus, bad=BAD.replace("$interval", "8s"), total=TOTAL.replace("$interval", "8s"))
    async with Sources([short]) as sources:
        await all_scraped_twice(sources, short)
        hosts.take_down("web-2")
        seen = await until(sources, short, lambda now: now.silent == ("web-2",))
    _, verdict = judge(short, Evidence(), seen)
    assert (verdict.outcome, verdict.action) == ("none", "wait")
    assert "silent: web-2" in verdict.reason


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"bad": "sum by (host) (increase("}, "parse error"),
        ({"bad": "scalar(up)"}, "a scalar; a query with one value for each host is needed"),
        ({"total": "sum(up)"}, "without label `host`"),
        ({"total": "up"}, "host elsewhere, of which it was not asked"),
        ({"bad": "0 * up{host=~'$hosts'} / 0", "total": "up{host=~'$hosts'}"}, "is no number"),
    ],
)
async def test_what_it_cannot_say_is_no_verdict(prometheus: Prometheus, settings: dict[str, str], why: str) -> None:
    """Wrong queries are told in Prometheus' own words, or ours."""
    asked = metric(prometheus, **({"bad": "up{host=~'$hosts'}"} | settings))
    async with Sources([asked]) as sources:
        seen = await until(sources, asked, lambda now: why in (now.problem or ""))
    _, verdict = judge(asked, Evidence(), seen)
    assert (verdict.outcome, verdict.action) == ("none", "wait")


async def test_a_dead_server_is_no_verdict(prometheus: Prometheus) -> None:
    """Killed in the middle of a rollout; and when it is back, counts are, too."""
    errors = metric(prometheus)
    async with Sources([errors]) as sources:
        await all_scraped_twice(sources, errors)
        prometheus.kill()
        seen = await sources.observe(errors, ASKED)
        assert seen.problem is not None
        assert "Connection refused" in seen.problem
        prometheus.start()
        await all_scraped_twice(sources, errors)
