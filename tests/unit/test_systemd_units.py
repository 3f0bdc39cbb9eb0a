"""What is installed for systemd is accepted by systemd's own tools, tight, and enough for what the agent does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import HOOK_POINTS, load_settings
from agent.daemon import SILENCE_S

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
UNIT = SYSTEMD / "hotcold-agent@.service"
EXPOSURE_LIMIT = 2.0
BACKOFF_SINCE = 254


def _needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def _tool(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _values(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Copy the unit, with a program in it that exists on this machine; everything else is as it is installed."""
    text = UNIT.read_text()
    assert text.count("/opt/hotcold/bin/hotcold") == 1
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace("/opt/hotcold/bin/hotcold", "/bin/true"))
    return copy


@_needs("systemd-analyze")
def test_the_unit_is_accepted_without_a_word(unit: Path) -> None:
    """No unknown key, no doubtful value, nothing missing."""
    verified = _tool("systemd-analyze", "verify", unit)
    assert (verified.returncode, verified.stdout) == (0, "")


@_needs("systemd-analyze")
@pytest.mark.parametrize("name", ["hotcold-reload@", "hotcold-restart@"])
def test_the_units_for_hooks_are_accepted_without_a_word(name: str, tmp_path: Path) -> None:
    """As an instance: the path unit finds its service."""
    for kind in ("path", "service"):
        shutil.copy(SYSTEMD / f"{name}.{kind}", tmp_path / f"{name}shop.{kind}")
    verified = _tool("systemd-analyze", "verify", tmp_path / f"{name}shop.path", tmp_path / f"{name}shop.service")
    assert (verified.returncode, verified.stdout) == (0, "")


@_needs("systemd-analyze")
def test_verification_would_have_noticed(unit: Path) -> None:
    """The check above can fail: a misspelt key is reported."""
    unit.write_text(unit.read_text().replace("RestartSec=", "RestartSecs="))
    assert "RestartSecs" in _tool("systemd-analyze", "verify", unit).stdout


@_needs("systemd-analyze")
def test_the_backoff_is_accepted_where_it_is_understood(unit: Path) -> None:
    """The drop-in for newer versions of systemd is as clean as the unit."""
    version = int(_tool("systemd-analyze", "--version").stdout.split()[1])
    if version < BACKOFF_SINCE:
        pytest.skip(f"systemd {version} does not know RestartSteps yet")
    shutil.copytree(SYSTEMD / f"{UNIT.name}.d", unit.parent / f"{UNIT.name}.d")
    verified = _tool("systemd-analyze", "verify", unit)
    assert (verified.returncode, verified.stdout) == (0, "")


@_needs("systemd-analyze")
def test_the_sandbox_is_tight(unit: Path) -> None:
    """systemd's own measure of exposure, from 0 to 10, stays low in spite of the holes that watching workers needs."""
    told = _tool("systemd-analyze", "security", "--offline=true", "--no-pager", unit).stdout
    exposure = re.search(r"Overall exposure level for .*: ([\d.]+)", told)
    assert exposure is not None, told
    assert float(exposure[1]) <= EXPOSURE_LIMIT, told


@_needs("systemd-analyze")
def test_the_sandbox_allows_what_the_agent_lives_by() -> None:
    """The system calls behind swap, durability, locks, drains and hooks are not filtered out."""
    calls: set[str] = set()
    for value in _values("SystemCallFilter"):
        named = _system_calls(value.removeprefix("~"))
        calls = calls - named if value.startswith("~") else calls | named
    needed = {"renameat2", "syncfs", "fsync", "flock", "fchmod", "utimensat", "symlinkat", "prctl", "setsid", "kill"}
    needed |= {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"}
    assert needed - calls == set()
    assert "mount" not in calls


def _system_calls(groups: str) -> set[str]:
    calls: set[str] = set()
    waiting = groups.split()
    while waiting:
        group = waiting.pop()
        if not group.startswith("@"):
            calls.add(group)
            continue
        for line in _tool("systemd-analyze", "syscall-filter", "--no-pager", group).stdout.splitlines()[1:]:
            word = line.strip()
            if word.startswith("@"):
                waiting.append(word)
            elif word and not word.startswith("#"):
                calls.add(word)
    return calls


@pytest.fixture
def strangers_worker(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker of root in a directory, with a file open there."""
    (tmp_path / "file").touch()
    script = 'cd "$1" && exec 9<file && cd / && echo && read -r _'
    argv = ["sh", "-c", script, "sh", tmp_path]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"\n"
        yield child


SEE_AND_RUN = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from agent.holdings import birth_of
from agent.hooks import Hook, run_hook
from agent.workers import Worker, evidence
pid = int(sys.argv[3])
for busy in evidence([Worker(pid, birth_of(pid).started)], Path(sys.argv[2]), [80]):
    print(*busy.reasons, sep="; ")
print(asyncio.run(run_hook("staged", Hook(argv=("grep", "CapEff", "/proc/self/status")), environment={})).output)
"""


def _as_service(capabilities: str, worker: subprocess.Popen[bytes], tree: Path) -> list[str]:
    names = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities.split())])
    sets = [f"--{kind}-caps={names}" for kind in ("inh", "ambient")]
    account = ["--reuid=nobody", "--clear-groups", f"--bounding-set={names}", "--no-new-privs"]
    program = [sys.executable, "-c", SEE_AND_RUN, str(SYSTEMD.parent), str(tree), str(worker.pid)]
    done = _tool("setpriv", *account, *sets, *program)
    assert done.returncode == 0, done.stdout
    return done.stdout.split("\n")


@pytest.mark.root
@_needs("setpriv")
@pytest.mark.skipif(os.geteuid() != 0, reason="grants capabilities, which needs root")
def test_its_capabilities_are_enough_for_the_agent_and_not_for_its_hooks(
    strangers_worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """An agent without root sees all that a worker of root holds, and what it runs gets none of its capabilities."""
    (capabilities,) = _values("AmbientCapabilities")
    assert _values("CapabilityBoundingSet") == [capabilities]
    seen, hook, *_ = _as_service(capabilities, strangers_worker, tmp_path)
    assert seen == f"open {tmp_path}/file"
    assert hook == "CapEff:\t0000000000000000"


@pytest.mark.root
@_needs("setpriv")
@pytest.mark.skipif(os.geteuid() != 0, reason="grants capabilities, which needs root")
def test_each_of_its_capabilities_is_needed(strangers_worker: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """With either one missing, something cannot be seen."""
    (capabilities,) = _values("AmbientCapabilities")
    for one in capabilities.split():
        others = " ".join(name for name in capabilities.split() if name != one)
        assert "cannot see: " in _as_service(others, strangers_worker, tmp_path)[0]


@_needs("systemd-sysusers")
def test_the_account_is_created(tmp_path: Path) -> None:
    """The unit's user and group come into being, without a shell, in an empty root directory."""
    (tmp_path / "etc").mkdir()
    made = _tool("systemd-sysusers", f"--root={tmp_path}", SYSTEMD / "hotcold.sysusers.conf")
    assert made.returncode == 0, made.stdout
    (user,), (group,) = _values("User"), _values("Group")
    (account,) = (line for line in (tmp_path / "etc" / "passwd").read_text().splitlines() if line.startswith(user))
    assert account.endswith(":/var/lib/hotcold:/usr/sbin/nologin")
    assert f"{group}:x:" in (tmp_path / "etc" / "group").read_text()


@pytest.mark.root
@_needs("systemd-tmpfiles")
@pytest.mark.skipif(os.geteuid() != 0, reason="gives directories to another user")
def test_the_directories_are_created(tmp_path: Path) -> None:
    """Configurations, which may hold tokens, are closed to everybody but the agent."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\nhotcold:x:901:902::/:/bin/sh\n")
    (tmp_path / "etc" / "group").write_text("root:x:0:\nhotcold:x:902:\n")
    made = _tool("systemd-tmpfiles", "--create", f"--root={tmp_path}", SYSTEMD / "hotcold.tmpfiles.conf")
    assert (made.returncode, made.stdout) == (0, "")
    found = {path: (tmp_path / path).stat() for path in ("etc/hotcold", "run/hotcold", "var/lib/hotcold")}
    assert {path: (oct(stat.st_mode), stat.st_uid, stat.st_gid) for path, stat in found.items()} == {
        "etc/hotcold": ("0o40750", 0, 902),
        "run/hotcold": ("0o40755", 901, 902),
        "var/lib/hotcold": ("0o40755", 901, 902),
    }


def test_the_example_is_a_configuration() -> None:
    """The agent reads it, it stands where the unit looks, and its paths are those that the sandbox opens."""
    settings = load_settings(SYSTEMD / "examples" / "shop.toml", {})
    identity = settings.identity
    assert (identity.app, identity.tier) == ("shop", "prod")
    assert _values("ReadWritePaths") == [str(identity.layout.root).replace("shop", "%i")]
    assert _values("StateDirectory") == [str(identity.layout.state_dir.relative_to("/var/lib")).replace("shop", "%i")]
    assert _values("RuntimeDirectory") == [str(identity.socket.parent.relative_to("/run"))]
    assert settings.drain.workers
    assert settings.probe.url
    assert set(settings.hooks) <= set(HOOK_POINTS)


def test_the_manager_is_more_patient_than_the_agent() -> None:
    """It waits longer for a stop than the agent takes, and for a beat than the agent calls healthy."""
    settings = load_settings(SYSTEMD / "examples" / "shop.toml", {})
    (stop,), (beat,) = _values("TimeoutStopSec"), _values("WatchdogSec")
    assert int(stop.removesuffix("s")) > settings.stop_timeout_s
    assert int(beat.removesuffix("s")) > SILENCE_S
