"""Owns all sources of a configuration: opens them, asks the right one, turns failures into intervals without data.

How each is asked is left to its module.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

from artifact import ConfigError
from checkpoint.verdicts.metric import Metric
from checkpoint.verdicts.observed import Counts, Interval, fault_of_counts
from checkpoint.verdicts.sources.asking import Answer, Asked, Counters, SourceFailed, interval_of
from checkpoint.verdicts.sources.command import CommandSource
from checkpoint.verdicts.sources.http_json import HttpSource
from checkpoint.verdicts.sources.prometheus import PrometheusSource
from checkpoint.verdicts.sources.reports import ReportsSource
from checkpoint.verdicts.sources.web import Web


class Source(Protocol):
    """Something that can be asked for counts."""

    async def counts(self, asked: Asked) -> Answer:
        """What happened in the last `asked.interval_s`.

        Raises:
            SourceFailed: nothing is known; the message says why.
        """
        ...


class Sources:
    """One source for each metric; to be used as an async context manager, which owns their connections.

    Counters and reports are compared with what they showed last, which is kept here; of another engine's looks `Asked`
    tells.
    """

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._web = Web()
        self._sources = {metric.name: _source(metric, self._web) for metric in metrics}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._web.aclose()

    def readings(self, metric: Metric) -> tuple[Counts, ...]:
        """What the metric's counters showed last; nothing for one whose source tells of an interval."""
        source = self._sources.get(metric.name)
        return source.last if isinstance(source, _Differences) else ()

    async def observe(self, metric: Metric, asked: Asked) -> Interval:
        """Ask the metric's source. Never raises for what the source does; returns within its `timeout_s`."""
        try:
            answer = await self._sources[metric.name].counts(asked)
        except SourceFailed as error:
            return Interval(problem=str(error))
        return interval_of(asked, answer, metric.kind)


class _Differences:
    """A source whose answers are counters."""

    def __init__(self, inner: Source, metric: Metric) -> None:
        self._inner = inner
        self._kind = metric.kind
        self._counters = Counters()

    @property
    def last(self) -> tuple[Counts, ...]:
        return self._counters.last

    async def counts(self, asked: Asked) -> Answer:
        answer = await self._inner.counts(asked)
        self._counters.begin((*asked.updated, *asked.others), asked.readings)
        hosts = [each.host for each in answer.counts]
        if len(set(hosts)) != len(hosts) or any(fault_of_counts(each, self._kind) for each in answer.counts):
            return answer  # a lie: told as it stands, and never remembered
        return self._counters.differences(answer.counts)


def _source(metric: Metric, web: Web) -> Source:
    if metric.prometheus is not None:
        return PrometheusSource(metric.prometheus, metric.kind, web)
    if metric.reports is not None:
        return ReportsSource()
    if metric.command is not None:
        command = CommandSource(metric.command)
        return _Differences(command, metric) if metric.command.counters else command
    if metric.http is not None:
        http = HttpSource(metric.http, web)
        return _Differences(http, metric) if metric.http.counters else http
    raise ConfigError(f"metric {metric.name} has no source")
