"""Owns what the agent can know and the situations it can be in; leaves what follows from them to `agent.machine`.

Facts hold whatever the agent does; a state carries the data of just what it does now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from artifact import ManifestRef
from fleet import Problem


@dataclass(frozen=True)
class Goal:
    """What the newest obeyed order asks of this host. `build` None: keep what runs."""

    serial: int
    build: ManifestRef | None
    max_unavailable: int | None = None


@dataclass(frozen=True)
class Tree:
    """A complete release directory on this host."""

    name: str
    build_id: str
    digest: str
    proved: bool = False

    def carries(self, build: ManifestRef) -> bool:
        """Whether this tree is that build, by id and by content."""
        return (self.build_id, self.digest) == (build.id, build.digest)


@dataclass(frozen=True)
class Trees:
    """The complete trees on the disk at one moment: `hot`, the `standby` to go back to, all but hot in `ready`."""

    hot: Tree | None = None
    standby: Tree | None = None
    ready: tuple[Tree, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """A build that this host will not try again while the order has this serial.

    `swapped`: it was hot and failed its proof; else it never became hot.
    """

    serial: int
    build_id: str
    digest: str
    problem: Problem
    swapped: bool

    def covers(self, goal: Goal) -> bool:
        """Whether it forbids what the goal asks."""
        build = goal.build
        return build is not None and (self.serial, self.build_id, self.digest) == (goal.serial, build.id, build.digest)


@dataclass(frozen=True)
class Facts:
    """What is known, whatever the agent does.

    Attributes:
        goal: None before the first order.
        hot: the tree that `hot` shows, None on a bare host.
        standby: the proved tree to go back to.
        ready: all complete trees except `hot`, the standby included.
        refusal: of the goal's build; dropped with the serial.
        watched: name of the tree that was proved and is still on watch; another tree may be hot by now.
        hold: the operator's reason to start nothing, or None.
        halt: the agent's own reason to start nothing until somebody wants something else, or None.
        is_repull_wanted: fetch the goal's build anew, whatever is on disk or refused.
        repulled: the tree that such a fetch made, until it is hot.
        failure_count: failed attempts at this goal, for the back-off.
    """

    goal: Goal | None = None
    hot: Tree | None = None
    standby: Tree | None = None
    ready: tuple[Tree, ...] = ()
    refusal: Refusal | None = None
    watched: str | None = None
    hold: str | None = None
    halt: str | None = None
    is_repull_wanted: bool = False
    repulled: Tree | None = None
    failure_count: int = 0

    def with_trees(self, trees: Trees) -> Facts:
        """The same, with the disk as it is now."""
        return replace(self, hot=trees.hot, standby=trees.standby, ready=trees.ready)

    @property
    def is_hot_watched(self) -> bool:
        """Whether what serves was proved, and is still on watch."""
        return self.hot is not None and self.hot.name == self.watched


@dataclass(frozen=True)
class Steady:
    """Nothing to do: what is hot is what is wanted, or nothing is wanted."""


@dataclass(frozen=True)
class Fetching:
    """The build is being pulled into the cold directory."""

    build: ManifestRef


@dataclass(frozen=True)
class BackingOff:
    """An attempt failed for a reason that time may heal; the next one follows."""

    problem: Problem
    attempt: int


@dataclass(frozen=True)
class Staged:
    """The tree is whole and durable in the cold directory; the `staged` hook looks at it."""

    tree: Tree


@dataclass(frozen=True)
class WaitingForSlot:
    """As many hosts of the tier as may be are out of service already."""

    tree: Tree


@dataclass(frozen=True)
class Draining:
    """Waiting until no worker works in `hot`."""

    tree: Tree


@dataclass(frozen=True)
class Swapping:
    """The exchange of the links. Never interrupted."""

    tree: Tree


@dataclass(frozen=True)
class Proving:
    """The new build is hot and must show that it is healthy."""

    tree: Tree


@dataclass(frozen=True)
class Watching:
    """The new build is proved and in service; it must stay healthy for a while."""

    tree: Tree


@dataclass(frozen=True)
class GoingBack:
    """The links are exchanged back to the proved tree. Never interrupted. `refusal` None: it was superseded."""

    fallback: Tree
    refusal: Refusal | None


@dataclass(frozen=True)
class RolledBack:
    """The wanted build failed its proof, or while it was watched; the build before it serves."""

    refusal: Refusal


@dataclass(frozen=True)
class BuildRefused:
    """The wanted build cannot be deployed here.

    Its artifact or the `staged` hook said no; or it failed its proof with nothing there to go back to, and is hot.
    """

    refusal: Refusal


@dataclass(frozen=True)
class Held:
    """The operator said: start nothing."""

    reason: str


@dataclass(frozen=True)
class Halted:
    """The agent has started again and again without coming to rest, and tries nothing more by itself."""

    reason: str


State = (
    Steady
    | Fetching
    | BackingOff
    | Staged
    | WaitingForSlot
    | Draining
    | Swapping
    | Proving
    | Watching
    | GoingBack
    | RolledBack
    | BuildRefused
    | Held
    | Halted
)

STATE_NAMES: Final[Mapping[type[State], str]] = {
    Steady: "steady",
    Fetching: "fetching",
    BackingOff: "backing_off",
    Staged: "staged",
    WaitingForSlot: "waiting_for_slot",
    Draining: "draining",
    Swapping: "swapping",
    Proving: "proving",
    Watching: "watching",
    GoingBack: "going_back",
    RolledBack: "rolled_back",
    BuildRefused: "build_refused",
    Held: "held",
    Halted: "halted",
}
"""How states are called in status, reports and metrics."""


@dataclass(frozen=True)
class Model:
    """All that the machine remembers."""

    facts: Facts
    state: State
