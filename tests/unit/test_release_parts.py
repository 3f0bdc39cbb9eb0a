"""The parts of a release that need no git: names, commits, choices, configuration, commands, records."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact import ConfigError, ManifestRef, Refused, TransientError
from checkpoint.audit import Record, read_head, read_record, verify
from checkpoint.insisting import Insistence
from checkpoint.pipeline import Document, parse_settings
from checkpoint.reading import TierKey, read_tier_key
from checkpoint.release import BuildKey, Uploader, UploadTable, parse_release, read_build_keys, record
from checkpoint.release.choosing import build_before, build_named, build_to_mend, build_with, unfinished_of
from checkpoint.release.commits import MAX_COMMITS, MAX_SUBJECT, read_log
from checkpoint.release.naming import Begun, message_of, next_id, order_of, read_message
from checkpoint.release.places import Content, content_of, headers_of
from checkpoint.release.running import run
from checkpoint.release.settings import _File
from checkpoint.release.standing import Share, denial_of, read_denials, shares_of
from fleet import Build, Commit, Entry, Order, StoreUnreachable, decode_build, encode
from fleet.keys import audit_head_key, audit_prefix, build_key, builds_prefix, lock_key, tier_key
from tests.commander_world import LossyStore, World, world

DAY = date(2026, 11, 24)


def ref(build_id: str, digit: str = "a") -> ManifestRef:
    return ManifestRef(
        id=build_id,
        urls=(f"https://builds.example.com/{build_id}.tar.zst",),
        digest=f"sha256:{digit * 64}",
        size=7,
        format="tar.zst",
    )


def a_build(build_id: str, digit: str = "a", **fields: object) -> Build:
    plain = Build(
        v=1,
        app="shop",
        build=ref(build_id, digit),
        manifest=f"https://builds.example.com/{build_id}.json",
        revision="1" * 40,
        branch=f"release/{build_id}",
        tag=build_id,
        by="anna@deploy-1",
        at="2026-11-24T12:00:00+00:00",
    )
    return msgspec.structs.replace(plain, **fields)


def key(build_id: str, **fields: object) -> BuildKey:
    return BuildKey(build_id, a_build(build_id, **fields))


def begun(build_id: str, **fields: object) -> Begun:
    plain: dict[str, object] = {
        "id": build_id,
        "app": "shop",
        "commit": "1" * 40,
        "branch": f"release/{build_id}",
        "by": "anna@deploy-1",
        "at": "2026-11-24T12:00:00+00:00",
    }
    return Begun(**{**plain, **fields})  # type: ignore[arg-type]


# --- names ------------------------------------------------------------------------------------------------------------


def test_ids_rise_by_day_and_number() -> None:
    """Numbers count as numbers; other days, and ids of another make, do not count."""
    assert next_id(DAY, []) == "2026-11-24.1"
    taken = ["2026-11-24.9", "2026-11-24.10", "2026-11-23.40", "2026-11-24.x", "v1.2", "2026-11-24.010"]
    assert next_id(DAY, taken) == "2026-11-24.11"
    assert sorted(["2026-11-24.10", "2026-11-24.9", "zzz", "2026-11-23.99"], key=order_of) == [
        "zzz",
        "2026-11-23.99",
        "2026-11-24.9",
        "2026-11-24.10",
    ]


@given(
    notes=st.one_of(st.none(), st.text(min_size=1)),
    hotfix_of=st.one_of(st.none(), st.just("2026-11-24.1")),
    picks=st.lists(st.text("0123456789abcdef", min_size=40, max_size=40), max_size=4),
)
def test_a_tag_tells_what_was_begun(notes: str | None, hotfix_of: str | None, picks: list[str]) -> None:
    """What is read is what was written; notes become one line, and can pretend nothing."""
    told = begun("2026-11-24.2", notes=notes, hotfix_of=hotfix_of, picks=tuple(picks))
    read = read_message(told.id, told.commit, message_of(told))
    assert read is not None
    assert (read.id, read.app, read.commit, read.branch, read.by, read.at) == (
        told.id,
        told.app,
        told.commit,
        told.branch,
        told.by,
        told.at,
    )
    assert (read.hotfix_of, read.picks) == (hotfix_of, tuple(picks))
    assert (read.notes or "") == " ".join((notes or "").split())


def test_other_tags_are_no_releases() -> None:
    assert read_message("2026-11-24.1", "1" * 40, "Build 2026-11-24.1 of shop\n") is None
    assert read_message("v1.0", "1" * 40, message_of(begun("v1.0"))) is None


def test_a_log_is_cut_to_what_a_record_holds() -> None:
    """Counted whole, kept in part; nothing that a terminal would obey."""
    lines = [f"{number:040}\0Anna \x1b[31m\0{'x' * 500}" for number in range(70)]
    commits = read_log("\n".join(lines))
    assert (commits.count, len(commits.shown)) == (70, MAX_COMMITS)
    assert commits.shown[0].author == "Anna  [31m"
    assert len(commits.shown[0].subject) == MAX_SUBJECT
    assert commits.shown[0].subject.endswith("...")
    assert read_log("") == read_log("\n")
    full = a_build("2026-11-24.1", commits=commits.shown, commit_count=70)
    assert len(encode(full)) < 16 << 10


# --- choices ----------------------------------------------------------------------------------------------------------


def test_what_is_unfinished() -> None:
    """Begun, and newer than everything that is recorded."""
    tags = [begun("2026-11-24.3"), begun("2026-11-24.1"), begun("2026-11-24.10"), begun("2026-11-24.2")]
    assert [each.id for each in unfinished_of(tags, [key("2026-11-24.2")])] == ["2026-11-24.3", "2026-11-24.10"]
    assert [each.id for each in unfinished_of(tags[:1], [])] == ["2026-11-24.3"]
    assert unfinished_of(tags, [key("2026-11-25.1")]) == ()


def ordered(tier: str, build_id: str, **fields: object) -> TierKey:
    order = Order(v=1, app="shop", tier=tier, serial=1, build=ref(build_id), **fields)  # type: ignore[arg-type]
    return read_tier_key("shop", tier, Entry(tier_key("shop", tier), encode(order), 1, 1))


def test_which_build_is_mended() -> None:
    keys = (key("2026-11-24.2"), key("2026-11-24.1"))
    one, two = keys[1].build, keys[0].build
    assert build_to_mend(keys, [ordered("prod", "2026-11-24.1"), ordered("canary", "2026-11-24.1")]) == one
    assert build_to_mend(keys, [TierKey("prod")]) == two
    with pytest.raises(Refused, match=r"canary runs 2026-11-24\.2, prod runs 2026-11-24\.1: name it"):
        build_to_mend(keys, [ordered("prod", "2026-11-24.1"), ordered("canary", "2026-11-24.2")])
    with pytest.raises(Refused, match="cut one first"):
        build_to_mend([], [])
    with pytest.raises(Refused, match="is not recorded"):
        build_to_mend(keys, [ordered("prod", "by-hand")])
    with pytest.raises(Refused, match="cannot be read"):
        build_named("x", [BuildKey("x", None, Refused("it is broken"))])


def test_which_build_was_before() -> None:
    """The newest older one; for a hotfix the one that it mends."""
    keys = (key("2026-11-24.3"), BuildKey("2026-11-24.2", None), key("2026-11-24.1", revision="2" * 40))
    assert build_before(begun("2026-11-24.4"), keys) == keys[0].build
    assert build_before(begun("2026-11-24.3"), keys) == keys[2].build
    assert build_before(begun("2026-11-24.4", hotfix_of="2026-11-24.1"), keys) == keys[2].build
    assert build_before(begun("2026-11-24.1"), keys) is None
    assert build_with("2" * 40, keys) == "2026-11-24.1"
    assert build_with("3" * 40, keys) is None


def test_where_builds_run() -> None:
    """Wholly or in part, as `build` or as `previous`."""
    tiers = [
        ordered("canary", "b"),
        ordered("prod", "b", previous=ref("a"), percent=25.0),
        ordered("same", "b", previous=ref("b"), percent=25.0),
        TierKey("empty"),
    ]
    assert shares_of(ref("b"), tiers) == (Share("canary", 100.0), Share("prod", 25.0), Share("same", 100.0))
    assert shares_of(ref("a"), tiers) == (Share("prod", 75.0),)


def test_denied_builds_are_found_by_id_or_digest() -> None:
    """A damaged document only shows nothing."""
    denied = b'{"id":"a","digest":"sha256:x","by":"bob","reason":"slow","at":"2026-11-24T10:00:00Z"}'
    text = b'{"v":1,"lock":null,"denied":[' + denied + b"]}"
    denials = read_denials(Entry(lock_key("shop"), text, 1, 1))
    found = denial_of(ref("a"), denials)
    assert found is not None
    assert (found.by, found.reason) == ("bob", "slow")
    assert denial_of(ref("b"), denials) is None
    assert read_denials(None) == read_denials(Entry("k", b"\xff", 1, 1)) == ()


# --- configuration ----------------------------------------------------------------------------------------------------

WHOLE = 'app = "shop"\n[release]\n{}\n[[release.uploads]]\nto = "/srv/builds"\n{}\n'


def test_other_tables_of_the_file_are_not_judged() -> None:
    """They have a reader of their own."""
    text = WHOLE.format("", "") + '[[tiers]]\nname = "prod"\n[commander]\nanything = 1\n'
    assert parse_release(text, "shop").uploads == (UploadTable(to="/srv/builds"),)


@pytest.mark.parametrize(
    ("release", "upload", "message"),
    [
        ("bild = []", "", "unknown key `release.bild`; did you mean `release.build`?"),
        ("", "rul = 1", "unknown key `release.uploads.rul`"),
        ('build = "make"', "", "release.build = 'make'"),
        ("build_timeout_s = 0", "", "release.build_timeout_s = 0: must be greater than 0"),
        ('repo = "git/shop"', "", 'release.repo = "git/shop": must be an absolute path'),
        ('tree = "../x"', "", 'release.tree = "../x"'),
        ('tree = "/x"', "", 'release.tree = "/x"'),
        ('main = "--upload-pack=x"', "", "release.main"),
        ('remote = ""', "", "release.remote"),
        ('tag_prefix = "a b"', "", 'release.tag_prefix = "a b"'),
        ('branch_prefix = ""', "", 'release.branch_prefix = ""'),
        ('format = "zip"', "", "release.format = 'zip': allowed: tar.zst, tar.gz, tar"),
        ("", 'url = "ftp://x/"', 'url = "ftp://x/": allowed'),
        ("", 'url = "https://me:secret@x/"', "headers_file is for secrets"),
        ("", "timeout_s = -1", "timeout_s = -1: must be greater than 0"),
        ("", 'headers_env = "X"', "headers are for http:// and https:// alone"),
        ("", '[[release.uploads]]\nto = "/srv/builds/"', "stands there twice"),
        ("", '[[release.uploads]]\nto = "builds"', 'to = "builds": allowed'),
        ("", '[[release.uploads]]\nto = "s3:///key"', 'to = "s3:///key": allowed'),
    ],
)
def test_a_mistake_is_named(release: str, upload: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_release(WHOLE.format(release, upload), "shop")
    assert message in str(caught.value)


def test_a_file_without_releases_is_told() -> None:
    with pytest.raises(ConfigError, match="no table"):
        parse_release('app = "shop"', "shop")
    with pytest.raises(ConfigError, match="not about"):
        parse_release('app = "blog"\n[release]\n', "shop")
    with pytest.raises(ConfigError, match="uploads is missing"):
        parse_release('app = "shop"\n[release]\n', "shop")


def test_where_hosts_see_an_upload() -> None:
    assert UploadTable(to="/srv/my builds/").seen_at == "file:///srv/my%20builds"
    assert UploadTable(to="s3://b/shop/").seen_at == "s3://b/shop"
    assert UploadTable(to="/mnt/x", url="https://builds.example.com/shop/").seen_at == "https://builds.example.com/shop"


def test_headers_come_from_file_and_variable(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("X-One: 1\n\nAuthorization: Bearer a: b \n")
    table = UploadTable(to="https://x/", headers_file=str(file), headers_env="MORE")
    assert headers_of(table, {"MORE": "X-Two:2"}) == {"X-One": "1", "Authorization": "Bearer a: b", "X-Two": "2"}


@pytest.mark.parametrize("text", ["very-secret", "X Y: very-secret", "X-A: very\x00-secret"])
def test_a_broken_header_is_told_without_its_content(tmp_path: Path, text: str) -> None:
    file = tmp_path / "headers"
    file.write_text(f"X-One: 1\n{text}\n")
    with pytest.raises(ConfigError, match=r"headers, line 2: is no header") as caught:
        headers_of(UploadTable(to="https://x/", headers_file=str(file)), {})
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        headers_of(UploadTable(to="https://x/", headers_file=str(tmp_path / "none")), {})


# --- commands ---------------------------------------------------------------------------------------------------------


def running(tmp_path: Path, script: str, timeout_s: float = 60.0) -> tuple[int, bool, bytes]:
    shown: list[bytes] = []
    ran = run(
        ["sh", "-c", script],
        directory=tmp_path,
        environment=os.environ | {"ASKED": "yes"},
        timeout_s=timeout_s,
        log=tmp_path / "log",
        show=shown.append,
    )
    assert (tmp_path / "log").read_bytes().endswith(b"".join(shown))
    return ran.status, ran.timed_out, b"".join(shown)


def test_a_command_is_shown_and_kept(tmp_path: Path) -> None:
    """Both of its streams, in their order; its status and directory are right."""
    assert running(tmp_path, 'echo $ASKED; echo err >&2; test "$PWD" = "$(pwd)"; exit 3') == (3, False, b"yes\nerr\n")
    assert running(tmp_path, "head -c 300000 /dev/zero")[2] == bytes(300_000)
    assert (tmp_path / "log").read_bytes().startswith(b"$ sh -c echo $ASKED")


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """At its deadline, whatever it ignores."""
    status, timed_out, _ = running(tmp_path, f"trap '' TERM; sleep 600 & echo $! > {tmp_path}/pid; wait", 1.0)
    assert (status, timed_out) == (-9, True)
    until(lambda: not _lives(int((tmp_path / "pid").read_text())))


def test_what_a_command_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    """Its own end counts; what holds its output open is ended with its group."""
    began_s = time.monotonic()
    assert running(tmp_path, f"sleep 600 & echo $! > {tmp_path}/pid; exit 0") == (0, False, b"")
    assert time.monotonic() - began_s < 60
    until(lambda: not _lives(int((tmp_path / "pid").read_text())))


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="/none cannot be run"):
        run(["/none"], directory=tmp_path, environment={}, timeout_s=1, log=tmp_path / "log", show=lambda _: None)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends_s
        time.sleep(0.02)


# --- uploads ----------------------------------------------------------------------------------------------------------


class Shelf:
    """A place in memory that fails as told: each fault hits the next call."""

    def __init__(self, *faults: Exception | None) -> None:
        self.table = UploadTable(to="/shelf", read_back="to")
        self.kept: dict[str, Content] = {}
        self.calls: list[str] = []
        self._faults = list(faults)

    def find(self, name: str) -> Content | None:
        self._call("find", name)
        return self.kept.get(name)

    def put(self, name: str, path: Path) -> None:
        self._call("put", name)
        self.kept[name] = content_of(path)

    def _call(self, what: str, name: str) -> None:
        self.calls.append(f"{what} {name}")
        fault = self._faults.pop(0) if self._faults else None
        if fault is not None:
            raise fault


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("artifact", "manifest"):
        (tmp_path / name).write_text(name)
    return tmp_path / "artifact", tmp_path / "manifest"


def test_passing_faults_are_tried_again_with_pauses(files: tuple[Path, Path]) -> None:
    """Growing ones; what lies there is not sent again."""
    pauses: list[float] = []
    shelf = Shelf(None, TransientError("busy"), TransientError("busy"))
    uploader = Uploader([shelf], pause=pauses.append, say=lambda _: None)
    uploader.upload([files[0]], files[1])
    assert pauses == [0.5, 1.0]
    assert shelf.kept == {"artifact": content_of(files[0]), "manifest": content_of(files[1])}
    shelf.calls.clear()
    uploader.upload([files[0]], files[1])
    assert not any(call.startswith("put") for call in shelf.calls)


def test_no_manifest_is_anywhere_before_the_files_are_everywhere(files: tuple[Path, Path]) -> None:
    """The second place fails for good: the first one has no manifest either."""
    one, other = Shelf(), Shelf(None, None, ConfigError("no"))
    with pytest.raises(ConfigError):
        Uploader([one, other], pause=lambda _: None, say=lambda _: None).upload([files[0]], files[1])
    assert (list(one.kept), list(other.kept)) == (["artifact"], [])


def test_a_place_that_never_answers_is_given_up(files: tuple[Path, Path]) -> None:
    pauses: list[float] = []
    shelf = Shelf(*[TransientError("down")] * 10)
    with pytest.raises(TransientError):
        Uploader([shelf], pause=pauses.append, say=lambda _: None).upload([files[0]], files[1])
    assert len(pauses) == 5
    assert shelf.kept == {}


# --- records ----------------------------------------------------------------------------------------------------------


def test_records_are_read_each_by_itself() -> None:
    """The newest first; one that is damaged, or lies in the wrong key, hides no other."""

    def entry(build_id: str, value: bytes) -> Entry:
        return Entry(build_key("shop", build_id), value, 1, 1)

    keys = read_build_keys(
        "shop",
        [
            entry("2026-11-24.10", encode(a_build("2026-11-24.10"))),
            entry("2026-11-24.3", b"{}"),
            entry("2026-11-24.4", encode(a_build("2026-11-24.10"))),
            entry("2026-11-24.9", encode(a_build("2026-11-24.9"))),
        ],
    )
    assert [each.id for each in keys] == ["2026-11-24.10", "2026-11-24.9", "2026-11-24.4", "2026-11-24.3"]
    assert [each.build is None for each in keys] == [False, False, True, True]
    assert "wrong key" in str(keys[2].fault)


@pytest.mark.parametrize(("text", "kind"), [(b"{}", "build_invalid"), (b'{"v":2}', "build_version")])
def test_a_record_is_decoded_strictly(text: bytes, kind: str) -> None:
    with pytest.raises(Refused) as caught:
        decode_build(text)
    assert caught.value.kind == kind
    full = a_build("b", commits=(Commit(sha="1" * 40, author="A", subject="s"),), hotfix_of="a", picks=("x",))
    assert decode_build(encode(full)) == full


async def nothing(_: float) -> None:
    await asyncio.sleep(0)


AT = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)


def recorded(store: Any, build: Build, by: str = "bob@deploy-2") -> Awaitable[bool]:
    return record(store, build, Insistence(nothing), by=by, at=AT, pause=nothing)


def chain(here: World) -> list[Record]:
    """The audit, which is whole."""
    entries = here.do(here.store.read_prefix(audit_prefix("shop")))
    head, _ = read_head(here.do(here.store.read(audit_head_key("shop"))))
    assert list(verify(entries, head)) == []
    return [read_record(entry.value) for entry in entries]


def test_a_record_is_written_once_with_the_audits_whatever_is_lost() -> None:
    """A question or an answer that is lost; the same build again; another one under its id: one record of each."""
    with world() as here:
        lossy = LossyStore(here.store, ["lost question", "lost answer"])
        assert here.do(recorded(lossy, a_build("b"))) is True
        assert lossy.put_count == 3
        assert here.do(recorded(here.store, a_build("b"))) is False
        with pytest.raises(Refused, match="somebody else's"):
            here.do(recorded(here.store, a_build("b", "c")))
        entry = here.do(here.store.read(build_key("shop", "b")))
        assert decode_build(entry.value) == a_build("b")
        assert here.do(recorded(here.store, a_build("c", notes="new search"))) is True
        gone = LossyStore(here.store, ["lost question"] * 20)
        with pytest.raises(StoreUnreachable):
            here.do(recorded(gone, a_build("d")))
        assert here.do(here.store.read(build_key("shop", "d"))) is None
        told = chain(here)
    assert [(each.by, each.via, each.what, each.at) for each in told] == [("bob@deploy-2", "cli", "released", AT)] * 2
    assert told[0].message == "build b is released, of 111111111111 on release/b: 0 commits"
    assert told[1].reason == "new search"


def test_a_build_that_was_recorded_in_between_by_another_hand_is_told_once() -> None:
    """Somebody who took over records the very same build just before we do."""
    with world() as here:

        async def other() -> None:
            assert await recorded(here.store, a_build("b"), "carol@desk")

        assert here.do(recorded(LossyStore(here.store, [other]), a_build("b"))) is False
        assert [each.by for each in chain(here)] == ["carol@desk"]


def test_many_record_at_once_and_the_chain_is_whole() -> None:
    """Cuts and hotfixes, some twice: each build, and each in the audit, once."""
    builds = [a_build(f"b{number}") for number in range(6)]
    builds.append(a_build("h", hotfix_of="b0", picks=("4f2a9c1d7be0c5c9", "77b01de5a0c4b1f8"), commit_count=2))
    with world() as here:

        async def all_at_once() -> list[bool]:
            return await asyncio.gather(*(recorded(here.store, build) for build in [*builds, *builds]))

        assert sum(here.do(all_at_once())) == len(builds)
        told = chain(here)
        assert len(here.do(here.store.read_prefix(builds_prefix("shop")))) == len(builds)
    assert sorted(each.message.split()[1] for each in told) == sorted(build.build.id for build in builds)
    [hotfix] = [each for each in told if each.what == "hotfix_released"]
    assert hotfix.message.endswith("mends b0 by picking 4f2a9c1d7be0, 77b01de5a0c4")


def test_the_table_lies_in_the_same_file_as_the_pipeline() -> None:
    """Each side knows the other's keys; a typo in the table is found by whoever checks the whole file."""
    assert {field.name for field in msgspec.structs.fields(_File)} == {
        field.name for field in msgspec.structs.fields(Document)
    }
    shared = 'app = "shop"\n[release]\nuploads = [{ to = "/srv/builds" }]\n[[tiers]]\nname = "prod"\n'
    assert parse_release(shared, "shop").uploads[0].to == "/srv/builds"
    assert parse_settings(shared).pipeline.tiers == ("prod",)
    with pytest.raises(ConfigError, match=r"release\.uplods"):
        parse_settings(shared.replace("uploads", "uplods"))
