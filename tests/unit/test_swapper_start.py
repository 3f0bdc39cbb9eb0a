"""Opening a root: what is created, what is refused, what is put right, and what is only reported."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from artifact.errors import ConfigError, TransientError
from swapper import Layout
from tests.swapper_host import DIGEST, FailingKernel, Host, assert_whole, fill


def make_host(tmp_path: Path, *build_ids: str) -> Host:
    """A root on which these builds were deployed and proved, and no process left."""
    host = Host(tmp_path)
    swapper = host.open()
    for build_id in build_ids:
        host.deploy(swapper, build_id)
    swapper.close()
    return host


def test_opening_creates_everything_readable_by_workers(tmp_path: Path) -> None:
    """Root and releases can be entered by every user, the state directory only by ours."""
    host = Host(tmp_path / "deep" / "er")
    host.open().close()
    modes = [
        stat.S_IMODE(path.stat().st_mode) for path in (host.layout.root, host.layout.releases, host.layout.state_dir)
    ]
    assert modes == [0o755, 0o755, 0o750]
    host.assert_sound()


def test_directories_that_may_not_survive_a_power_loss_are_an_error(tmp_path: Path) -> None:
    """A root that was created but not secured must not take a first deploy."""
    kernel = FailingKernel()
    host = Host(tmp_path / "srv", kernel)
    for name in (tmp_path.name, "srv", "root", "state"):
        kernel.failing = {f"fsync {name}": errno.EIO}
        with pytest.raises(TransientError, match="cannot create the directory") as caught:
            host.open()
        assert caught.value.kind == "disk_error"
        shutil.rmtree(tmp_path / "srv")
    kernel.failing = {}
    host.open().close()
    host.assert_sound()


def test_a_root_that_is_a_link_to_another_disk_works(tmp_path: Path) -> None:
    """Operators put /srv/app elsewhere by a link; only what is below the root must be ours."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").symlink_to("elsewhere")
    host = make_host(tmp_path, "b1", "b2")
    assert host.links() == ("releases/b2~2", "releases/b1~1")


@pytest.mark.parametrize("link", ["hot", "cold"])
@pytest.mark.parametrize("made_by", ["directory", "file", "outside", "unknown name"])
def test_what_we_did_not_make_in_the_place_of_a_link_is_refused_and_left(
    tmp_path: Path, link: str, made_by: str
) -> None:
    """A tree, a file or a link of somebody else is named with the remedy; nothing is removed, no lock is kept."""
    host = make_host(tmp_path, "b1", "b2")
    path = host.layout.root / link
    path.unlink()
    match made_by:
        case "directory":
            path.mkdir()
            (path / "precious").write_text("x")
        case "file":
            path.write_text("precious")
        case "outside":
            path.symlink_to("/etc")
        case _:
            path.symlink_to("releases/by-hand")
    before = sorted(os.walk(host.layout.root))

    with pytest.raises(ConfigError, match=r"(mv|rm) .*then try again") as caught:
        host.open()

    assert caught.value.kind == "foreign_link"
    assert str(path) in str(caught.value)
    assert sorted(os.walk(host.layout.root)) == before
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    host.open().close()


def test_a_link_changed_by_hand_while_running_is_reported_and_not_overwritten(tmp_path: Path) -> None:
    """Looking lists it as a problem; preparing, swapping and collecting refuse."""
    host = make_host(tmp_path, "b1", "b2")
    swapper = host.open()
    standby = swapper.look().standby
    assert standby is not None
    host.layout.hot.unlink()
    host.layout.hot.symlink_to("/etc")
    (problem,) = swapper.look().problems
    assert "points to /etc" in problem
    for change in (
        lambda: swapper.prepare("b3", DIGEST),
        lambda: swapper.swap_in(standby),
        lambda: swapper.abandon(standby),
        lambda: swapper.collect(keep=1, pinned=(), in_use=lambda _paths: {}),
    ):
        with pytest.raises(ConfigError, match="points to /etc"):
            change()
    assert host.links() == ("/etc", "releases/b1~1")
    assert host.trees() == ["b1~1", "b2~2"]
    swapper.close()


def test_a_release_link_written_in_another_way_is_still_ours(tmp_path: Path) -> None:
    """`ln -sfn /srv/app/releases/x hot` by an operator means the same release."""
    host = make_host(tmp_path, "b1", "b2")
    host.layout.hot.unlink()
    host.layout.hot.symlink_to(f"{host.layout.releases}/./b1~1/")
    swapper = host.open()
    disk = swapper.look()
    assert disk.hot is not None
    assert disk.hot.name == "b1~1"
    assert disk.standby is not None
    assert disk.standby.name == "b2~2"
    swapper.close()


def test_a_dangling_hot_is_a_problem_that_a_deploy_or_a_rollback_heals(tmp_path: Path) -> None:
    """The tree of hot was removed by hand: the agent starts, says so, and swaps the standby in."""
    host = make_host(tmp_path, "b1", "b2")
    shutil.rmtree(host.layout.releases / "b2~2")
    swapper = host.open()
    disk = swapper.look()
    assert disk.hot is None
    (problem,) = disk.problems
    assert "b2~2, which does not exist" in problem
    assert disk.standby is not None
    swapper.swap_in(disk.standby)
    assert host.links() == ("releases/b1~1", None)
    assert swapper.look().problems == ()
    swapper.close()
    host.assert_sound()


def test_a_missing_cold_is_aimed_at_the_standby_again(tmp_path: Path) -> None:
    """Cold is derived: if somebody removes it, the next start restores it."""
    host = make_host(tmp_path, "b1", "b2")
    host.layout.cold.unlink()
    host.open().close()
    assert host.links() == ("releases/b2~2", "releases/b1~1")


def test_a_preparation_that_nothing_completed_is_removed(tmp_path: Path) -> None:
    """After a crash while filling, cold shows the standby and neither tree nor record is left."""
    host = make_host(tmp_path, "b1", "b2")
    swapper = host.open()
    fill(swapper.prepare("b3", DIGEST))
    swapper.close()
    assert "b3~3" in host.trees()
    host.open().close()
    assert host.links() == ("releases/b2~2", "releases/b1~1")
    host.assert_sound()


def test_a_release_that_was_completed_survives_a_restart(tmp_path: Path) -> None:
    """Its bytes are durable, so it can be swapped in without being fetched again."""
    host = make_host(tmp_path, "b1")
    swapper = host.open()
    release = swapper.prepare("b2", DIGEST)
    fill(release)
    swapper.complete(release)
    swapper.close()
    swapper = host.open()
    cold = swapper.look().cold
    assert cold is not None
    assert (cold.build_id, cold.digest, cold.complete, cold.served) == ("b2", DIGEST, True, 0)
    swapper.swap_in(cold)
    assert host.links() == ("releases/b2~2", "releases/b1~1")
    swapper.close()


@pytest.mark.parametrize("content", ["", "\0\0\0", "{", '{"v": 2}', '{"v": 1, "surprise": 1}'])
def test_an_unreadable_record_of_hot_is_rebuilt_from_the_link(tmp_path: Path, content: str) -> None:
    """Power loss may tear a record: hot stays hot, its digest is said to be unknown, and it must be proved again."""
    host = make_host(tmp_path, "b1", "b2")
    (host.layout.records / "b2~2.json").write_text(content)
    swapper = host.open()
    disk = swapper.look()
    assert disk.hot is not None
    assert (disk.hot.build_id, disk.hot.digest, disk.hot.complete, disk.hot.proved) == ("b2", "", True, False)
    assert disk.hot.served > 1
    (problem,) = disk.problems
    assert "digest is unknown" in problem
    assert disk.standby is not None
    host.deploy(swapper, "b3")
    assert swapper.look().problems == ()
    swapper.close()


def test_an_unreadable_record_of_another_release_makes_it_incomplete_and_collectable(tmp_path: Path) -> None:
    """It is no standby any more, it is reported, and collecting removes it unless somebody uses it."""
    host = make_host(tmp_path, "b1", "b2", "b3")
    (host.layout.records / "b2~2.json").write_text("")
    swapper = host.open()
    disk = swapper.look()
    assert disk.standby is not None
    assert disk.standby.name == "b1~1"
    assert disk.cold == disk.standby
    (problem,) = disk.problems
    assert "b2~2.json: empty" in problem
    used = swapper.collect(keep=2, pinned=(), in_use=lambda paths: dict.fromkeys(paths, "pid 7"))
    assert used.kept["b2~2"] == "in use: pid 7"
    assert swapper.collect(keep=2, pinned=(), in_use=lambda _paths: {}).removed == ("b2~2",)
    assert swapper.look().problems == ()
    swapper.close()
    host.assert_sound()


def test_trees_without_a_record_are_reported_and_never_removed(tmp_path: Path) -> None:
    """Not even one with a name like ours: somebody may have put it there. Its number is not given again."""
    host = make_host(tmp_path, "b1")
    for name in ("by-hand", "b9~9"):
        (host.layout.releases / name).mkdir()
    swapper = host.open()
    problems = swapper.look().problems
    assert [name for name in ("by-hand", "b9~9") if any(name in problem for problem in problems)] == ["by-hand", "b9~9"]
    assert swapper.prepare("b9", DIGEST).name == "b9~10"
    swapper.collect(keep=1, pinned=(), in_use=lambda _paths: {})
    assert {"by-hand", "b9~9"} < set(host.trees())
    swapper.close()


def test_a_lost_state_directory_leaves_hot_serving(tmp_path: Path) -> None:
    """Everything remembered is gone: hot is taken over as the link says, the rest is reported and kept."""
    host = make_host(tmp_path, "b1", "b2")
    shutil.rmtree(host.layout.state_dir)
    swapper = host.open()
    disk = swapper.look()
    assert disk.hot is not None
    assert disk.hot.name == "b2~2"
    assert disk.hot.complete
    assert disk.standby is None
    assert any("b1~1 has no record" in problem for problem in disk.problems)
    assert assert_whole(host.layout.hot.resolve()) == "b2"
    assert host.deploy(swapper, "b3").release.name == "b3~3"
    assert "b1~1" in host.trees()
    swapper.close()


def test_records_without_a_tree_are_forgotten(tmp_path: Path) -> None:
    """A tree that was removed by hand is not offered as a standby."""
    host = make_host(tmp_path, "b1", "b2")
    shutil.rmtree(host.layout.releases / "b1~1")
    swapper = host.open()
    assert swapper.look().standby is None
    assert host.links() == ("releases/b2~2", None)
    swapper.close()
    host.assert_sound()


def test_releases_must_not_be_a_link(tmp_path: Path) -> None:
    """It could lead to another file system, which the swap could not secure."""
    host = Host(tmp_path)
    host.layout.root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    host.layout.releases.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is a symbolic link") as caught:
        host.open()
    assert caught.value.kind == "layout"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_in_the_place_of_a_directory_is_named(tmp_path: Path) -> None:
    """The message says which path and what to do; the file stays."""
    host = Host(tmp_path)
    host.layout.root.write_text("mine")
    with pytest.raises(ConfigError, match=r"/root is not a directory: move it"):
        host.open()
    assert host.layout.root.read_text() == "mine"


def test_a_second_writer_is_refused_by_either_lock(tmp_path: Path) -> None:
    """Same state directory or same root: the message names the holder's pid; the first goes on undisturbed."""
    host = Host(tmp_path)
    swapper = host.open()
    other_state = Host(tmp_path)
    other_state.layout = Layout(host.layout.root, tmp_path / "state2")
    other_root = Host(tmp_path)
    other_root.layout = Layout(tmp_path / "root2", host.layout.state_dir)
    for second, path in ((host, host.layout.lock), (other_root, host.layout.lock), (other_state, host.layout.root)):
        with pytest.raises(ConfigError, match=rf"{path} is locked by process {os.getpid()}:") as caught:
            second.open()
        assert caught.value.kind == "locked"
    host.deploy(swapper, "b1")
    swapper.close()
    other_state.open().close()


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user")
@pytest.mark.parametrize("which", ["root", "state"])
def test_a_directory_that_we_may_not_write_is_named_at_the_start(open_path: Path, which: str) -> None:
    """A wrong owner is found before anything is changed, and the message says for which user."""
    host = make_host(open_path, "b1")
    for path in (open_path, *open_path.rglob("*")):
        if which not in path.relative_to(open_path).parts[:1]:
            os.chown(path, 65534, 65534, follow_symlinks=False)
    host.layout.state_dir.chmod(0o755)
    with as_user(65534), pytest.raises(ConfigError, match=rf"/{which}.*: Permission denied; let uid 65534") as caught:
        host.open()
    assert caught.value.kind == "permission"
    assert host.links() == ("releases/b1~1", None)


def test_what_is_recorded_is_the_documented_format(tmp_path: Path) -> None:
    """Operators and older versions read these files: each field is as written down."""
    host = make_host(tmp_path, "b1")
    record = json.loads((host.layout.records / "b1~1.json").read_bytes())
    assert record.pop("created").endswith("+00:00")
    assert record == {
        "v": 1,
        "base": None,
        "is_resumable": False,
        "name": "b1~1",
        "build": "b1",
        "digest": DIGEST,
        "status": "complete",
        "served": 1,
        "proved": True,
    }
    assert host.layout.counter.read_text() == "1\n"
    assert host.layout.lock.read_text() == f"{os.getpid()}\n"
