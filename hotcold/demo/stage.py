"""Owns what both parts of the demo do with their hosts: give an order, wait for them, look up when a link flipped.

What is done in which order is left to `hotcold.demo.story` and `hotcold.demo.rollouts.story`; every order goes the way
that `hotcold deploy` goes.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from artifact import ManifestRef
from artifact.locate import load_manifest, reference
from checkpoint import Commander, Placed, Wish
from fleet import ConsulStore
from hotcold.demo.board import Board
from hotcold.demo.builds import APP
from hotcold.demo.children import DemoFailed
from hotcold.demo.host import TIER, Host
from hotcold.demo.lookout import Lookout
from hotcold.demo.world import World
from hotcold.status_document import Status

STEP_DEADLINE_S: Final = 120.0
_LOOK_S: Final = 0.05


class StampedStore(ConsulStore):
    """Knows when it last began to write: the moment from which a deploy's time counts."""

    put_at_s = 0.0

    async def put(self, key: str, value: bytes, *, cas: int | None = None) -> bool:
        """As `ConsulStore.put`."""
        self.put_at_s = time.monotonic()
        return await super().put(key, value, cas=cas)


@dataclass(frozen=True)
class Stage:
    """What a part of the demo works with.

    Attributes:
        world: with the hosts that take part.
        board: of these hosts.
        lookout: over their links.
        breath_s: after each step, so that people can follow, and clients meet every build.
    """

    world: World
    store: StampedStore
    board: Board
    lookout: Lookout
    breath_s: float

    @property
    def hosts(self) -> Sequence[Host]:
        """All that take part."""
        return self.world.hosts

    def artifact(self, build: str) -> Path:
        """Where the artifact server has it."""
        return self.world.artifacts / f"{APP}-{build}.tar.zst"

    async def order(self, build: str, tier: str = TIER) -> Placed:
        """Order a build for all hosts of a tier.

        Raises:
            HotcoldError: it cannot be ordered.
        """
        wish = Wish(app=APP, tier=tier, build=await self.reference(build), reason="the demo", by="the demo")
        return await self.commander().deploy(wish)

    async def reference(self, build: str) -> ManifestRef:
        """What orders name a build by."""
        manifest, location = await load_manifest(f"{self.world.files}/{APP}-{build}.json")
        return reference(manifest, location)

    async def until(self, is_there: Callable[[Host, Status], bool], what: str) -> None:
        """Wait until every agent says so.

        Raises:
            DemoFailed: not in time; says what each agent said last.
        """
        waiting = list(self.hosts)
        try:
            async with asyncio.timeout(STEP_DEADLINE_S):
                while waiting:
                    statuses = [(host, self.board.hosts[host.name].status) for host in waiting]
                    waiting = [host for host, status in statuses if status is None or not is_there(host, status)]
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError as error:
            said = "; ".join(f"{host.name}: {_gist(self.board.hosts[host.name].status)}" for host in waiting)
            raise DemoFailed(f"not all hosts {what} within {STEP_DEADLINE_S:g} s: {said}") from error

    async def until_all_run(self, build: str) -> None:
        """Wait until every host serves `build`, proved, to its clients."""
        await self.until(
            lambda host, status: runs(status, build) and not host.pause.exists(), f"run {build} and take requests"
        )

    def flip_times(self, build: str, since_s: float) -> list[float]:
        """Seconds from `since_s` until each host's `hot` first led to `build`; hosts that never got there are out."""
        first: dict[str, float] = {}
        for flip in self.lookout.flips(since_s=since_s):
            if flip.build == build:
                first.setdefault(flip.host, flip.at_s - since_s)
        return list(first.values())

    def commander(self) -> Commander:
        """Who gives orders."""
        return Commander(
            self.store,
            now=lambda: datetime.now(UTC),
            new_salt=lambda: secrets.token_hex(8),
            pause=asyncio.sleep,
        )


def runs(status: Status, build: str) -> bool:
    """Whether the agent says that it wants `build`, has it, and has proved it."""
    is_wanted = status.order is not None and status.order.build == build
    is_hot = status.hot is not None and status.hot.build == build and status.hot.proved
    return status.state.name == "steady" and is_wanted and is_hot


def _gist(status: Status | None) -> str:
    if status is None:
        return "no answer"
    hot = status.hot.build if status.hot is not None else "nothing"
    problem = f", {status.problem.message}" if status.problem is not None else ""
    return f"{status.state.name}, hot {hot}{problem}"
