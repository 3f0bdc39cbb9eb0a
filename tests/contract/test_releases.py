"""Releases as operators cut them: real git, a real store, real places; what is left after each failure."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner

from artifact import decode_manifest
from artifact.secretkey import SecretKey
from checkpoint.audit import Record, read_head, read_record, verify
from fleet import Build, ConsulSettings, ConsulStore, Order, decode_build, encode
from fleet.keys import audit_head_key, audit_prefix, build_key, builds_prefix, tier_key
from hotcold.main import cli
from tests.commander_world import Loop, world
from tests.release_world import APP, LIB, TOKEN, Depot, Desk, commit, depot, digest_of, git, new_repo, nginx

ROOT = Path(__file__).resolve().parents[2]


class Store:
    """A client of the store under test, for tests without a loop."""

    def __init__(self, address: str, loop: Loop) -> None:
        self.address = address
        self._loop = loop
        self._store = loop.run(self._open())

    async def _open(self) -> ConsulStore:
        return ConsulStore(ConsulSettings(address=self.address))

    def close(self) -> None:
        self._loop.run(self._store.aclose())

    def builds(self) -> dict[str, Build]:
        entries = self._loop.run(self._store.read_prefix(builds_prefix(APP)))
        return {entry.key.rpartition("/")[2]: decode_build(entry.value) for entry in entries}

    def audit(self) -> list[Record]:
        """The records, of a chain that is whole."""
        entries = self._loop.run(self._store.read_prefix(audit_prefix(APP)))
        head, _ = read_head(self._loop.run(self._store.read(audit_head_key(APP))))
        assert list(verify(entries, head)) == []
        return [read_record(entry.value) for entry in entries]

    def put(self, key: str, value: bytes) -> None:
        assert self._loop.run(self._store.put(key, value))

    def clear(self) -> None:
        for entry in self._loop.run(self._store.read_prefix(f"hotcold/{APP}/")):
            self._loop.run(self._store.delete(entry.key))


@pytest.fixture(params=["dev", pytest.param("consul", marks=pytest.mark.consul)])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    loop = Loop()
    try:
        if request.param == "consul":
            consul = Store(request.getfixturevalue("consul_dev").address, loop)
            consul.clear()
            yield consul
            consul.close()
            return
        with world() as here:
            dev = Store(here.address, loop)
            yield dev
            dev.close()
    finally:
        loop.close()


@pytest.fixture(autouse=True)
def same_day() -> None:
    """Ids have the day in them: a test that would run into the next one begins there."""
    while datetime.now(UTC).strftime("%H:%M") == "23:59":
        time.sleep(0.1)


@pytest.fixture
def desk(tmp_path: Path, store: Store) -> Desk:
    new_repo(tmp_path / "repo")
    return Desk(tmp_path, store.address)


def today(number: int = 1) -> str:
    return f"{datetime.now(UTC).date().isoformat()}.{number}"


def only(store: Store) -> tuple[str, Build]:
    [(build_id, build)] = store.builds().items()
    return build_id, build


def test_a_release_is_tagged_built_uploaded_and_recorded(desk: Desk, store: Store) -> None:
    """Branch, tag, artifact, manifest and record agree; the checkout, dirty as it is, is not touched."""
    (desk.repo / "page").write_text("not committed")
    (desk.repo / "scratch").write_text("mine")
    before = desk.state()
    head = git(desk.repo, "rev-parse", "main")

    result = desk.run("cut", "--notes", "first one")

    build_id, build = only(store)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d\.1", build_id)
    assert (build.revision, build.branch, build.tag) == (head, f"release/{build_id}", build_id)
    assert (build.commit_count, build.since, build.hotfix_of, build.notes) == (2, None, None, "first one")
    assert [each.subject for each in build.commits] == ["Second", "Begin"]
    assert git(desk.repo, "rev-parse", f"refs/heads/release/{build_id}", f"{build_id}^{{commit}}").split() == [head] * 2
    made = {f"refs/heads/release/{build_id}", f"refs/tags/{build_id}"}
    after = desk.state()
    assert {name: value for name, value in after.items() if name not in made} == before
    artifact = desk.files / f"shop-{build_id}.tar.zst"
    assert build.build.digest == digest_of(artifact)
    assert build.build.urls == (artifact.as_uri(),)
    manifest = decode_manifest((desk.files / f"shop-{build_id}.json").read_bytes())
    assert (manifest.revision, manifest.notes, manifest.digest) == (head, "first one", build.build.digest)
    assert build.manifest == (desk.files / f"shop-{build_id}.json").as_uri()
    assert f"build     {build_id}, 2 commits" in result.stdout
    assert "built it" in result.stderr
    assert "built it" in (desk.work / build_id / "build.log").read_text()
    assert [path.name for path in (desk.work / build_id).iterdir()] == ["build.log"]


def test_the_next_build_has_what_is_new_and_a_patch(desk: Desk, store: Store) -> None:
    """Its commits are those since the build before, its id is the next, its manifest names a patch."""
    desk.run("cut")
    commit(desk.repo, "Third", lib__txt=f"{LIB}one line more\n")
    desk.run("cut")
    first, second = today(1), today(2)
    build = store.builds()[second]
    assert (build.since, build.commit_count, [each.subject for each in build.commits]) == (first, 1, ["Third"])
    assert build.build.index is not None
    assert len(build.build.index.patches) == 1
    assert len(list(desk.files.glob(f"shop-{second}.tar.zst.from-*"))) == 1


def test_run_twice_nothing_is_cut_again(desk: Desk, store: Store) -> None:
    """The same commit has a build already; asked for, it gets another id."""
    desk.run("cut")
    said = desk.run("cut", exits=1).stderr
    assert today(1) in said
    assert "--again" in said
    assert len(store.builds()) == 1
    desk.run("cut", "--again")
    assert sorted(store.builds()) == [today(1), today(2)]


def test_a_gate_that_says_no_leaves_nothing(desk: Desk, store: Store) -> None:
    """It is told the commit, its words are shown, and neither references nor files are made."""
    head = git(desk.repo, "rev-parse", "main")
    desk.gate = 'echo "checks of $HOTCOLD_COMMIT are red"; exit 3'
    before = desk.state()
    result = desk.run("cut", exits=1)
    assert f"checks of {head} are red" in result.stderr
    assert "ended with 3" in result.stderr
    assert desk.state() == before
    assert store.builds() == {}
    assert list(desk.files.iterdir()) == []
    assert "are red" in (desk.work / "gate.log").read_text()


def test_a_gate_that_hangs_is_ended(desk: Desk, store: Store) -> None:
    desk.gate, desk.extra = "sleep 600", "gate_timeout_s = 0.5"
    assert "was not done after 0.5 s" in desk.run("cut", exits=1).stderr
    assert store.builds() == {}


def test_a_dry_run_makes_nothing(desk: Desk, store: Store) -> None:
    """It asks the gate, and tells id, commits and places."""
    before = desk.state()
    desk.gate = "echo asked"
    result = desk.run("cut", "--dry-run")
    assert "asked" in result.stderr
    assert f"would cut {today(1)}" in result.stdout
    assert "Second (Anna)" in result.stdout
    assert desk.state() == before
    assert store.builds() == {}
    assert list(desk.files.iterdir()) == []


def test_a_build_that_fails_can_be_gone_on_with(desk: Desk, store: Store) -> None:
    """The id stays with the commit: cut again goes on, and what was made is recorded once."""
    desk.build = "echo oh no; exit 7"
    result = desk.run("cut", exits=1)
    assert "ended with 7" in result.stderr
    assert f"hotcold release resume {today(1)} --app shop" in result.stdout
    assert store.builds() == {}
    assert list(desk.files.iterdir()) == []
    assert list(desk.work.glob("*/tree-*")) == []
    assert git(desk.repo, "tag") == today(1)
    desk.build = Desk.build
    assert f"going on with {today(1)}" in desk.run("cut").stdout
    assert only(store)[0] == today(1)


def test_a_begun_release_is_not_forgotten_when_main_goes_on(desk: Desk, store: Store) -> None:
    """Cut refuses and names the commands; resume finishes the old commit; --new leaves it, its id is not used again."""
    desk.build = "exit 7"
    desk.run("cut", exits=1)
    old = git(desk.repo, "rev-parse", "main")
    commit(desk.repo, "Third", page="three\n")
    desk.build = Desk.build
    said = desk.run("cut", exits=1).stderr
    assert f"hotcold release resume {today(1)} --app shop" in said
    assert "--new" in said
    desk.run("resume", today(1))
    assert only(store)[1].revision == old
    assert "recorded: nothing is left to do" in desk.run("resume", today(1)).stdout
    desk.build = "exit 7"
    desk.run("cut", exits=1)
    desk.build = Desk.build
    commit(desk.repo, "Fourth", page="four\n")
    desk.run("cut", "--new")
    assert sorted(store.builds()) == [today(1), today(3)]
    assert store.builds()[today(3)].commit_count == 2
    assert "not recorded" not in desk.run("list").stdout


def test_a_branch_that_a_crash_did_not_make_is_made(desk: Desk, store: Store) -> None:
    """The tag comes first; whoever goes on makes the branch."""
    desk.build = "exit 7"
    desk.run("cut", exits=1)
    git(desk.repo, "branch", "-D", f"release/{today(1)}")
    desk.build = Desk.build
    desk.run("resume", today(1))
    _, build = only(store)
    assert git(desk.repo, "rev-parse", f"release/{today(1)}") == build.revision


def test_another_machine_goes_on_only_when_told(desk: Desk, store: Store) -> None:
    desk.build = "exit 7"
    desk.run("cut", exits=1)
    shutil.rmtree(desk.work)
    desk.build = Desk.build
    assert "--take-over" in desk.run("resume", today(1), exits=1).stderr
    assert "resume" in desk.run("cut", exits=1).stderr
    desk.run("resume", today(1), "--take-over")
    assert only(store)[0] == today(1)
    assert "ever begun" in desk.run("resume", "2020-01-01.1", exits=1).stderr


def test_a_deleted_tag_gives_no_id_free(desk: Desk, store: Store) -> None:
    """Records, branches and tags all hold an id."""
    desk.run("cut")
    git(desk.repo, "tag", "-d", today(1))
    git(desk.repo, "branch", "-D", f"release/{today(1)}")
    git(desk.repo, "branch", f"release/{today(2)}")
    desk.run("cut", "--again")
    assert sorted(store.builds()) == [today(1), today(3)]


def test_a_shallow_clone_is_refused(desk: Desk, store: Store, tmp_path: Path) -> None:
    """Which commits a build brings could not be told."""
    git(tmp_path, "clone", "--quiet", "--depth=1", (desk.repo).as_uri(), "shallow")
    said = desk.run("cut", "--repo", str(tmp_path / "shallow"), exits=2).stderr
    assert "--unshallow" in said
    assert "no git repository" in desk.run("cut", "--repo", str(tmp_path / "work"), exits=2).stderr
    assert store.builds() == {}


def test_what_git_is_told_by_a_hook_leads_nowhere(
    desk: Desk, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables of another repository, as hooks set them, are not obeyed; the repository's own hooks are not run."""
    other = new_repo(tmp_path / "other")
    hook = desk.repo / ".git/hooks/post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
    hook.chmod(0o755)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    config = desk.arguments("cut")
    assert config
    desk.run("cut")
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_WORK_TREE")
    assert only(store)[1].revision == git(desk.repo, "rev-parse", "main")
    assert git(other, "tag") == ""
    assert not (tmp_path / "hooked").exists()


def test_the_work_tree_itself_can_be_the_build(desk: Desk, store: Store) -> None:
    """What git keeps there is no part of it."""
    desk.build, desk.tree = "true", "."
    desk.run("cut")
    archive = desk.files / f"shop-{only(store)[0]}.tar.zst"
    plain = subprocess.run(["tar", "--zstd", "-tf", archive], capture_output=True, text=True, check=True).stdout
    assert {name.removeprefix("./").rstrip("/") for name in plain.split()} - {""} == {"page", "lib.txt"}
    assert len(git(desk.repo, "worktree", "list").splitlines()) == 1


@pytest.mark.parametrize("tree", ["nowhere", "page", "out"])
def test_a_tree_that_is_not_there_is_told(desk: Desk, store: Store, tree: str) -> None:
    """Also one that a link leads out of the work tree."""
    desk.tree, desk.build = tree, "ln -s /tmp out"
    assert "no such directory" in desk.run("cut", exits=2).stderr
    assert store.builds() == {}
    assert list(desk.files.iterdir()) == []


# --- hotfixes ---------------------------------------------------------------------------------------------------------


def test_a_hotfix_has_only_its_picks(desk: Desk, store: Store) -> None:
    """It is made on the build's branch; the record says what it mends; the gate is asked about the pick."""
    desk.run("cut")
    commit(desk.repo, "Not ready", page="three\n")
    fix = commit(desk.repo, "Fix", lib__txt="fixed\n" * 500)
    before = git(desk.repo, "rev-parse", "main")
    desk.gate = f'[ "$HOTCOLD_COMMIT" = {fix} ] && [ "$HOTCOLD_HOTFIX_OF" = {today(1)} ]'
    desk.run("hotfix", "--pick", fix[:10], "--onto", today(1))

    base, build = store.builds()[today(1)], store.builds()[today(2)]
    assert (build.hotfix_of, build.picks, build.branch) == (today(1), (fix,), f"release/{today(1)}")
    assert (build.since, build.commit_count, build.commits[0].subject) == (today(1), 1, "Fix")
    assert git(desk.repo, "rev-parse", f"release/{today(1)}", f"{today(2)}^{{commit}}").split() == [build.revision] * 2
    assert git(desk.repo, "rev-parse", f"{build.revision}^") == base.revision
    assert git(desk.repo, "show", f"{build.revision}:page") == "two"
    assert git(desk.repo, "rev-parse", "main") == before
    desk.gate = "true"
    said = desk.run("hotfix", "--pick", fix, "--onto", today(1), exits=1).stderr
    assert f"--onto {today(2)}" in said
    assert "has it already" in desk.run("hotfix", "--pick", fix, "--onto", today(2), exits=1).stderr

    desk.run("cut")
    after = store.builds()[today(3)]
    assert (after.since, [each.subject for each in after.commits]) == (today(2), ["Not ready"])

    # What the hotfix left on the main branch stands in its record; all three are told in the audit, in words.
    assert ([each.subject for each in build.not_yet], build.not_yet_count) == (["Not ready"], 1)
    assert (base.not_yet_count, after.not_yet_count) == (0, 0)
    assert [each.what for each in store.audit()] == ["released", "hotfix_released", "released"]
    words = ["audit", "show", "--app", APP, "--consul", desk.consul]
    shown = CliRunner().invoke(cli, words).stdout
    assert f"hotfix {today(2)} is released" in shown
    assert f"mends {today(1)} by picking {fix[:12]}" in shown
    elsewhere = desk.directory / "elsewhere.toml"
    elsewhere.write_text(desk.config().read_text().replace(f'repo = "{desk.repo}"\n', ""))
    words = ["release", "show", today(2), "--app", APP, "--config", str(elsewhere), "--consul", desk.consul]
    assert "not yet in it when it was recorded, 1 commit" in CliRunner().invoke(cli, words).stdout


def test_a_conflict_leaves_nothing(desk: Desk, store: Store) -> None:
    """The message has the file; no reference, work tree or state of git is left."""
    desk.run("cut")
    commit(desk.repo, "Before it", page="something else\n")
    fix = commit(desk.repo, "Fix", page="fixed\n")
    before = desk.state()
    said = desk.run("hotfix", "--pick", fix, "--onto", today(1), exits=1).stderr
    assert "conflicts in page" in said
    assert desk.state() == before
    assert list(desk.work.glob("tree-*")) == []
    assert not (desk.repo / ".git/CHERRY_PICK_HEAD").exists()
    assert len(store.builds()) == 1


def test_a_hotfix_dry_run_picks_and_leaves_nothing(desk: Desk, store: Store) -> None:
    desk.run("cut")
    fix = commit(desk.repo, "Fix", lib__txt="fixed\n")
    before = desk.state()
    result = desk.run("hotfix", "--pick", fix, "--dry-run")
    assert f"would cut {today(2)}" in result.stdout
    assert desk.state() == before
    assert len(store.builds()) == 1


def test_which_build_a_hotfix_is_for(desk: Desk, store: Store) -> None:
    """What all tiers run needs no word; where they differ, it has to be named."""
    desk.run("cut")
    fix = commit(desk.repo, "Fix", lib__txt="fixed\n")
    desk.run("cut")
    builds = store.builds()

    def order(tier: str, number: int) -> None:
        build = builds[today(number)].build
        store.put(tier_key(APP, tier), encode(Order(v=1, app=APP, tier=tier, serial=1, build=build)))

    order("prod", 1)
    order("staging", 2)
    said = desk.run("hotfix", "--pick", fix, exits=1).stderr
    assert f"prod runs {today(1)}, staging runs {today(2)}" in said
    order("staging", 1)
    desk.run("hotfix", "--pick", fix)
    assert store.builds()[today(3)].hotfix_of == today(1)
    assert "is not recorded" in desk.run("hotfix", "--pick", fix, "--onto", "2020-01-01.1", exits=1).stderr


def test_a_hotfix_goes_on_after_a_failed_build(desk: Desk, store: Store) -> None:
    """The branch has moved with the tag; resume keeps both."""
    desk.run("cut")
    fix = commit(desk.repo, "Fix", lib__txt="fixed\n")
    desk.build = "exit 7"
    desk.run("hotfix", "--pick", fix, exits=1)
    desk.build = Desk.build
    assert "resume" in desk.run("hotfix", "--pick", fix, exits=1).stderr
    git(desk.repo, "update-ref", f"refs/heads/release/{today(1)}", store.builds()[today(1)].revision)
    desk.run("resume", today(2))
    build = store.builds()[today(2)]
    assert (build.hotfix_of, build.picks) == (today(1), (fix,))
    assert git(desk.repo, "rev-parse", f"release/{today(1)}") == build.revision


def test_a_checked_out_release_branch_is_not_moved(desk: Desk, store: Store) -> None:
    desk.run("cut")
    fix = commit(desk.repo, "Fix", lib__txt="fixed\n")
    git(desk.repo, "checkout", "--quiet", f"release/{today(1)}")
    before = desk.state()
    assert "is checked out in" in desk.run("hotfix", "--pick", fix, exits=1).stderr
    assert desk.state() == before
    assert len(store.builds()) == 1


# --- a remote ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def origin(desk: Desk, tmp_path: Path) -> Path:
    """The desk's repository becomes a clone of this one."""
    desk.repo.rename(tmp_path / "first")
    git(tmp_path, "clone", "--quiet", "--bare", str(tmp_path / "first"), "origin.git")
    git(tmp_path, "clone", "--quiet", str(tmp_path / "origin.git"), "repo")
    desk.extra = 'remote = "origin"'
    return tmp_path / "origin.git"


def test_a_remote_is_asked_and_changed(desk: Desk, store: Store, origin: Path, tmp_path: Path) -> None:
    """Its main branch counts, and its tags; branch and tag are pushed; the local main stays where it is."""
    git(tmp_path, "clone", "--quiet", str(origin), "colleague")
    newest = commit(tmp_path / "colleague", "Colleague's", page="three\n")
    git(tmp_path / "colleague", "push", "--quiet", "origin", "main")
    git(tmp_path / "colleague", "push", "--quiet", "origin", f"HEAD:refs/tags/{today(1)}")
    local = git(desk.repo, "rev-parse", "main")
    desk.run("cut")
    build_id, build = only(store)
    assert (build_id, build.revision) == (today(2), newest)
    assert git(origin, "rev-parse", f"release/{today(2)}", f"{today(2)}^{{commit}}").split() == [newest] * 2
    assert git(desk.repo, "rev-parse", "main") == local
    fix = commit(tmp_path / "colleague", "Fix", lib__txt="fixed\n")
    git(tmp_path / "colleague", "push", "--quiet", "origin", "main")
    desk.run("hotfix", "--pick", fix)
    assert git(origin, "rev-parse", f"release/{today(2)}") == store.builds()[today(3)].revision


def test_an_id_that_somebody_takes_meanwhile_is_left_to_them(desk: Desk, store: Store, origin: Path) -> None:
    """The push is refused, and the next id is taken."""
    desk.gate = f"git -C {origin} tag {today(1)} main"
    result = desk.run("cut")
    assert f"{today(1)} was taken by somebody else" in result.stdout
    assert only(store)[0] == today(2)
    assert git(origin, "for-each-ref", "--format=%(refname:short)", "refs/heads/release") == f"release/{today(2)}"


def test_a_remote_that_is_gone_is_told(desk: Desk, store: Store, origin: Path) -> None:
    before = desk.state()
    origin.rename(origin.with_name("gone"))
    assert "cannot be fetched" in desk.run("cut", exits=1).stderr
    assert desk.state() == before
    assert store.builds() == {}


def test_a_remote_that_takes_no_push_leaves_nothing(desk: Desk, store: Store, origin: Path) -> None:
    hook = origin / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho no; exit 1\n")
    hook.chmod(0o755)
    before = desk.state()
    assert "cannot be pushed" in desk.run("cut", exits=1).stderr
    assert desk.state() == before
    assert not (desk.work / today(1)).exists()
    assert store.builds() == {}


# --- uploads ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Depot]:
    with depot(tmp_path / "depot") as served:
        yield served


def to_server(server: Depot, more: str = "") -> str:
    return f'to = "{server.address}/up"\nurl = "{server.address}"\n{more}'


def test_the_manifest_goes_last_and_everything_is_read_back(desk: Desk, store: Store, server: Depot) -> None:
    """To several places: data everywhere before a manifest anywhere. Hosts get an address of each."""
    desk.uploads = (to_server(server), f'to = "{desk.files}"')
    desk.run("cut")
    build_id, build = only(store)
    name = f"shop-{build_id}"
    assert build.build.urls == (f"{server.address}/{name}.tar.zst", (desk.files / f"{name}.tar.zst").as_uri())
    assert build.manifest == f"{server.address}/{name}.json"
    puts = [each for each in server.requests if each.startswith("PUT")]
    assert puts == [f"PUT /up/{name}{suffix}" for suffix in (".tar.zst", ".tar.zst.index", ".json")]
    for suffix in (".tar.zst", ".tar.zst.index", ".json"):
        assert f"GET /{name}{suffix}" in server.requests
        assert (server.directory / f"{name}{suffix}").read_bytes() == (desk.files / f"{name}{suffix}").read_bytes()
    assert None not in server.lengths
    assert max(path.stat().st_mtime_ns for path in desk.files.iterdir()) == (
        (desk.files / f"{name}.json").stat().st_mtime_ns
    )


def test_headers_for_the_server_are_in_a_file_or_a_variable(
    desk: Desk, store: Store, server: Depot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that is said tells them, and the build does not see them."""
    server.token = TOKEN
    desk.uploads = (to_server(server),)
    result = desk.run("cut", exits=2)
    assert "headers_file" in result.stderr
    (tmp_path / "headers").write_text(f"Authorization: {TOKEN}\n")
    desk.uploads = (to_server(server, f'headers_file = "{tmp_path}/headers"'),)
    assert "very-secret" not in desk.run("resume", today(1)).output
    desk.uploads = (to_server(server, 'headers_env = "UP"'),)
    assert "$UP is not set" in desk.run("cut", "--again", exits=2).stderr
    monkeypatch.setenv("UP", f"Authorization: {TOKEN}")
    desk.build = f"{Desk.build}; env"
    assert "very-secret" not in desk.run("cut", "--again").output
    assert sorted(store.builds()) == [today(1), today(2)]


def test_a_server_that_stumbles_is_asked_again(desk: Desk, store: Store, server: Depot) -> None:
    failures = [web.Response(status=503), web.Response(status=500)]
    server.faults.append(lambda told: failures.pop() if told.startswith("PUT") and failures else None)
    desk.uploads = (to_server(server),)
    assert "trying again" in desk.run("cut").stdout
    assert only(store)[0] == today(1)


@pytest.mark.parametrize(("status", "word"), [(405, "does not take PUT"), (413, "larger"), (302, "redirects")])
def test_a_server_that_refuses_is_told(desk: Desk, store: Store, server: Depot, status: int, word: str) -> None:
    """At once, and nothing is recorded; mended, it goes on."""
    is_refusing = True
    server.faults.append(lambda told: web.Response(status=status) if told.startswith("PUT") and is_refusing else None)
    desk.uploads = (to_server(server),)
    assert word in desk.run("cut", exits=2).stderr
    assert sum(each.startswith("PUT") for each in server.requests) == 1
    assert store.builds() == {}
    is_refusing = False
    desk.build = "echo must not be built again; exit 9"
    desk.run("resume", today(1))
    assert only(store)[0] == today(1)


def test_what_does_not_come_back_is_not_recorded(desk: Desk, store: Store, server: Depot) -> None:
    """A wrong `url`, or a server that damages: told before any manifest is there."""
    desk.uploads = (f'to = "{server.address}/up"\nurl = "{server.address}/elsewhere"',)
    assert "does not come back: nothing is there" in desk.run("cut", exits=2).stderr
    desk.uploads = (to_server(server),)

    def damage(told: str) -> web.Response | None:
        return web.Response(body=b"something else") if told.startswith("GET /shop-") else None

    server.faults.append(damage)
    assert "14 bytes" in desk.run("resume", today(1), exits=2).stderr
    assert [path.name for path in server.directory.iterdir() if path.name.endswith(".json")] == []
    assert store.builds() == {}
    server.faults.clear()
    desk.uploads = (f'to = "{server.address}/up"\nurl = "http://127.0.0.1:9"\nread_back = "to"',)
    desk.run("resume", today(1))
    assert only(store)[1].build.urls == (f"http://127.0.0.1:9/shop-{today(1)}.tar.zst",)


def test_somebody_elses_manifest_is_not_replaced(desk: Desk, store: Store) -> None:
    desk.config()
    (desk.files / f"shop-{today(1)}.json").write_text("somebody else's")
    assert "its id is in use there" in desk.run("cut", exits=2).stderr
    assert (desk.files / f"shop-{today(1)}.json").read_text() == "somebody else's"
    assert len(list(desk.files.iterdir())) == 1
    desk.run("cut", "--new", "--again")
    assert only(store)[0] == today(2)


def test_a_record_of_another_artifact_is_not_replaced(desk: Desk, store: Store) -> None:
    """Whoever was first has the id; what is here says so."""
    desk.build = "exit 7"
    desk.run("cut", exits=1)
    desk.build = Desk.build
    store.put(build_key(APP, today(1)), b"{}")
    assert "nothing is left to do" not in desk.run("resume", today(1), exits=1).stdout


def test_builds_are_signed(desk: Desk, store: Store) -> None:
    """With the key of the configuration, and before anything is built."""
    key = SecretKey.generate()
    desk.extra = f'key = "{desk.directory}/ci.key"'
    assert "ci.key" in desk.run("cut", exits=2).stderr
    assert git(desk.repo, "tag") == ""
    desk.directory.joinpath("ci.key").write_text(key.text(None))
    desk.run("cut")
    assert only(store)[1].build.signature is not None


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx (Debian: apt-get install nginx-light)")
def test_nginx_takes_uploads(desk: Desk, store: Store, tmp_path: Path, unused_tcp_port: int) -> None:
    """As docs/releases.md has it: the part for uploads is that page's, with a user of this test."""
    [shown] = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs/releases.md").read_text(), re.DOTALL)
    files, users = tmp_path / "builds", tmp_path / "users"
    (files / "shop").mkdir(parents=True)
    users.write_text("ci:{PLAIN}very-secret\n")
    locations = shown.replace("/srv/builds", str(files)).replace("/etc/nginx/uploads", str(users))
    (tmp_path / "headers").write_text(f"Authorization: Basic {b64encode(b'ci:very-secret').decode()}\n")
    with nginx(tmp_path / "nginx", locations, unused_tcp_port) as address:
        desk.uploads = (f'to = "{address}/upload/shop"\nurl = "{address}/shop"',)
        assert "does not let us" in desk.run("cut", exits=2).stderr
        desk.uploads = (f'{desk.uploads[0]}\nheaders_file = "{tmp_path}/headers"',)
        desk.run("cut")
    build_id, build = only(store)
    assert digest_of(files / f"shop/shop-{build_id}.tar.zst") == build.build.digest


# --- looking ----------------------------------------------------------------------------------------------------------


def test_list_and_show(desk: Desk, store: Store) -> None:
    """Where builds run, what is in them, what is not yet, who is denied."""
    desk.run("cut")
    commit(desk.repo, "Third [/]", page="three\n")
    desk.run("cut")
    commit(desk.repo, "Fourth", page="four\n")
    builds = store.builds()
    one, two = (builds[today(number)].build for number in (1, 2))
    order = Order(v=1, app=APP, tier="prod", serial=1, build=two, previous=one, percent=25.0, cutoff=0.2)
    store.put(tier_key(APP, "prod"), encode(order))
    store.put(tier_key(APP, "staging"), encode(Order(v=1, app=APP, tier="staging", serial=1, build=two)))
    denied = [{"id": today(1), "digest": one.digest, "by": "bob@x", "reason": "slow", "at": "2026-11-24T12:00:00Z"}]
    store.put(f"hotcold/{APP}/checkpoint/lock", json.dumps({"v": 1, "lock": None, "denied": denied}).encode())
    store.put(build_key(APP, "2020-01-01.1"), b"[]")

    lines = desk.run("list").stdout.splitlines()
    assert lines[0].split()[:4] == ["build", "revision", "cut", "by"]
    assert "prod (25 %), staging" in lines[1]
    assert lines[1].startswith(today(2))
    assert "prod (75 %)" in lines[2]
    assert "denied by bob@x: slow" in lines[2]
    assert "cannot be read" in lines[3]
    listed: dict[str, Any] = json.loads(desk.run("list", "--json").stdout)
    assert [each["id"] for each in listed["builds"]] == [today(2), today(1), "2020-01-01.1"]
    assert [each.get("not_yet_count") for each in listed["builds"]] == [1, 2, None]
    assert listed["builds"][1]["denied"] == {"by": "bob@x", "reason": "slow"}

    shown = desk.run("show", today(2)).stdout
    assert f"in it, 1 commit since {today(1)}:" in shown
    assert "Third [/] (Anna)" in shown
    assert "not yet in it, 1 commit:" in shown
    assert "Fourth (Anna)" in shown
    as_json = json.loads(desk.run("show", today(1), "--json").stdout)
    assert [each["subject"] for each in as_json["not_yet"]] == ["Fourth", "Third [/]"]
    assert as_json["tiers"] == {"prod": 75.0}
    assert "is not recorded" in desk.run("show", "2020-01-01.9", exits=1).stderr
    assert "cannot be read" in desk.run("show", "2020-01-01.1", exits=1).stderr


def test_list_tells_what_was_begun(desk: Desk, store: Store) -> None:
    assert "was released yet" in desk.run("list", exits=1).stderr
    desk.build = "exit 7"
    desk.run("cut", exits=1)
    assert f"hotcold release resume {today(1)} --app shop" in desk.run("list").stdout
    assert json.loads(desk.run("list", "--json").stdout)["unfinished"][0]["id"] == today(1)
    assert store.builds() == {}
