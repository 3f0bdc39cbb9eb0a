"""Owns what a run of the demo has shown, as it is printed with `--json`; leaves finding out to `hotcold.demo.story`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from hotcold.demo.load import Count
from hotcold.demo.rollouts.outcome import RolloutsOutcome

StoreKind = Literal["consul", "embedded"]


class Spread(msgspec.Struct, frozen=True):
    """The middle and the worst of some times in milliseconds; None where nothing was measured."""

    p50: float | None
    max: float | None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a run.

    Attributes:
        requests: that clients have sent, under load from the first deploy to the end.
        failed: that got no answer, or not the page.
        mixed: whose page was not of one build.
        signal_to_hot_ms: from writing the order of a change to the flip of `hot`, over hosts and deploys.
        rollback_ms: the same for the rollback.
        recovered_after_kill: agents that were killed with -9 in the middle of a deploy finished it.
        bad_build_reverted: every host swapped the bad build in, and by itself back.
        checkpoint: what the rollouts have shown; absent where they were not asked for.
    """

    store: StoreKind
    hosts: int
    requests: int
    failed: int
    mixed: int
    signal_to_hot_ms: Spread
    rollback_ms: Spread
    recovered_after_kill: bool
    bad_build_reverted: bool
    checkpoint: RolloutsOutcome | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_good(self) -> bool:
        """Whether all that was promised held, but for the rollouts."""
        is_served = self.requests > 0 and self.failed == 0 and self.mixed == 0
        return is_served and self.recovered_after_kill and self.bad_build_reverted


@dataclass
class Findings:
    """What the story finds out while it is told; times in seconds."""

    signal_to_hot_s: list[float] = field(default_factory=list)
    rollback_s: list[float] = field(default_factory=list)
    recovered_after_kill: bool = False
    bad_build_reverted: bool = False

    def outcome(self, store: StoreKind, counts: Iterable[Count], rollouts: RolloutsOutcome | None = None) -> Outcome:
        """The result so far, with what clients got from each host."""
        counts = list(counts)
        return Outcome(
            store=store,
            hosts=len(counts),
            requests=sum(count.requests for count in counts),
            failed=sum(count.failed for count in counts),
            mixed=sum(count.mixed for count in counts),
            signal_to_hot_ms=_spread(self.signal_to_hot_s),
            rollback_ms=_spread(self.rollback_s),
            recovered_after_kill=self.recovered_after_kill,
            bad_build_reverted=self.bad_build_reverted,
            checkpoint=msgspec.UNSET if rollouts is None else rollouts,
        )


def _spread(times_s: list[float]) -> Spread:
    if not times_s:
        return Spread(None, None)
    return Spread(round(statistics.median(times_s) * 1000, 1), round(max(times_s) * 1000, 1))
