"""Owns the status document: what is true now, read from the disk, /proc and the loop when somebody asks.

Serving it is left to `agent.server`; nothing here is remembered, so that it cannot lie.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil

from agent.blocking import run_blocking
from agent.rate import Rate
from agent.runner import Situation
from agent.scrub import Scrubbed
from agent.states import (
    Draining,
    Facts,
    Fetching,
    GoingBack,
    Held,
    Proving,
    Staged,
    Swapping,
    WaitingForSlot,
    Watching,
)
from agent.version import VERSION
from agent.work import ArtifactContact, Observed
from agent.workers import Match, lodgings
from artifact import HotcoldError, Progress
from fleet import Contact
from swapper import Disk, Release, Swapper


@dataclass(frozen=True)
class Sources:
    """Where the document's parts come from.

    Attributes:
        workers: who counts as a worker, as configured now.
        config_problem: why the last reload was refused, or None.
        clock: monotonic seconds.
        started_s: the agent's start, by `clock`.
    """

    app: str
    tier: str
    host: str
    root: str
    config_path: str
    store_address: str
    swapper: Swapper
    contact: Contact
    observed: Observed
    workers: Callable[[], Sequence[Match]]
    scrubbed: Callable[[], tuple[Scrubbed, ...]]
    situation: Callable[[], Situation]
    config_problem: Callable[[], str | None]
    clock: Callable[[], float]
    started_s: float


async def status_of(sources: Sources) -> dict[str, Any]:
    """The document of `/v1/status`; see docs/formats.md."""
    disk_part = await run_blocking(_read_disk, sources)
    workers_part = await run_blocking(_read_workers, sources)
    # Only now, for what is looked at meanwhile would be younger than the time that its age is reckoned from.
    situation, observed, now_s = sources.situation(), sources.observed, sources.clock()
    facts = situation.model.facts
    progress = observed.progress
    contact, artifacts = sources.contact, observed.artifacts
    return {
        "v": 1,
        "app": sources.app,
        "tier": sources.tier,
        "host": sources.host,
        "state": {
            "name": situation.state_name,
            "since": situation.since.isoformat(timespec="milliseconds"),
            "for_s": round(now_s - situation.since_s, 3),
            "detail": _detail(situation),
        },
        "order": _order(situation, facts),
        "highest_serial": 0 if situation.order is None else situation.order.serial,
        **disk_part,
        "progress": None if progress is None else _progress(progress, observed.rate, now_s),
        "waiting_for": [
            {"pid": busy.pid, "command": busy.command, "reasons": list(busy.reasons)} for busy in observed.waiting_for
        ],
        "workers": workers_part,
        "problem": None if situation.problem is None else msgspec.to_builtins(situation.problem),
        "order_problem": None if situation.order_problem is None else msgspec.to_builtins(situation.order_problem),
        "retry_in_s": None if observed.retry_at_s is None else round(max(0.0, observed.retry_at_s - now_s), 3),
        "hooks": {
            point: {
                "exit": run.exit,
                "duration_s": round(run.duration_s, 3),
                "timed_out": run.timed_out,
                "output": run.output,
                "at": at.isoformat(timespec="milliseconds"),
            }
            for point, (run, at) in observed.hooks.items()
        },
        "scrub": [
            {
                "build": scrubbed.build,
                "at": scrubbed.at.isoformat(timespec="milliseconds"),
                "took_s": round(scrubbed.took_s, 3),
                "difference_count": scrubbed.difference_count,
                "differences": list(scrubbed.differences),
                "problem": scrubbed.problem,
            }
            for scrubbed in sources.scrubbed()
        ],
        "store": {
            "address": sources.store_address,
            "is_connected": contact.last_answer_s is not None and contact.failing_since_s is None,
            "last_answer_s_ago": _ago(contact.last_answer_s, now_s),
            "failing_for_s": _ago(contact.failing_since_s, now_s),
            "error": contact.error,
        },
        "artifacts": None
        if artifacts == ArtifactContact()
        else {
            "url": artifacts.url,
            "last_answer_s_ago": _ago(artifacts.last_answer_s, now_s),
            "failing_for_s": _ago(artifacts.failing_since_s, now_s),
            "error": artifacts.error,
        },
        "config": {"path": sources.config_path, "problem": sources.config_problem()},
        "agent": {
            "version": VERSION,
            "pid": os.getpid(),
            "up_for_s": round(now_s - sources.started_s, 3),
            "rss_bytes": psutil.Process().memory_info().rss,
        },
    }


def _progress(progress: Progress, rate: Rate, now_s: float) -> dict[str, Any]:
    rate_bytes, left_s = rate.bytes_per_s(now_s), rate.left_s(now_s, progress.bytes_total - progress.bytes_done)
    return {
        **msgspec.structs.asdict(progress),
        "rate_bytes": None if rate_bytes is None else round(rate_bytes),
        "left_s": None if left_s is None else round(left_s, 1),
    }


def _read_disk(sources: Sources) -> dict[str, Any]:
    try:
        disk = sources.swapper.look()
        space = os.statvfs(sources.root)
    except (HotcoldError, OSError) as error:
        nothing = {"hot": None, "cold": None, "standby": None, "disk": None}
        return {**nothing, "disk_problems": [f"{sources.root} cannot be read: {error}"]}
    return {**_links(disk), "disk_problems": list(disk.problems), "disk": _space(space)}


def _read_workers(sources: Sources) -> dict[str, Any]:
    """Which builds the workers really use, whatever the links show."""
    nothing = {"count": 0, "uses": [], "nowhere": [], "unseen": [], "problem": None}
    releases = Path(sources.root).resolve() / "releases"
    try:
        disk = sources.swapper.look()
        workers = lodgings(sources.workers(), releases)
    except (HotcoldError, OSError) as error:
        return {**nothing, "problem": f"workers cannot be looked at: {error}"}
    builds = {release.name: release.build_id for release in disk.releases}
    names = sorted({name for worker in workers for name in worker.releases})
    return {
        "count": len(workers),
        "uses": [
            {
                "build": builds.get(name, name),
                "release": name,
                "is_hot": disk.hot is not None and disk.hot.name == name,
                "pids": [worker.pid for worker in workers if name in worker.releases],
                "evidence": next(
                    f"pid {worker.pid} ({worker.command}): {worker.releases[name]}"
                    for worker in workers
                    if name in worker.releases
                ),
            }
            for name in names
        ],
        "nowhere": [worker.pid for worker in workers if worker.is_seen and not worker.releases],
        "unseen": [worker.pid for worker in workers if not worker.is_seen],
        "problem": None,
    }


def _links(disk: Disk) -> dict[str, Any]:
    return {"hot": _release(disk.hot), "cold": _release(disk.cold), "standby": _release(disk.standby)}


def _space(space: os.statvfs_result) -> dict[str, int]:
    return {
        "free_bytes": space.f_bavail * space.f_frsize,
        "total_bytes": space.f_blocks * space.f_frsize,
        "free_inodes": space.f_favail,
    }


def _release(release: Release | None) -> dict[str, Any] | None:
    if release is None:
        return None
    return {"name": release.name, "build": release.build_id, "path": str(release.path), "proved": release.proved}


def _order(situation: Situation, facts: Facts) -> dict[str, Any] | None:
    order = situation.order
    if order is None:
        return None
    build = None if facts.goal is None or facts.goal.build is None else facts.goal.build.id
    return {
        "serial": order.serial,
        "build": build,
        "reason": order.reason,
        "by": order.by,
        "at": order.at,
        "percent": order.percent,
        "signed_by": situation.signer,
    }


def _detail(situation: Situation) -> str:
    match situation.model.state:
        case Fetching(build):
            return f"build {build.id}"
        case Staged(tree) | WaitingForSlot(tree) | Draining(tree) | Swapping(tree) | Proving(tree) | Watching(tree):
            return f"build {tree.build_id}"
        case GoingBack(fallback, _):
            return f"to build {fallback.build_id}"
        case Held(reason):
            return reason
        case _:
            problem = situation.problem
            return "" if problem is None else problem.message


def _ago(then_s: float | None, now_s: float) -> float | None:
    return None if then_s is None else round(now_s - then_s, 3)
