"""Shows that the demo's judges can say no: of an answer, of a run, of a link that nobody moved."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from hotcold.demo.children import DemoFailed
from hotcold.demo.host import Host
from hotcold.demo.load import Count
from hotcold.demo.lookout import Lookout
from hotcold.demo.outcome import Findings, Outcome, Spread
from hotcold.demo.verdict import Verdict, judge


def answer(builds: dict[str, str], release: str = "/srv/shop/releases/1.1~2") -> bytes:
    return json.dumps({"release": release, "builds": builds}).encode()


def test_an_answer_of_one_build_is_whole() -> None:
    """All files say the build that the directory is called after."""
    assert judge(200, answer({"a": "1.1", "b": "1.1"}), file_count=2) is Verdict.WHOLE


@pytest.mark.parametrize(
    ("builds", "release"),
    [
        ({"a": "1.1", "b": "1.0"}, "/r/1.1~2"),
        ({"a": "1.0", "b": "1.0"}, "/r/1.1~2"),
        ({"a": "1.1", "b": ""}, "/r/1.1~2"),
    ],
)
def test_files_of_two_builds_are_a_mix(builds: dict[str, str], release: str) -> None:
    """One file of another build is enough, and so is a directory called after another one."""
    assert judge(200, answer(builds, release), file_count=2) is Verdict.MIXED


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, answer({"a": "1.1", "b": "1.1"})),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b"{}"),
        (200, answer({"a": "1.1"})),
    ],
)
def test_anything_else_has_failed(status: int, body: bytes) -> None:
    """An error, another document, and an answer that read too little to be believed."""
    assert judge(status, body, file_count=2) is Verdict.FAILED


def test_a_count_keeps_the_first_fault_and_the_longest_wait() -> None:
    """What was wrong first is what explains the rest."""
    count = Count()
    count.add(Verdict.WHOLE, 0.1, "fine")
    count.add(Verdict.MIXED, 0.5, "1.0 and 1.1")
    count.add(Verdict.FAILED, 0.2, "gone")
    assert (count.requests, count.failed, count.mixed, count.longest_s) == (3, 1, 1, 0.5)
    assert count.first_fault == "mixed: 1.0 and 1.1"


def good() -> Outcome:
    findings = Findings([0.2, 0.1, 0.4], [0.05], recovered_after_kill=True, bad_build_reverted=True)
    return findings.outcome("embedded", [Count(requests=10), Count(requests=5)])


def test_an_outcome_sums_hosts_and_tells_milliseconds() -> None:
    """The middle and the worst of what was measured."""
    outcome = good()
    assert (outcome.hosts, outcome.requests) == (2, 15)
    assert outcome.signal_to_hot_ms == Spread(200.0, 400.0)
    assert outcome.rollback_ms == Spread(50.0, 50.0)
    assert outcome.is_good


@pytest.mark.parametrize(
    ("findings", "count"),
    [
        (Findings(recovered_after_kill=True, bad_build_reverted=True), Count(requests=9, failed=1)),
        (Findings(recovered_after_kill=True, bad_build_reverted=True), Count(requests=9, mixed=1)),
        (Findings(recovered_after_kill=False, bad_build_reverted=True), Count(requests=9)),
        (Findings(recovered_after_kill=True, bad_build_reverted=False), Count(requests=9)),
        (Findings(recovered_after_kill=True, bad_build_reverted=True), Count(requests=0)),
    ],
)
def test_one_broken_promise_makes_a_bad_outcome(findings: Findings, count: Count) -> None:
    """Also where nobody has asked anything: no data is no success."""
    assert not findings.outcome("embedded", [count]).is_good


def test_the_lookout_sees_each_flip_and_strikes_once(tmp_path: Path) -> None:
    """Links that appear, and that come to lead elsewhere, are seen; what did not move is not."""
    moved, unmoved = tmp_path / "moved", tmp_path / "unmoved"
    unmoved.symlink_to("releases/1.0~1")
    struck: list[str] = []
    done = threading.Event()
    with Lookout({"web-1": moved, "web-2": unmoved}) as lookout:
        lookout.ambush(moved.is_symlink, lambda: struck.append("appeared"))
        for name in ("1.0~1", "1.1~2"):
            seen = threading.Event()
            lookout.ambush(lambda name=name: name in [flip.release for flip in lookout.flips(since_s=0)], seen.set)
            (tmp_path / "next").symlink_to(f"releases/{name}")
            (tmp_path / "next").replace(moved)
            assert seen.wait(10)
        lookout.ambush(lambda: True, done.set)
        assert done.wait(10)
    assert [(flip.host, flip.build) for flip in lookout.flips(since_s=0)] == [("web-1", "1.0"), ("web-1", "1.1")]
    assert struck == ["appeared"]


def test_a_directory_too_deep_for_a_socket_is_refused(tmp_path: Path) -> None:
    """At once, with what to do, and not by three agents that do not start."""
    with pytest.raises(DemoFailed, match="choose a shorter --dir"):
        Host("web-1", tmp_path / ("x" * 100))
