"""Owns the simulated fleet: its traffic, its failures, what a build does to them. No rule is known here.

Hosts differ in traffic and in how often they fail; both sway in common from minute to minute, and single hosts have
bursts. A minute's draws depend on the world's seed, the minute and who runs what: every rule meets the same world.
"""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from typing import Final

from checkpoint.verdicts import Counts, History, Interval

TIERS: Final = (("staging", 2, 0.02), ("dogfood", 4, 0.3), ("canary", 4, 1.0), ("prod", 100, 1.0))
"""Name, hosts, and their traffic beside that of production."""
HISTORY_MINUTES: Final = 24 * 60
BEFORE_MINUTES: Final = 60
"""Minutes that are simulated before the rollout, for rules that look back."""

_REQUESTS: Final = 600.0
_FAILURE_SHARE: Final = 0.0005
_HOSTS_VARY: Final = 0.3
_MINUTES_VARY: Final = 0.2
_BURST_CHANCE: Final = 0.0005
_BURST_FACTOR: Final = 10.0
_OUTAGE_MINUTES: Final = 10


@dataclass(frozen=True)
class Scenario:
    """What happens in a rollout.

    Attributes:
        name: for the table.
        factor: how much more often updated hosts fail.
        is_of_one_host: whether only one of the canary's hosts does.
        outage_factor: how much more often all hosts fail for ten minutes, somewhen in the rollout.
        traffic: beside the usual.
        silent_share: share of updated hosts of which nothing is known.
    """

    name: str
    factor: float = 1.0
    is_of_one_host: bool = False
    outage_factor: float = 1.0
    traffic: float = 1.0
    silent_share: float = 0.0

    @property
    def is_bad(self) -> bool:
        return self.factor > 1 and not self.is_of_one_host

    @property
    def is_blind(self) -> bool:
        """Whether so much is unknown that going on would be guessing."""
        return self.silent_share > 0


SCENARIOS: Final = (
    Scenario("good build"),
    Scenario("build 2 times worse", factor=2.0),
    Scenario("build 5 times worse", factor=5.0),
    Scenario("build 20 times worse", factor=20.0),
    Scenario("one host 20 times worse", factor=20.0, is_of_one_host=True),
    Scenario("outage of everything, 10 times, 10 minutes", outage_factor=10.0),
    Scenario("sparse traffic, good build", traffic=1 / 15),
    Scenario("sparse traffic, 5 times worse", traffic=1 / 15, factor=5.0),
    Scenario("3 in 10 updated hosts silent, good build", silent_share=0.3),
    Scenario("all updated hosts silent, 20 times worse", silent_share=1.0, factor=20.0),
)


class World:
    """One fleet in one scenario.

    Attributes:
        hosts: all of them, in the order in which the pipeline reaches them.
    """

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self._seed = seed
        chance = random.Random(seed)
        self.hosts: list[str] = []
        self._traffic: list[float] = []
        self._share: list[float] = []
        for tier, count, traffic in TIERS:
            for number in range(count):
                self.hosts.append(f"{tier}-{number + 1}")
                self._traffic.append(traffic * scenario.traffic * math.exp(chance.gauss(0, 0.2)))
                shape = 1 / _HOSTS_VARY**2
                self._share.append(chance.gammavariate(shape, 1 / shape))
        canary = [number for number, host in enumerate(self.hosts) if host.startswith("canary")]
        self.bad_host = chance.choice(canary) if scenario.is_of_one_host else None
        self._outage_at = chance.uniform(0, 95)
        self._made: dict[tuple[int, frozenset[int]], list[Counts]] = {}
        self._is_silent = [chance.random() < scenario.silent_share for _ in self.hosts]

    def history(self) -> History:
        """A day before the rollout."""
        chance = random.Random(f"{self._seed} history")
        made = {}
        for host, traffic, share in zip(self.hosts, self._traffic, self._share, strict=True):
            total = round(_REQUESTS * traffic * HISTORY_MINUTES)
            made[host] = (float(poisson(chance, total * _FAILURE_SHARE * share)), float(total))
        return History(made)

    def minute(self, minute: int, updated: frozenset[int]) -> list[Counts]:
        """What each host does in that minute, in the order of `hosts`; made once for all rules."""
        key = (minute, updated)
        if key not in self._made:
            self._made[key] = self._make(minute, updated)
        return self._made[key]

    def _make(self, minute: int, updated: frozenset[int]) -> list[Counts]:
        chance = random.Random(f"{self._seed} {minute}")
        common = math.exp(chance.gauss(0, _MINUTES_VARY))
        load = 1 + 0.3 * math.sin(minute / 120)
        scenario = self.scenario
        if 0 <= minute - self._outage_at < _OUTAGE_MINUTES:
            common *= scenario.outage_factor
        totals = [max(1, round(_REQUESTS * traffic * load)) for traffic in self._traffic]
        means = [total * _FAILURE_SHARE * share * common for total, share in zip(totals, self._share, strict=True)]
        for burst in _rare(chance, len(means), _BURST_CHANCE):
            means[burst] *= _BURST_FACTOR
        if scenario.factor != 1:
            for number in updated if self.bad_host is None else updated & {self.bad_host}:
                means[number] *= scenario.factor
        bad = [0] * len(means)
        cumulative = list(itertools.accumulate(means))
        for number in chance.choices(range(len(means)), cum_weights=cumulative, k=poisson(chance, cumulative[-1])):
            bad[number] += 1
        return [
            Counts(host, float(min(failures, total)), float(total))
            for host, failures, total in zip(self.hosts, bad, totals, strict=True)
        ]

    def split(self, counts: list[Counts], updated: frozenset[int]) -> Interval:
        """Both sides; silent hosts are named."""
        shown = [number for number in sorted(updated) if not self._is_silent[number]]
        return Interval(
            updated=tuple(counts[number] for number in shown),
            others=tuple(each for number, each in enumerate(counts) if number not in updated),
            silent=tuple(self.hosts[number] for number in sorted(updated) if self._is_silent[number]),
        )


def poisson(chance: random.Random, mean: float) -> int:
    """A count of rare events: exact for small means, in parts for large ones."""
    count = 0
    while mean > 500:  # so that exp does not vanish
        part = chance.gammavariate(400, 1)  # when the 400th event happens
        if part > mean:
            return count + sum(chance.random() * part < mean for _ in range(399))
        count, mean = count + 400, mean - part
    limit, product = math.exp(-mean), chance.random()
    while product > limit:
        count += 1
        product *= chance.random()
    return count


def _rare(chance: random.Random, count: int, share: float) -> list[int]:
    return [chance.randrange(count) for _ in range(poisson(chance, count * share))]
