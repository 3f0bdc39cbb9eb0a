"""Owns what the rollouts have shown, as `--json` prints it; leaves finding out to `hotcold.demo.rollouts.story`."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec


class GoodRollout(msgspec.Struct, frozen=True, kw_only=True):
    """The build that goes all the way.

    Attributes:
        finished: every host of every tier runs it.
        took_s: from its start to its last verdict; None: it has no end.
        failed: requests that did not get their page meanwhile, on any host.
    """

    finished: bool = False
    took_s: float | None = None
    requests: int = 0
    failed: int = 0


class BadRollout(msgspec.Struct, frozen=True, kw_only=True):
    """The build whose fault only customers meet.

    Attributes:
        stopped_at: the step at which the engine rolled it back by itself; None: it did not.
        hosts_reached: hosts that ran it, of all.
        detect_ms: from when the first host that customers ask ran it, to the decision to roll back.
        rollback_ms: from that decision until the last host's `hot` was the build before.
        requests, failed: on all hosts, from the start until all was back.
        failed_elsewhere: of those that failed, on hosts that never ran it.
    """

    stopped_at: str | None = None
    hosts_reached: int = 0
    detect_ms: float | None = None
    rollback_ms: float | None = None
    requests: int = 0
    failed: int = 0
    failed_elsewhere: int = 0


class RolloutsOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Both rollouts.

    Attributes:
        mixed: requests whose page was not of one build, over all.
        steered_by: who took the rollouts over on the pages, so that the rest was not shown; None: nobody.
    """

    hosts: int
    good: GoodRollout
    bad: BadRollout
    mixed: int
    steered_by: str | None = None

    @property
    def is_good(self) -> bool:
        """Whether all that was promised held, as far as it could be shown."""
        if self.steered_by is not None:
            return self.mixed == 0
        good, bad = self.good, self.bad
        is_through = good.finished and good.failed == 0 and self.mixed == 0
        is_stopped = bad.stopped_at == "canary to 100 %" and bad.rollback_ms is not None
        return is_through and is_stopped and bad.failed > 0 and bad.failed_elsewhere == 0


@dataclass
class RolloutFindings:
    """What is found out while the rollouts go on."""

    good: GoodRollout = field(default_factory=GoodRollout)
    bad: BadRollout = field(default_factory=BadRollout)
    steered_by: str | None = None

    def outcome(self, host_count: int, mixed: int) -> RolloutsOutcome:
        """The result so far."""
        return RolloutsOutcome(hosts=host_count, good=self.good, bad=self.bad, mixed=mixed, steered_by=self.steered_by)
