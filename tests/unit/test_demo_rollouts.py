"""Shows what the demo's rollouts are judged by: their pipeline, the counts that a metric is told, the outcome."""

from __future__ import annotations

import json

import msgspec
import pytest
from rich.console import Console

from checkpoint.pipeline import default_settings, parse_settings
from hotcold.demo.board import Board
from hotcold.demo.counting import Past
from hotcold.demo.load import Count
from hotcold.demo.outcome import Findings
from hotcold.demo.rollouts.outcome import BadRollout, GoodRollout, RolloutFindings, RolloutsOutcome
from hotcold.demo.rollouts.pages import Pages, has_desktop
from hotcold.demo.rollouts.pipeline import CUSTOMERS, FLEET, configuration
from hotcold.demo.rollouts.screen import draw, summary
from hotcold.demo.rollouts.story import TITLES

GOOD = GoodRollout(finished=True, took_s=30.0, requests=1000)
BAD = BadRollout(
    stopped_at="canary to 100 %", hosts_reached=4, detect_ms=2600.0, rollback_ms=80.0, requests=500, failed=30
)


def outcome(good: GoodRollout = GOOD, bad: BadRollout = BAD, mixed: int = 0, by: str | None = None) -> RolloutsOutcome:
    return RolloutFindings(good, bad, by).outcome(9, mixed)


def test_the_pipeline_is_the_built_in_one_in_a_hurry() -> None:
    """The same tiers, steps and gates; no windows, and a metric of what customers get."""
    demo = parse_settings(configuration("http://127.0.0.1:1", 2)).pipeline
    built_in = default_settings("shop").pipeline
    assert demo.tiers == built_in.tiers == tuple(FLEET)
    for ours, theirs in zip(demo.steps, built_in.steps, strict=True):
        assert (ours.percent, ours.approval, ours.verdict) == (theirs.percent, theirs.approval, theirs.verdict)
        assert (ours.smoke_test is None) == (theirs.smoke_test is None)
    assert demo.calendar.windows == ()
    (metric,) = demo.metrics
    assert {host for tier in metric.tiers for host in FLEET[tier]} == set(CUSTOMERS)


def test_the_past_tells_what_happened_since() -> None:
    """Since the latest look that is old enough; since the first one where none is."""
    counts = {"web-1": Count(), "web-2": Count(requests=7, failed=1)}
    past = Past(counts, 0.0)
    counts["web-1"] = Count(requests=10, failed=1, mixed=1)
    past.remember(10.0)
    counts["web-1"] = Count(requests=25, failed=4, mixed=1)
    assert past.since(10.0) == {"web-1": (3, 15), "web-2": (0, 0)}
    assert past.since(9.9) == {"web-1": (5, 25), "web-2": (0, 0)}
    assert past.since(-3600.0) == past.since(0.0) == {"web-1": (5, 25), "web-2": (0, 0)}


@pytest.mark.parametrize(
    ("environment", "is_there"),
    [
        ({"DISPLAY": ":0"}, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True),
        ({}, False),
        ({"DISPLAY": ""}, False),
        ({"DISPLAY": "localhost:10.0", "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, False),
    ],
)
def test_a_browser_needs_a_desktop_here(environment: dict[str, str], is_there: bool) -> None:  # noqa: FBT001
    """On a server one would take the terminal, and over SSH open far away."""
    assert has_desktop(environment) is is_there


def test_what_is_promised_of_rollouts() -> None:
    """All of it held."""
    assert outcome().is_good


@pytest.mark.parametrize(
    "broken",
    [
        outcome(good=msgspec.structs.replace(GOOD, finished=False)),
        outcome(good=msgspec.structs.replace(GOOD, failed=1)),
        outcome(bad=BadRollout()),
        outcome(bad=msgspec.structs.replace(BAD, stopped_at="prod to 10 %")),
        outcome(bad=msgspec.structs.replace(BAD, rollback_ms=None)),
        outcome(bad=msgspec.structs.replace(BAD, failed=0)),
        outcome(bad=msgspec.structs.replace(BAD, failed_elsewhere=1)),
        outcome(mixed=1),
        outcome(mixed=1, by="anna@desk"),
    ],
)
def test_one_broken_promise_makes_a_bad_outcome(broken: RolloutsOutcome) -> None:
    """Also where a rollout was stopped too late, or without anybody having noticed anything."""
    assert not broken.is_good


def test_who_takes_over_does_not_fail_the_demo() -> None:
    """The pages are there to be used."""
    assert outcome(good=GoodRollout(), bad=BadRollout(), by="anna@desk").is_good


def test_rollouts_add_to_the_object_only_where_they_were_asked_for() -> None:
    """Programs read the object of the main job."""
    findings = Findings()
    plain = json.loads(msgspec.json.encode(findings.outcome("embedded", [Count()])))
    more = json.loads(msgspec.json.encode(findings.outcome("embedded", [Count()], outcome())))
    assert list(more) == [*plain, "checkpoint"]
    assert more["checkpoint"]["bad"]["hosts_reached"] == 4


def text_of(lines: int, *, is_told: bool, hints: tuple[str, ...] = ()) -> list[str]:
    hosts = [host for hosts in FLEET.values() for host in hosts]
    board = Board(TITLES, hosts, clock=lambda: 0.0)
    for number in range(30):
        board.say(f"line {number}")
    board.step = len(TITLES) + 1 if is_told else 2
    board.hints = hints
    paper = Console(width=80, height=lines, color_system=None)
    pages = Pages("http://127.0.0.1:1", "http://127.0.0.1:1/sign-in?token=x")
    with paper.capture() as capture:
        paper.print(draw(board, pages, outcome(), lines=lines, columns=80))
    return capture.get().splitlines()


@pytest.mark.parametrize("lines", [20, 24, 40, 60])
@pytest.mark.parametrize("is_told", [False, True])
def test_the_screen_fits(lines: int, is_told: bool) -> None:  # noqa: FBT001
    """Whatever there is to show; the address and the latest line always are."""
    drawn = text_of(lines, is_told=is_told, hints=("try this", "and that"))
    assert len(drawn) <= lines
    assert any("http://127.0.0.1:1" in line for line in drawn)
    assert any("line 29" in line for line in drawn)
    assert any("stopped itself" in line and "yes" in line for line in drawn) == (is_told and lines >= 40)


def test_the_summary_has_the_figures() -> None:
    """In words of people."""
    paper = Console(width=200, color_system=None)
    with paper.capture() as capture:
        paper.print(summary(outcome()))
    said = capture.get()
    for figure in ("9 hosts in 30 s", "0 of 1,000", "4 of 9 hosts", "2.6 s", "80 ms", "30 of 500"):
        assert figure in said
