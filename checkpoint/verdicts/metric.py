"""Owns `[[metrics]]`: what is counted, from where, and the limits by which it is judged; parsed once, strictly. Pure.

The arithmetic is left to `checkpoint.verdicts.eprocess`, asking to `checkpoint.verdicts.sources`. A configuration that
has metrics holds `tuple[Metric, ...]` and calls `check_metrics`.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec

from artifact import ConfigError
from checkpoint.verdicts.observed import Kind
from fleet.keys import check_name
from fleet.strict_toml import parse_toml

_Positive = Annotated[float, msgspec.Meta(gt=0)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

QUERY_WORDS: Final = ("app", "hosts", "interval", "tiers")
"""What may stand in a query or URL as `$word`."""


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: every key known, every type strict."""


class ReportsTable(_Table, frozen=True):
    """`[metrics.reports]`: the agents' own reports. A deploy that failed or was refused is bad, each once."""


class PrometheusTable(_Table, frozen=True):
    """`[metrics.prometheus]`: two instant queries, whose answers have one value for each host.

    Attributes:
        url: of the server; `/api/v1/query` is added.
        bad, total: PromQL with `$app`, `$tiers`, `$hosts` and `$interval`.
        host_label: the label that names the host.
        strip_port: `web-1:9100` means `web-1`.
        absent_bad_is_zero: a host with a total and without bad had none; else it is silent.
        lag_s: both are asked about so long ago, when every scrape has arrived, so that they speak of the same samples.
        timeout_s: for both answers.
        bearer_file: a file with the token to send, or None.
    """

    url: str
    bad: str
    total: str
    host_label: str = "instance"
    strip_port: bool = True
    absent_bad_is_zero: bool = False
    lag_s: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    timeout_s: _Positive = 10.0
    bearer_file: str | None = None


class CommandTable(_Table, frozen=True):
    """`[metrics.command]`: a command of the engine's host that prints JSON.

    Attributes:
        argv: the program and its arguments; no shell is between.
        timeout_s: after that its process group is ended.
        counters: whether `bad` and `total` only ever rise, and the difference counts.
    """

    argv: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    timeout_s: _Positive = 30.0
    counters: bool = False


class HttpTable(_Table, frozen=True):
    """`[metrics.http]`: a URL that answers with JSON.

    Attributes:
        url: with `$app`, `$tiers`, `$hosts` and `$interval`, which are quoted for it.
        timeout_s: for the whole answer.
        counters: whether `bad` and `total` only ever rise, and the difference counts.
        bearer_file: a file with the token to send, or None.
    """

    url: str
    timeout_s: _Positive = 10.0
    counters: bool = False
    bearer_file: str | None = None


class Metric(_Table, frozen=True):
    """One entry of `[[metrics]]`: exactly one source, and the limits.

    Attributes:
        name: a word for people, files and keys.
        kind: `share`: bad of total; `rate`: bad per exposure, such as host-seconds, which may be less than bad.
        tiers: only steps of these are judged by it, and only their hosts count; empty: all of the pipeline's.
        reports, prometheus, command, http: where counts come from; exactly one.
        tolerance: so many times worse than the others is still good.
        limit: judged against this share or rate instead of the other hosts; None: against the others.
        weights: `history`: hosts that were worse before the rollout may be worse in it; `none`: all are alike.
        pause_at: evidence that pauses: 1 in so many good rollouts may reach it, at most.
        roll_back_at: evidence without any one host that rolls back.
        wait_at: evidence from which on a rollout waits for more.
        min_total: exposure of updated hosts in a step, before which nothing passes.
        min_expected: failures that a good build would have had in a step, before which only quiet passes.
        quiet_intervals: so many intervals in a row without a failure pass where fewer are expected.
        max_silent: share of updated hosts that may say nothing.
        max_set_aside: hosts that may be blamed instead of the build.
    """

    name: str
    kind: Kind = "share"
    tiers: tuple[str, ...] = ()
    reports: ReportsTable | None = None
    prometheus: PrometheusTable | None = None
    command: CommandTable | None = None
    http: HttpTable | None = None

    @property
    def has_counters(self) -> bool:
        """Whether its numbers only ever rise, so that two looks are needed to tell anything."""
        table = self.command or self.http
        return table is not None and table.counters

    tolerance: Annotated[float, msgspec.Meta(ge=1)] = 1.5
    limit: _Positive | None = None
    weights: Literal["history", "none"] = "history"
    pause_at: Annotated[float, msgspec.Meta(gt=1)] = 100.0
    roll_back_at: Annotated[float, msgspec.Meta(gt=1)] = 100.0
    wait_at: Annotated[float, msgspec.Meta(gt=1)] = 10.0
    min_total: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    min_expected: Annotated[float, msgspec.Meta(ge=0)] = 3.0
    quiet_intervals: Annotated[int, msgspec.Meta(ge=1)] = 15
    max_silent: _Share = 0.2
    max_set_aside: Annotated[int, msgspec.Meta(ge=0)] = 1


class _Document(_Table, frozen=True):
    metrics: tuple[Metric, ...] = ()


def parse_metrics(text: str) -> tuple[Metric, ...]:
    """Read TOML that has nothing but `[[metrics]]`.

    Raises:
        ConfigError: names the key, what was found and what is allowed.
    """
    metrics = parse_toml(text, _Document).metrics
    check_metrics(metrics)
    return metrics


def check_metrics(metrics: Sequence[Metric]) -> None:
    """Refuse what types cannot: two of a name, a metric without a source or with two, values that contradict.

    Raises:
        ConfigError: names the metric, the key, and what is allowed.
    """
    names = [metric.name for metric in metrics]
    for number, metric in enumerate(metrics):
        at = f"metrics[{number}]"
        check_name("metric", metric.name)
        if names.count(metric.name) > 1:
            raise ConfigError(f"{at}.name = {metric.name!r}: another metric has this name")
        _check_source(metric, at)
        _check_limits(metric, at)


def _check_source(metric: Metric, at: str) -> None:
    sources = {name: getattr(metric, name) for name in ("reports", "prometheus", "command", "http")}
    found = [name for name, table in sources.items() if table is not None]
    if len(found) != 1:
        raise ConfigError(
            f"{at} ({metric.name}) has {' and '.join(found) or 'no source'}; exactly one is needed of "
            f"{', '.join(f'`{name}`' for name in sources)}"
        )
    if metric.prometheus is not None:
        for key in ("bad", "total"):
            _check_words(getattr(metric.prometheus, key), f"{at}.prometheus.{key}")
        _check_url(metric.prometheus.url, f"{at}.prometheus.url")
    if metric.http is not None:
        _check_words(metric.http.url, f"{at}.http.url")
        _check_url(metric.http.url, f"{at}.http.url")
    if metric.command is not None and (not metric.command.argv[0] or any("\0" in a for a in metric.command.argv)):
        raise ConfigError(f"{at}.command.argv needs a program first, and no argument may contain a NUL")


def _check_limits(metric: Metric, at: str) -> None:
    if metric.wait_at > metric.pause_at:
        raise ConfigError(f"{at}.wait_at = {metric.wait_at:g}: must not be above pause_at = {metric.pause_at:g}")
    if metric.roll_back_at < metric.pause_at:
        raise ConfigError(
            f"{at}.roll_back_at = {metric.roll_back_at:g}: must not be below pause_at = {metric.pause_at:g}"
        )
    if metric.reports is not None and metric.limit is None:
        raise ConfigError(
            f"{at} ({metric.name}) counts deploys, and hosts that are not updated deploy nothing: it needs a `limit`, "
            "such as 0.02"
        )
    if metric.kind == "share" and metric.limit is not None and metric.limit >= 1:
        raise ConfigError(f"{at}.limit = {metric.limit:g}: a share is below 1")
    numbers = {key: getattr(metric, key) for key in ("tolerance", "pause_at", "roll_back_at", "min_total")}
    for key, value in numbers.items():
        if not math.isfinite(value):
            raise ConfigError(f"{at}.{key} = {value}: must be a finite number")


def _check_words(text: str, at: str) -> None:
    template = string.Template(text)
    if not template.is_valid():
        raise ConfigError(f"{at}: a `$` is followed by no word; write `$$` where a dollar is meant")
    unknown = [word for word in template.get_identifiers() if word not in QUERY_WORDS]
    if unknown:
        raise ConfigError(f"{at}: `${unknown[0]}` is unknown; known are {', '.join(f'`${w}`' for w in QUERY_WORDS)}")


def _check_url(text: str, at: str) -> None:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ConfigError(f'{at} = "{text}": must begin with http:// or https:// and name a host')
