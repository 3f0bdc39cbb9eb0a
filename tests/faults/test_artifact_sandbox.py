"""Somebody takes over the process that opens an archive: what he can do, and what the agent is told.

`burglar` is his code. It runs in the real process, started by the real `pull`, in the middle of its work.
"""

import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from artifact import ArtifactRejected, ManifestRef, PullSettings, TransientError
from artifact.pull import pull
from tests.faults import burglar, pull_once, under_filter
from tests.hostile import Case
from tests.hostile.bombs import cost_bombs

ROOT = Path(__file__).resolve().parents[2]
LANDLOCK_NAMES = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
LANDLOCK_CALLS = ("444", "445", "446")
PR_SET_SECCOMP = "22"

DEPENDS_ON_THE_HOST = {
    "use io_uring",
    "use the kernel's keys",
    "put itself into a name space of its own",
    "open a TCP connection",
}
"""What an unconfined process may be refused too, by the host's settings."""

ONLY_LANDLOCK_PREVENTS = {
    "read a file outside",
    "read a file of the system",
    "list a directory outside",
    "create a file outside",
    "create a file beside",
    "create a directory outside",
    "create a link outside",
    "change a file outside",
    "rename a file outside",
    "take a file in by a hard link",
    "take a file out by a hard link",
    "remove a file outside",
    "remove a file inside",
}
ONLY_THE_FILTER_PREVENTS = {
    "truncate a file outside",  # in part: a newer Landlock does too
    "change the mode of a file outside",
    "change the owner of a file outside",
    "open a Unix socket",
    "send a datagram",
    "execute a program",
    "outlive its parent",
}


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """The directory to fill, amid things to steal and to break."""
    return furnished(tmp_path / "site")


def furnished(site: Path) -> Path:
    into = site / "releases" / "new"
    into.mkdir(parents=True)
    (site / "canary").write_text("alive")
    (site / "first").touch()
    (site / "other").mkdir()
    (site / "other" / "f").touch()
    return into


def around(into: Path) -> dict[str, tuple[int, bytes]]:
    """What lies beside and above the directory to fill."""
    site = into.parents[1]
    return {
        str(path.relative_to(site)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in site.rglob("*")
        if not path.is_relative_to(into)
    }


def published(directory: Path, data: bytes, archive_format: str = "tar", name: str = "artifact") -> ManifestRef:
    path = directory / f"{name}.{archive_format}"
    path.write_bytes(data)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return ManifestRef(id="b1", urls=(path.as_uri(),), digest=digest, size=len(data), format=archive_format)


def tar_of(*names: str, content: bytes = b"", link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)
    return buffer.getvalue()


def zip_of(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return buffer.getvalue()


@pytest.fixture
def plan(into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """The burglar's plan; he waits in every interpreter that is started from now on."""
    hideout = tmp_path / "hideout"
    hideout.mkdir()
    shutil.copy(burglar.__file__, hideout / "sitecustomize.py")
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        subprocess.Popen(["sleep", "600"]) as victim,
    ):
        plan = {"site": str(into.parents[1]), "into": str(into), "port": server.getsockname()[1], "victim": victim.pid}
        monkeypatch.setenv("PYTHONPATH", str(hideout))
        monkeypatch.setenv(burglar.PLAN, json.dumps(plan))
        yield plan
        victim.kill()


async def pulled(ref: ManifestRef, into: Path, settings: PullSettings | None = None) -> list[str]:
    """Pull, and return what the sandbox lacks; nothing of the pull lives on."""
    gaps: list[str] = []
    try:
        await pull(ref, into, settings=settings or PullSettings(), on_progress=lambda _: None, on_gaps=gaps.extend)
    finally:
        assert openers(into) == []
    return gaps


def openers(into: Path) -> list[str]:
    """Processes with `into` on their command line, wherever they hang."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(into) in words:
            found.append(path.parent.name)
    return found


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def loot(into: Path) -> dict[str, str]:
    return json.loads((into / burglar.LOOT).read_text())


# --- the burglar ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("plan")
@pytest.mark.parametrize("archive_format", ["tar", "zip"])
async def test_who_takes_over_the_opener_gets_nowhere(into: Path, tmp_path: Path, archive_format: str) -> None:
    """No network, no other file, no process, no right, no more memory than it was given; all of it is in force."""
    data = tar_of(burglar.TRIGGER) if archive_format == "tar" else zip_of(burglar.TRIGGER)
    before = around(into)
    assert await pulled(published(tmp_path, data, archive_format), into) == []
    found = loot(into)
    assert {name for name, outcome in found.items() if outcome == "done"} == set()
    assert set(found.values()) <= {"EPERM", "EACCES", "EXDEV", "EMFILE", "EFBIG", "ENOMEM"}
    assert (found["open many files"], found["write a file without end"]) == ("EMFILE", "EFBIG")
    assert found["take much memory"] == "ENOMEM"
    assert around(into) == before
    assert names(into) == {burglar.TRIGGER, burglar.LOOT, "victim", "tool", "endless"}


@pytest.mark.usefixtures("plan")
def test_where_nothing_confines_the_burglar_he_gets_everywhere(into: Path) -> None:
    """The attempts are real: each succeeds in a plain process, but for what this host forbids to everybody."""
    subprocess.run([sys.executable, burglar.__file__], check=True)
    found = loot(into)
    assert {name for name, outcome in found.items() if outcome != "done"} <= DEPENDS_ON_THE_HOST
    assert found.keys() >= ONLY_LANDLOCK_PREVENTS | ONLY_THE_FILTER_PREVENTS


async def test_a_crash_is_told_and_the_agent_lives(
    into: Path, tmp_path: Path, plan: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stood on its standard error is told too, without what would move a terminal's cursor."""
    monkeypatch.setenv(burglar.PLAN, json.dumps({**plan, "crash": True, "mutter": "ouch\x1b[2J\n"}))
    with pytest.raises(TransientError, match=r"b1 died without a result \(signal 11") as caught:
        await pulled(published(tmp_path, tar_of(burglar.TRIGGER)), into)
    assert caught.value.kind == "opener_died"
    assert str(caught.value).endswith("; last words: ouch [2J")


async def test_a_crash_over_bytes_that_are_not_the_builds_is_that_urls_fault(
    into: Path, tmp_path: Path, plan: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror that was tampered with does not condemn the build, even if it crashes what reads it."""
    monkeypatch.setenv(burglar.PLAN, json.dumps({**plan, "crash": True}))
    crashing = published(tmp_path, tar_of(burglar.TRIGGER, link=burglar.TRIGGER), name="crashing")
    good = published(tmp_path, tar_of("calm", link="calmness"), name="good")
    assert good.size == crashing.size
    await pulled(msgspec.structs.replace(good, urls=(*crashing.urls, *good.urls)), into)
    assert names(into) == {"calm", "link"}


SAYINGS: dict[str, tuple[dict[str, object], str, str]] = {
    "no JSON": ({"say": "rubbish"}, "opener_died", "says what it never says"),
    "a line without end": ({"say": "x", "times": 200_000}, "opener_died", "says what it never says"),
    "a kind that is no word": (
        {"say": '{"type":"Failed","error":"ArtifactRejected","kind":"a b","message":"m"}'},
        "opener_died",
        "says what it never says",
    ),
    "control characters": (
        {"say": '{"type":"Failed","error":"ArtifactRejected","kind":"liar","message":"\\u001b[2Jfine\\nall well"}'},
        "liar",
        " [2Jfine all well",
    ),
}


@pytest.mark.parametrize("case", SAYINGS)
async def test_what_a_burglar_says_does_no_harm(
    into: Path, tmp_path: Path, plan: dict[str, object], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """It reaches logs and terminals. He then stays where he is, and is ended."""
    said, kind, told = SAYINGS[case]
    monkeypatch.setenv(burglar.PLAN, json.dumps(plan | said))
    with pytest.raises((TransientError, ArtifactRejected)) as caught:
        await pulled(published(tmp_path, tar_of(burglar.TRIGGER)), into)
    assert caught.value.kind == kind
    assert told in str(caught.value)


async def test_a_burglar_who_says_that_all_is_done_gains_nothing_by_it(
    into: Path, tmp_path: Path, plan: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the right digest his tree does not count."""
    monkeypatch.setenv(burglar.PLAN, json.dumps({**plan, "say": '{"type":"Finished"}'}))
    lying = published(tmp_path, tar_of(burglar.TRIGGER, link="x"), name="lying")
    good = published(tmp_path, tar_of("calm", link="x"), name="good")
    with pytest.raises(TransientError) as caught:
        await pulled(msgspec.structs.replace(good, urls=lying.urls), into)
    assert caught.value.kind == "digest_mismatch"


# --- other kernels ----------------------------------------------------------------------------------------------------


def pulled_under(
    rules: dict[str, object],
    ref: ManifestRef,
    into: Path,
    settings: PullSettings,
    *,
    before: Sequence[str] = (),
    python: str = sys.executable,
) -> dict[str, object]:
    """Pull in a process under a filter, as on another kernel."""
    program = [python, pull_once.__file__, json_of(ref), str(into), json_of(settings)]
    places = [os.environ.get("PYTHONPATH", ""), str(ROOT), sysconfig.get_path("platlib")]
    done = subprocess.run(
        [*before, python, under_filter.__file__, json.dumps(rules), *program],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))},
    )
    return json.loads(done.stdout)


def json_of(value: object) -> str:
    return msgspec.json.encode(value).decode()


NO_LANDLOCK = {"deny": dict.fromkeys(LANDLOCK_CALLS, "ENOSYS")}
NO_SECCOMP = {"deny_prctl": {PR_SET_SECCOMP: "EINVAL"}}

OLD_KERNELS = {
    "before Landlock": (NO_LANDLOCK, ["files are open to it", "came with Linux 5.13"]),
    "Landlock is off": ({"deny": dict.fromkeys(LANDLOCK_CALLS, "EOPNOTSUPP")}, ["files are open to it", "`lsm=`"]),
    "a filter forbids Landlock": (
        {"deny": dict.fromkeys(LANDLOCK_CALLS, "EPERM")},
        ["files are open to it", "allow the calls landlock_*"],
    ),
    "no seccomp": (NO_SECCOMP, ["UDP and Unix sockets are open to it", "this kernel has no seccomp"]),
    "neither": (NO_LANDLOCK | NO_SECCOMP, ["files are open to it", "; the network is open to it"]),
}


@pytest.mark.parametrize("case", OLD_KERNELS)
def test_what_a_kernel_lacks_is_told(into: Path, tmp_path: Path, case: str) -> None:
    """The build is opened all the same; a sentence for each gap names its cause and its cure."""
    rules, said = OLD_KERNELS[case]
    told = pulled_under(rules, published(tmp_path, tar_of("f")), into, PullSettings())
    assert told["error"] is None
    assert (into / "f").is_file()
    for words in said:
        assert words in "; ".join(told["gaps"])


@pytest.mark.parametrize("case", OLD_KERNELS)
def test_where_the_sandbox_is_required_nothing_is_opened_without_it(into: Path, tmp_path: Path, case: str) -> None:
    """A setting of the operator, so the error is his."""
    rules, said = OLD_KERNELS[case]
    told = pulled_under(rules, published(tmp_path, tar_of("f")), into, PullSettings(require_sandbox=True))
    name, kind, message = told["error"]
    assert (name, kind) == ("ConfigError", "sandbox_incomplete")
    assert "fetch.require_sandbox" in message
    assert said[0] in message
    assert list(into.iterdir()) == []


@pytest.mark.usefixtures("plan")
@pytest.mark.parametrize(
    ("rules", "open_to_him", "closed_to_him"),
    [
        pytest.param(NO_LANDLOCK, ONLY_LANDLOCK_PREVENTS, ONLY_THE_FILTER_PREVENTS, id="no Landlock"),
        pytest.param(
            NO_SECCOMP,
            ONLY_THE_FILTER_PREVENTS - {"truncate a file outside", "execute a program"},
            ONLY_LANDLOCK_PREVENTS,
            id="no seccomp",
        ),
    ],
)
def test_each_layer_holds_without_the_other(
    into: Path, tmp_path: Path, rules: dict[str, object], open_to_him: set[str], closed_to_him: set[str]
) -> None:
    """What the missing one would have prevented succeeds, which shows that it was missing; the rest does not."""
    told = pulled_under(rules, published(tmp_path, tar_of(burglar.TRIGGER)), into, PullSettings())
    assert len(told["gaps"]) == 1
    found = loot(into)
    assert {name for name in open_to_him if found[name] != "done"} == set()
    assert {name for name in closed_to_him if found[name] == "done"} == set()


async def test_a_required_sandbox_that_is_whole_changes_nothing(into: Path, tmp_path: Path) -> None:
    assert await pulled(published(tmp_path, tar_of("f")), into, PullSettings(require_sandbox=True)) == []
    assert (into / "f").is_file()


# --- bombs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cost_bombs.cases, ids=lambda case: case.name)
async def test_memory_and_time_are_limited_and_the_agent_lives(into: Path, tmp_path: Path, case: Case) -> None:
    """The error names the limit and the entry; where the limit allows it, the same archive is opened."""
    ref, settings = published(tmp_path, case.make(), case.archive_format), PullSettings(limits=case.limits)
    if case.outcomes == ("opened",):
        assert await pulled(ref, into, settings) == []
        return
    with pytest.raises(ArtifactRejected) as caught:
        await pulled(ref, into, settings)
    assert caught.value.kind == "archive_too_big"
    assert case.says in str(caught.value)


# --- as it is installed -----------------------------------------------------------------------------------------------


def unit_calls() -> list[str]:
    """Every system call that the unit's filter lets through; its lines count one after the other."""
    unit = (ROOT / "systemd" / "hotcold-agent@.service").read_text()
    calls: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", unit, re.MULTILINE):
        if line.startswith("~"):
            calls -= expanded(line[1:])
        else:
            calls |= expanded(line)
    return sorted(calls)


def expanded(words: str) -> set[str]:
    calls: set[str] = set()
    waiting = words.split()
    while waiting:
        word = waiting.pop()
        if not word.startswith("@"):
            calls.add(word)
            continue
        told = subprocess.run(
            ["systemd-analyze", "syscall-filter", "--no-pager", word], check=True, stdout=subprocess.PIPE, text=True
        )
        waiting += [line.strip() for line in told.stdout.splitlines()[1:] if line.strip() and "#" not in line]
    return calls


CAPABILITIES = "-all,+sys_ptrace,+dac_read_search"
"""What the unit grants; the agent keeps them from its children, but for the inheritable set."""
AS_SERVICE = (
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    f"--inh-caps={CAPABILITIES}",
    f"--bounding-set={CAPABILITIES}",
    "--no-new-privs",
)


def interpreter_for_everybody() -> str | None:
    """An interpreter of this version that a user without rights may run, too."""
    for path in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        command = [*AS_SERVICE, "env", path, "-c", "import ctypes"]
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return path
    return None


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which needs root")
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_the_whole_sandbox_is_in_force_within_the_unit() -> None:
    """As an unprivileged user, under the unit's filter of system calls: nothing that it takes is filtered out."""
    python = interpreter_for_everybody()
    if python is None:
        pytest.skip("no interpreter of this version that another user may run")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        ref = published(place, tar_of("f"))
        into = place / "new"
        into.mkdir()
        os.chown(into, 65534, 65534)
        settings = PullSettings(require_sandbox=True)
        told = pulled_under({"allow": unit_calls()}, ref, into, settings, before=AS_SERVICE, python=python)
        assert told == {"gaps": [], "error": None}
        assert (into / "f").stat().st_uid == 65534


def test_the_unit_lets_nothing_through_that_is_not_needed_for_it() -> None:
    """The control: without the calls that the unit adds for it, the test above would fail."""
    added = set(LANDLOCK_NAMES)
    assert added <= set(unit_calls())
    assert not added & expanded("@system-service")
