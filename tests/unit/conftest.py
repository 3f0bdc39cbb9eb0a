"""Fixtures of the unit tests: a directory that other users may enter."""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_path() -> Iterator[Path]:
    """As `tmp_path`, for tests that become another user: pytest's own directories are for the user who started it."""
    candidates = (Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/dev/shm"))
    base = next(filter(_may_be_entered, candidates), None)
    if base is None:
        pytest.skip("other users may enter none of " + ", ".join(map(str, candidates)))
    directory = Path(tempfile.mkdtemp(prefix="hotcold-test-", dir=base))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def _may_be_entered(path: Path) -> bool:
    return path.is_dir() and all(each.stat().st_mode & stat.S_IXOTH for each in (path, *path.parents))
