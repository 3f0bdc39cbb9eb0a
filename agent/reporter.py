"""Owns what Consul hears of this host: its report at transitions, and a TTL check that says the agent lives.

What the report contains is decided by the loop's situation; a report that fails never undoes or delays anything.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from agent.config import Identity
from agent.runner import Situation
from agent.version import VERSION as AGENT_VERSION
from artifact import HotcoldError
from fleet import VERSION, Report, Service, Store, encode
from fleet.keys import host_key, service_id, service_name

log = structlog.get_logger()

RETRY_INITIAL_S = 1.0
RETRY_MAX_S = 60.0
CHECK_INTERVALS_PER_TTL = 5
"""Consul's agent may stall for seconds: fewer beats per TTL make the check flap."""


def report_of(identity: Identity, situation: Situation) -> Report:
    """The host's report in this situation."""
    facts, order = situation.model.facts, situation.order
    build = None if facts.goal is None else facts.goal.build
    return Report(
        v=VERSION,
        app=identity.app,
        tier=identity.tier,
        host=identity.host,
        serial=0 if order is None else order.serial,
        highest=0 if order is None else order.serial,
        state=situation.state_name,
        wanted=None if build is None else build.id,
        hot=None if facts.hot is None else facts.hot.build_id,
        standby=None if facts.standby is None else facts.standby.build_id,
        problem=situation.problem,
        agent=AGENT_VERSION,
        since=situation.since.isoformat(timespec="milliseconds"),
    )


class Reporter:
    """Sends the latest report until it has arrived, and keeps the TTL check passing while `run` runs.

    Args:
        ttl_s: of the check: after so long without a beat Consul calls the agent critical.
    """

    def __init__(
        self,
        store: Store,
        identity: Identity,
        *,
        ttl_s: float,
        sleep: Callable[[float], Awaitable[None]],
        chance: random.Random,
    ) -> None:
        self._store = store
        self._identity = identity
        self._ttl_s = ttl_s
        self._sleep = sleep
        self._chance = chance
        self._report: Report | None = None
        self._is_new = asyncio.Event()
        self._service = Service(
            id=service_id(identity.app, identity.tier, identity.host),
            name=service_name(identity.app),
            ttl_s=ttl_s,
            meta={"app": identity.app, "tier": identity.tier, "host": identity.host}
            | ({} if identity.zone is None else {"zone": identity.zone}),
        )

    def tell(self, situation: Situation) -> None:
        """Let the store know, soon; equal reports are sent once."""
        report = report_of(self._identity, situation)
        if report != self._report:
            self._report = report
            self._is_new.set()

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Send reports and beats until cancelled."""
        beats = group.create_task(self._beat_for_ever(), name="ttl check")
        try:
            while True:
                await self._is_new.wait()
                await self._send()
        finally:
            beats.cancel()

    async def say_stopped(self) -> None:
        """Show at once that no agent runs here, instead of after the TTL; best effort."""
        try:
            await self._store.fail_check(self._service, "agent stopped")
        except HotcoldError as error:
            log.info("cannot tell Consul that the agent stops", error=str(error))

    async def _send(self) -> None:
        key = host_key(self._identity.app, self._identity.tier, self._identity.host)
        attempt = 0
        while self._is_new.is_set() and self._report is not None:
            self._is_new.clear()
            try:
                await self._store.put(key, encode(self._report))
            except HotcoldError as error:
                attempt += 1
                self._is_new.set()
                log.warning("report not sent", kind=error.kind, error=str(error), attempt=attempt)
                ceiling_s = min(RETRY_MAX_S, RETRY_INITIAL_S * 2 ** min(attempt, 10))
                await self._sleep(self._chance.uniform(ceiling_s / 2, ceiling_s))

    async def _beat_for_ever(self) -> None:
        is_failing = False
        while True:
            try:
                await self._store.pass_check(self._service, self._note())
            except HotcoldError as error:
                if not is_failing:
                    log.warning("cannot beat Consul's check", kind=error.kind, error=str(error))
                is_failing = True
            else:
                is_failing = False
            await self._sleep(self._ttl_s / CHECK_INTERVALS_PER_TTL)

    def _note(self) -> str:
        """Stable while nothing changes: every new text would cost the servers a write."""
        report = self._report
        return "starting" if report is None else f"{report.state}, hot: {report.hot or 'nothing'}"
