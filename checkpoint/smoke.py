"""Owns running smoke tests: a command of the engine's own configuration, with what it tests in its environment.

When one is due is left to `checkpoint.rollout.machine`. A plan in Consul names a command, but whoever may write to
Consul must not thereby run something here: only commands that this engine's own configuration has are run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from typing import Final

from checkpoint.pipeline import Pipeline, SmokeTest
from checkpoint.rollout.plan import Plan
from checkpoint.rollout.watching import Tested

KEPT_CHARACTERS: Final = 500
_READ_BYTES: Final = 64 * 1024


def is_known(test: SmokeTest, own: Pipeline) -> bool:
    """Whether the engine's own configuration has this command."""
    return any(step.smoke_test is not None and step.smoke_test.command == test.command for step in own.steps)


def environment(plan: Plan, step: int) -> Mapping[str, str]:
    """What a smoke test is told."""
    rule = plan.steps[step].rule
    return {
        "HOTCOLD_APP": plan.app,
        "HOTCOLD_TIER": rule.tier,
        "HOTCOLD_BUILD": plan.build.id,
        "HOTCOLD_ROLLOUT": str(plan.number),
        "HOTCOLD_PERCENT": f"{rule.percent:g}",
        "HOTCOLD_HOSTS": " ".join(plan.hosts_of(step)),
    }


async def run(test: SmokeTest, told: Mapping[str, str]) -> Tested:
    """Run the command to its end, or to its deadline; never raises for what it does. It is ended when cancelled.

    It may run again after a change of leader: what it does must bear that.
    """
    name = test.command[0]
    try:
        process = await asyncio.create_subprocess_exec(
            *test.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **told},
            start_new_session=True,
        )
    except OSError as error:
        return Tested(is_good=False, said=f"{name} cannot be run: {error.strerror or error}")
    tail = b""
    try:
        async with asyncio.timeout(test.timeout_s):
            assert process.stdout is not None  # noqa: S101 - a pipe was asked for
            while chunk := await process.stdout.read(_READ_BYTES):
                tail = (tail + chunk)[-4 * KEPT_CHARACTERS :]
            code = await process.wait()
    except TimeoutError:
        return Tested(is_good=False, said=f"{name} was not done after {test.timeout_s:g} s{_quoted(tail)}")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
    if code != 0:
        return Tested(is_good=False, said=f"{name} exited with {code}{_quoted(tail)}")
    return Tested(is_good=True, said=_text(tail))


def _quoted(tail: bytes) -> str:
    text = _text(tail)
    return f": {text}" if text else ""


def _text(tail: bytes) -> str:
    lines = tail.decode(errors="replace").split("\n")
    joined = " / ".join(line.strip() for line in lines if line.strip())
    return "".join(each if each.isprintable() else " " for each in joined)[-KEPT_CHARACTERS:]
