"""A hook runs without a shell, in a clean environment, and never outlives its deadline or its caller."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from pathlib import Path

import msgspec
import pytest

from agent.blocking import run_blocking
from agent.hooks import OUTPUT_BYTES, Hook, HookFailed, HookRun, run_hook


def _sh(script: str, *arguments: object, timeout_s: float = 20) -> Hook:
    return Hook(argv=("sh", "-c", script, "sh", *map(str, arguments)), timeout_s=timeout_s)


async def _run(hook: Hook, **environment: str) -> HookRun:
    return await run_hook("before_drain", hook, environment=environment, grace_s=0.2)


@pytest.fixture
def note(tmp_path: Path) -> Path:
    """Give a hook a pipe to write process numbers into, so that reading them waits for it."""
    note = tmp_path / "note"
    os.mkfifo(note)
    return note


async def _numbers(note: Path) -> list[int]:
    async with asyncio.timeout(10):
        return [int(word) for word in (await run_blocking(note.read_text)).split()]


async def _ends(pid: int) -> bool:
    """Wait until a process, which need not be our child, has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ended, _, _ = await run_blocking(select.select, [descriptor], [], [], 10)
        return bool(ended)
    finally:
        os.close(descriptor)


async def test_a_hook_that_succeeds() -> None:
    """Status and both outputs, in the order in which they were written."""
    run = await _run(_sh("echo one; echo two >&2; echo three"))
    assert run.succeeded
    assert (run.point, run.exit, run.output, run.timed_out) == ("before_drain", 0, "one\ntwo\nthree\n", False)
    assert 0 < run.duration_s < 10


async def test_arguments_reach_the_program_as_they_are() -> None:
    """No shell is between: nothing is expanded, split or run."""
    hostile = "$(reboot) `id`; * 'x' \"y\" \n ü"
    run = await _run(Hook(argv=(sys.executable, "-c", "import sys; print(ascii(sys.argv[1]))", hostile)))
    assert run.output == ascii(hostile) + "\n"


async def test_the_environment_is_clean() -> None:
    """Nothing of the agent's own environment, where a token may stand, reaches a hook; what is given does."""
    assert "HOME" in os.environ
    run = await _run(Hook(argv=("env",)), HOTCOLD_APP="shop")
    assert set(run.output.splitlines()) == {
        "HOTCOLD_APP=shop",
        "LANG=C.UTF-8",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }


async def test_a_hook_stands_alone() -> None:
    """Its directory is the root, its input is empty, its session is its own: no hook is evidence against a drain."""
    run = await _run(_sh("pwd; cat; ps -o sid= -p $$ | tr -d ' '; echo $$"))
    directory, session, pid = run.output.split()
    assert directory == "/"
    assert session == pid


@pytest.mark.parametrize(
    ("script", "exit_status", "verdict"),
    [
        ("echo why >&2; exit 3", 3, "ended with status 3"),
        ("echo why; kill -9 $$", -9, "was killed by signal 9 (Killed)"),
    ],
)
async def test_a_hook_that_fails(script: str, exit_status: int, verdict: str) -> None:
    """A status or a signal is told, with the output."""
    run = await _run(_sh(script))
    assert not run.succeeded
    assert (run.exit, run.verdict, run.output) == (exit_status, verdict, "why\n")


@pytest.mark.parametrize("program", ["no-such-program", "/nowhere/at/all", "/etc/passwd", "/etc"])
async def test_a_hook_that_cannot_be_started_is_a_failed_run(program: str) -> None:
    """A missing program, a file that may not be run and a directory are told as failures, not raised."""
    run = await _run(Hook(argv=(program, "x")))
    assert not run.succeeded
    assert run.exit is None
    assert run.verdict == "could not be started"
    assert run.output.startswith(f"cannot run {program}: ")


async def test_only_the_last_of_the_output_is_kept() -> None:
    """Megabytes neither block the hook nor stay in memory, and the end is whole."""
    run = await _run(_sh("yes 0123456789abcde | head -c 4194304; echo end >&2"))
    assert run.succeeded
    assert len(run.output) == OUTPUT_BYTES
    assert run.output.endswith("0123456789abcde\nend\n")


async def test_output_that_is_no_text_is_told_as_well_as_can_be() -> None:
    """Bytes that are not UTF-8 are replaced."""
    run = await _run(_sh(r"printf 'a\377\376b'"))
    assert run.output == "a��b"


async def test_a_process_that_keeps_the_output_open_is_not_waited_for() -> None:
    """A hook that starts a service in the background has ended when the hook has; the service stays."""
    run = await _run(_sh("sleep 60 & echo $!"))
    service = int(run.output)
    assert run.succeeded
    assert run.duration_s < 10
    os.kill(service, signal.SIGKILL)  # raises if it is not there
    assert await _ends(service)


async def test_a_timeout_asks_first() -> None:
    """SIGTERM comes first, so that a hook may tidy up; what it says then is kept."""
    hook = _sh("trap 'echo tidied; exit 0' TERM; echo begun; while :; do sleep 0.01; done", timeout_s=0.3)
    run = await run_hook("staged", hook, environment={}, grace_s=10)
    assert run.timed_out
    assert not run.succeeded
    assert run.duration_s < 5
    assert run.output.startswith("begun\n")
    assert run.output.endswith("tidied\n")
    assert "was ended after" in run.verdict


STUBBORN = "trap '' TERM; sh -c 'while :; do sleep 1; done' & echo $$ $! > \"$1\"; while :; do sleep 1; done"
"""Ignores SIGTERM, as does its child, which inherits that; says who they are."""


async def test_a_timeout_ends_the_whole_group(note: Path) -> None:
    """Neither a hook that ignores SIGTERM nor its children survive."""
    task = asyncio.create_task(_run(_sh(STUBBORN, note, timeout_s=0.5)))
    leader, child = await _numbers(note)
    run = await task
    assert (run.exit, run.timed_out) == (-signal.SIGKILL, True)
    assert await _ends(leader)
    assert await _ends(child)


async def test_a_child_that_ignores_the_request_goes_with_a_leader_that_obeys_it(note: Path) -> None:
    """The leader's polite end does not save what it leaves in its group."""
    script = 'sh -c \'trap "" TERM; echo $$ > "$1"; while :; do sleep 1; done\' sh "$1" & wait'
    task = asyncio.create_task(_run(_sh(script, note, timeout_s=0.5)))
    (child,) = await _numbers(note)
    run = await task
    assert (run.exit, run.timed_out) == (-signal.SIGTERM, True)
    assert await _ends(child)


async def test_cancellation_ends_the_group_and_waits_for_it(note: Path) -> None:
    """When the cancellation arrives, nothing of the hook is left, however often it was asked."""
    task = asyncio.create_task(_run(_sh(STUBBORN, note)))
    leader, child = await _numbers(note)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(leader, 0)
    assert await _ends(child)


def _descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


async def test_no_descriptor_is_left_behind() -> None:
    """Success, failure, timeout and a missing program all close what they opened."""
    await _run(_sh(":"))
    before = _descriptors()
    for hook in (_sh(":"), _sh("exit 1"), _sh("sleep 60", timeout_s=0.05), Hook(argv=("no-such-program",))):
        await _run(hook)
    assert _descriptors() == before


async def test_the_error_of_a_failed_hook_tells_its_last_words() -> None:
    """The error names the point, the command, the verdict and the end of the output, and carries the run."""
    run = await _run(_sh("yes x | head -c 9999; echo cannot reload; exit 4"))
    error = HookFailed(run)
    assert error.kind == "hook_failed"
    assert error.run is run
    assert str(error).startswith("hook before_drain ended with status 4: sh -c ")
    assert "cannot reload; correct the hook, or `hooks.before_drain`" in str(error)
    assert len(str(error)) < 800


@pytest.mark.parametrize(
    "document",
    [{"argv": []}, {"argv": [""]}, {"argv": ["a\0b"]}, {"argv": "sh -c x"}, {"argv": ["x"], "timeout_s": 0}, {}],
)
def test_a_table_that_makes_no_sense_is_refused(document: dict[str, object]) -> None:
    """No program, a NUL, a shell line or a deadline of nothing."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(document, Hook)
