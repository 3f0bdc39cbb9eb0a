"""Owns running an operator's command: its process group, its environment, its deadline, the end of its output.

When a hook is due, and what its failure means for a deploy, is left to `agent.machine` and `agent.runner`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Final, Self

import msgspec

from agent.blocking import outlast
from agent.privileges import keep_capabilities_from_children
from artifact import TransientError

OUTPUT_BYTES: Final = 16 * 1024
GRACE_S: Final = 5.0
SEARCHED: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs of hooks are looked for."""
_PIPE_BYTES: Final = 64 * 1024  # what Linux gives a pipe
_TAIL_CHARACTERS: Final = 500

# Hooks behave alike on every host, whatever the agent was started with; its own environment may also hold a token.
_BASE_ENVIRONMENT: Final = MappingProxyType({"PATH": SEARCHED, "LANG": "C.UTF-8"})


class Hook(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A `[hooks.<point>]` table.

    Attributes:
        argv: the program and its arguments; no shell is between.
        timeout_s: after that, the whole process group is ended.
    """

    argv: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 60

    def __post_init__(self) -> None:
        """Refuse what no system call would take."""
        if not self.argv[0] or any("\0" in argument for argument in self.argv):
            raise ValueError("`argv` needs a program first, and no argument may contain a NUL")


@dataclass(frozen=True)
class HookRun:
    """How a hook went.

    Attributes:
        exit: the exit status, negative for a signal; None if it could not be started.
        output: the last 16 KiB of standard output and standard error, in the order they were written; the reason where
            the hook could not be started.
        timed_out: the deadline came first; the hook's process group was ended.
    """

    point: str
    argv: tuple[str, ...]
    exit: int | None
    duration_s: float
    output: str
    timed_out: bool

    @property
    def succeeded(self) -> bool:
        """Whether it ended in time with status 0."""
        return self.exit == 0 and not self.timed_out

    @property
    def verdict(self) -> str:
        """What happened, in a few words."""
        if self.timed_out:
            return f"was ended after {self.duration_s:.1f} s without an end of its own"
        if self.exit is None:
            return "could not be started"
        if self.exit < 0:
            return f"was killed by signal {-self.exit} ({signal.strsignal(-self.exit)})"
        return f"ended with status {self.exit}"


class HookFailed(TransientError):
    """A hook did not succeed. What it did before it failed is not undone.

    Attributes:
        run: how it went, with its output.
    """

    kind = "hook_failed"

    def __init__(self, run: HookRun) -> None:
        super().__init__(
            f"hook {run.point} {run.verdict}: {' '.join(run.argv)}: "
            f"{run.output.strip()[-_TAIL_CHARACTERS:] or '(no output)'}; correct the hook, or `hooks.{run.point}`"
        )
        self.run = run


async def run_hook(
    point: str,
    hook: Hook,
    *,
    environment: Mapping[str, str],
    clock: Callable[[], float] = time.monotonic,
    grace_s: float = GRACE_S,
) -> HookRun:
    """Run a hook to its end; every way in which it can fail is in the answer, not raised.

    It runs in `/`, in its own session, with nothing on standard input, with `environment` beside PATH and LANG alone,
    and without the agent's capabilities. On timeout its process group gets SIGTERM, and SIGKILL after `grace_s`; on
    cancellation likewise, and the cancellation goes on when nothing of the group is left. What a hook that ended leaves
    running is not touched, and not waited for either, even if it keeps the output open.

    Args:
        point: when it runs, such as `before_drain`.
        hook: what to run.
        environment: usually `HOTCOLD_*` alone; wins over PATH and LANG.
        clock: monotonic seconds, for the duration alone.
        grace_s: between SIGTERM and SIGKILL.

    Raises:
        asyncio.CancelledError: the caller was cancelled; the hook has ended.
    """
    started = clock()
    timed_out = False
    keep_capabilities_from_children()
    with _Tail() as tail:
        try:
            process = await asyncio.create_subprocess_exec(
                *hook.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=tail.write_fd,
                stderr=asyncio.subprocess.STDOUT,
                cwd="/",
                env={**_BASE_ENVIRONMENT, **environment},
                start_new_session=True,
            )
        except OSError as error:
            reason = f"cannot run {hook.argv[0]}: {error.strerror or error}"
            return HookRun(point, hook.argv, None, clock() - started, reason, timed_out=False)
        try:
            async with asyncio.timeout(hook.timeout_s):
                await process.wait()
        except TimeoutError:
            timed_out = True
            await outlast(asyncio.create_task(_end_group(process, grace_s), name=f"end hook {point}"))
        except asyncio.CancelledError:
            await outlast(asyncio.create_task(_end_group(process, grace_s), name=f"end hook {point}"))
            raise
        return HookRun(point, hook.argv, process.returncode, clock() - started, tail.text(), timed_out)


async def _end_group(process: asyncio.subprocess.Process, grace_s: float) -> None:
    _signal_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_s):
            await process.wait()
    # Also when the leader went in time: those it started may not have.
    _signal_group(process.pid, signal.SIGKILL)
    await process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


class _Tail:
    """A pipe whose last bytes are kept. Not asyncio's own: that one waits until every process has closed its end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._kept = bytearray()
        self._read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_fd, False)

    def __enter__(self) -> Self:
        self._loop.add_reader(self._read_fd, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._read_fd)
        os.close(self._read_fd)
        os.close(self.write_fd)

    def text(self) -> str:
        """Take what is in the pipe by now, waiting for nobody, and return the last of all that came."""
        self._take()
        return self._kept.decode(errors="replace")

    def _take(self) -> None:
        # One read empties the pipe; a second one could be kept busy for ever by a process that writes on.
        with contextlib.suppress(BlockingIOError):
            self._kept += os.read(self._read_fd, _PIPE_BYTES)
            del self._kept[:-OUTPUT_BYTES]
