"""Owns the record of what a rollout observed and decided, as JSON Lines, and its replay against other limits. Pure.

The format is documented in docs/verdicts.md. Writing and reading files is left to others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from artifact import ConfigError, Refused
from checkpoint.verdicts.evidence import Evidence, next_step, set_aside, take_back
from checkpoint.verdicts.judging import Action, Verdict, combine, judge
from checkpoint.verdicts.metric import Metric, check_metrics
from checkpoint.verdicts.observed import History, Interval

VERSION: Final = 1
LIMITS: Final = (
    "tolerance",
    "limit",
    "weights",
    "pause_at",
    "roll_back_at",
    "wait_at",
    "min_total",
    "min_expected",
    "quiet_intervals",
    "max_silent",
    "max_set_aside",
)
"""Keys of a metric that a replay may change; the others say what was observed."""


class _Line(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True, tag_field="line"
):
    """One line."""


class Began(_Line, frozen=True, tag="rollout"):
    """The first line: what is rolled out, and by which metrics it is judged."""

    v: Annotated[int, msgspec.Meta(ge=VERSION, le=VERSION)]
    app: str
    build: str
    metrics: tuple[Metric, ...]
    at: str = ""


class Past(_Line, frozen=True, tag="history"):
    """Counts of one metric before the rollout."""

    metric: str
    history: History


class StepBegan(_Line, frozen=True, tag="step"):
    """More hosts run the build from here on."""

    at: str
    name: str = ""


class Observed(_Line, frozen=True, tag="interval"):
    """What one metric's source said."""

    at: str
    metric: str
    interval: Interval


class Decided(_Line, frozen=True, tag="decision"):
    """What was done, by whom, and why; a replay shows it and is not led by it."""

    at: str
    action: str
    by: str = ""
    reason: str = ""
    host: str | None = None


class TakenBack(_Line, frozen=True, tag="taken_back"):
    """A host that was set aside counts again."""

    at: str
    host: str


Line = Began | Past | StepBegan | Observed | Decided | TakenBack


def encode_line(line: Line) -> bytes:
    """One line with its end."""
    return msgspec.json.encode(line) + b"\n"


def decode_lines(data: bytes) -> tuple[Line, ...]:
    """Read a whole record, strictly.

    Raises:
        Refused: a line is none, the first one does not begin a rollout, or a metric is not among its metrics.
    """
    lines: list[Line] = []
    names: set[str] = set()
    for number, text in enumerate(data.splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = msgspec.json.decode(text, type=Line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(f"line {number} is no line of a rollout's record: {error}", kind="record_invalid") from error
        if isinstance(line, Began) != (not lines):
            raise Refused(f"line {number}: `rollout` stands in the first line, and only there", kind="record_invalid")
        if isinstance(line, Began):
            names = {metric.name for metric in line.metrics}
        elif isinstance(line, Past | Observed) and line.metric not in names:
            raise Refused(
                f"line {number} speaks of metric {line.metric!r}, which line 1 has not", kind="record_invalid"
            )
        lines.append(line)
    if not lines:
        raise Refused("the record is empty", kind="record_invalid")
    return tuple(lines)


@dataclass(frozen=True)
class Change:
    """A verdict that another one follows from, when it changed what is to be done."""

    at: str
    step: str
    verdict: Verdict


@dataclass(frozen=True)
class Replay:
    """What a rollout's record would have led to.

    Attributes:
        metrics: by which it was judged.
        changes: of each metric, whenever its action or blamed host became another.
        decisions: what was done in truth.
        last: of all metrics together, at the end.
    """

    metrics: tuple[Metric, ...]
    changes: tuple[Change, ...]
    decisions: tuple[Decided, ...]
    last: Verdict

    def first(self, action: Action) -> Change | None:
        """The first time that any metric asked for it."""
        return next((change for change in self.changes if change.verdict.action == action), None)


def with_limits(metrics: Sequence[Metric], limits: Mapping[str, Any]) -> tuple[Metric, ...]:
    """The metrics with other limits: `{"tolerance": 2.0, "errors.pause_at": 1000.0}`.

    Raises:
        ConfigError: no such metric or limit, or a value that it does not take.
    """
    changed = {metric.name: msgspec.to_builtins(metric) for metric in metrics}
    for key, value in limits.items():
        name, dot, limit = key.rpartition(".")
        if limit not in LIMITS:
            raise ConfigError(f"`{limit}` is no limit of a metric; known are {', '.join(LIMITS)}")
        if dot and name not in changed:
            raise ConfigError(f"the record has no metric {name!r}; it has {', '.join(changed)}")
        for each in [changed[name]] if dot else changed.values():
            each[limit] = value
    try:
        made = tuple(msgspec.convert(each, type=Metric) for each in changed.values())
    except msgspec.ValidationError as error:
        raise ConfigError(f"a limit has a value that it does not take: {error}") from error
    check_metrics(made)
    return made


def replay(lines: Iterable[Line], limits: Mapping[str, Any] | None = None) -> Replay:
    """Judge a record anew. Hosts are set aside when the replayed verdict says so, promoting is as it was recorded."""
    player: _Player | None = None
    for line in lines:
        if isinstance(line, Began):
            player = _Player(with_limits(line.metrics, limits or {}))
        elif player is not None:
            player.play(line)
    if player is None:
        raise Refused("the record does not begin a rollout", kind="record_invalid")
    return player.result()


class _Player:
    def __init__(self, metrics: tuple[Metric, ...]) -> None:
        self._metrics = {metric.name: metric for metric in metrics}
        self._evidence = {metric.name: Evidence() for metric in metrics}
        self._history: dict[str, History] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._changes: list[Change] = []
        self._decisions: list[Decided] = []
        self._step = ""

    def play(self, line: Line) -> None:
        match line:
            case Past():
                self._history[line.metric] = line.history
            case StepBegan():
                self._step = line.name
                self._evidence = {name: next_step(each) for name, each in self._evidence.items()}
            case Observed():
                self._observe(line)
            case Decided():
                self._decisions.append(line)
            case TakenBack():
                self._evidence = {name: take_back(each, line.host) for name, each in self._evidence.items()}
            case Began():
                raise Refused("a record has one rollout", kind="record_invalid")

    def _observe(self, line: Observed) -> None:
        name = line.metric
        self._evidence[name], verdict = judge(
            self._metrics[name],
            self._evidence[name],
            line.interval,
            history=self._history.get(name),
            among=len(self._metrics),
        )
        before = self._verdicts.get(name)
        self._verdicts[name] = verdict
        if before is None or (before.action, before.host) != (verdict.action, verdict.host):
            self._changes.append(Change(line.at, self._step, verdict))
        if verdict.host is not None:
            host = verdict.host
            self._evidence = {each: set_aside(evidence, host) for each, evidence in self._evidence.items()}

    def result(self) -> Replay:
        return Replay(
            metrics=tuple(self._metrics.values()),
            changes=tuple(self._changes),
            decisions=tuple(self._decisions),
            last=combine(list(self._verdicts.values())),
        )
