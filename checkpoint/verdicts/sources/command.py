"""Owns asking a command: its process group, its deadline, what it prints.

What the counts mean is left to `checkpoint.verdicts`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from typing import Final

import msgspec

from checkpoint.verdicts.metric import CommandTable
from checkpoint.verdicts.sources.asking import Answer, Asked, SourceFailed, decode_answer

MAX_OUTPUT_BYTES: Final = 16 * 1024 * 1024
_TAIL_BYTES: Final = 300


class CommandSource:
    """Runs a program that reads what is asked as JSON on standard input, and prints `{"hosts": [...]}`."""

    def __init__(self, table: CommandTable) -> None:
        self._table = table

    async def counts(self, asked: Asked) -> Answer:
        """Run it; nothing of its process group outlives the call.

        Raises:
            SourceFailed: it could not be started, took too long, failed, or printed something else.
        """
        argv, timeout_s = self._table.argv, self._table.timeout_s
        loop = asyncio.get_running_loop()
        with _memory() as question, _bounded_memory() as output, _bounded_memory() as complaints:
            await loop.run_in_executor(None, _write_question, question, asked)
            try:
                process = await asyncio.create_subprocess_exec(
                    *argv, stdin=question, stdout=output, stderr=complaints, start_new_session=True
                )
            except OSError as error:
                raise SourceFailed(f"cannot run {argv[0]}: {error.strerror or error}") from error
            try:
                async with asyncio.timeout(timeout_s):
                    await process.wait()
            except TimeoutError as error:
                raise SourceFailed(f"{argv[0]} did not end within {timeout_s:g} s") from error
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await asyncio.shield(process.wait())
            printed, complained = await loop.run_in_executor(None, lambda: (_written(output), _written(complaints)))
        if len(printed) >= MAX_OUTPUT_BYTES:
            raise SourceFailed(f"{argv[0]} printed more than {MAX_OUTPUT_BYTES >> 20} MiB")
        if process.returncode != 0:
            said = complained[-_TAIL_BYTES:].decode(errors="replace").strip() or "(nothing on standard error)"
            raise SourceFailed(f"{argv[0]} ended with status {process.returncode}: {said}")
        return decode_answer(printed, argv[0])


@contextlib.contextmanager
def _memory() -> Iterator[int]:
    """A file without a name. Unlike a pipe, nobody has to keep reading it, and no child that lives on holds it open."""
    fd = os.memfd_create("hotcold-source", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _bounded_memory() -> Iterator[int]:
    """The same, but who writes more gets an error. What was written ends at the offset, which all its users share."""
    with _memory() as fd:
        os.truncate(fd, MAX_OUTPUT_BYTES)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        yield fd


def _written(fd: int) -> bytes:
    return os.pread(fd, os.lseek(fd, 0, os.SEEK_CUR), 0)


def _write_question(fd: int, asked: Asked) -> None:
    question = {
        "app": asked.app,
        "tiers": asked.tiers,
        "updated": asked.updated,
        "others": asked.others,
        "interval_s": asked.interval_s,
    }
    data = msgspec.json.encode(question)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
