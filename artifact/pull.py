"""Owns the seam through which a host gets a build: everything that the agent uses of fetching and opening.

The work itself is left to two processes, `artifact.puller` and the `artifact.opener` that it starts; durability to the
swapper; trying again to the agent.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import msgspec

from artifact.errors import TransientError
from artifact.limits import Limits
from artifact.manifest import ManifestRef
from artifact.pullwire import (
    OPENER_DIED,
    Confined,
    Failed,
    Finished,
    Line,
    Local,
    LocalBase,
    Progress,
    PullSettings,
    Spec,
    as_error,
)

__all__ = ["Limits", "Local", "LocalBase", "Progress", "PullSettings", "Puller", "pull"]

_MAX_LINE_BYTES: Final = 256 << 10
_STDERR_TAIL_BYTES: Final = 4096
_NOTHING: Final = Local()


async def pull(
    ref: ManifestRef,
    into: Path,
    *,
    settings: PullSettings,
    on_progress: Callable[[Progress], None],
    local: Local = _NOTHING,
    on_gaps: Callable[[tuple[str, ...]], None] = lambda _: None,
) -> bool:
    """Start a process and have it fill `into`; see `Puller.pull`."""
    puller = await Puller.start()
    try:
        return await puller.pull(ref, into, settings=settings, on_progress=on_progress, local=local, on_gaps=on_gaps)
    finally:
        await puller.end()


class Puller:
    """A process that pulls one build, made by `start`: it loads while others prepare, and waits for its work.

    After `end` the process is gone, and its own children; where this process is killed, they die with it.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._stderr = asyncio.create_task(_tail(process), name="pull-stderr")

    @classmethod
    async def start(cls) -> Self:
        """Start a process; whoever does calls `end`.

        Raises:
            OSError: the operating system starts none.
        """
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # else a directory `artifact` in the agent's working directory would be run
                "-m",
                "artifact.puller",
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                limit=_MAX_LINE_BYTES,
                start_new_session=True,  # Ctrl-C in a terminal is the agent's to handle
            )
        )

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended yet, as the kernel knows it: asyncio hears of it later."""
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:  # ended, and asyncio has heard of it
            return False

    async def end(self) -> None:
        """Kill the process and its children, and wait for that; fine if they have ended."""
        await _kill_and_reap(self._process, self._stderr)

    async def pull(
        self,
        ref: ManifestRef,
        into: Path,
        *,
        settings: PullSettings,
        on_progress: Callable[[Progress], None],
        local: Local = _NOTHING,
        on_gaps: Callable[[tuple[str, ...]], None] = lambda _: None,
    ) -> bool:
        """Fill the existing directory `into` with the build that `ref` names. To be called once.

        A build with an index is made of what this host lacks, and of what `local` names; `into` may then hold another
        build, or what an interrupted pull left. Any other archive is received whole, into an empty directory.

        When this returns, no process works in `into` any more; after an error or a cancel, after `end`. What is in
        `into` then is unspecified, and of use for the next try if the build has an index.

        Args:
            ref: the build.
            into: the directory to fill.
            settings: limits and timeouts.
            on_progress: called in this task, at most about ten times a second and once at the end of a download.
            local: what may be used of this host, and where the table of the new tree goes.
            on_gaps: called in this task for each url that is tried, with what this kernel lacks of the sandbox around
                the process that opens the archive, a sentence each; empty where nothing is.

        Returns:
            Whether the tree is durable already; else that is left to the caller.

        Raises:
            TransientError: the network or the disk: `artifact_unreachable`, `http_404` and its like, `connect_failed`,
                `connect_timeout`, `dns_failed`, `tls_failed`, `proxy_failed`, `bad_redirect`, `bad_url`, `stalled`,
                `too_slow`, `truncated`, `size_mismatch`, `digest_mismatch`, `disk_full`, `disk_error`, `puller_died`,
                `opener_died`.
            ArtifactRejected: the build itself: `archive_broken`, `archive_hostile`, `archive_too_big`,
                `archive_unstorable`, `index_broken`; its digest was right, so that fetching it again cannot help.
            ConfigError: `disk_not_writable`, `not_empty`, `bad_ca_cert`, `sandbox_incomplete`, `sandbox_failed`.
        """
        patch = b""
        if ref.index is not None and ref.index.patches:
            # Only now: an agent that never deploys a patch does not hold what it takes to read one.
            from artifact.prefetch import prefetch_patch  # noqa: PLC0415

            patch = await prefetch_patch(ref, local, settings)
        spec = Spec(
            ref=ref,
            into=os.fspath(into),
            settings=settings,
            local=local,
            parent_pid=os.getpid(),
            patch_bytes=len(patch),
        )
        result = await _converse(self._process, spec, patch, on_progress, on_gaps)
        # It ends by itself now. A kill here could take the exit status away from asyncio, which reaps in a thread.
        await self._process.wait()
        last_words = await self._stderr
        match result:
            case Finished(is_secured=is_secured):
                return is_secured
            case Failed(kind=kind, message=message) if kind == OPENER_DIED and last_words:
                raise as_error(msgspec.structs.replace(result, message=f"{message}; last words: {_told(last_words)}"))
            case Failed():
                raise as_error(result)
            case None:
                raise _died(self._process, ref, last_words)


async def _converse(
    process: Process,
    spec: Spec,
    patch: bytes,
    on_progress: Callable[[Progress], None],
    on_gaps: Callable[[tuple[str, ...]], None],
) -> Finished | Failed | None:
    assert process.stdin is not None  # noqa: S101 - PIPE was asked for
    assert process.stdout is not None  # noqa: S101 - PIPE was asked for
    with suppress(BrokenPipeError, ConnectionResetError):  # dead already: its end of stdout says so
        process.stdin.write(msgspec.json.encode(spec) + b"\n" + patch)
        await process.stdin.drain()
    decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)
    async for line in process.stdout:
        try:
            message = decoder.decode(line)
        except msgspec.DecodeError:
            return None  # killed in the middle of a line
        match message:
            case Progress():
                on_progress(message)
            case Confined():
                on_gaps(message.gaps)
            case Finished() | Failed():
                return message
    return None


async def _tail(process: Process) -> bytes:
    assert process.stderr is not None  # noqa: S101 - PIPE was asked for
    tail = b""
    while data := await process.stderr.read(_STDERR_TAIL_BYTES):
        tail = (tail + data)[-_STDERR_TAIL_BYTES:]
    return tail


async def _kill_and_reap(process: Process, stderr: asyncio.Task[bytes]) -> None:
    """Kill the child and wait for it and its own child, however often this task is cancelled meanwhile.

    The kernel kills the child's child with it, and the end of the standard error that they share says when it is gone.

    Without a deadline, on purpose: a child that is still there would write into a directory that is removed next.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    ended = asyncio.gather(process.wait(), stderr, _hang_up(process))
    cancelled: asyncio.CancelledError | None = None
    while not ended.done():
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def _hang_up(process: Process) -> None:
    """Close both pipes; the loop may end right after this, and would leave them open otherwise."""
    assert process.stdin is not None  # noqa: S101 - PIPE was asked for
    assert process.stdout is not None  # noqa: S101 - PIPE was asked for
    process.stdin.close()
    with suppress(BrokenPipeError, ConnectionResetError):
        await process.stdin.wait_closed()
    while await process.stdout.read(_MAX_LINE_BYTES):
        pass


def _died(process: Process, ref: ManifestRef, stderr: bytes) -> TransientError:
    code = process.returncode
    if code is not None and code < 0:
        how = f"signal {-code}, {signal.strsignal(-code)}: look for the out-of-memory killer in the kernel's log"
    else:
        how = f"exit status {code}: please report it"
    return TransientError(
        f"the process that pulled build {ref.id} died without a result ({how}); its last words: "
        f"{_told(stderr) or 'nothing'}",
        kind="puller_died",
    )


def _told(stderr: bytes) -> str:
    """What stood on standard error, fit for logs and terminals: an archive may have had a hand in it."""
    text = stderr.decode(errors="replace").strip()
    return "".join(character if character.isprintable() else " " for character in text)
