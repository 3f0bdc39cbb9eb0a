"""Retention: what is kept and why, what goes first, and removing trees that resist."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from swapper.kernel import LINUX
from swapper.removal import discard
from tests.swapper_host import DIGEST, FailingKernel, Host, fill, idle


def test_keep_counts_hot_and_standby_among_the_successful(tmp_path: Path) -> None:
    """Of five proved builds, keep=3 leaves hot, standby and the one before."""
    host = Host(tmp_path)
    swapper = host.open()
    for build_id in ("b1", "b2", "b3", "b4", "b5"):
        host.deploy(swapper, build_id)
    collected = swapper.collect(keep=3, pinned=(), in_use=idle)
    assert collected.removed == ("b1~1", "b2~2")
    assert collected.kept == {
        "b5~5": "hot",
        "b4~4": "standby",
        "b3~3": "one of the 3 successful releases to keep",
    }
    assert collected.failed == {}
    swapper.close()
    host.assert_sound()


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_hot_and_standby_stay_however_little_is_to_be_kept(tmp_path: Path, keep: int) -> None:
    """There is always something to roll back to."""
    host = Host(tmp_path)
    swapper = host.open()
    for build_id in ("b1", "b2", "b3"):
        host.deploy(swapper, build_id)
    assert swapper.collect(keep=keep, pinned=(), in_use=idle).removed == ("b1~1",)
    assert host.links() == ("releases/b3~3", "releases/b2~2")
    swapper.close()


def test_failed_builds_go_before_proved_ones_and_do_not_count(tmp_path: Path) -> None:
    """Unproved and never served releases go whatever `keep` says, first; the proved ones by when they served last."""
    host = Host(tmp_path)
    swapper = host.open()
    for build_id in ("b1", "b2", "b3"):
        host.deploy(swapper, build_id)
    first = swapper.look().find("b1~1")
    assert first is not None
    swapper.swap_in(first)
    host.deploy(swapper, "bad", is_proved=False)
    unused = swapper.prepare("unused", DIGEST)
    fill(unused)
    swapper.complete(unused)
    host.deploy(swapper, "b6")

    collected = swapper.collect(keep=2, pinned=(), in_use=idle)

    assert collected.removed == ("unused~5", "b2~2", "b3~3")
    assert collected.kept == {"b6~6": "hot", "b1~1": "standby", "bad~4": "cold"}
    assert swapper.collect(keep=2, pinned=(), in_use=idle).removed == ()
    swapper.close()


def test_pinned_builds_and_used_trees_stay(tmp_path: Path) -> None:
    """Pins name builds, not directories; the processes are asked once, about all candidates and nothing else."""
    host = Host(tmp_path)
    swapper = host.open()
    for build_id in ("b1", "b1", "b2", "b3", "b4", "b5"):
        host.deploy(swapper, build_id)
    asked: list[Sequence[Path]] = []

    def in_use(paths: Sequence[Path]) -> Mapping[Path, str]:
        asked.append(paths)
        return {host.layout.releases / "b2~3": "cwd of process 7"}

    collected = swapper.collect(keep=2, pinned={"b1"}, in_use=in_use)

    assert asked == [[host.layout.releases / "b2~3", host.layout.releases / "b3~4"]]
    assert collected.removed == ("b3~4",)
    assert collected.kept["b1~1"] == collected.kept["b1~2"] == "pinned"
    assert collected.kept["b2~3"] == "in use: cwd of process 7"
    assert host.trees() == ["b1~1", "b1~2", "b2~3", "b4~5", "b5~6"]
    swapper.close()


def test_a_release_in_preparation_stays(tmp_path: Path) -> None:
    """Also while going back has taken cold away from it."""
    host = Host(tmp_path)
    swapper = host.open()
    host.deploy(swapper, "b1")
    host.deploy(swapper, "b2")
    filling = swapper.prepare("b3", DIGEST)
    standby = swapper.look().standby
    assert standby is not None
    swapper.swap_in(standby)
    assert swapper.collect(keep=1, pinned=(), in_use=idle).kept[filling.name] == "being prepared"
    fill(filling)
    assert swapper.complete(filling).complete
    swapper.close()


def test_nobody_is_asked_when_nothing_may_go(tmp_path: Path) -> None:
    """Looking at every process costs time; without candidates it is not done."""
    host = Host(tmp_path)
    swapper = host.open()
    host.deploy(swapper, "b1")

    def in_use(_paths: Sequence[Path]) -> Mapping[Path, str]:
        raise AssertionError

    assert swapper.collect(keep=1, pinned=(), in_use=in_use).removed == ()
    swapper.close()


def test_a_tree_that_cannot_be_removed_is_told_and_the_others_go(tmp_path: Path) -> None:
    """The failure is in the result and among the problems until a later preparation succeeds in removing it."""
    kernel = FailingKernel()
    host = Host(tmp_path, kernel)
    swapper = host.open()
    for build_id in ("b1", "b2", "b3", "b4"):
        host.deploy(swapper, build_id)
    kernel.failing = {"rename .trash-b1~1": errno.EIO}
    collected = swapper.collect(keep=2, pinned=(), in_use=idle)
    assert collected.removed == ("b2~2",)
    assert "cannot remove" in collected.failed["b1~1"]
    assert any("b1~1" in problem for problem in swapper.look().problems)
    assert host.trees() == ["b1~1", "b3~3", "b4~4"]
    kernel.failing = {}
    assert swapper.collect(keep=2, pinned=(), in_use=idle).removed == ("b1~1",)
    assert swapper.look().problems == ()
    swapper.close()
    host.assert_sound()


@pytest.mark.parametrize("looks", [1, 2, 3, 5, 7])
def test_an_interrupted_collection_is_made_up_for(tmp_path: Path, looks: int) -> None:
    """It ends within one file, nothing that is left looks like a release, and the next one removes the rest."""
    host = Host(tmp_path)
    swapper = host.open()
    for build_id in ("b1", "b2", "b3", "b4"):
        host.deploy(swapper, build_id)
    asked = iter([False] * (looks - 1) + [True])

    interrupted = swapper.collect(keep=2, pinned=(), in_use=idle, is_interrupted=lambda: next(asked))

    assert interrupted.failed == {}
    assert swapper.look().problems == ()
    assert [name for name in host.trees() if not name.startswith(".trash-")] == ["b3~3", "b4~4"]
    assert host.records() == ["b3~3", "b4~4"]
    rest = swapper.collect(keep=2, pinned=(), in_use=idle)
    assert sorted(interrupted.removed + rest.removed) == ["b1~1", "b2~2"]
    assert rest.removed
    swapper.close()
    host.assert_sound()


def _discard(tree: Path) -> None:
    descriptor = os.open(tree.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        discard(tree.name, releases_fd=descriptor, kernel=LINUX)
    finally:
        os.close(descriptor)


def test_removing_never_follows_a_link(tmp_path: Path) -> None:
    """What links in a build point to, inside or outside, is not touched."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    tree = tmp_path / "releases" / "b1~1"
    (tree / "sub").mkdir(parents=True)
    (tree / "link").symlink_to(precious)
    (tree / "sub" / "file").symlink_to(precious / "file")
    _discard(tree)
    assert list(tree.parent.iterdir()) == []
    assert (precious / "file").read_text() == "x"


def test_trees_deeper_than_descriptors_and_the_stack_allow_are_removed(tmp_path: Path) -> None:
    """A depth of 3,000 with 100 descriptors at hand; nothing is left beside it either."""
    tree = tmp_path / "releases" / "b1~1"
    tree.mkdir(parents=True)
    descriptor = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=descriptor)
        deeper = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = deeper
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
    try:
        _discard(tree)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert list(tree.parent.iterdir()) == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user: root may enter any directory")
@pytest.mark.parametrize("mode", [0o500, 0o000, 0o300, 0o555])
def test_directories_whose_mode_forbids_it_are_removed(open_path: Path, mode: int) -> None:
    """Builds bring read-only directories; their owner may change that."""
    releases = open_path / "releases"
    tree = releases / "b1~1"
    (tree / "sub" / "deep").mkdir(parents=True)
    (tree / "sub" / "file").write_text("x")
    for path in (releases, tree, tree / "sub", tree / "sub" / "deep", tree / "sub" / "file"):
        os.chown(path, 65534, 65534)
    (tree / "sub" / "deep").chmod(mode)
    (tree / "sub").chmod(mode)
    os.seteuid(65534)
    try:
        _discard(tree)
    finally:
        os.seteuid(0)
    assert list(releases.iterdir()) == []


def test_no_file_is_unlinked_before_the_tree_has_durably_lost_its_name(tmp_path: Path) -> None:
    """Else a power loss could bring a half emptied tree back under the name that its record calls complete."""
    kernel = FailingKernel()
    host = Host(tmp_path, kernel)
    swapper = host.open()
    for build_id in ("b1", "b2", "b3"):
        host.deploy(swapper, build_id)
    kernel.failing = {"fsync releases": errno.EIO}
    assert "b1~1" in swapper.collect(keep=2, pinned=(), in_use=idle).failed
    trash = host.layout.releases / ".trash-b1~1"
    assert sorted(path.name for path in trash.rglob("*")) == ["alias", "one", "sub", "two"]
    kernel.failing = {}
    swapper.close()
    host.open().close()
    host.assert_sound()
