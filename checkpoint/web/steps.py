"""Owns which buttons a page offers, and what a press means: the commands of a rollout by their names. Pure.

Whether a command applies is asked of `checkpoint.rollout.machine`, which also carries it out: no second opinion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from checkpoint.rollout import events as ev
from checkpoint.rollout.machine import advance
from checkpoint.rollout.picture import Picture


@dataclass(frozen=True)
class Button:
    """One action. `help` says what it does, `tone` how it looks; `idle` is said where it does not apply."""

    name: str
    label: str
    help: str
    tone: str
    idle: str
    event: Callable[[], ev.Command]


BUTTONS: Final[Mapping[str, Button]] = {
    each.name: each
    for each in (
        Button(
            "approve",
            "Approve",
            "Let this step pass its approval.",
            "go",
            "it waits for no approval",
            ev.ApproveRequested,
        ),
        Button(
            "resume",
            "Resume",
            "Go on after the pause; the step is checked anew.",
            "go",
            "it is not paused",
            lambda: ev.ResumeRequested({}),
        ),
        Button(
            "pause", "Pause", "Go no further; hosts stay as they are.", "calm", "it goes nowhere", ev.PauseRequested
        ),
        Button(
            "advance",
            "Advance",
            "Go on to the next step, whatever this one waits for.",
            "calm",
            "no step of it is under way",
            ev.AdvanceRequested,
        ),
        Button(
            "finish",
            "Finish beyond closing",
            "Go on with this tier although its window closes.",
            "calm",
            "no closing window is in its way, or that was chosen already",
            lambda: ev.ClosingDecided("finish"),
        ),
        Button(
            "hold",
            "Hold over closing",
            "Stay as it is until the window opens again, watched by you.",
            "calm",
            "no closing window is in its way, or that was chosen already",
            lambda: ev.ClosingDecided("hold"),
        ),
        Button(
            "abort",
            "Abort",
            "Stop for good; hosts that run the build keep it.",
            "warn",
            "there is nothing to abort",
            ev.AbortRequested,
        ),
        Button(
            "rollback",
            "Roll back",
            "Order every tier back at once, lock the app, deny the build.",
            "stop",
            "it is back already",
            ev.RollbackRequested,
        ),
    )
}
"""In the order in which pages show them."""


def applicable(shown: Picture, now: datetime) -> tuple[str, ...]:
    """Names of the buttons that would do something now."""
    origin = ev.Origin(by="", via="ui", reason="", at=now)
    found = []
    for name, button in BUTTONS.items():
        if name in {"finish", "hold"}:
            closing = shown.rollout.closing
            is_open = closing is not None and closing.choice is None and not shown.rollout.is_ended
        else:
            _, effects = advance(shown.rollout, shown.plan, button.event(), origin)
            is_open = bool(effects)
        if name == "rollback" and not shown.rollout.reached:
            is_open = is_open and not shown.rollout.is_ended
        if is_open:
            found.append(name)
    return tuple(found)
