"""Owns what a rollout is at any moment: its phase, each with its own data, and what people have decided about it.

What leads from one phase to another is left to `checkpoint.rollout.machine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from checkpoint.windows import Moment

PauseCause = Literal[
    "commander", "budget", "smoke_test", "verdict", "order_replaced", "store_went_back", "clock_jumped", "cannot_go_on"
]


class _Phase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`step` is an index into the plan's steps; `since` is when the phase was entered."""

    step: int
    since: Moment


class Hold(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Why a step does not begin: `kind` for machines, `message` for people."""

    kind: Literal["window", "freeze", "commander", "lock", "closing"]
    message: str


class Ready(_Phase, frozen=True, tag="ready"):
    """The step is next; it begins as soon as nothing holds it.

    Attributes:
        holds: why it does not begin yet.
        is_accepted: somebody looked at an order in its tier that is not the rollout's, and wants it replaced.
    """

    holds: tuple[Hold, ...] = ()
    is_accepted: bool = False


class Deploying(_Phase, frozen=True, tag="deploying"):
    """The step is ordered; its hosts are on the way."""


class Baking(_Phase, frozen=True, tag="baking"):
    """The step's hosts run the build and serve; watched until `until`."""

    until: Moment


class Testing(_Phase, frozen=True, tag="testing"):
    """The smoke test runs."""


class Judging(_Phase, frozen=True, tag="judging"):
    """A verdict is waited for; `wanting` says what it lacks."""

    wanting: str = ""


class Approving(_Phase, frozen=True, tag="approving"):
    """A person must approve."""


class Paused(_Phase, frozen=True, tag="paused"):
    """Nothing goes on until somebody resumes; hosts stay where they are.

    Attributes:
        is_ordered: the step was ordered before the pause.
    """

    cause: PauseCause
    reason: str
    by: str
    is_ordered: bool


class Finished(_Phase, frozen=True, tag="finished"):
    """Every host of every tier was ordered to run the build."""


class Aborted(_Phase, frozen=True, tag="aborted"):
    """Stopped for good where it was: hosts that run the build go on running it."""

    reason: str
    by: str


class RolledBack(_Phase, frozen=True, tag="rolled_back"):
    """Every tier that it reached was ordered back; the build is denied."""

    reason: str
    by: str


Phase = Ready | Deploying | Baking | Testing | Judging | Approving | Paused | Finished | Aborted | RolledBack
ENDED: Final = (Finished, Aborted, RolledBack)
NAMES: Final[Mapping[type[Phase], str]] = {
    Ready: "ready",
    Deploying: "deploying",
    Baking: "baking",
    Testing: "testing",
    Judging: "judging",
    Approving: "approving",
    Paused: "paused",
    Finished: "finished",
    Aborted: "aborted",
    RolledBack: "rolled_back",
}


class SetAside(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A host that is not waited for, by somebody's word. It rejoins by doing what the order asks."""

    tier: str
    host: str
    by: str
    reason: str
    at: Moment


class Override(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Until then neither windows nor freezes, locks or slots hold the rollout up."""

    by: str
    reason: str
    until: Moment


class Closing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The rollout will not be through its tier before the window closes at `at`.

    Attributes:
        choice: none: nobody has chosen yet; `finish`: go on beyond closing, until `until`; `hold`: stay as it is until
            the window opens again, watched by `by`.
    """

    at: Moment
    choice: Literal["finish", "hold"] | None = None
    by: str = ""
    until: Moment | None = None


class Rollout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rollout as it stands; its plan is apart and never changes.

    Attributes:
        salt: of its plan, so that no other plan is taken for it.
        serials: of each tier's order, as the rollout found or wrote it: another one is somebody else's. Those of orders
            that it writes are known, and noted here, by whoever writes them.
        reached: tiers in which the rollout has ordered its build, in order.
        ordered: when the present step was ordered, or its hosts were given time anew; hosts' deadlines count from it.
        approved: the step that was approved last, -1: none.
        set_aside: hosts that are not waited for.
    """

    v: int
    number: int
    app: str
    build_id: str
    salt: str
    phase: Phase
    serials: dict[str, int]
    reached: tuple[str, ...] = ()
    ordered: Moment | None = None
    approved: int = -1
    set_aside: tuple[SetAside, ...] = ()
    override: Override | None = None
    closing: Closing | None = None

    @property
    def is_ended(self) -> bool:
        """Whether nothing more is to come, but for a rollback."""
        return isinstance(self.phase, ENDED)

    @property
    def phase_name(self) -> str:
        """The phase's name in documents."""
        return NAMES[type(self.phase)]
