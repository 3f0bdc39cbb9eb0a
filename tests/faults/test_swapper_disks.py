"""Real file systems in bad states: full, read-only, a mount in the wrong place, another process on the same root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from artifact.errors import ConfigError, TransientError
from tests.swapper_host import DIGEST, Host, assert_whole, fill, idle


@contextmanager
def mounted(path: Path, options: str) -> Iterator[None]:
    """A small file system of its own at `path`."""
    path.mkdir(exist_ok=True, parents=True)
    source = f"hotcold-test-{os.getpid()}"
    command = ["mount", "-t", "tmpfs", "-o", options, source, path]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"cannot mount here: {made.stderr.strip()}")
    try:
        yield
    finally:
        mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
        moved = next(fields[1] for fields in mounts if fields[0] == source)  # its directory may have been renamed
        subprocess.run(["umount", "-l", moved], check=True)


def _eat_all_space(path: Path) -> None:
    pages = iter(lambda: b"\0" * 4096, b"")
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        file.writelines(pages)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems: needs root")
def test_on_a_full_disk_nothing_new_is_prepared_but_going_back_works(tmp_path: Path) -> None:
    """Preparing says what to free and leaves hot; the rollback swaps; once there is room everything is as usual."""
    with mounted(tmp_path / "disk", "size=256k"):
        host = Host(tmp_path / "disk")
        swapper = host.open()
        host.deploy(swapper, "b1")
        host.deploy(swapper, "b2")
        filler = tmp_path / "disk" / "filler"
        _eat_all_space(filler)

        with pytest.raises(TransientError, match=r"cannot write .*/state/.*df -h") as caught:
            swapper.prepare("b3", DIGEST)
        assert caught.value.kind == "disk_full"
        assert host.links() == ("releases/b2~2", "releases/b1~1")

        standby = swapper.look().standby
        assert standby is not None
        swap = swapper.swap_in(standby)
        assert swap.unrecorded is not None
        assert host.links() == ("releases/b1~1", "releases/b2~2")
        assert assert_whole(host.layout.hot.resolve()) == "b1"
        swapper.close()
        swapper = host.open()  # an agent can start on a full disk, too
        hot = swapper.look().hot
        assert hot is not None
        assert hot.name == "b1~1"

        filler.unlink()
        host.deploy(swapper, "b3")
        assert swapper.collect(keep=2, pinned=(), in_use=idle).failed == {}
        swapper.close()
        host.assert_sound()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems: needs root")
def test_a_disk_that_fills_up_while_filling_is_given_back_by_abandoning(tmp_path: Path) -> None:
    """The half-filled tree goes, cold shows the standby again, hot is untouched, and the next build fits."""
    with mounted(tmp_path / "disk", "size=256k"):
        host = Host(tmp_path / "disk")
        swapper = host.open()
        host.deploy(swapper, "b1")
        host.deploy(swapper, "b2")
        release = swapper.prepare("big", DIGEST)
        _eat_all_space(release.path / "one")
        swapper.abandon(release)
        assert host.links() == ("releases/b2~2", "releases/b1~1")
        assert host.trees() == ["b1~1", "b2~2"]
        host.deploy(swapper, "b4")
        swapper.close()
        host.assert_sound()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems: needs root")
def test_a_disk_that_becomes_read_only_is_named_and_hot_goes_on_serving(tmp_path: Path) -> None:
    """In mid-run: an error for the operator with the path, links as they were, and a deploy afterwards works."""
    disk = tmp_path / "root"
    with mounted(disk, "size=1m"):
        host = Host(tmp_path)
        swapper = host.open()
        host.deploy(swapper, "b1")
        host.deploy(swapper, "b2")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(ConfigError, match=rf"{disk}.*mount it read-write") as caught:
            swapper.prepare("b3", DIGEST)
        assert caught.value.kind == "read_only"
        standby = swapper.look().standby
        assert standby is not None
        with pytest.raises(ConfigError, match=rf"cannot swap {disk}/hot"):
            swapper.swap_in(standby)
        assert host.links()[0] == "releases/b2~2"
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        host.deploy(swapper, "b4")
        swapper.close()
        host.assert_sound()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems: needs root")
@pytest.mark.parametrize("which", ["root", "state"])
def test_a_disk_that_is_read_only_at_the_start_is_named(tmp_path: Path, which: str) -> None:
    """The message names the directory; nothing is changed and hot can be read."""
    disk = tmp_path / which
    with mounted(disk, "size=1m"):
        host = Host(tmp_path)
        swapper = host.open()
        host.deploy(swapper, "b1")
        host.deploy(swapper, "b2")
        swapper.close()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(ConfigError, match=rf"{disk}: Read-only file system") as caught:
            host.open()
        assert caught.value.kind == "read_only"
        assert assert_whole(host.layout.hot.resolve()) == "b2"
        assert host.links()[0] == "releases/b2~2"
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        swapper = host.open()
        host.deploy(swapper, "b3")
        swapper.close()
        host.assert_sound()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems: needs root")
def test_releases_on_another_file_system_are_refused(tmp_path: Path) -> None:
    """One syncfs could not secure both; the message says where to mount instead."""
    host = Host(tmp_path)
    with mounted(host.layout.releases, "size=1m"):
        with pytest.raises(ConfigError, match="another file system than") as caught:
            host.open()
        assert caught.value.kind == "cross_device"
        assert host.links() == (None, None)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems: needs root")
def test_a_mount_inside_a_tree_is_not_emptied_and_told(tmp_path: Path) -> None:
    """Removing stops at what is in use by the kernel: collecting reports it and goes on."""
    host = Host(tmp_path)
    swapper = host.open()
    for build_id in ("b1", "b2", "b3"):
        host.deploy(swapper, build_id)
    with mounted(host.layout.releases / "b1~1" / "sub", "size=64k"):
        collected = swapper.collect(keep=2, pinned=(), in_use=idle)
        assert collected.removed == ()
        assert "Device or resource busy" in collected.failed["b1~1"]
        assert any("busy" in problem for problem in swapper.look().problems)
    swapper.close()
    swapper = host.open()
    assert swapper.look().problems == ()
    swapper.close()
    host.assert_sound()


OPENER = """
import json, sys
from pathlib import Path
from artifact.errors import HotcoldError
from tests.swapper_host import Host
try:
    swapper = Host(Path(sys.argv[1])).open()
except HotcoldError as error:
    print(json.dumps([error.kind, str(error)]), flush=True)
else:
    print(json.dumps(["open", ""]), flush=True)
    sys.stdin.read()
"""


def test_of_two_processes_that_open_at_once_one_gets_the_root(tmp_path: Path) -> None:
    """The other is told the winner's pid; when the winner is killed the lock is free at once."""
    Host(tmp_path).open().close()
    repository = Path(__file__).parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=repository,
        )
        for _ in range(2)
    ]
    answers = [json.loads(process.stdout.readline()) for process in processes if process.stdout is not None]
    winner, loser = sorted(zip(answers, processes, strict=True), key=lambda each: each[0][0] != "open")
    assert winner[0][0] == "open"
    assert loser[0][0] == "locked"
    assert f"process {winner[1].pid}:" in loser[0][1]
    winner[1].kill()
    for process in processes:
        process.communicate(timeout=20)
    swapper = Host(tmp_path).open()
    release = swapper.prepare("b1", DIGEST)
    fill(release)
    swapper.swap_in(swapper.complete(release))
    swapper.close()
