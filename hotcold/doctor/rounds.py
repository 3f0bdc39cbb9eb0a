"""Owns running checks: all at once, each with a deadline, none able to hold up the others; what they do is theirs."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from artifact import HotcoldError
from hotcold.doctor.finding import Finding

Look = Callable[[], Sequence[Finding]]


@dataclass(frozen=True)
class Check:
    """What to look at. `look` blocks; what it raises becomes a finding."""

    name: str
    look: Look


class Rounds:
    """One run of all checks.

    Each check has a thread of its own, which nobody waits for after the deadline: a system call on a dead disk, or a
    name server that is silent, cannot be interrupted.

    Args:
        checks: what to look at.
        deadline_s: for each of them.

    Attributes:
        is_stuck: a check is still under way behind its deadline; whoever exits must not wait for its thread.
    """

    def __init__(self, checks: Sequence[Check], *, deadline_s: float) -> None:
        self._checks = checks
        self._deadline_s = deadline_s
        self.is_stuck = False

    def run(self) -> Iterator[tuple[Finding, ...]]:
        """The findings of each check, in their order, each as soon as it and those before it are known."""
        answers: queue.SimpleQueue[tuple[int, tuple[Finding, ...]]] = queue.SimpleQueue()
        for number, check in enumerate(self._checks):
            threading.Thread(target=_look, args=(number, check, answers), name=check.name, daemon=True).start()
        ends_s = time.monotonic() + self._deadline_s
        known: dict[int, tuple[Finding, ...]] = {}
        for number, check in enumerate(self._checks):
            while number not in known:
                try:
                    found, findings = answers.get(timeout=max(0.0, ends_s - time.monotonic()))
                except queue.Empty:
                    known[number] = (_silent(check, self._deadline_s),)
                    self.is_stuck = True
                else:
                    known.setdefault(found, findings)
            yield known[number]


def _look(number: int, check: Check, answers: queue.SimpleQueue[tuple[int, tuple[Finding, ...]]]) -> None:
    try:
        findings = tuple(check.look())
    except HotcoldError as error:
        findings = (Finding(check.name, "wrong", str(error)),)
    except OSError as error:
        findings = (Finding(check.name, "unknown", f"cannot be looked at: {error}", "try it as root"),)
    except Exception as error:  # noqa: BLE001 - one broken check must not hide what the others find
        message = f"this check broke: {type(error).__name__}: {error}"
        findings = (Finding(check.name, "unknown", message, "please report it"),)
    answers.put((number, findings))


def _silent(check: Check, deadline_s: float) -> Finding:
    return Finding(
        check.name,
        "wrong",
        f"no answer within {deadline_s:g} s",
        "something that it asks hangs: a disk, a network file system, a name server",
    )
