"""Pulls builds that have an index, one after the other, each in a process of its own that was started already.

A line on stdin is a `Spec`, its answer on stdout `["done", bytes received]`, or a list of the error's kind and text.
For tests with hundreds of pulls: what differs from `artifact.puller` is only that the interpreter need not start anew.
"""

import asyncio
import os
import resource
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

import msgspec

from artifact import HotcoldError, ManifestRef, Progress, PullSettings
from artifact.indexed import IndexedPull
from artifact.pullwire import Local, Spec


class ManyPulls:
    """The other side: asks for pulls."""

    def __init__(self, process: "Popen[bytes]") -> None:
        self._process = process

    def pull(
        self, ref: ManifestRef, into: Path, local: Local, settings: PullSettings | None = None
    ) -> tuple[str, object]:
        """The answer to one."""
        spec = Spec(ref=ref, into=str(into), settings=settings or PullSettings(), local=local, parent_pid=os.getpid())
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(spec) + b"\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._process.stdout.readline(), type=tuple[str, object])


@contextmanager
def many_pulls() -> Iterator[ManyPulls]:
    """The process, for as long as the block runs."""
    with Popen([sys.executable, "-m", "tests.faults.pull_many"], stdin=PIPE, stdout=PIPE) as process:
        yield ManyPulls(process)
        assert process.stdin is not None
        process.stdin.close()


def _pull(spec: Spec) -> tuple[str, object]:
    seen: list[Progress] = []
    assert spec.ref.index is not None
    pull = IndexedPull(
        spec.ref,
        spec.ref.index,
        Path(spec.into),
        local=spec.local,
        settings=spec.settings,
        on_progress=seen.append,
    )
    try:
        asyncio.run(pull.run())
    except HotcoldError as error:
        return error.kind, str(error)
    except Exception:  # noqa: BLE001 - what must never happen is told, too
        return "crashed", traceback.format_exc()
    return "done", seen[-1].bytes_done


def main() -> None:
    """Answer until stdin ends."""
    os.umask(0)  # noqa: TID251 - as the process of a pull has none
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            answer = _pull(msgspec.json.decode(line, type=Spec))
            os.write(sys.stdout.fileno(), msgspec.json.encode(answer) + b"\n")
            os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
