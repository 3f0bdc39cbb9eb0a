"""Owns what can happen to the agent (events, past tense) and what it can do (effects, imperative).

Which follows from which is left to `agent.machine`.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.states import Goal, Refusal, Tree, Trees
from artifact import ManifestRef
from fleet import Problem

# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OrderSeen:
    """A vetted order says what this host shall run."""

    goal: Goal


@dataclass(frozen=True)
class FetchFinished:
    """The tree is whole and durable."""

    tree: Tree


@dataclass(frozen=True)
class FetchFailed:
    """`is_final`: the artifact itself is at fault, fetching it again cannot help."""

    problem: Problem
    is_final: bool


@dataclass(frozen=True)
class StagedPassed:
    """The `staged` hook agreed, or there is none."""


@dataclass(frozen=True)
class StagedFailed:
    """The tree cannot go on; `is_final`: because the `staged` hook refused it."""

    problem: Problem
    is_final: bool


@dataclass(frozen=True)
class SlotTaken:
    """This host may go out of service."""


@dataclass(frozen=True)
class SlotLost:
    """Another host may hold our slot by now."""


@dataclass(frozen=True)
class DrainFinished:
    """No worker works in `hot`."""


@dataclass(frozen=True)
class DrainFailed:
    """Workers stayed past the deadline, or a hook around the drain failed."""

    problem: Problem


@dataclass(frozen=True)
class SwapFinished:
    """The links were exchanged: the disk as it is now."""

    trees: Trees


@dataclass(frozen=True)
class SwapFailed:
    """The links are as they were."""

    problem: Problem


@dataclass(frozen=True)
class ProofFinished:
    """The hot build is healthy, and recorded as such; `is_watched`: it is to be watched for a while."""

    hot: Tree
    is_watched: bool = False


@dataclass(frozen=True)
class ProofFailed:
    """The hot build is not healthy."""

    problem: Problem


@dataclass(frozen=True)
class WatchPassed:
    """The hot build has stayed healthy."""


@dataclass(frozen=True)
class WatchFailed:
    """The hot build has fallen ill while it served."""

    problem: Problem


@dataclass(frozen=True)
class SwapBackFinished:
    """The proved tree is hot again: the disk as it is now."""

    trees: Trees


@dataclass(frozen=True)
class SwapBackFailed:
    """The links are as they were; it is tried again."""

    problem: Problem


@dataclass(frozen=True)
class RetryDue:
    """The back-off is over: the disk as it is now."""

    trees: Trees


@dataclass(frozen=True)
class RepullRequested:
    """The operator wants the goal's build pulled anew."""


@dataclass(frozen=True)
class RefusalLifted:
    """The operator wants the refused build tried again."""


@dataclass(frozen=True)
class HoldPlaced:
    """The operator wants nothing to be started."""

    reason: str


@dataclass(frozen=True)
class HoldLifted:
    """The operator lets the host go on."""


Outcome = (
    FetchFinished
    | FetchFailed
    | StagedPassed
    | StagedFailed
    | SlotTaken
    | DrainFinished
    | DrainFailed
    | SwapFinished
    | SwapFailed
    | ProofFinished
    | ProofFailed
    | WatchPassed
    | WatchFailed
    | SwapBackFinished
    | SwapBackFailed
    | RetryDue
)
"""What work ends in; legal only in the state that started the work."""

Command = OrderSeen | SlotLost | RepullRequested | RefusalLifted | HoldPlaced | HoldLifted
"""What comes from outside; legal in every state."""

Event = Outcome | Command

# --- effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StartFetch:
    """Work: pull the build into a new cold directory, from the store only if `is_repull`."""

    build: ManifestRef
    is_repull: bool


@dataclass(frozen=True)
class RunStagedHook:
    """Work: let the operator's hook look at the tree."""

    tree: Tree


@dataclass(frozen=True)
class AcquireSlot:
    """Work: wait for one of `slot_count` slots."""

    slot_count: int


@dataclass(frozen=True)
class StartDrain:
    """Work: take the host out of service and wait for the workers."""

    tree: Tree


@dataclass(frozen=True)
class SwapIn:
    """Work: make the tree hot and let the workers know."""

    tree: Tree


@dataclass(frozen=True)
class StartProving:
    """Work: probe the hot build; when healthy record it and return to service."""

    tree: Tree


@dataclass(frozen=True)
class StartWatching:
    """Work: probe the hot build while it serves."""

    tree: Tree


@dataclass(frozen=True)
class SwapBack:
    """Work: make the fallback hot again, let the workers know, return to service."""

    fallback: Tree


@dataclass(frozen=True)
class AwaitRetry:
    """Work: wait, longer with each attempt."""

    attempt: int


@dataclass(frozen=True)
class CancelWork:
    """End what may be interrupted and clean up after it."""


@dataclass(frozen=True)
class ReturnToService:
    """Undo what went before the drain. A no-op where the host is in service."""


@dataclass(frozen=True)
class ReleaseSlot:
    """Give the slot back. A no-op where none is held."""


@dataclass(frozen=True)
class RecordRefusal:
    """Remember durably; None: forget."""

    refusal: Refusal | None


@dataclass(frozen=True)
class CollectGarbage:
    """Remove trees that nobody needs, as far as that is possible until something else is to be done."""


Work = (
    StartFetch
    | RunStagedHook
    | AcquireSlot
    | StartDrain
    | SwapIn
    | StartProving
    | StartWatching
    | SwapBack
    | AwaitRetry
)
Effect = Work | CancelWork | ReturnToService | ReleaseSlot | RecordRefusal | CollectGarbage

INTERRUPTIBLE = (
    StartFetch,
    RunStagedHook,
    AcquireSlot,
    StartDrain,
    StartProving,
    StartWatching,
    AwaitRetry,
    CollectGarbage,
)
"""Effects that `CancelWork` ends; the others are short and must not stop half-way."""
