"""What an attempt left is removed whatever it is: deep, locked, linked."""

import os
from pathlib import Path

from artifact.foreign import empty


def test_everything_goes_and_nothing_else(tmp_path: Path) -> None:
    """Links are removed and not followed; a directory that forbids it is emptied all the same."""
    into, other = tmp_path / "into", tmp_path / "other"
    for directory in (into / "locked" / "inner", into / "unreadable", other):
        directory.mkdir(parents=True)
    for file in (into / "f", into / "locked" / "inner" / "f", into / "unreadable" / "f", other / "f"):
        file.touch()
    (into / "link").symlink_to(other)
    (into / "locked" / "link").symlink_to(other / "f")
    for locked, mode in ((into / "locked" / "inner", 0o555), (into / "locked", 0o555), (into / "unreadable", 0)):
        locked.chmod(mode)
    empty(into)
    assert list(into.iterdir()) == []
    assert (other / "f").exists()


def test_no_tree_is_too_deep(tmp_path: Path) -> None:
    """Deeper than the stack, and than a path may be long."""
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    empty(tmp_path)
    assert list(tmp_path.iterdir()) == []
