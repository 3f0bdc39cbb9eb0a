"""A kill, or an error, at every system call that changes anything: what is left, and that the next deploy works."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from swapper import LINUX
from tests.faults.swapper_victim import REFUSED
from tests.swapper_host import DIGEST, Host, OldKernel, assert_whole, fill, idle

CHANGING = (
    "mkdir,mkdirat,rename,renameat,renameat2,symlink,symlinkat,unlink,unlinkat,rmdir,fsync,fdatasync,syncfs,write,"
    "pwrite64,ftruncate,fchmod,chmod,fchmodat,flock"
)
"""A kill before one of these leaves every state that can be left: other calls change nothing on the disk."""

FAILING = f"{CHANGING},open,openat,getdents64,readlink,readlinkat"
REPOSITORY = Path(__file__).parents[2]
SCENARIOS = [
    ("deploy", "new"),
    ("deploy", "old"),
    ("swap_in", "new"),
    ("swap_in", "old"),
    ("prove", "new"),
    ("abandon", "new"),
    ("collect", "new"),
    ("open", "new"),
]

FAILURES = [
    *((step, kernel, error) for step, kernel in SCENARIOS for error in ("ENOSPC", "EIO") if step != "swap_in"),
    ("deploy", "new", "EROFS"),
]


@dataclass(frozen=True)
class Outcome:
    status: int
    calls: tuple[str, ...]
    """As strace shows them."""


class Victims:
    """Forks processes that wait to be traced, and runs them under an injection."""

    def __init__(self, server: subprocess.Popen[str], log: Path) -> None:
        self._server = server
        self._log = log

    def run(self, base: Path, step: str, kernel: str, *, trace: str, inject: str | None = None) -> Outcome:
        pid = int(self._ask(json.dumps({"base": str(base), "step": step, "kernel": kernel}) + "\n"))
        expressions = ["-e", f"trace={trace}"] + (["-e", f"inject={inject}"] if inject else [])
        tracer = subprocess.Popen(
            ["strace", "-p", str(pid), "-o", str(self._log), *expressions], stderr=subprocess.PIPE, text=True
        )
        assert tracer.stderr is not None
        with tracer, tracer.stderr:
            attached = tracer.stderr.readline()
            if "attached" not in attached:
                self._ask("\n")
                pytest.skip(f"strace cannot trace here: {attached.strip()}")
            status = int(self._ask("\n"))
        calls = [line for line in self._log.read_text().splitlines() if re.match(r"[a-z]\w+\(", line)]
        return Outcome(status, tuple(calls))

    def _ask(self, line: str) -> str:
        assert self._server.stdin is not None
        self._server.stdin.write(line)
        self._server.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victims]:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (apt-get install strace)")
    directory = tmp_path_factory.mktemp("victims")
    with (
        (directory / "stderr").open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "tests.faults.swapper_victim"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=REPOSITORY,
        ) as server,
    ):
        yield Victims(server, directory / "log")
        assert server.stdin is not None
        server.stdin.close()
        assert server.wait(10) == 0


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory if there is such: a thousand deploys need no device, for a kill is no power loss."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as directory:
        yield Path(directory)


def make_template(base: Path, step: str) -> Host:
    """Three proved builds, of which b3 is hot and b2 the standby, and what the step needs."""
    host = Host(base)
    swapper = host.open()
    for build_id in ("b1", "b2", "b3"):
        host.deploy(swapper, build_id)
    if step in {"swap_in", "abandon"}:
        release = swapper.prepare("new", DIGEST)
        fill(release)
        swapper.complete(release)
    elif step == "prove":
        host.deploy(swapper, "new", is_proved=False)
    elif step == "open":
        _leave_a_mess(host)
    swapper.close()
    return host


def _leave_a_mess(host: Host) -> None:
    """What kills at different moments leave, all at once; hot and cold both show the new build."""
    root, records = host.layout.root, host.layout.records
    whole = json.loads((records / "b3~3.json").read_text())
    for name, status in (("new~4", "complete"), ("torn~5", "filling"), ("gone~6", "filling")):
        build = name.partition("~")[0]
        record = whole | {"name": name, "build": build, "status": status, "served": 0, "proved": False}
        (records / f"{name}.json").write_text(json.dumps(record))
    shutil.copytree(root / "releases/b3~3", root / "releases/new~4", symlinks=True)
    for path in ("one", "sub/two"):
        (root / "releases/new~4" / path).write_text("new")
    shutil.copytree(root / "releases/b3~3", root / "releases/torn~5", symlinks=True)
    shutil.copytree(root / "releases/b3~3", root / "releases/.trash-b0~1", symlinks=True)
    for link in ("hot", "cold"):
        (root / link).unlink()
        (root / link).symlink_to("releases/new~4")
        (root / f".{link}.new").symlink_to("releases/new~4")
    (records / ".new~4.json.tmp").write_text("{")
    host.layout.counter.write_text("6\n")


@pytest.fixture(params=SCENARIOS, ids=" ".join)
def scenario(request: pytest.FixtureRequest) -> tuple[str, str]:
    step, kernel = request.param
    return step, kernel


def test_a_kill_at_any_call_leaves_old_or_new_and_nothing_else(
    scenario: tuple[str, str], victims: Victims, memory: Path
) -> None:
    """kill -9 before each changing call: hot is whole and old or new, the next start tidies up, a deploy works."""
    step, kernel = scenario
    template = make_template(memory / "template", step)
    trial = _copy(template, memory / "counted", kernel)
    counted = victims.run(trial.base, step, kernel, trace=CHANGING)
    assert counted.status == 0
    assert len(counted.calls) >= 3
    for number, (point, call) in enumerate(_points(counted)):
        trial = _copy(template, memory / str(number), kernel)
        outcome = victims.run(
            trial.base, step, kernel, trace=CHANGING, inject=f"{point[0]}:signal=KILL:when={point[1]}"
        )
        assert outcome.status == signal.SIGKILL, call
        _assert_recovers(trial, step, f"killed before {call}")


@pytest.mark.parametrize(("step", "kernel", "error"), FAILURES)
def test_an_error_at_any_call_is_told_and_leaves_old_or_new(
    step: str, kernel: str, error: str, victims: Victims, memory: Path
) -> None:
    """Each call fails once: only our own errors come out, hot is old or new, the next start and deploy work."""
    template = make_template(memory / "template", step)
    trial = _copy(template, memory / "counted", kernel)
    counted = victims.run(trial.base, step, kernel, trace=FAILING)
    for number, (point, _call) in enumerate(_points(counted)):
        trial = _copy(template, memory / str(number), kernel)
        outcome = victims.run(
            trial.base, step, kernel, trace=FAILING, inject=f"{point[0]}:error={error}:when={point[1]}"
        )
        failed = next(call for call in outcome.calls if "(INJECTED)" in call)
        status = os.waitstatus_to_exitcode(outcome.status)
        # A table that stays only takes room: the next start removes it.
        is_harmless = status == 0 and ("/tables/" in failed or _is_reported_otherwise(trial, step, error))
        assert status == REFUSED or is_harmless, failed
        _assert_recovers(trial, step, failed)


def _is_reported_otherwise(host: Host, step: str, error: str) -> bool:
    """Trees that resist removal are listed, and a full disk only delays the record of a swap that is done."""
    is_swapped = assert_whole(host.layout.hot.resolve()) == "new"
    return step in {"collect", "open"} or (error == "ENOSPC" and is_swapped)


def _points(counted: Outcome) -> Iterator[tuple[tuple[str, int], str]]:
    """Name each call as strace's `when` does: the n-th of its kind."""
    seen: Counter[str] = Counter()
    for call in counted.calls:
        kind = call.partition("(")[0]
        seen[kind] += 1
        yield (kind, seen[kind]), call


def _copy(template: Host, base: Path, kernel: str) -> Host:
    shutil.copytree(template.base, base, symlinks=True)
    return Host(base, OldKernel() if kernel == "old" else LINUX)


def _assert_recovers(host: Host, step: str, context: str) -> None:
    allowed = {"prove": {"new"}, "open": {"new"}, "deploy": {"b3", "new"}, "swap_in": {"b3", "new"}}.get(step, {"b3"})
    served = assert_whole(host.layout.hot.resolve(strict=True))
    assert served in allowed, context
    used = {name.removeprefix(".trash-") for name in (*host.trees(), *host.records())}

    swapper = host.open()

    host.assert_sound()
    disk = swapper.look()
    assert disk.problems == (), context
    assert disk.hot is not None
    assert disk.hot.build_id == served, context
    assert disk.hot.complete
    assert disk.hot.served > 0, context
    assert disk.standby is not None, context
    assert disk.standby.build_id == ("b3" if served == "new" else "b2"), context
    assert disk.cold is not None
    assert disk.cold.complete, context

    swap = host.deploy(swapper, "next")
    assert swap.release.name not in used, context
    swapper.collect(keep=2, pinned=(), in_use=idle)
    disk = swapper.look()
    needed = {release.name for release in (disk.hot, disk.standby, disk.cold) if release is not None}
    assert set(host.trees()) == needed, context
    swapper.close()
    host.assert_sound()
    shutil.rmtree(host.base)
