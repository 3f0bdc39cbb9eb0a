"""Pulling only what is missing, by a real process: whatever is in the tree before, the build is in it afterwards.

After each pull the whole tree is compared with the packed one; what was used on the way is left as it was.
"""

import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.builds import (
    Depot,
    Directory,
    Entry,
    File,
    Link,
    Packed,
    Releases,
    held_inodes,
    inodes_of,
    shape_of,
    stats_of,
)


def noise(seed: int, size: int) -> bytes:
    """Bytes that no compression shortens, the same each time."""
    return random.Random(seed).randbytes(size)


OLD: dict[str, Entry] = {
    "bin/run": File(b"#!/bin/sh\n", 0o755),
    "current": Link("bin/run"),
    "docs": Directory(0o750),
    "lib/a": File(b"a" * 3000),
    "lib/b": File(noise(1, 300_000), 0o400),
    "lib/deep/er/c": File(noise(2, 1000)),
    "lib/empty": File(),
    "lib/to-dir": File(b"was a file"),
    "lib/to-file/x": File(b"x"),
    "lib/to-file/y/z": File(b"z"),
    "lib/to-link/x": File(b"x"),
    "lib/dir-link": Link("deep"),
    "lib/file-link": Link("a"),
    "lib/gone": File(b"gone"),
    "moved/one": File(noise(3, 200_000)),
    "moved/dir/two": File(noise(4, 2000)),
    "moved/dir/three": File(noise(5, 100)),
    "web/big": File(noise(6, 5 << 20)),
}
NEW: dict[str, Entry] = {
    "bin/run": File(b"#!/bin/sh\n", 0o700),
    "current": Link("bin/other"),
    "bin/other": File(b"#!/bin/bash\n", 0o755),
    "docs": Directory(0o750),
    "lib/a": File(b"a" * 2999 + b"b"),
    "lib/b": File(noise(1, 300_000), 0o400),
    "lib/deep/er/c": File(noise(2, 1000)),
    "lib/empty": File(),
    "lib/to-dir/x": File(b"x"),
    "lib/to-file": File(b"now a file"),
    "lib/to-link": Link("deep"),
    "lib/dir-link/d": File(b"in a directory"),
    "lib/file-link": File(b"now a file"),
    "elsewhere/one": File(noise(3, 200_000)),
    "elsewhere/renamed/two": File(noise(4, 2000)),
    "elsewhere/renamed/three": File(noise(5, 100)),
    "web/big": File(noise(6, 5 << 20)),
    "new/empty": Directory(0o700),
}
SAME = ("docs", "lib/b", "lib/deep/er/c", "lib/empty", "web/big")


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "depot")


@pytest.fixture
def host(tmp_path: Path) -> Releases:
    return Releases(tmp_path / "releases")


@pytest.fixture
def old(depot: Depot) -> Packed:
    return depot.pack("old", OLD)


@pytest.fixture
def new(depot: Depot) -> Packed:
    return depot.pack("new", NEW)


def assert_is(tree: Path, build: Packed) -> None:
    assert shape_of(tree) == shape_of(build.tree)


def test_an_empty_directory_becomes_the_build(host: Releases, old: Packed) -> None:
    """All is fetched: index and frames, and nothing twice."""
    received = host.pull("r", old.ref)
    assert_is(host.tree("r"), old)
    index = old.manifest.index
    assert index is not None
    end = old.root().frame_sizes[-1]
    assert received == old.manifest.size - end + old.index.stat().st_size


def test_a_spare_becomes_the_next_build_in_place(host: Releases, old: Packed, new: Packed) -> None:
    """What is the same keeps its inode, what changed has a new one: nobody sees a file change under its hands."""
    host.pull("r1", old.ref)
    host.settle("r1")
    with held_inodes(host.tree("r1")) as before:
        opened = {
            name: (host.tree("r1") / name).open("rb") for name in before if not (host.tree("r1") / name).is_symlink()
        }
        host.take_over("r1", "r2")
        received = host.pull("r2", new.ref, own="r1")
        after = inodes_of(host.tree("r2"))
    assert_is(host.tree("r2"), new)
    for name in set(before) & set(after):
        assert (before[name] == after[name]) == (name in SAME), name
    for name, file in opened.items():
        entry = OLD[name]
        assert isinstance(entry, File)
        with file:
            assert file.read() == entry.content
    assert received < old.manifest.size / 2


def test_what_moved_is_not_fetched(host: Releases, depot: Depot, old: Packed) -> None:
    """A renamed file and a renamed directory are found in the tree itself, by their digests."""
    host.pull("r1", old.ref)
    moved = {name.replace("moved/", "elsewhere/").replace("web/big", "big"): entry for name, entry in OLD.items()}
    new = depot.pack("new", moved)
    host.take_over("r1", "r2")
    received = host.pull("r2", new.ref, own="r1")
    assert_is(host.tree("r2"), new)
    assert received <= new.index.stat().st_size


def test_other_releases_are_used_and_not_touched(host: Releases, depot: Depot, old: Packed, new: Packed) -> None:
    """Whatever hot and standby have is copied from there; not a stat of theirs changes, atime apart."""
    host.pull("standby", old.ref)
    host.pull("hot", new.ref, bases=["standby"])
    before = {name: stats_of(host.tree(name)) for name in ("hot", "standby")}
    both = depot.pack(
        "both", {**OLD, **{f"also/{name}": entry for name, entry in NEW.items() if isinstance(entry, File)}}
    )
    received = host.pull("r", both.ref, bases=["hot", "standby"])
    assert_is(host.tree("r"), both)
    assert received <= both.index.stat().st_size
    assert {name: stats_of(host.tree(name)) for name in ("hot", "standby")} == before
    shared = set(inodes_of(host.tree("r")).values()) & set(inodes_of(host.tree("hot")).values())
    assert shared == set()


def test_in_trees_that_are_declared_read_only_the_same_file_is_one_file(
    host: Releases, depot: Depot, old: Packed, new: Packed
) -> None:
    """Linked from hot; what has another mode, time or content is not; and the spare tree's change leaves hot alone."""
    host.pull("hot", old.ref)
    received = host.pull("r1", new.ref, bases=["hot"], is_read_only=True)
    assert_is(host.tree("r1"), new)
    assert_is(host.tree("hot"), old)
    assert received < old.manifest.size / 2
    files = {name: inode for name, inode in inodes_of(host.tree("hot")).items() if isinstance(OLD[name], File)}
    there = {inode: name for name, inode in files.items()}
    linked = {name for name, inode in inodes_of(host.tree("r1")).items() if inode in there}
    moved = {"elsewhere/one", "elsewhere/renamed/two", "elsewhere/renamed/three"}
    assert linked == moved | {"lib/b", "lib/deep/er/c", "lib/empty", "lib/to-dir/x", "web/big"}
    before = stats_of(host.tree("r1"))
    host.settle("hot")
    host.take_over("hot", "r2")
    third = depot.pack("third", {**OLD, "lib/a": File(b"another one")})
    with held_inodes(host.tree("r2")):
        received = host.pull("r2", third.ref, own="hot", bases=["r1"], is_read_only=True)
        kept = inodes_of(host.tree("r2"))
    assert_is(host.tree("r2"), third)
    assert_is(host.tree("r1"), new)
    assert {name for name in files if kept[name] == files[name]} == files.keys() - {"lib/a"}
    assert received < third.manifest.size / 2
    after = stats_of(host.tree("r1"))
    assert {name: state[:2] for name, state in after.items()} == {name: state[:2] for name, state in before.items()}


def test_without_the_declaration_files_that_were_linked_are_made_anew(host: Releases, old: Packed, new: Packed) -> None:
    """Their change time is that of the link: nobody can tell whether that was all."""
    host.pull("hot", old.ref)
    host.pull("r1", new.ref, bases=["hot"], is_read_only=True)
    host.settle("hot")
    host.take_over("hot", "r2")
    with held_inodes(host.tree("r2")) as before:
        host.pull("r2", old.ref, own="hot", bases=["r1"])
        after = inodes_of(host.tree("r2"))
    assert_is(host.tree("r2"), old)
    assert after["web/big"] != before["web/big"]
    assert after["lib/a"] == before["lib/a"]


def test_a_file_that_is_not_what_its_table_says_is_not_linked(host: Releases, old: Packed) -> None:
    host.pull("hot", old.ref)
    path = host.tree("hot") / "web/big"
    state = path.stat()
    path.write_bytes(noise(7, 5 << 20))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    host.pull("r", old.ref, bases=["hot"], is_read_only=True)
    assert_is(host.tree("r"), old)


def test_a_patch_against_hot_changes_an_older_spare(host: Releases, depot: Depot) -> None:
    """The usual deploy: hot is N-1, the spare N-2, the patch leads from N-1 to N; only the patch is fetched."""
    entries = {f"d{number % 7}/f{number}": File(noise(number, 20_000)) for number in range(100)}
    first = depot.pack("1", entries)
    entries["d1/f1"] = File(noise(1, 10_000) + b"changed" + noise(1, 20_000)[10_000:])
    second = depot.pack("2", entries, against=first)
    entries["d2/f2"] = File(noise(2, 10_000) + b"changed" + noise(2, 20_000)[10_000:])
    entries["d2/new"] = File(b"new")
    third = depot.pack("3", entries, against=second)
    assert third.manifest.index is not None
    [patch] = third.manifest.index.patches
    host.pull("r1", first.ref)
    host.pull("r2", second.ref, bases=["r1"])
    before = stats_of(host.tree("r2"))
    host.take_over("r1", "r3")
    received = host.pull("r3", third.ref, own="r1", bases=["r2"])
    assert_is(host.tree("r3"), third)
    assert received == patch.size < 20_000
    assert stats_of(host.tree("r2")) == before


def test_the_same_build_again_changes_nothing(host: Releases, old: Packed) -> None:
    """Every inode stays; the root is all that is fetched."""
    host.pull("r1", old.ref)
    host.settle("r1")
    before = stats_of(host.tree("r1"))
    host.take_over("r1", "r2")
    received = host.pull("r2", old.ref, own="r1")
    assert list(stats_of(host.tree("r2")).values())[1:] == list(before.values())[1:]
    assert received <= len(old.root().data)


def test_there_and_back_and_there_again(host: Releases, old: Packed, new: Packed) -> None:
    """A table of a tree that was changed in place is as good as that of a new one."""
    host.pull("r0", old.ref)
    for number, build in enumerate([new, old, new, new, old]):
        host.take_over(f"r{number}", f"r{number + 1}")
        host.pull(f"r{number + 1}", build.ref, own=f"r{number}")
        assert_is(host.tree(f"r{number + 1}"), build)


# --- trees that somebody changed --------------------------------------------------------------------------------------


def restored(path: Path, change: Callable[[], object]) -> None:
    """Change a file and put its modification time back."""
    before = path.stat()
    change()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_moved(tree: Path, name: str) -> None:
    """Move a directory out of the tree, and leave a link to it: all that is below looks as before through the link."""
    path, aside = tree / name, tree.parent / f"aside-{tree.name}"
    path.rename(aside)
    path.symlink_to(aside)


def replace_directory(path: Path, put: Callable[[], object]) -> None:
    shutil.rmtree(path)
    put()


MEDDLED: Mapping[str, Callable[[Path], object]] = {
    "content changed, size and time put back": lambda tree: restored(
        tree / "lib/b", lambda: (tree / "lib/b").write_bytes(noise(9, 300_000))
    ),
    "file replaced": lambda tree: ((tree / "lib/b").unlink(), (tree / "lib/b").write_bytes(b"other")),
    "file truncated": lambda tree: os.truncate(tree / "web/big", 10),
    "file removed": lambda tree: (tree / "lib/deep/er/c").unlink(),
    "file that changes anyway removed": lambda tree: (tree / "lib/a").unlink(),
    "file that goes anyway removed": lambda tree: (tree / "lib/gone").unlink(),
    "file that moves changed": lambda tree: restored(
        tree / "moved/one", lambda: (tree / "moved/one").write_bytes(noise(9, 200_000))
    ),
    "file added": lambda tree: (tree / "lib/deep/added").write_bytes(b"?"),
    "file added to the root": lambda tree: (tree / "added").write_bytes(b"?"),
    "directory added to the root": lambda tree: (tree / "added/more").mkdir(parents=True),
    "file where the build makes a directory": lambda tree: (tree / "new").write_bytes(b"?"),
    "directory that the build makes, too, with more in it": lambda tree: (tree / "new/empty/more").mkdir(parents=True),
    "directory where the build makes a file": lambda tree: (tree / "bin/other/more").mkdir(parents=True),
    "directory where the build makes a link": lambda tree: replace_directory(
        tree / "lib/to-link", lambda: (tree / "lib/to-link/deep/more").mkdir(parents=True)
    ),
    "directory with more in it goes": lambda tree: (tree / "moved/dir/more/more").mkdir(parents=True),
    "file became a directory": lambda tree: ((tree / "lib/b").unlink(), (tree / "lib/b/more").mkdir(parents=True)),
    "file became a link": lambda tree: ((tree / "lib/b").unlink(), (tree / "lib/b").symlink_to("a")),
    "file became a fifo": lambda tree: ((tree / "lib/b").unlink(), os.mkfifo(tree / "lib/b")),
    "link became a file": lambda tree: ((tree / "current").unlink(), (tree / "current").write_bytes(b"?")),
    "link aims elsewhere": lambda tree: ((tree / "current").unlink(), (tree / "current").symlink_to("/etc/passwd")),
    "directory became a file": lambda tree: replace_directory(tree / "docs", lambda: (tree / "docs").write_bytes(b"?")),
    "directory with files became a file": lambda tree: replace_directory(
        tree / "lib/deep", lambda: (tree / "lib/deep").write_bytes(b"?")
    ),
    "directory became a link": lambda tree: replace_directory(
        tree / "lib/deep", lambda: (tree / "lib/deep").symlink_to("../moved")
    ),
    "directory moved away, a link to it in its place": lambda tree: replace_by_moved(tree, "lib/deep"),
    "the like further up": lambda tree: replace_by_moved(tree, "lib"),
    "directories changed places": lambda tree: (
        (tree / "moved/dir").rename(tree / "t"),
        (tree / "lib/deep").rename(tree / "moved/dir"),
        (tree / "t").rename(tree / "lib/deep"),
    ),
    "directory removed": lambda tree: shutil.rmtree(tree / "lib"),
    "mode of a file changed": lambda tree: (tree / "lib/b").chmod(0o4777),
    "mode of a directory changed": lambda tree: (tree / "docs").chmod(0o1777),
    "no rights on a directory": lambda tree: (tree / "lib").chmod(0),
    "file has a second name": lambda tree: (tree.parent / f"second-{tree.name}").hardlink_to(tree / "lib/b"),
    "everything removed": lambda tree: (shutil.rmtree(tree), tree.mkdir()),
}


@pytest.mark.parametrize("case", MEDDLED)
def test_a_tree_that_somebody_changed_becomes_the_build_all_the_same(
    host: Releases, old: Packed, new: Packed, case: str
) -> None:
    """As the next build, and as the same one again; what lies outside and was linked to is as it was."""
    host.pull("r1", old.ref)
    host.settle("r1")
    host.pull("s1", old.ref)
    for spare, build in (("r", new), ("s", old)):
        MEDDLED[case](host.tree(f"{spare}1"))
        outside = {path: shape_of(path) for path in host.path.glob("aside-*")}
        host.take_over(f"{spare}1", f"{spare}2")
        host.pull(f"{spare}2", build.ref, own=f"{spare}1")
        assert_is(host.tree(f"{spare}2"), build)
        assert {path: shape_of(path) for path in outside} == outside


@pytest.mark.parametrize("case", MEDDLED)
def test_a_changed_base_is_found_out_while_it_is_copied(host: Releases, depot: Depot, old: Packed, case: str) -> None:
    """Hot is changed behind the agent's back: its table and a patch are right, its files are not."""
    entries = {**OLD, "lib/b": File(noise(1, 299_000) + b"changed", 0o400), "lib/deep/er/c": File(noise(2, 999))}
    new = depot.pack("new", entries, against=old)
    assert new.patches
    host.pull("hot", old.ref)
    MEDDLED[case](host.tree("hot"))
    before = stats_of(host.tree("hot"))
    host.pull("r", new.ref, bases=["hot"])
    assert_is(host.tree("r"), new)
    assert stats_of(host.tree("hot")) == before
