"""Owns the life of the agent's process: start, signals, reload, shutdown in order.

What happens in between is the loop's, `agent.runner`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import structlog

from agent.blocking import run_blocking
from agent.config import Identity, Settings, load_settings
from agent.events import Command, RepullRequested, SlotLost
from agent.history import History
from agent.joining import follow_orders
from agent.logs import configure_logs
from agent.maintenance import Maintenance
from agent.memory import Memory
from agent.notify import Notifier
from agent.privileges import keep_capabilities_from_children
from agent.ready import ReadyPuller
from agent.reporter import Reporter
from agent.runner import Runner, Situation
from agent.scrub import Scrubber
from agent.server import StatusServer, Writers
from agent.slots import SlotKeeper
from agent.status import Sources, status_of
from agent.work import Workshop
from artifact import ConfigError, HotcoldError
from fleet import ConsulStore, Store
from fleet.keys import slots_prefix
from swapper import Swapper

log = structlog.get_logger()

BEAT_S = 5.0
"""The loop shows that it lives at least so often."""
SILENCE_S = 30.0
"""A loop that showed nothing for so long is unhealthy."""


def run(config_path: Path, environment: Mapping[str, str] | None = None) -> int:
    """Run the agent until SIGTERM or SIGINT; the exit status.

    Raises:
        ConfigError: it cannot start as configured: configuration, lock, paths, permissions.
    """
    environment = os.environ if environment is None else environment
    settings = load_settings(config_path, environment)
    configure_logs(settings.log, environment)
    return asyncio.run(Daemon(config_path, settings, environment).run(), debug=False)


class Daemon:
    """One agent from start to stop."""

    def __init__(
        self,
        config_path: Path,
        settings: Settings,
        environment: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._config_path = config_path
        self._settings = settings
        self._environment = environment
        self._clock = clock
        self._sleep = sleep
        self._chance = random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._notifier = Notifier(environment)
        self._config_problem: str | None = None
        self._beat_at_s = clock()
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()

    async def run(self) -> int:
        """Start, serve until a signal, stop; 0."""
        identity = self._settings.identity
        started_s = self._clock()
        # Neither hooks nor the child that opens foreign archives may look into other processes.
        keep_capabilities_from_children()
        async with contextlib.AsyncExitStack() as stack:
            swapper = await run_blocking(Swapper.open, identity.layout, now=_now, clock=self._clock)
            stack.callback(swapper.close)
            store = await stack.enter_async_context(ConsulStore(identity.consul))
            http = await stack.enter_async_context(aiohttp.ClientSession())
            memory = Memory(identity.layout.state_dir)
            history = await History.open(identity.layout.state_dir)
            configure_logs(self._settings.log, self._environment, note=history.note)
            stack.callback(configure_logs, self._settings.log, self._environment)
            reporter = Reporter(
                store, identity, ttl_s=self._settings.report.ttl_s, sleep=self._sleep, chance=self._chance
            )
            slots = SlotKeeper(
                store,
                slots_prefix(identity.app, identity.tier),
                identity.host,
                lost=lambda: runner.post(SlotLost()),
                clock=self._clock,
                sleep=self._sleep,
                chance=self._chance,
            )
            maintenance = Maintenance(
                store,
                memory,
                services=lambda: self._settings.drain.consul_services,
                sleep=self._sleep,
                chance=self._chance,
            )
            pullers = ReadyPuller(lambda: self._settings.fetch.keep_puller_ready)
            workshop = Workshop(
                settings=lambda: self._settings,
                swapper=swapper,
                memory=memory,
                slots=slots,
                maintenance=maintenance,
                pullers=pullers,
                http=http,
                clock=self._clock,
                now=_now,
                sleep=self._sleep,
                chance=self._chance,
            )
            runner = Runner(
                settings=lambda: self._settings,
                swapper=swapper,
                memory=memory,
                workshop=workshop,
                clock=self._clock,
                now=_now,
                changed=lambda situation: self._changed(situation, reporter),
                beat=self._beat,
            )
            scrubber = Scrubber(
                settings=lambda: self._settings.scrub,
                layout=identity.layout,
                swapper=swapper,
                now=_now,
                sleep=self._sleep,
            )
            sources = Sources(
                app=identity.app,
                tier=identity.tier,
                host=identity.host,
                root=str(identity.layout.root),
                config_path=str(self._config_path),
                store_address=identity.consul.address,
                swapper=swapper,
                contact=store.contact,
                observed=workshop.observed,
                workers=lambda: self._settings.drain.workers,
                scrubbed=lambda: scrubber.found,
                situation=lambda: runner.situation,
                config_problem=lambda: self._config_problem,
                clock=self._clock,
                started_s=started_s,
            )
            server = StatusServer(
                identity.socket,
                identity.access,
                writers=lambda: Writers(self._settings.write_group, str(self._config_path)),
                status=lambda: status_of(sources),
                observed=workshop.observed,
                unhealthy=self._unhealthy,
                post=runner.post,
                refusal=lambda: runner.situation.model.facts.refusal,
                history=history,
            )
            if not await run_blocking(memory.is_absent):
                maintenance.come_back()  # a former life may have ended before Consul heard of its return
            for problem in await runner.wake():
                log.warning("found at start", problem=problem)
            await server.start()
            stack.push_async_callback(server.aclose)
            self._listen_to_signals(runner.post)
            await self._serve(
                runner,
                reporter,
                slots=slots,
                maintenance=maintenance,
                pullers=pullers,
                scrubber=scrubber,
                history=history,
                store=store,
                identity=identity,
            )
        log.info("stopped")
        return 0

    async def _serve(
        self,
        runner: Runner,
        reporter: Reporter,
        *,
        slots: SlotKeeper,
        maintenance: Maintenance,
        pullers: ReadyPuller,
        scrubber: Scrubber,
        history: History,
        store: Store,
        identity: Identity,
    ) -> None:
        log.info("started", app=identity.app, tier=identity.tier, host=identity.host, pid=os.getpid())
        async with asyncio.TaskGroup() as group:
            loop = group.create_task(runner.run(group), name="loop")
            watch = group.create_task(self._watch(store, identity, runner), name="watch")
            others = [
                group.create_task(reporter.run(group), name="reports"),
                group.create_task(slots.run(), name="slot"),
                group.create_task(maintenance.run(), name="maintenance"),
                group.create_task(pullers.run(), name="ready puller"),
                group.create_task(scrubber.run(), name="scrub"),
                group.create_task(history.run(), name="history"),
                group.create_task(self._beat_for_ever(runner), name="beats"),
                group.create_task(self._reload_for_ever(identity, runner, history), name="reloads"),
            ]
            reporter.tell(runner.situation)
            self._notifier.ready(_status_line(runner.situation))
            await self._stop.wait()
            # Shutdown, in this order; docs/architecture.md gives the same list.
            # 1. Tell the service manager, so that it waits.
            self._notifier.stopping("stopping: finishing or abandoning what is under way")
            log.info("stopping", state=runner.situation.state_name)
            # 2. Hear no more orders.
            watch.cancel()
            # 3. Finish a swap, proof or return; abandon anything earlier; give the slot back.
            try:
                async with asyncio.timeout(self._settings.stop_timeout_s):
                    await runner.come_to_rest()
            except TimeoutError:
                log.warning("stopping before all is done; the next start goes on", state=runner.situation.state_name)
            # 4. End the tasks; a swap under way in its thread is waited for.
            for task in (*others, loop):
                task.cancel()
            # 5. Bring Consul's services back, and show at once that no agent runs here.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    with contextlib.suppress(HotcoldError):  # `run` has said why, and the next start tries again
                        await maintenance.finish()
                    await reporter.say_stopped()
        # 6. The caller closes the socket, the store, and last the locks.

    async def _watch(self, store: Store, identity: Identity, runner: Runner) -> None:
        await follow_orders(
            store, identity, lambda: self._settings, see=runner.see, sleep=self._sleep, chance=self._chance
        )

    def _changed(self, situation: Situation, reporter: Reporter) -> None:
        if not self._stop.is_set():
            reporter.tell(situation)
            self._notifier.status(_status_line(situation))

    # --- health -------------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        self._beat_at_s = self._clock()
        self._notifier.watchdog()

    async def _beat_for_ever(self, runner: Runner) -> None:
        """Pass beats through the loop, so that only a loop that handles messages looks alive."""
        interval_s = self._notifier.watchdog_interval_s
        while True:
            runner.post_beat()
            await self._sleep(BEAT_S if interval_s is None else min(BEAT_S, interval_s))

    def _unhealthy(self) -> str | None:
        silence_s = self._clock() - self._beat_at_s
        return f"the loop has handled nothing for {silence_s:.0f} s" if silence_s > SILENCE_S else None

    # --- signals ------------------------------------------------------------------------------------------------------

    def _listen_to_signals(self, post: Callable[[Command], None]) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        loop.add_signal_handler(signal.SIGUSR1, lambda: post(RepullRequested()))

    async def _reload_for_ever(self, identity: Identity, runner: Runner, history: History) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            self._notifier.reloading()
            try:
                settings = await run_blocking(load_settings, self._config_path, self._environment)
                _check_same(identity, settings.identity)
            except HotcoldError as error:
                self._config_problem = str(error)
                log.error("configuration refused, the old one stays", error=str(error))  # noqa: TRY400 - says it all
            else:
                self._settings, self._config_problem = settings, None
                runner.reconsider()
                configure_logs(settings.log, self._environment, note=history.note)
                log.info("configuration read again")
            self._notifier.ready("configuration refused" if self._config_problem else "configuration read again")


def _check_same(old: Identity, new: Identity) -> None:
    for field in ("app", "tier", "host", "layout", "socket", "consul", "access"):
        if getattr(old, field) != getattr(new, field):
            key = {"layout": "root or state_dir", "access": "access.mode or access.group"}.get(field, field)
            raise ConfigError(f"{key} changed: that needs a restart of the agent, a reload cannot do it")


def _status_line(situation: Situation) -> str:
    hot = situation.model.facts.hot
    return f"{situation.state_name}, hot: {hot.build_id if hot else 'nothing'}"


def _now() -> datetime:
    return datetime.now(UTC)
