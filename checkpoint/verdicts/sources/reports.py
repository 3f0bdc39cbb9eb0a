"""Owns what agents' reports count as: each deploy that a host finished, failed or refused, once.

Reading reports is left to whoever asks. What probes said is in them: a build that fails its probe is rolled back by the
host, and the report says so.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from checkpoint.verdicts.observed import Counts
from checkpoint.verdicts.sources.asking import Answer, Asked
from fleet import Report

_FAILED: Final = frozenset({"rolled_back", "build_refused"})
_DONE: Final = frozenset({"steady"})

_Outcome = tuple[str | None, bool, str]


class ReportsSource:
    """Compares reports with those that it saw before: a new outcome of a host counts in the interval that shows it.

    At its first look it has seen none: then what hosts came to since another engine's last look is new, by their
    clocks.

    Hosts that are still at it have nothing to count; hosts without a report are silent.
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Outcome | None] = {}

    async def counts(self, asked: Asked) -> Answer:
        """Read `asked.reports`; fails never."""
        made: list[Counts] = []
        oddities: dict[str, str] = {}
        reports = {report.host: report for report in asked.reports}
        is_first = not self._seen
        updated = set(asked.updated)
        for host in (*asked.updated, *asked.others):
            report = reports.get(host)
            if report is None:
                oddities[host] = "it has no report that can be read"
                continue
            outcome = _outcome(report)
            is_other = _is_since(report, asked.last_look) if is_first else outcome != self._seen.get(host)
            is_news = outcome is not None and is_other and host in updated
            self._seen[host] = outcome or self._seen.get(host)
            if is_news and outcome is not None:
                made.append(Counts(host, float(outcome[1]), 1.0))
            else:
                made.append(Counts(host, 0.0, 0.0))
        return Answer(tuple(made), oddities)


def _is_since(report: Report, moment: datetime | None) -> bool:
    if moment is None:
        return False
    try:
        since = datetime.fromisoformat(report.since)
    except ValueError:
        return False
    return since.tzinfo is not None and since > moment


def _outcome(report: Report) -> _Outcome | None:
    """Of which build, whether it failed, and when, since it may fail again; None while it is under way."""
    if report.state in _FAILED:
        return (report.wanted, True, report.since)
    return (report.wanted, False, "") if report.state in _DONE else None
