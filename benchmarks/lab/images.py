"""Owns the file systems of a run: one image that keeps corpus and artifacts, and fresh ones to deploy into.

Never the machine's own: what file system that is decides too much. Without a journal, ext4 creates files 30 times more
slowly after a big `rm -rf`. The images are allocated beforehand and read and written past the page cache of the file
system below. What is mounted in a stage is gone with it.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal, get_args

FileSystem = Literal["ext4", "xfs", "btrfs"]
FILE_SYSTEMS: Final[tuple[FileSystem, ...]] = get_args(FileSystem)

_LIBRARY_BYTES: Final = 24 << 30
_TARGET_BYTES: Final = 16 << 30
_RELEASED_WITHIN_S: Final = 120.0
_MAKE: Final = {
    # As installers make it, but with all tables written at once: no background thread works during the first runs.
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}


class NotPossible(Exception):
    """This machine cannot do it; the message says what is missing."""


@contextmanager
def library(cache: Path) -> Iterator[Path]:
    """Give the directory of what is made once and used again; its image stays in `cache`.

    Exits where another run has it: two mounts of one image would destroy it.
    """
    cache.mkdir(parents=True, exist_ok=True)
    image = cache / "library.ext4"
    with (cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another benchmark works with {cache}: wait for its end, or choose another --cache")
        if not image.exists():
            unfinished = image.with_suffix(".unfinished")
            _make(unfinished, "ext4", _LIBRARY_BYTES)
            unfinished.rename(image)
        _await_release(image)
        with _mounted(image, cache / "library", "ext4") as directory:
            yield directory


@contextmanager
def target(cache: Path, file_system: FileSystem) -> Iterator[Path]:
    """Give a directory on a fresh file system, which is gone at the end, and with this process at the latest.

    Raises:
        NotPossible: the kernel or the tools do not have it.
    """
    cache.mkdir(parents=True, exist_ok=True)
    # A short name, for sockets are made in there. No pid: that of the first process of a stage is always the same.
    with TemporaryDirectory(prefix=f"{file_system}-", dir=cache) as home:
        image = Path(home, "image")
        _make(image, file_system, _TARGET_BYTES)
        with _mounted(image, Path(home, "fs"), file_system, is_unlinked=True) as directory:
            yield directory


def _await_release(image: Path) -> None:
    """Wait until the kernel has written back and let go what a killed run had mounted, though its lock is free."""
    ends_s = time.monotonic() + _RELEASED_WITHIN_S
    while subprocess.run(["losetup", "--associated", image], check=True, capture_output=True).stdout:
        if time.monotonic() > ends_s:
            sys.exit(f"{image} is still mounted by somebody: `losetup --associated {image}` says as what")
        time.sleep(0.5)


def _make(image: Path, file_system: FileSystem, size_bytes: int) -> None:
    with image.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size_bytes)
    try:
        subprocess.run([*_MAKE[file_system], image], check=True, capture_output=True)
    except FileNotFoundError as error:
        raise NotPossible(f"{file_system}: {_MAKE[file_system][0]} is not installed") from error


@contextmanager
def _mounted(image: Path, at: Path, file_system: FileSystem, *, is_unlinked: bool = False) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    losetup = ["losetup", "--find", "--show", "--direct-io=on", str(image)]
    device = subprocess.run(losetup, check=True, capture_output=True, text=True).stdout.strip()
    if is_unlinked:
        image.unlink()  # the device holds it; a kill leaves no file behind
    try:
        done = subprocess.run(["mount", "-t", file_system, device, at], check=False, capture_output=True, text=True)
    finally:
        # A mounted device is kept until the mount is gone; one that could not be mounted is given back now.
        subprocess.run(["losetup", "--detach", device], check=True)
    if done.returncode:
        raise NotPossible(f"{file_system} cannot be mounted here: {done.stderr.strip()}")
    try:
        yield at
    finally:
        # Lazily: what still runs in there is killed with the stage.
        subprocess.run(["umount", "--lazy", at], check=True)
        at.rmdir()
