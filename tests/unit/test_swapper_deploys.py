"""Preparing, completing, swapping in, proving, abandoning: what each leaves on the disk."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from artifact.errors import IllegalTransition, Refused, TransientError
from swapper.kernel import EXCHANGE_UNSUPPORTED, LinuxKernel
from tests.swapper_host import DIGEST, FailingKernel, Host, OldKernel, assert_whole, fill, idle


def test_the_first_deploy_makes_hot_and_leaves_no_cold(tmp_path: Path) -> None:
    """Before it there is no hot; after it hot is a relative link to the release, unproved until it is marked."""
    host = Host(tmp_path)
    swapper = host.open()
    assert swapper.look().hot is None

    swap = host.deploy(swapper, "b1", is_proved=False)

    assert (swap.how, swap.former) == ("first", None)
    assert host.links() == ("releases/b1~1", None)
    hot = swapper.look().hot
    assert hot is not None
    assert (hot.name, hot.build_id, hot.digest, hot.proved, hot.served) == ("b1~1", "b1", DIGEST, False, 1)
    assert swapper.mark_proved(hot).proved
    swapper.close()
    host.assert_sound()


def test_a_swap_exchanges_both_links_and_the_former_hot_becomes_standby(tmp_path: Path) -> None:
    """One call flips hot and cold; the proved former hot is where a rollback goes."""
    host = Host(tmp_path)
    swapper = host.open()
    host.deploy(swapper, "b1")

    swap = host.deploy(swapper, "b2")

    assert swap.how == "exchange"
    assert swap.former is not None
    assert swap.former.name == "b1~1"
    assert swap.took_s >= 0
    assert host.links() == ("releases/b2~2", "releases/b1~1")
    disk = swapper.look()
    assert disk.standby == disk.cold
    assert disk.problems == ()
    swapper.close()
    host.assert_sound()


def test_rolling_back_is_a_swap_to_the_standby_and_forward_again(tmp_path: Path) -> None:
    """A proved release stays a standby when it is swapped out, so one can go back and forth."""
    host = Host(tmp_path)
    swapper = host.open()
    host.deploy(swapper, "b1")
    host.deploy(swapper, "b2")
    for expected in ("b1", "b2", "b1"):
        standby = swapper.look().standby
        assert standby is not None
        swapper.swap_in(standby)
        assert assert_whole(host.layout.hot.resolve()) == expected
    swapper.close()
    host.assert_sound()


def test_an_unproved_release_is_never_the_standby(tmp_path: Path) -> None:
    """After a bad build was swapped back, cold shows it, but a rollback would go to the last proved one."""
    host = Host(tmp_path)
    swapper = host.open()
    host.deploy(swapper, "b1")
    host.deploy(swapper, "b2")
    host.deploy(swapper, "bad", is_proved=False)
    standby = swapper.look().standby
    assert standby is not None
    assert standby.name == "b2~2"

    swapper.swap_in(standby)

    disk = swapper.look()
    assert host.links() == ("releases/b2~2", "releases/bad~3")
    assert disk.standby is not None
    assert disk.standby.name == "b1~1"
    swapper.close()


def test_cold_shows_the_release_in_preparation(tmp_path: Path) -> None:
    """Preparing changes cold only, to a new and empty directory that other users can enter."""
    host = Host(tmp_path)
    swapper = host.open()
    host.deploy(swapper, "b1")

    release = swapper.prepare("b2", DIGEST)

    assert host.links() == ("releases/b1~1", "releases/b2~2")
    assert list(release.path.iterdir()) == []
    assert release.path.stat().st_mode & 0o777 == 0o755
    cold = swapper.look().cold
    assert cold is not None
    assert not cold.complete
    swapper.close()


def test_a_path_is_never_used_twice_whatever_was_removed(tmp_path: Path) -> None:
    """The same build prepared again gets a higher number, also after its tree and its record are gone."""
    host = Host(tmp_path)
    names = []
    for _ in range(3):
        swapper = host.open()
        release = swapper.prepare("b1", DIGEST)
        names.append(release.name)
        swapper.abandon(release)
        assert host.trees() == []
        swapper.close()
    assert names == ["b1~1", "b1~2", "b1~3"]


def test_a_lost_counter_still_rises_above_every_name_on_the_disk(tmp_path: Path) -> None:
    """With the counter damaged, the names that exist are what new ones must differ from."""
    host = Host(tmp_path)
    swapper = host.open()
    for build_id in ("b1", "b2"):
        host.deploy(swapper, build_id)
    host.layout.counter.write_text("rubbish")
    assert swapper.prepare("b2", DIGEST).name == "b2~3"
    swapper.close()


def test_preparing_supersedes_a_preparation_that_never_ended(tmp_path: Path) -> None:
    """The earlier tree and record go; completing it afterwards is refused."""
    host = Host(tmp_path)
    swapper = host.open()
    earlier = swapper.prepare("b1", DIGEST)
    fill(earlier)

    later = swapper.prepare("b2", DIGEST)

    assert host.trees() == host.records() == [later.name]
    with pytest.raises(IllegalTransition, match="not in preparation"):
        swapper.complete(earlier)
    swapper.close()


def test_abandoning_aims_cold_back_at_the_standby(tmp_path: Path) -> None:
    """With a standby cold shows it again, without one there is no cold; the tree is gone, twice is fine."""
    host = Host(tmp_path)
    swapper = host.open()
    host.deploy(swapper, "b1")
    first = swapper.prepare("b2", DIGEST)
    swapper.abandon(first)
    assert host.links() == ("releases/b1~1", None)
    host.deploy(swapper, "b3")
    second = swapper.prepare("b4", DIGEST)
    fill(second)
    swapper.abandon(second)
    swapper.abandon(second)
    assert host.links() == ("releases/b3~3", "releases/b1~1")
    swapper.close()
    host.assert_sound()


def test_abandoning_a_release_that_served_leaves_its_tree(tmp_path: Path) -> None:
    """Processes may still live in a build that was swapped back: cold leaves it, collecting removes it."""
    host = Host(tmp_path)
    swapper = host.open()
    host.deploy(swapper, "b1")
    host.deploy(swapper, "b2")
    bad = host.deploy(swapper, "bad", is_proved=False).release
    with pytest.raises(IllegalTransition, match="is hot"):
        swapper.abandon(bad)
    standby = swapper.look().standby
    assert standby is not None
    swapper.swap_in(standby)

    swapper.abandon(bad)

    assert host.links() == ("releases/b2~2", "releases/b1~1")
    assert bad.name in host.trees()
    swapper.close()


def test_impossible_swaps_are_refused_and_change_nothing(tmp_path: Path) -> None:
    """What is hot already, incomplete or gone cannot become hot."""
    host = Host(tmp_path)
    swapper = host.open()
    hot = host.deploy(swapper, "b1").release
    filling = swapper.prepare("b2", DIGEST)
    before = host.links()
    for release, words in ((hot, "hot already"), (filling, "not complete")):
        with pytest.raises(IllegalTransition, match=words):
            swapper.swap_in(release)
    swapper.abandon(filling)
    with pytest.raises(IllegalTransition, match="is gone"):
        swapper.swap_in(filling)
    with pytest.raises(IllegalTransition, match="not hot"):
        swapper.mark_proved(filling)
    assert host.links() == (before[0], None)
    swapper.close()


def test_a_complete_release_that_cold_does_not_show_can_be_swapped_in(tmp_path: Path) -> None:
    """Going back while another build is being prepared aims cold first; the preparation goes on."""
    host = Host(tmp_path)
    swapper = host.open()
    host.deploy(swapper, "b1")
    host.deploy(swapper, "b2")
    filling = swapper.prepare("b3", DIGEST)
    standby = swapper.look().standby
    assert standby is not None
    swapper.swap_in(standby)
    assert host.links() == ("releases/b1~1", "releases/b2~2")

    fill(filling)
    swapper.swap_in(swapper.complete(filling))

    assert host.links() == ("releases/b3~3", "releases/b1~1")
    swapper.close()


@pytest.mark.parametrize("number", EXCHANGE_UNSUPPORTED, ids=errno.errorcode.get)
def test_without_exchange_two_renames_reach_the_same_links(tmp_path: Path, number: int) -> None:
    """Each errno that says "no such call here" leads to the fallback, with the same outcome."""
    host = Host(tmp_path, OldKernel(number))
    swapper = host.open()
    host.deploy(swapper, "b1")
    swap = host.deploy(swapper, "b2")
    assert swap.how == "rename"
    assert host.links() == ("releases/b2~2", "releases/b1~1")
    swapper.close()
    host.assert_sound()


def test_an_exchange_that_fails_for_another_reason_is_an_error(tmp_path: Path) -> None:
    """EIO is not "unsupported": no fallback hides it, hot is unchanged, and the next attempt works."""
    kernel = FailingKernel()
    host = Host(tmp_path, kernel)
    swapper = host.open()
    host.deploy(swapper, "b1")
    release = swapper.prepare("b2", DIGEST)
    fill(release)
    release = swapper.complete(release)
    kernel.failing = {"exchange": errno.EIO}
    with pytest.raises(TransientError, match=r"cannot swap .*/hot") as caught:
        swapper.swap_in(release)
    assert caught.value.kind == "disk_error"
    assert host.links() == ("releases/b1~1", "releases/b2~2")
    kernel.failing = {}
    swapper.swap_in(release)
    assert host.links() == ("releases/b2~2", "releases/b1~1")
    swapper.close()


def test_bytes_that_were_lost_on_the_way_to_the_device_are_never_called_complete(tmp_path: Path) -> None:
    """After syncfs said EIO, asking again is refused although the kernel would say yes; abandoning works."""
    kernel = FailingKernel()
    host = Host(tmp_path, kernel)
    swapper = host.open()
    release = swapper.prepare("b1", DIGEST)
    fill(release)
    kernel.failing = {"syncfs": errno.EIO}
    with pytest.raises(TransientError) as caught:
        swapper.complete(release)
    assert caught.value.kind == "disk_error"
    kernel.failing = {}
    with pytest.raises(IllegalTransition, match="abandon it"):
        swapper.complete(release)
    with pytest.raises(IllegalTransition, match="not complete"):
        swapper.swap_in(release)
    swapper.abandon(release)
    assert host.trees() == host.records() == []
    swapper.close()


def test_a_full_disk_does_not_undo_or_hide_a_swap(tmp_path: Path) -> None:
    """The swap needs no room, only its record does: the swap says so, and the next start makes up for it."""
    kernel = FailingKernel()
    host = Host(tmp_path, kernel)
    swapper = host.open()
    host.deploy(swapper, "b1")
    host.deploy(swapper, "b2")
    kernel.failing = {"rename b1~1.json": errno.ENOSPC}
    standby = swapper.look().standby
    assert standby is not None
    swap = swapper.swap_in(standby)
    assert swap.unrecorded is not None
    assert "free space" in swap.unrecorded
    assert host.links() == ("releases/b1~1", "releases/b2~2")
    swapper.close()
    host.assert_sound()


def test_a_release_whose_service_could_not_be_recorded_is_not_taken_for_unused(tmp_path: Path) -> None:
    """It was hot during a full disk, so workers may live in it: abandoning leaves the tree to be collected."""
    kernel = FailingKernel()
    host = Host(tmp_path, kernel)
    swapper = host.open()
    host.deploy(swapper, "b1")
    bad = swapper.prepare("bad", DIGEST)
    fill(bad)
    bad = swapper.complete(bad)
    kernel.failing = {"rename bad~2.json": errno.ENOSPC}
    assert swapper.swap_in(bad).unrecorded is not None
    kernel.failing = {}
    standby = swapper.look().standby
    assert standby is not None
    swapper.swap_in(standby)

    swapper.abandon(bad)

    assert host.links() == ("releases/b1~1", None)
    assert host.trees() == ["b1~1", "bad~2"]
    assert swapper.collect(keep=2, pinned=(), in_use=idle).removed == ("bad~2",)
    swapper.close()
    host.assert_sound()


def test_a_swap_whose_directory_cannot_be_secured_is_reported(tmp_path: Path) -> None:
    """EIO after the exchange is raised, and the disk tells that the new build is hot."""
    kernel = FailingKernel()
    host = Host(tmp_path, kernel)
    swapper = host.open()
    host.deploy(swapper, "b1")
    release = swapper.prepare("b2", DIGEST)
    fill(release)
    release = swapper.complete(release)
    kernel.failing = {"fsync root": errno.EIO}
    with pytest.raises(TransientError) as caught:
        swapper.swap_in(release)
    assert caught.value.kind == "disk_error"
    kernel.failing = {}
    hot = swapper.look().hot
    assert hot is not None
    assert (hot.name, hot.served) == ("b2~2", 0)
    assert swapper.mark_proved(hot).served == 2
    swapper.close()


class Recorder(LinuxKernel):
    """Notes what is secured and what is renamed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def exchange(self, first: str, second: str, *, dir_fd: int) -> None:
        self.calls.append("exchange")
        super().exchange(first, second, dir_fd=dir_fd)

    def rename(self, source: str, target: str, *, dir_fd: int) -> None:
        self.calls.append(f"rename {target}")
        super().rename(source, target, dir_fd=dir_fd)

    def fsync(self, fd: int) -> None:
        self.calls.append(f"fsync {Path(f'/proc/self/fd/{fd}').readlink().name}")
        super().fsync(fd)

    def syncfs(self, fd: int) -> None:
        self.calls.append(f"syncfs {Path(f'/proc/self/fd/{fd}').readlink().name}")
        super().syncfs(fd)


def test_the_order_on_disk_is_durable_then_recorded_then_swapped_then_secured_then_recorded(tmp_path: Path) -> None:
    """Each step is on the device before the next one says that it happened."""
    kernel = Recorder()
    host = Host(tmp_path, kernel)
    swapper = host.open()
    host.deploy(swapper, "b1")
    release = swapper.prepare("b2", DIGEST)
    fill(release)
    kernel.calls.clear()

    swapper.swap_in(swapper.complete(release))

    recording = ["fsync .b2~2.json.tmp", "rename b2~2.json", "fsync releases"]
    assert kernel.calls == ["syncfs b2~2", *recording, "exchange", "fsync root", *recording]
    swapper.close()


def test_the_polite_mode_secures_every_file_and_directory(tmp_path: Path) -> None:
    """Without syncfs each file, each directory and the entry of the release itself are written back."""
    kernel = Recorder()
    host = Host(tmp_path, kernel)
    swapper = host.open()
    release = swapper.prepare("b1", DIGEST)
    fill(release)
    kernel.calls.clear()
    assert swapper.complete(release, "fsync").complete
    secured = kernel.calls[: kernel.calls.index("fsync .b1~1.json.tmp")]
    assert sorted(secured) == ["fsync b1~1", "fsync one", "fsync releases", "fsync sub", "fsync two"]
    assert "alias" not in str(secured)
    swapper.close()


@pytest.mark.parametrize("build_id", ["", ".hidden", "../up", "a/b", "a~1", "x" * 129])
def test_a_build_id_that_cannot_stand_in_a_path_is_refused(tmp_path: Path, build_id: str) -> None:
    """Refused before anything is created."""
    host = Host(tmp_path)
    swapper = host.open()
    with pytest.raises(Refused) as caught:
        swapper.prepare(build_id, DIGEST)
    assert caught.value.kind == "build_id"
    assert host.trees() == host.records() == []
    assert host.links() == (None, None)
    swapper.close()


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    """Locks and descriptors are given back once, and another writer may come."""
    host = Host(tmp_path)
    before = _descriptors()
    swapper = host.open()
    swapper.prepare("b1", DIGEST)
    assert _descriptors() > before
    swapper.close()
    swapper.close()
    with pytest.raises(IllegalTransition, match="is closed"):
        swapper.look()
    assert _descriptors() == before
    host.open().close()
    host.assert_sound()


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
