"""A release is killed, -9, at every request that it makes, in gate and in build; run again, it ends the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from checkpoint.audit import read_head, read_record, verify
from fleet import Build, decode_build
from fleet.keys import audit_head_key, audit_prefix, builds_prefix
from tests.commander_world import World, world
from tests.faults.sizes import IS_FULL, sampled, tell_tally
from tests.release_world import APP, Depot, Desk, depot, digest_of, git, new_repo

DEADLINE_S = 60
KILL_ONCE = 'test -e "{mark}" || {{ touch "{mark}"; kill -9 $PPID; exit 1; }}; '


@pytest.fixture
def here() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Depot]:
    with depot(tmp_path / "depot") as served:
        yield served


@pytest.fixture
def desk(tmp_path: Path, here: World, server: Depot) -> Desk:
    new_repo(tmp_path / "repo")
    upload = f'to = "{server.address}/up"\nurl = "{server.address}"'
    return Desk(tmp_path, here.address, uploads=(upload,))


def recorded(here: World) -> dict[str, Build]:
    entries = here.do(here.store.read_prefix(builds_prefix(APP)))
    return {entry.key.rpartition("/")[2]: decode_build(entry.value) for entry in entries}


def check_whole(desk: Desk, here: World, files: Path) -> None:
    """One build, told once in the audit, whose files are there, and nothing else: no work tree, no second tag."""
    [(build_id, build)] = recorded(here).items()
    name = f"shop-{build_id}"
    assert build_id.endswith(".1")
    assert git(desk.repo, "tag") == build_id
    assert git(desk.repo, "rev-parse", f"{build_id}^{{commit}}") == build.revision
    assert len(git(desk.repo, "worktree", "list").splitlines()) == 1
    assert digest_of(files / f"{name}.tar.zst") == build.build.digest
    assert {path.name for path in files.iterdir()} == {
        f"{name}{suffix}" for suffix in (".tar.zst", ".tar.zst.index", ".json")
    }
    assert [path.name for path in (desk.work / build_id).iterdir()] == ["build.log"]
    entries = here.do(here.store.read_prefix(audit_prefix(APP)))
    head, _ = read_head(here.do(here.store.read(audit_head_key(APP))))
    assert list(verify(entries, head)) == []
    [told] = map(read_record, [entry.value for entry in entries])
    assert (told.what, f"build {build_id} is released" in told.message) == ("released", True)


@pytest.mark.timeout(600)
def test_killed_at_every_request(desk: Desk, here: World, server: Depot) -> None:
    """The process dies when its Nth request has arrived, before the answer; so for every N, one after the other.

    Each life goes on where the one before died, so what was sent once is sent no more, and the lives come to an end.
    """
    doomed = None
    at = 0

    def kill(_: str) -> web.Response | None:
        nonlocal at
        at -= 1
        if at == 0:
            assert doomed is not None
            doomed.kill()
        return None

    server.faults.append(kill)
    lives = 0
    for number in range(1, 40):
        at = number
        doomed = desk.start("cut")
        output, _ = doomed.communicate(timeout=DEADLINE_S)
        if doomed.returncode == 0:
            lives = number
            break
        assert doomed.returncode == -9, output.decode()
        assert recorded(here) == {}
        [tag] = git(desk.repo, "tag").split()
        if (server.directory / f"shop-{tag}.json").exists():
            # What the manifest names is there, whenever it is.
            assert (server.directory / f"shop-{tag}.tar.zst").exists()
    assert lives >= 5
    check_whole(desk, here, server.directory)


WRAPPER = """#!/bin/sh
count=$(($(cat "{directory}/count") + 1)); echo $count > "{directory}/count"
doomed=$(cat "{directory}/at")
if [ {when} = before ] && [ $count = $doomed ]; then kill -9 $PPID; exit 1; fi
"{git}" "$@"
status=$?
if [ {when} = after ] && [ $count = $doomed ]; then kill -9 $PPID; exit 1; fi
exit $status
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["alone", "remote"])
def test_killed_at_every_call_of_git(here: World, tmp_path: Path, when: str, kind: str) -> None:
    """The process dies just before, or just after, its Nth call of git; then it is run again, on what is left.

    So for every N, or a sample of them, each in a repository of its own. One release comes of it, whole; with a remote
    the same is there.
    """
    killed = 0
    for number in range(1, 60) if IS_FULL else sampled(range(1, 16), 4, f"git {when} {kind}"):
        place = tmp_path / str(number)
        if not _killed_once(place, here, when=when, kind=kind, number=number):
            break
        killed += 1
    assert killed >= (15 if IS_FULL else 4)
    tell_tally("release, calls of git", {f"{when} a call": killed})


def _killed_once(place: Path, here: World, *, when: str, kind: str, number: int) -> bool:
    """Release with one kill, in a new place; False where there is no such call any more."""
    place.mkdir()
    desk = Desk(place, here.address)
    new_repo(desk.repo)
    origin = place / "origin.git"
    if kind == "remote":
        git(place, "clone", "--quiet", "--bare", str(desk.repo), "origin.git")
        git(desk.repo, "remote", "add", "origin", str(origin))
        desk.extra = 'remote = "origin"'
    directory = place / "bin"
    directory.mkdir()
    wrapper = directory / "git"
    wrapper.write_text(WRAPPER.format(directory=directory, git=shutil.which("git"), when=when))
    wrapper.chmod(0o755)
    (directory / "count").write_text("0")
    (directory / "at").write_text(str(number))
    process = desk.start("cut", environment={"PATH": f"{directory}:{os.environ['PATH']}"})
    output, _ = process.communicate(timeout=DEADLINE_S)
    if process.returncode == 0:
        return False
    assert process.returncode == -9, output.decode()
    assert recorded(here) == {}
    desk.run("cut")
    check_whole(desk, here, desk.files)
    [(build_id, build)] = recorded(here).items()
    if kind == "remote":
        there = git(origin, "for-each-ref", "--format=%(refname:short)", "refs/heads/release", "refs/tags").split()
        assert there == [f"release/{build_id}", build_id]
        assert git(origin, "rev-parse", f"release/{build_id}") == build.revision
    else:
        assert git(desk.repo, "rev-parse", f"release/{build_id}") == build.revision
    for entry in here.do(here.store.read_prefix(f"hotcold/{APP}/")):
        assert here.do(here.store.delete(entry.key))
    return True


@pytest.mark.parametrize("where", ["gate", "build"])
def test_killed_in_a_command(desk: Desk, here: World, server: Depot, where: str, tmp_path: Path) -> None:
    """In the gate nothing was begun; in the build the id is kept. The work tree of the dead one goes."""
    setattr(desk, where, KILL_ONCE.format(mark=tmp_path / "mark") + getattr(desk, where))
    process = desk.start("cut")
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == -9
    assert recorded(here) == {}
    assert list(server.directory.iterdir()) == []
    assert bool(git(desk.repo, "tag")) is (where == "build")
    assert len(list(desk.work.glob("*/tree-*"))) == (1 if where == "build" else 0)
    desk.run("cut")
    check_whole(desk, here, server.directory)


def test_two_at_once_on_one_machine(desk: Desk, here: World, server: Depot, tmp_path: Path) -> None:
    """The second says that the first is at it, and changes nothing."""
    go_on = tmp_path / "go-on"
    desk.build = f'touch {tmp_path}/building; until test -e "{go_on}"; do sleep 0.05; done; {desk.build}'
    first = desk.start("cut")
    try:
        assert first.stdout is not None
        while b"build: " not in first.stdout.readline():
            assert first.poll() is None
        assert "another release of shop is at work" in desk.run("cut", exits=1).stderr
    finally:
        go_on.touch()
        first.communicate(timeout=DEADLINE_S)
    assert first.returncode == 0
    check_whole(desk, here, server.directory)


def test_told_to_end_it_tidies_up_and_says_what_is_left(desk: Desk, here: World, server: Depot) -> None:
    """SIGTERM, as a CI system cancels: the build is ended, its work tree removed, the way on is told."""
    whole = desk.build
    desk.build = "echo building $$; sleep 600"
    process = desk.start("cut")
    assert process.stdout is not None
    pid = 0
    while not pid:
        line = process.stdout.readline()
        assert line
        if line.startswith(b"building"):
            pid = int(line.split()[1])
    process.terminate()
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 143
    assert b"hotcold release resume" in output
    assert not Path(f"/proc/{pid}").exists()
    assert list(desk.work.glob("*/tree-*")) == []
    assert len(git(desk.repo, "worktree", "list").splitlines()) == 1
    assert recorded(here) == {}
    desk.build = whole
    desk.run("cut")
    check_whole(desk, here, server.directory)
