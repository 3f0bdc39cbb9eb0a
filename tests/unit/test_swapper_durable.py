"""Files replaced whole: what is there after success and after each failure."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from artifact.errors import ConfigError, TransientError
from swapper import write_durably
from tests.swapper_host import FailingKernel


def test_writing_creates_and_replaces(tmp_path: Path) -> None:
    """The new bytes are there, with the mode asked for, and nothing else."""
    path = tmp_path / "memory.json"
    write_durably(path, b"old")
    write_durably(path, b"new" * 100_000, mode=0o600)
    assert path.read_bytes() == b"new" * 100_000
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_temporary_that_a_crash_left_does_not_matter(tmp_path: Path) -> None:
    """It is overwritten, not appended to, and gone afterwards."""
    (tmp_path / ".memory.json.tmp").write_bytes(b"left by a crash, longer than the new content")
    path = tmp_path / "memory.json"
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("call", "number", "error", "kind"),
    [
        ("fsync .memory.json.tmp", errno.EIO, TransientError, "disk_error"),
        ("fsync .memory.json.tmp", errno.EDQUOT, TransientError, "disk_full"),
        ("rename memory.json", errno.ENOSPC, TransientError, "disk_full"),
        ("rename memory.json", errno.EROFS, ConfigError, "read_only"),
        ("rename memory.json", errno.EMFILE, TransientError, "scarce"),
        ("rename memory.json", errno.EXDEV, ConfigError, "cross_device"),
        ("rename memory.json", errno.EBUSY, TransientError, "os_error"),
    ],
)
def test_a_failure_before_the_rename_keeps_the_old_bytes(
    tmp_path: Path, call: str, number: int, error: type[Exception], kind: str
) -> None:
    """The error names the path and what to do, the old content stays, the temporary is removed."""
    path = tmp_path / "memory.json"
    path.write_bytes(b"old")
    kernel = FailingKernel()
    kernel.failing = {call: number}
    with pytest.raises(error, match=rf"cannot write {path}: {os.strerror(number)}; ") as caught:
        write_durably(path, b"new", kernel=kernel)
    assert getattr(caught.value, "kind", None) == kind
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_cannot_be_secured_is_an_error_although_the_bytes_are_there(tmp_path: Path) -> None:
    """The rename may be undone by a power loss, so success must not be reported."""
    kernel = FailingKernel()
    kernel.failing = {f"fsync {tmp_path.name}": errno.EIO}
    with pytest.raises(TransientError) as caught:
        write_durably(tmp_path / "memory.json", b"new", kernel=kernel)
    assert caught.value.kind == "disk_error"
    assert (tmp_path / "memory.json").read_bytes() == b"new"


def test_a_link_in_the_place_of_the_temporary_is_not_followed(tmp_path: Path) -> None:
    """A planted link cannot make us overwrite another file."""
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / ".memory.json.tmp").symlink_to("victim")
    with pytest.raises(TransientError):
        write_durably(tmp_path / "memory.json", b"new")
    assert (tmp_path / "victim").read_bytes() == b"precious"
