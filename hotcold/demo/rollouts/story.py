"""Owns the two rollouts of the demo, from their plans to their figures, and how each is judged.

What has to be up before is left to `hotcold.demo.rollouts.act`. Rollouts are started and approved as `hotcold rollout`
does it; all else is done by the engine, also stopping the bad one.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from artifact import Refused
from checkpoint.actions import Desk
from checkpoint.pipeline import Pipeline
from checkpoint.rollout import states as st
from checkpoint.rollout.events import ApproveRequested, Origin
from checkpoint.rollout.ledger import Ongoing
from checkpoint.rollout.machine import named
from hotcold.demo.builds import Code
from hotcold.demo.children import DemoFailed
from hotcold.demo.lookout import Flip
from hotcold.demo.rollouts.outcome import BadRollout, GoodRollout, RolloutFindings
from hotcold.demo.rollouts.pipeline import CUSTOMERS
from hotcold.demo.stage import STEP_DEADLINE_S, Stage
from hotcold.terminal import many

START: Final = "2.0"
GOOD: Final = "2.1"
BAD: Final = "2.2-no-yen"
SPARE: Final = "2.3"
BUILDS: Final = {START: Code.GOOD, GOOD: Code.GOOD, BAD: Code.WITHOUT_YEN, SPARE: Code.GOOD}
"""`SPARE` is for whoever wants to roll out something, too."""
TITLES: Final = (
    "Checkpoint, and nine hosts in four tiers",
    "a good build goes all the way",
    "a bad build, which no probe finds, stops itself",
)

_LOOK_S: Final = 0.1
_TOLD_CHARACTERS: Final = 220
_ENGINE: Final = "checkpoint@"
"""What the names of engines begin with."""
_FRESH_LINES: Final = 2
"""The next line of counts may have been on its way already; the one after it was not."""


class TakenOver(Exception):
    """Somebody steers the rollouts on the pages, so that the demo steps back. `by` says who."""

    def __init__(self, by: str) -> None:
        super().__init__(by)
        self.by = by


@dataclass(frozen=True)
class RolloutStage(Stage):
    """What the rollouts work with.

    Attributes:
        desk: where they are started and approved.
        pipeline: that they go through.
        person: who does that, and is signed in by the link: the commander.
    """

    desk: Desk
    pipeline: Pipeline
    findings: RolloutFindings
    person: str

    def origin(self, reason: str) -> Origin:
        """The person, now."""
        return Origin(by=self.person, via="cli", reason=reason, at=datetime.now(UTC))

    async def start(self, build: str, reason: str) -> int:
        """Start a rollout; its number.

        Raises:
            TakenOver: somebody has started another one, or has locked the app.
        """
        plan = await self.desk.plan(self.pipeline, await self.reference(build), by=self.person, reason=reason)
        try:
            await self.desk.start(plan, self.origin(reason))
        except Refused as refused:
            raise TakenOver(str(refused)) from refused
        return plan.number

    async def counted(self) -> tuple[int, int]:
        """Requests on all hosts so far, and those of them that failed; as of now."""
        seen = self.board.count_lines
        while self.board.count_lines < seen + _FRESH_LINES:  # noqa: ASYNC110 - told by another process
            await asyncio.sleep(_LOOK_S)
        return sum(each.requests for each in self.board.counts), sum(each.failed for each in self.board.counts)

    def tried(self, build: str, since_s: float) -> dict[str, Flip]:
        """For each host whose `hot` led to a build, when it first did."""
        first: dict[str, Flip] = {}
        for flip in self.lookout.flips(since_s=since_s):
            if flip.build == build:
                first.setdefault(flip.host, flip)
        return first


async def roll_out_good(stage: RolloutStage) -> None:
    """A build without a fault goes through every step, and no request fails."""
    before, began_s = await stage.counted(), time.monotonic()
    number = await stage.start(GOOD, "prices load faster")
    stage.board.say(f"rollout {number}: {GOOD}, from staging to 100 % of production", "cyan")
    ended = await _followed(stage, number)
    if not isinstance(ended.rollout.phase, st.Finished):
        raise DemoFailed(f"rollout {number} of {GOOD} is {ended.rollout.phase_name}: {_reason(ended.rollout.phase)}")
    await stage.until_all_run(GOOD)
    took_s, after = time.monotonic() - began_s, await stage.counted()
    requests, failed = after[0] - before[0], after[1] - before[1]
    stage.findings.good = GoodRollout(finished=True, took_s=round(took_s, 1), requests=requests, failed=failed)
    stage.board.say(
        f"{GOOD} runs on all {len(stage.hosts)} hosts after {took_s:.0f} s; of {requests:,} requests {failed} failed",
        "green" if failed == 0 else "bold red",
    )


async def roll_out_bad(stage: RolloutStage) -> None:
    """A build that passes every probe, and staging and dogfood, is stopped by what the canary's customers meet."""
    before, began_s = await stage.counted(), time.monotonic()
    number = await stage.start(BAD, "prices in a table")
    stage.board.say(f"rollout {number}: {BAD}, which cannot be paid for in yen, as customers do now and then", "cyan")
    ended = await _followed(stage, number)
    phase, reached = ended.rollout.phase, stage.tried(BAD, began_s)
    if not isinstance(phase, st.RolledBack):
        stage.findings.bad = BadRollout(hosts_reached=len(reached))
        stage.board.say(f"rollout {number} of {BAD} was not stopped: it is {ended.rollout.phase_name}", "bold red")
        return
    await stage.until_all_run(GOOD)
    after = await stage.counted()
    decided_s = _monotonic(phase.since)
    serving_s = min((flip.at_s for host, flip in reached.items() if host in CUSTOMERS), default=None)
    back = {host: flip.at_s for host, flip in stage.tried(GOOD, decided_s).items() if host in reached}
    failed = after[1] - before[1]
    elsewhere = sum(view.count.failed for host, view in stage.board.hosts.items() if host not in reached)
    found = stage.findings.bad = BadRollout(
        stopped_at=named(ended.plan.steps[phase.step]),
        hosts_reached=len(reached),
        detect_ms=None if serving_s is None else round((decided_s - serving_s) * 1000, 1),
        rollback_ms=round((max(back.values()) - decided_s) * 1000, 1) if back.keys() == reached.keys() else None,
        requests=after[0] - before[0],
        failed=failed,
        failed_elsewhere=elsewhere,
    )
    _say_stopped(stage, found, phase.reason)


def _say_stopped(stage: RolloutStage, found: BadRollout, reason: str) -> None:
    board = stage.board
    detected = "" if found.detect_ms is None else f", {found.detect_ms / 1000:.1f} s after its first customers"
    board.say(f"{BAD} stopped itself at {found.stopped_at}{detected}", "green")
    board.say(f"why: {_shortened(reason)}", "dim")
    back = "not all came back" if found.rollback_ms is None else f"all were back {found.rollback_ms:.0f} ms later"
    board.say(f"it had reached {found.hosts_reached} of {len(stage.hosts)} hosts; {back}", "green")
    board.say(
        f"of {found.requests:,} requests {found.failed:,} failed, {found.failed_elsewhere:,} of them on hosts that "
        "never had it",
        "green" if found.failed_elsewhere == 0 else "bold red",
    )


async def _followed(stage: RolloutStage, number: int) -> Ongoing:
    """The rollout when it has ended; says each step, and gives the approval.

    Raises:
        TakenOver: a person ended it, or started another one.
        DemoFailed: it stays where it is.
    """
    told, began_s, phase, paused = 0, time.monotonic(), None, ""
    entered_s = began_s
    while True:
        ongoing = await stage.desk.ledger.latest()
        if ongoing is None or ongoing.rollout.number != number:
            raise TakenOver("another rollout was started")
        rollout = ongoing.rollout
        if rollout.phase != phase:
            phase, entered_s = rollout.phase, time.monotonic()
        through = len(ongoing.plan.steps) if isinstance(phase, st.Finished) else rollout.phase.step
        for step in ongoing.plan.steps[told:through]:
            hosts, took_s = many(step.host_count, "host"), time.monotonic() - began_s
            stage.board.say(f"{named(step)}: {hosts}, passed after {took_s:.1f} s")
            told, began_s = told + 1, time.monotonic()
        if rollout.is_ended:
            _check_by_itself(rollout.phase)
            return ongoing
        if isinstance(phase, st.Approving):
            await _approve(stage)
        if isinstance(phase, st.Paused):
            if phase.reason != paused:
                stage.board.say(f"paused by {phase.by}: {_shortened(phase.reason)}", "yellow")
            paused = phase.reason
        if time.monotonic() - entered_s > STEP_DEADLINE_S and not _waits_for_a_person(phase):
            shown = await stage.desk.look()
            why = "" if shown is None else "; ".join(shown.waiting_for)
            raise DemoFailed(f"rollout {number} is {rollout.phase_name} for {STEP_DEADLINE_S:g} s: {why}")
        await asyncio.sleep(_LOOK_S)


async def _approve(stage: RolloutStage) -> None:
    try:
        await stage.desk.act(ApproveRequested(), stage.origin("the smoke test is good"))
    except Refused:  # somebody was faster, on the pages: the next look shows what they did
        return


def _check_by_itself(phase: st.Phase) -> None:
    """Refuse an end that a person brought about.

    Raises:
        TakenOver: it was one.
    """
    if isinstance(phase, (st.Aborted, st.RolledBack)) and not phase.by.startswith(_ENGINE):
        raise TakenOver(phase.by)


def _waits_for_a_person(phase: st.Phase) -> bool:
    return isinstance(phase, st.Paused) and not phase.by.startswith(_ENGINE)


def _reason(phase: st.Phase) -> str:
    return _shortened(phase.reason) if isinstance(phase, (st.Paused, st.Aborted, st.RolledBack)) else ""


def _shortened(text: str) -> str:
    return text if len(text) <= _TOLD_CHARACTERS else f"{text[:_TOLD_CHARACTERS]}…"


def _monotonic(at: datetime) -> float:
    """A time of this machine's wall clock as `time.monotonic` would have shown it."""
    return at.timestamp() - time.time() + time.monotonic()
