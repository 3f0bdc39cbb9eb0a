"""Owns what verdicts are made of: counts of hosts in an interval, counts before the deploy, and what is wrong. Pure.

Where they come from is left to `checkpoint.verdicts.sources`; what follows from them, to `checkpoint.verdicts.judging`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

Kind = Literal["share", "rate"]

_PRIOR_BAD: Final = 10.0
"""A host's own past counts in full from about so many failures on; with fewer it leans on the fleet's mean."""


class Counts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one host did in one interval.

    Attributes:
        bad: failures that began in the interval.
        total: what they are out of: requests, attempts; or, of a metric of kind `rate`, exposure such as host-seconds.
    """

    host: str
    bad: float
    total: float


class Interval(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """All that a source said of one interval, in any order.

    Hosts that changed their build within the interval belong to neither side: leave them out.

    Attributes:
        updated: hosts on the new build.
        others: hosts that are not updated yet, over the same time: the control.
        silent: updated hosts of which the source said nothing.
        problem: why the whole answer cannot be used, or None.
        notes: what was odd about single hosts, for people.
    """

    updated: tuple[Counts, ...] = ()
    others: tuple[Counts, ...] = ()
    silent: tuple[str, ...] = ()
    problem: str | None = None
    notes: tuple[str, ...] = ()


class History(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bad and total of each host before the rollout: gives weights, and is the control where no host is left."""

    hosts: dict[str, tuple[float, float]]

    @property
    def bad(self) -> float:
        """Failures of all hosts."""
        return math.fsum(bad for bad, _ in self.hosts.values())

    @property
    def total(self) -> float:
        """Exposure of all hosts."""
        return math.fsum(total for _, total in self.hosts.values())

    def weights(self) -> Mapping[str, float]:
        """How much worse than the fleet's mean each host was, shrunk towards 1 where little is known of it."""
        bad, total = self.bad, self.total
        if bad <= 0 or total <= 0:
            return {}
        mean = bad / total
        return {
            host: (own_bad + _PRIOR_BAD) / (own_total + _PRIOR_BAD / mean) / mean
            for host, (own_bad, own_total) in self.hosts.items()
        }


def fault_in(interval: Interval, kind: Kind) -> str | None:
    """Why the interval must not be used, in words; None where it is sound."""
    if interval.problem is not None:
        return interval.problem
    seen: set[str] = set(interval.silent)
    for counts in sorted((*interval.updated, *interval.others), key=lambda each: each.host):
        if counts.host in seen:
            return f"host {counts.host} is counted twice"
        seen.add(counts.host)
        if fault := fault_of_counts(counts, kind):
            return fault
    return None


def fault_of_counts(counts: Counts, kind: Kind) -> str | None:
    """Why one host's counts cannot be true, or None."""
    where, bad, total = f"host {counts.host}", counts.bad, counts.total
    if not (math.isfinite(bad) and math.isfinite(total)):
        return f"{where}: bad {bad:g} of {total:g} is no number"
    if bad < 0 or total < 0:
        return f"{where}: bad {bad:g} of {total:g} is negative"
    if kind == "share" and bad > total:
        return f"{where}: {bad:g} bad are more than the total of {total:g}"
    if bad > 0 and total == 0:
        return f"{where}: {bad:g} bad of nothing"
    return None


def with_interval(history: History, interval: Interval) -> History:
    """The history and this interval: what is kept while no rollout runs."""
    hosts = dict(history.hosts)
    for counts in (*interval.updated, *interval.others):
        bad, total = hosts.get(counts.host, (0.0, 0.0))
        hosts[counts.host] = (bad + counts.bad, total + counts.total)
    return History(hosts)
