"""Owns how each effect of the machine is carried out: fetch, drain, swap, prove, go back, wait.

When each happens is left to `agent.machine`. Every failure becomes an outcome here; only cancellation passes through.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import assert_never

import aiohttp
import structlog

from agent.blocking import run_blocking, run_until_cancelled
from agent.config import HookPoint, Settings
from agent.drain import drain
from agent.durations import Durations
from agent.events import (
    AcquireSlot,
    AwaitRetry,
    CollectGarbage,
    DrainFailed,
    DrainFinished,
    FetchFailed,
    FetchFinished,
    Outcome,
    ProofFailed,
    ProofFinished,
    RecordRefusal,
    ReleaseSlot,
    RetryDue,
    ReturnToService,
    RunStagedHook,
    SlotTaken,
    StagedFailed,
    StagedPassed,
    StartDrain,
    StartFetch,
    StartProving,
    StartWatching,
    SwapBack,
    SwapBackFailed,
    SwapBackFinished,
    SwapFailed,
    SwapFinished,
    SwapIn,
    WatchFailed,
    WatchPassed,
    Work,
)
from agent.gauges import read_gauge
from agent.hooks import HookFailed, HookRun, run_hook
from agent.maintenance import Maintenance
from agent.memory import Absence, Memory, Watch
from agent.prove import prove, watch
from agent.rate import Rate
from agent.ready import ReadyPuller
from agent.slots import SlotKeeper
from agent.splay import splay_delay_s
from agent.states import Refusal, Tree, Trees
from agent.workers import Busy, trees_in_use
from artifact import ArtifactRejected, HotcoldError, IllegalTransition, ManifestRef
from artifact.pull import Local, LocalBase, Progress, Puller
from fleet import Order, Problem
from swapper import Disk, Prepared, Release, Swapper

log = structlog.get_logger()

_PAUSE_S = 1.0
QueuedEffect = Work | ReturnToService | ReleaseSlot | RecordRefusal | CollectGarbage


@dataclass
class ArtifactContact:
    """How artifact servers have answered in this life of the agent; None before the first pull.

    Attributes:
        url: where the last answer came from.
        last_answer_s: when bytes of an artifact last arrived, monotonic.
        failing_since_s: when a pull first failed since then, monotonic.
        error: what the latest failure said.
    """

    url: str | None = None
    last_answer_s: float | None = None
    failing_since_s: float | None = None
    error: str | None = None


@dataclass
class Observed:
    """What work under way lets others see; the status socket reads it."""

    progress: Progress | None = None
    artifacts: ArtifactContact = field(default_factory=ArtifactContact)
    rate: Rate = field(default_factory=Rate)
    waiting_for: Sequence[Busy] = ()
    retry_at_s: float | None = None
    hooks: dict[HookPoint, tuple[HookRun, datetime]] = field(default_factory=dict)
    swap_count: int = 0
    phases: dict[str, Durations] = field(default_factory=dict)
    deploys: Durations = field(default_factory=Durations)


def tree_of(release: Release) -> Tree:
    """The machine's view of a release."""
    return Tree(release.name, release.build_id, release.digest, release.proved)


def trees_on(disk: Disk) -> Trees:
    """The machine's view of a disk."""
    hot = None if disk.hot is None else tree_of(disk.hot)
    standby = None if disk.standby is None else tree_of(disk.standby)
    ready = tuple(tree_of(release) for release in disk.releases if release.complete and release != disk.hot)
    return Trees(hot, standby, ready)


def problem_of(error: HotcoldError) -> Problem:
    """The error as status and reports carry it."""
    return Problem(kind=error.kind, message=str(error))


def _warn_of_gaps(gaps: Sequence[str]) -> None:
    if gaps:
        log.warning("the process that opens archives is confined in part only", gaps=list(gaps))


class Workshop:
    """Carries effects out, one at a time.

    `order` is the order that is obeyed now, for the hooks' environment; the owner sets it.

    Args:
        settings: called at each use, so that a reload takes effect with the next effect.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        settings: Callable[[], Settings],
        swapper: Swapper,
        memory: Memory,
        slots: SlotKeeper,
        maintenance: Maintenance,
        pullers: ReadyPuller,
        http: aiohttp.ClientSession,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]],
        chance: random.Random,
    ) -> None:
        self._settings = settings
        self._swapper = swapper
        self._memory = memory
        self._slots = slots
        self._maintenance = maintenance
        self._pullers = pullers
        self._http = http
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._chance = chance
        self.observed = Observed()
        self._unrecorded_proof: Release | None = None
        self.order: Order | None = None
        self._splayed: tuple[int, str] | None = None

    async def perform(self, effect: QueuedEffect) -> Outcome | None:
        """Carry the effect out; its outcome, or None where it has none. Nothing but a cancellation is raised."""
        while True:
            try:
                async with _translated(type(effect).__name__):
                    return await self._perform(effect)
            except HotcoldError as error:
                log.error("effect failed", effect=type(effect).__name__, kind=error.kind, error=str(error))
                if isinstance(effect, ReturnToService | ReleaseSlot | RecordRefusal | CollectGarbage):
                    return None
                # Work owes the machine an outcome: go on trying, for instance until the disk can be read again.
                await self._sleep(_PAUSE_S)

    async def _perform(self, effect: QueuedEffect) -> Outcome | None:
        match effect:
            case StartFetch(build, is_repull):
                return await self._fetch(build, is_repull=is_repull)
            case RunStagedHook(tree):
                return await self._look_at_staged(tree)
            case AcquireSlot(slot_count):
                await self._slots.acquire(slot_count)
                return SlotTaken()
            case StartDrain(tree):
                return await self._drain(tree)
            case SwapIn(tree):
                return await self._swap_in(tree)
            case StartProving(tree):
                return await self._prove(tree)
            case StartWatching(tree):
                return await self._watch(tree)
            case SwapBack(fallback):
                return await self._swap_back(fallback)
            case AwaitRetry(attempt):
                return await self._await_retry(attempt)
            case ReturnToService():
                await self._return_to_service()
                return None
            case ReleaseSlot():
                await self._slots.release()
                return None
            case RecordRefusal(refusal):
                await self._keep_refusal(refusal)
                return None
            case CollectGarbage():
                await self._collect()
                return None
            case _:
                assert_never(effect)

    # --- fetching -----------------------------------------------------------------------------------------------------

    async def _fetch(self, build: ManifestRef, *, is_repull: bool) -> Outcome:
        try:
            async with _translated("fetching"):
                await self._await_splay(build, is_repull=is_repull)
                await self._run_hook("before_fetch", build_id=build.id)
                async with self._pullers.taken() as puller:
                    prepared = await run_blocking(self._prepare, build, is_repull=is_repull)
                    release = prepared.release
                    async with self._left_on_failure(puller, release, is_resumable=build.index is not None):
                        is_secured = await puller.pull(
                            build,
                            release.path,
                            settings=self._settings().pull,
                            on_progress=self._on_progress,
                            local=await run_blocking(self._local, prepared, is_repull=is_repull),
                            on_gaps=_warn_of_gaps,
                        )
                        durability = "done" if is_secured else self._settings().releases.durability
                        return FetchFinished(
                            tree_of(await run_blocking(self._swapper.complete, release, durability=durability))
                        )
        except HotcoldError as error:
            log.warning("fetch failed", build=build.id, kind=error.kind, error=str(error))
            self._note_failed_pull(error)
            return FetchFailed(problem_of(error), is_final=isinstance(error, ArtifactRejected))
        finally:
            self.observed.progress = None
            self.observed.rate = Rate()

    async def _await_splay(self, build: ManifestRef, *, is_repull: bool) -> None:
        """Wait for this host's share of the splay, once for each build of an order; a re-pull was asked for now."""
        serial = 0 if self.order is None else self.order.serial
        settings = self._settings()
        delay_s = splay_delay_s(settings.fetch.splay_s, host=settings.identity.host, serial=serial)
        if is_repull or not delay_s or self._splayed == (serial, build.id):
            return
        log.info("fetching begins later, as the splay says", build=build.id, delay_s=round(delay_s, 1))
        await self._pause(delay_s)
        self._splayed = (serial, build.id)

    def _prepare(self, build: ManifestRef, *, is_repull: bool) -> Prepared:
        """A re-pull begins with nothing, and what cannot be compared with a tree cannot use one."""
        if is_repull or build.index is None:
            return Prepared(self._swapper.prepare(build.id, build.digest), own_table=None, is_resumed=False)
        releases = self._settings().releases
        return self._swapper.prepare_from_spare(
            build.id, build.digest, keep=releases.keep, pinned=frozenset(releases.pinned), in_use=trees_in_use
        )

    def _local(self, prepared: Prepared, *, is_repull: bool) -> Local:
        """What the pull may use of this host: of other releases the one that serves first, as the most similar."""
        layout, disk = self._settings().identity.layout, self._swapper.look()
        others = [release for release in disk.releases if release.complete and release != disk.hot]
        bases = () if is_repull else ((disk.hot,) if disk.hot is not None else ()) + tuple(reversed(others))
        return Local(
            table=str(layout.table(prepared.release.name)),
            own_table=None if prepared.own_table is None else str(prepared.own_table),
            bases=tuple(LocalBase(tree=str(base.path), table=str(layout.table(base.name))) for base in bases),
            is_resumed=prepared.is_resumed,
            is_secured=self._settings().releases.durability == "fsync",
            is_read_only=self._settings().fetch.trees_are_read_only,
        )

    def _on_progress(self, progress: Progress) -> None:
        now_s = self._clock()
        if progress.bytes_done and progress != self.observed.progress:
            self.observed.artifacts = ArtifactContact(url=progress.url, last_answer_s=now_s)
        self.observed.progress = progress
        self.observed.rate.note(now_s, progress.bytes_done)

    def _note_failed_pull(self, error: HotcoldError) -> None:
        contact = self.observed.artifacts
        since_s = self._clock() if contact.failing_since_s is None else contact.failing_since_s
        self.observed.artifacts = replace(contact, failing_since_s=since_s, error=str(error))

    @contextlib.asynccontextmanager
    async def _left_on_failure(self, puller: Puller, release: Release, *, is_resumable: bool) -> AsyncIterator[None]:
        """Let `cold` go back to the standby, also when cancelled; what is in the tree stays if the next try can use it.

        A build that was refused is not tried again as it is: of it nothing stays.
        """
        try:
            yield
        except BaseException as failure:
            await puller.end()  # nobody writes into the tree any more
            is_left = is_resumable and not isinstance(failure, ArtifactRejected)
            try:
                await run_blocking(self._swapper.leave if is_left else self._swapper.abandon, release)
            except HotcoldError as error:
                # Recovery at the next start removes it; the first failure is the one to report.
                log.warning("cannot remove the unfinished tree", path=str(release.path), error=str(error))
            raise

    async def _look_at_staged(self, tree: Tree) -> Outcome:
        try:
            async with _translated("the staged hook"):
                await self._run_hook("staged", build_id=tree.build_id, release=await self._release(tree))
        except HotcoldError as error:
            return StagedFailed(problem_of(error), is_final=isinstance(error, HookFailed))
        return StagedPassed()

    # --- draining and swapping ----------------------------------------------------------------------------------------

    async def _drain(self, tree: Tree) -> Outcome:
        try:
            async with _translated("draining"):
                release = await self._release(tree)
                await self._keep_absence(Absence(swapped=False))
                await self._maintenance.leave(f"hotcold is about to swap to {tree.build_id}")
                await self._run_hook("before_drain", build_id=tree.build_id, release=release)
                disk = await run_blocking(self._swapper.look)
                if disk.hot is not None:
                    drained = await drain(
                        self._settings().drain,
                        disk.hot.path,
                        on_waiting=self._on_waiting,
                        clock=self._clock,
                        sleep=self._sleep,
                        ask=partial(
                            read_gauge,
                            session=self._http,
                            environment=self._environment("drain", build_id=tree.build_id, release=release),
                        ),
                    )
                    if drained.proceeded_with:
                        log.warning("swapping although workers are busy", workers=len(drained.proceeded_with))
                    if drained.terminated:
                        log.warning("workers were ended", workers=[worker.who for worker in drained.terminated])
                await self._run_hook("after_drain", build_id=tree.build_id, release=release)
        except HotcoldError as error:
            log.warning("drain failed", build=tree.build_id, kind=error.kind, error=str(error))
            return DrainFailed(problem_of(error))
        finally:
            self.observed.waiting_for = ()
        return DrainFinished()

    def _on_waiting(self, busy: Sequence[Busy]) -> None:
        self.observed.waiting_for = busy

    async def _swap_in(self, tree: Tree) -> Outcome:
        try:
            async with _translated("the swap"):
                trees = await self._exchange(tree)
        except HotcoldError as error:
            log.error("swap failed", build=tree.build_id, kind=error.kind, error=str(error))
            disk = await run_blocking(self._swapper.look)
            if disk.hot is None or disk.hot.name != tree.name:
                return SwapFailed(problem_of(error))
            # It failed after the links were exchanged: what counts is what readers see.
            trees = trees_on(disk)
        # Proved or not in a former time as hot: now it must show that it is healthy.
        return SwapFinished(replace(trees, hot=replace(tree, proved=False)))

    async def _exchange(self, tree: Tree) -> Trees:
        release = await self._release(tree)
        await self._make_up_for_proof()
        await self._keep_absence(Absence(swapped=True))
        swap = await run_blocking(self._swapper.swap_in, release)
        self.observed.swap_count += 1
        log.info("swapped", build=tree.build_id, release=release.name, how=swap.how, took_us=round(swap.took_s * 1e6))
        if swap.unrecorded is not None:
            log.warning("the swap is done but not recorded yet", error=swap.unrecorded)
        return trees_on(await run_blocking(self._swapper.look))

    async def _swap_back(self, fallback: Tree) -> Outcome:
        try:
            async with _translated("going back"):
                trees = await self._exchange(fallback)
        except HotcoldError as error:
            log.error("going back failed", build=fallback.build_id, kind=error.kind, error=str(error))
            return SwapBackFailed(problem_of(error))
        await self._return_to_service()
        return SwapBackFinished(trees)

    # --- proving and returning ----------------------------------------------------------------------------------------

    async def _prove(self, tree: Tree) -> Outcome:
        try:
            release = await self._release(tree)
        except _TreeMissing as error:
            return ProofFailed(problem_of(error))
        # Any other failure to read the disk says nothing of the build: `perform` tries again.
        try:
            async with _translated("proving"):
                await self._run_hook("after_swap", build_id=tree.build_id, release=release)
                await prove(
                    self._settings().probe,
                    session=self._http,
                    clock=self._clock,
                    sleep=self._sleep,
                    environment=self._environment("probe", build_id=tree.build_id, release=release),
                )
        except HotcoldError as error:
            log.warning("proof failed", build=tree.build_id, kind=error.kind, error=str(error))
            return ProofFailed(problem_of(error))
        try:
            release = await run_blocking(self._swapper.mark_proved, release)
        except HotcoldError as error:
            # It is healthy all the same, and this is made up for; a restart before that would only prove it again.
            log.warning("cannot record the proof", build=tree.build_id, error=str(error))
            self._unrecorded_proof = release
        await self._run_hook_anyway("proved", tree.build_id, release)
        is_watched = self._settings().probe.watch_s > 0
        # Before service is taken up again: a build that is on watch must stay so after a kill.
        await self._keep_watch(Watch(tree.name) if is_watched else None)
        await self._return()
        return ProofFinished(Tree(tree.name, tree.build_id, tree.digest, proved=True), is_watched=is_watched)

    async def _watch(self, tree: Tree) -> Outcome:
        try:
            async with _translated("watching"):
                await watch(
                    self._settings().probe,
                    session=self._http,
                    clock=self._clock,
                    sleep=self._sleep,
                    environment=self._environment("probe", build_id=tree.build_id, release=await self._release(tree)),
                )
        except HotcoldError as error:
            log.warning("watch failed", build=tree.build_id, kind=error.kind, error=str(error))
            return WatchFailed(problem_of(error))
        await self._keep_watch(None)
        return WatchPassed()

    async def _keep_watch(self, kept: Watch | None) -> None:
        try:
            await run_blocking(self._memory.keep_watch, kept)
        except HotcoldError as error:
            # The price: a restart of the agent ends the watch early, or begins it again.
            log.warning("cannot record the watch", error=str(error))

    async def _make_up_for_proof(self) -> None:
        """Record what could not be recorded: without it, the release is no place to go back to once another is hot."""
        release, self._unrecorded_proof = self._unrecorded_proof, None
        if release is None:
            return
        try:
            await run_blocking(self._swapper.mark_proved, release)
        except IllegalTransition:
            return  # it is not hot any more
        except HotcoldError as error:
            log.warning("cannot record the proof", build=release.build_id, error=str(error))
            self._unrecorded_proof = release

    async def _return_to_service(self) -> None:
        absence = (await run_blocking(self._memory.recall)).absence
        if absence is None:
            return
        hot = (await run_blocking(self._swapper.look)).hot
        build_id = "" if hot is None else hot.build_id
        if absence.swapped:
            await self._run_hook_anyway("after_swap", build_id, hot)
            await self._run_hook_anyway("reverted", build_id, hot)
        else:
            await self._run_hook_anyway("failed", build_id, hot)
        await self._return()

    async def _return(self) -> None:
        self._maintenance.come_back()
        await self._keep_absence(None)

    async def _keep_absence(self, absence: Absence | None) -> None:
        try:
            await run_blocking(self._memory.keep_absence, absence)
        except HotcoldError as error:
            # A full disk must not stop a rollback. The price: after a kill right now, a hook may be missed or repeated.
            log.warning("cannot record leaving or returning to service", error=str(error))

    async def _keep_refusal(self, refusal: Refusal | None) -> None:
        try:
            await run_blocking(self._memory.keep_refusal, refusal)
        except HotcoldError as error:
            # Going back must not wait for a full disk. The price: after a restart the build is tried once more.
            log.warning("cannot record the refusal", error=str(error))

    # --- the rest -----------------------------------------------------------------------------------------------------

    async def _await_retry(self, attempt: int) -> Outcome:
        """Wait `retry_initial_s * 2**(attempt-1)`, at most `retry_max_s`, of which a random half is taken off."""
        fetch = self._settings().fetch
        ceiling_s = min(fetch.retry_max_s, fetch.retry_initial_s * 2 ** min(attempt - 1, 30))
        delay_s = self._chance.uniform(ceiling_s / 2, ceiling_s)
        await self._pause(delay_s)
        return RetryDue(trees_on(await run_blocking(self._swapper.look)))

    async def _pause(self, delay_s: float) -> None:
        """Wait, and let others see until when."""
        self.observed.retry_at_s = self._clock() + delay_s
        try:
            await self._sleep(delay_s)
        finally:
            self.observed.retry_at_s = None

    async def _collect(self) -> None:
        await self._make_up_for_proof()
        releases = self._settings().releases
        collect = partial(
            self._swapper.collect, keep=releases.keep, pinned=frozenset(releases.pinned), in_use=trees_in_use
        )
        try:
            collected = await run_until_cancelled(lambda is_cancelled: collect(is_interrupted=is_cancelled))
        except HotcoldError as error:
            log.warning("cannot remove old trees", kind=error.kind, error=str(error))
            return
        if collected.removed:
            log.info("removed old trees", names=list(collected.removed))

    async def _release(self, tree: Tree) -> Release:
        disk = await run_blocking(self._swapper.look)
        for release in disk.releases:
            if release.name == tree.name:
                return release
        raise _TreeMissing(f"release directory {tree.name} has disappeared; it is fetched again")

    async def _run_hook(self, point: HookPoint, *, build_id: str, release: Release | None = None) -> None:
        hook = self._settings().hooks.get(point)
        if hook is None:
            return
        environment = self._environment(point, build_id=build_id, release=release)
        run = await run_hook(point, hook, environment=environment, clock=self._clock)
        self.observed.hooks[point] = (run, self._now())
        log.info("hook ran", point=point, exit=run.exit, duration_s=round(run.duration_s, 3), output=run.output[-2000:])
        if not run.succeeded:
            raise HookFailed(run)

    async def _run_hook_anyway(self, point: HookPoint, build_id: str, release: Release | None) -> None:
        """Run a hook whose failure cannot change the course any more: it is logged and stands in the status."""
        try:
            await self._run_hook(point, build_id=build_id, release=release)
        except HotcoldError as error:
            log.error("hook failed", point=point, kind=error.kind, error=str(error))

    def _environment(self, point: str, *, build_id: str, release: Release | None) -> dict[str, str]:
        identity, order = self._settings().identity, self.order
        environment = {
            "HOTCOLD_POINT": point,
            "HOTCOLD_APP": identity.app,
            "HOTCOLD_TIER": identity.tier,
            "HOTCOLD_HOST": identity.host,
            "HOTCOLD_ROOT": str(identity.layout.root),
            "HOTCOLD_BUILD": build_id,
        }
        if release is not None:
            environment["HOTCOLD_RELEASE"] = str(release.path)
        if order is not None:
            environment |= {"HOTCOLD_SERIAL": str(order.serial), "HOTCOLD_REASON": order.reason}
        return environment


class _TreeMissing(HotcoldError):
    """The release directory that was to be worked with is gone."""

    kind = "tree_missing"


@contextlib.asynccontextmanager
async def _translated(what: str) -> AsyncIterator[None]:
    """Let nothing but our own errors out: a bug or an unforeseen errno in one job must not end the agent."""
    try:
        yield
    except (HotcoldError, asyncio.CancelledError):
        raise
    except Exception as error:
        log.exception("unexpected failure", during=what)
        raise HotcoldError(f"{what}: unexpected {type(error).__name__}: {error}", kind="unexpected") from error
