"""Owns one `artifact.opener` process as `artifact.puller` sees it: its start, what it says, its end.

What it says is not trusted: by then it may be in the hands of whoever made the archive. It decides at most whether its
own tree counts as opened, and that only after `artifact.transfer` has found the digest right.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import msgspec

from artifact.errors import ArtifactRejected, HotcoldError, TransientError
from artifact.feed import Feed
from artifact.manifest import ManifestRef
from artifact.pullwire import (
    OPENER_DIED,
    Confined,
    Failed,
    Finished,
    Opened,
    OpenerLine,
    OpenTask,
    PullSettings,
    as_error,
)

_MAX_LINE_BYTES: Final = 128 << 10
_EXIT_GRACE_S: Final = 5.0
_KEPT_VARIABLES: Final = ("PYTHON", "LD_", "LC_", "LANG")


class Opening:
    """One process that opens one archive into one directory; made by `start`.

    Attributes:
        archive: where to put the archive's bytes.
        entry_count: how many entries have been created so far.
        ended: done when the process is gone and reaped. Without an exception the tree is complete. Else
            ArtifactRejected, TransientError or ConfigError as `artifact.extract` has them; ConfigError, kind
            `sandbox_incomplete` or `sandbox_failed`; TransientError, kind `opener_died`.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        archive: Feed,
        ref: ManifestRef,
        on_gaps: Callable[[tuple[str, ...]], None],
    ) -> None:
        self.archive = archive
        self.entry_count = 0
        self._process = process
        self._ref = ref
        self._on_gaps = on_gaps
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.run_in_executor(None, self._listen)

    @classmethod
    def start(
        cls, ref: ManifestRef, into: Path, settings: PullSettings, *, on_gaps: Callable[[tuple[str, ...]], None]
    ) -> Self:
        """Start the process; it waits for the archive.

        Whoever starts it sees to it that `ended` is awaited, after `kill` if need be.

        Args:
            ref: what will be put; its urls stay here.
            into: the empty directory to fill.
            settings: for the limits and `require_sandbox`.
            on_gaps: called in the running loop, before the first byte is opened, with what this kernel lacks of the
                sandbox.

        Raises:
            TransientError: kind `opener_died`, the operating system starts no process.
        """
        task = OpenTask(
            archive_format=ref.format,
            archive_bytes=ref.size,
            limits=settings.limits,
            require_sandbox=settings.require_sandbox,
            parent_pid=os.getpid(),
        )
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        try:
            process = subprocess.Popen(  # noqa: S603 - our own program
                # `-P` as for the puller: else a directory `artifact` in the working directory would be run.
                [sys.executable, "-P", "-m", "artifact.opener", os.fspath(into), msgspec.json.encode(task).decode()],
                stdin=read_fd,
                stdout=subprocess.PIPE,
                # It shares our stderr, which the agent reads to its end: the sign that both of us are gone.
                stderr=None,
                # No tokens and passwords of proxies.
                env={name: value for name, value in os.environ.items() if name.startswith(_KEPT_VARIABLES)},
            )
        except OSError as error:
            os.close(write_fd)
            raise TransientError(
                f"the process that opens build {ref.id} cannot be started: {error.strerror}; look at the limits of the "
                "agent's user",
                kind=OPENER_DIED,
            ) from error
        finally:
            os.close(read_fd)
        return cls(process, Feed(write_fd), ref, on_gaps)

    def kill(self) -> None:
        """End the process where it stands; `ended` is done when it is gone. One that has ended is fine."""
        self._process.kill()
        self.archive.close()

    def _listen(self) -> None:
        """In a thread of its own: take its lines, then its end."""
        result = self._result()
        if result is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_EXIT_GRACE_S)
        # With its last line its work is done, and nothing may happen in the directory after this.
        self._process.kill()
        self._process.wait()
        if result is None:
            raise self._died()
        if isinstance(result, HotcoldError):
            raise result

    def _result(self) -> Finished | HotcoldError | None:
        assert self._process.stdout is not None  # noqa: S101 - PIPE was asked for
        decoder: msgspec.json.Decoder[OpenerLine] = msgspec.json.Decoder(OpenerLine)
        is_confined = False
        with self._process.stdout as lines:
            while line := lines.readline(_MAX_LINE_BYTES):
                if not line.endswith(b"\n") and len(line) < _MAX_LINE_BYTES:
                    return None  # ended in the middle of a line
                try:
                    message = decoder.decode(line)
                except msgspec.DecodeError:
                    return TransientError(
                        f"the process that opens build {self._ref.id} says what it never says: the archive may have "
                        "taken it over; please report it, with the artifact if you can",
                        kind=OPENER_DIED,
                    )
                match message:
                    case Opened():
                        self.entry_count = message.entry_count
                    case Confined():
                        if not is_confined:
                            self._loop.call_soon_threadsafe(self._on_gaps, message.gaps)
                        is_confined = True
                    case Finished():
                        return message
                    case Failed():
                        printable = "".join(c if c.isprintable() else " " for c in message.message)
                        return as_error(msgspec.structs.replace(message, message=printable))
        return None

    def _died(self) -> TransientError:
        code = self._process.returncode
        if code is None or code >= 0:
            how = f"exit status {code}"
        else:
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            how = (
                f"signal {-code}, {signal.strsignal(-code)}, after {used.ru_utime + used.ru_stime:.1f} s of CPU time "
                f"and with at most {used.ru_maxrss >> 10} MiB of memory; look for the out-of-memory killer in the "
                "kernel's log"
            )
        return TransientError(
            f"the process that opens build {self._ref.id} died without a result ({how}): please report it, with the "
            "artifact if you can",
            kind=OPENER_DIED,
        )


def blames_archive(error: BaseException) -> bool:
    """Tell whether other bytes could have prevented an error that `ended` has; only the digest says whose bytes."""
    return isinstance(error, ArtifactRejected) or (isinstance(error, HotcoldError) and error.kind == OPENER_DIED)
