"""Records of rollouts: read strictly, judged anew as they were judged, and by other limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from artifact import ConfigError, Refused
from checkpoint.verdicts import Counts, Evidence, History, Interval, Metric, judge, next_step
from checkpoint.verdicts.metric import CommandTable
from checkpoint.verdicts.recording import (
    Began,
    Decided,
    Line,
    Observed,
    Past,
    StepBegan,
    TakenBack,
    decode_lines,
    encode_line,
    replay,
    with_limits,
)
from hotcold.main import cli

ERRORS = Metric(name="errors", command=CommandTable(argv=("count-errors",)))
LATENCY = Metric(name="slow", command=CommandTable(argv=("count-slow",)), tolerance=2.0)
BEGAN = Began(v=1, app="shop", build="2026-11-23.1", metrics=(ERRORS, LATENCY))


def interval(*bad: int, others: int = 1) -> Interval:
    return Interval(
        updated=tuple(Counts(f"new-{number}", float(each), 600.0) for number, each in enumerate(bad)),
        others=tuple(Counts(f"old-{number}", float(others), 600.0) for number in range(10)),
    )


def record(*, bad: tuple[int, ...] = (4, 3), minutes: int = 6) -> list[Line]:
    """A canary that is some three times worse than the others, and was paused by somebody in the fourth minute."""
    lines: list[Line] = [BEGAN, Past(metric="errors", history=History({"new-0": (100.0, 60_000.0)}))]
    lines.append(StepBegan(at="10:00", name="canary"))
    for minute in range(1, minutes + 1):
        lines.append(Observed(at=f"10:0{minute}", metric="errors", interval=interval(*bad)))
        lines.append(Observed(at=f"10:0{minute}", metric="slow", interval=interval(1, 1)))
        if minute == 4:
            lines.append(Decided(at="10:04", action="pause", by="anna", reason="looks bad"))
    return lines


def as_file(lines: list[Line]) -> bytes:
    return b"".join(map(encode_line, lines))


def test_lines_are_read_as_they_were_written() -> None:
    """Every kind of line."""
    lines = [*record(), TakenBack(at="10:09", host="new-0")]
    assert list(decode_lines(as_file(lines))) == lines


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=8))
def test_a_replay_by_the_same_limits_judges_the_same(tape: list[tuple[int, int]]) -> None:
    """The last verdict is the one that a rollout would have had."""
    metric = ERRORS
    lines: list[Line] = [Began(v=1, app="shop", build="b", metrics=(metric,)), StepBegan(at="0")]
    lines += [Observed(at=str(number), metric="errors", interval=interval(*bad)) for number, bad in enumerate(tape)]
    evidence = next_step(Evidence())
    for bad in tape:
        evidence, verdict = judge(metric, evidence, interval(*bad))
        if verdict.host is not None:
            return  # what follows is judged without that host, which a rollout does itself
    assert replay(decode_lines(as_file(lines))).last.reason == f"errors: {verdict.reason}"


def test_other_limits_stop_at_other_times() -> None:
    """Beside what was decided."""
    lines = record()
    plain = replay(lines)
    assert [each.action for each in plain.decisions] == ["pause"]
    stopped = plain.first("roll_back") or plain.first("pause")
    assert stopped is not None
    assert stopped.step == "canary"

    tolerant = replay(lines, {"errors.tolerance": 6.0})
    assert tolerant.first("pause") is None
    assert tolerant.first("roll_back") is None
    eager = replay(lines, {"pause_at": 5, "wait_at": 2}).first("pause")
    assert eager is not None
    assert eager.at < stopped.at


def test_a_blamed_host_counts_no_more_in_a_replay_until_it_is_taken_back() -> None:
    """As in a rollout."""
    lines = record(bad=(12, 1, 1, 1))
    blamed = replay(lines).first("set_aside_host")
    assert blamed is not None
    assert blamed.verdict.host == "new-0"
    assert replay(lines).last.action == "go"
    again = [*lines, TakenBack(at="10:09", host="new-0")]
    again += [Observed(at="10:10", metric="errors", interval=interval(30, 1, 1, 1))]
    assert replay(again).last.action == "set_aside_host"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "the record is empty"),
        (b"{}\n", "line 1 is no line"),
        (encode_line(StepBegan(at="1")), "line 1: `rollout` stands in the first line"),
        (encode_line(BEGAN) * 2, "line 2: `rollout` stands in the first line, and only there"),
        (
            encode_line(BEGAN) + b"\n" + encode_line(Past(metric="x", history=History({}))),
            "line 3 speaks of metric 'x'",
        ),
        (encode_line(BEGAN).replace(b'"v":1', b'"v":2'), "line 1 is no line"),
        (encode_line(BEGAN) + b'{"line":"step","at":"1","surprise":2}', "line 2 is no line"),
        (encode_line(BEGAN) + b"\xff\n", "line 2 is no line"),
    ],
)
def test_what_is_no_record_is_refused_with_its_line(data: bytes, told: str) -> None:
    with pytest.raises(Refused, match=r"record|line") as caught:
        decode_lines(data)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"tolerence": 2}, "`tolerence` is no limit of a metric; known are tolerance,"),
        ({"argv": ["x"]}, "`argv` is no limit"),
        ({"eros.tolerance": 2}, "the record has no metric 'eros'; it has errors, slow"),
        ({"tolerance": 0.1}, "a value that it does not take"),
        ({"tolerance": "much"}, "a value that it does not take"),
        ({"wait_at": 1000}, "wait_at = 1000: must not be above pause_at = 100"),
    ],
)
def test_limits_that_make_no_sense_are_told(limits: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_limits(BEGAN.metrics, limits)
    assert told in str(caught.value)


def test_the_command_tells_what_would_have_happened(tmp_path: Path) -> None:
    """Recorded decisions, every change with its reason, and when it would have stopped."""
    file = tmp_path / "rollout.jsonl"
    file.write_bytes(as_file(record(bad=(9, 11))))
    shown = CliRunner().invoke(cli, ["verdict", "replay", str(file)])
    assert shown.exit_code == 0
    assert "  10:04  pause by anna: looks bad\n" in shown.stdout
    assert "  10:01  errors (canary): fail, pause: updated hosts: 20 bad of 1 200;" in shown.stdout
    assert "  10:02  errors (canary): fail, roll back: updated hosts: 40 bad of 2 400;" in shown.stdout
    assert (
        "paused: 10:01 by errors\nrolled back: 10:02 by errors\nat the end: fail, roll back: errors: " in shown.stdout
    )

    told = CliRunner().invoke(cli, ["verdict", "replay", str(file), "--limit", "errors.tolerance=20", "--json"])
    document = json.loads(told.stdout)
    assert document["first"] == {"set_aside_host": None, "pause": None, "roll_back": None}
    assert document["decisions"][0]["by"] == "anna"
    assert document["last"]["outcome"] == "pass"
    ratio = document["changes"][0]["ratio"]
    assert ratio["lower"] < ratio["estimate"] < ratio["upper"]
    assert ratio["estimate"] == pytest.approx(10)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["{file}", "--limit", "tolerance"], 2, "write LIMIT=VALUE"),
        (["{file}", "--limit", "tolerance=0"], 2, "a value that it does not take"),
        (["{file}", "--limit", "speed=1"], 2, "`speed` is no limit"),
        (["{file}.not"], 1, "cannot be read: No such file or directory"),
        (["{broken}"], 1, "broken.jsonl: line 1 is no line of a rollout's record"),
    ],
)
def test_the_command_tells_mistakes(tmp_path: Path, arguments: list[str], code: int, told: str) -> None:
    file, broken = tmp_path / "rollout.jsonl", tmp_path / "broken.jsonl"
    file.write_bytes(as_file(record()))
    broken.write_bytes(b"hello\n")
    words = [each.format(file=file, broken=broken) for each in arguments]
    shown = CliRunner().invoke(cli, ["verdict", "replay", *words])
    assert (shown.exit_code, shown.stdout) == (code, "")
    assert told in shown.stderr
