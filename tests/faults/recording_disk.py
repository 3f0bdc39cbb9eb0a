"""Owns a block device that takes down every write and every flush, in order: a file served by FUSE under a loop device.

The kernel's loop device turns a flush of the file system above it into an fsync of its file, and answers it only when
that has returned. FUSE hands writes and fsyncs to this process. So the log has what dm-log-writes would have, also
where the kernel has no device mapper. What is done with the log is left to the tests.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

_IN: Final = struct.Struct("<IIQQIIII")
_OUT: Final = struct.Struct("<IiQ")
_ATTR: Final = struct.Struct("<QQQQQQIIIIIIIIII")
_LOOKUP, _FORGET, _GETATTR, _SETATTR, _OPEN, _READ, _WRITE, _STATFS = 1, 2, 3, 4, 14, 15, 16, 17
_RELEASE, _FSYNC, _FLUSH, _INIT, _ACCESS, _BATCH_FORGET, _FALLOCATE = 18, 20, 25, 26, 34, 42, 43
_MAX_WRITE: Final = 1 << 20
_FILE_INODE: Final = 2
_KEEP_CACHE: Final = 1 << 1
_NAME: Final = b"disk"


@dataclass(frozen=True)
class Write:
    """Bytes that reached the device's cache."""

    offset: int
    data: bytes


@dataclass(frozen=True)
class Flush:
    """All writes before it are on the medium."""


@dataclass(frozen=True)
class Mark:
    """Something that the test did by then."""

    text: str


Event = Write | Flush | Mark


class RecordingDisk:
    """A disk with the contents of `backing`, which it changes; `log` grows while `is_recording`."""

    def __init__(self, backing: Path) -> None:
        self.log: list[Event] = []
        self.is_recording = True
        self._file = os.open(backing, os.O_RDWR)
        self._size_bytes = os.fstat(self._file).st_size
        self._fuse = -1

    def mark(self, text: str) -> None:
        """Take down that something is done."""
        self.log.append(Mark(text))

    def serve(self, directory: Path) -> threading.Thread:
        """Mount at `directory`, which then holds the file `disk`; the thread ends when that is unmounted."""
        self._fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fuse},rootmode=40000,user_id=0,group_id=0,allow_other"
        if ctypes.CDLL(None, use_errno=True).mount(
            b"recording", os.fsencode(directory), b"fuse", ctypes.c_ulong(0), options.encode()
        ):
            number = ctypes.get_errno()
            os.close(self._fuse)
            raise OSError(number, os.strerror(number))
        thread = threading.Thread(target=self._loop, name="recording-disk")
        thread.start()
        return thread

    def _loop(self) -> None:
        try:
            while True:
                try:
                    request = os.read(self._fuse, _MAX_WRITE + 4096)
                except OSError as error:
                    if error.errno == errno.ENODEV:  # unmounted
                        return
                    if error.errno in {errno.ENOENT, errno.EINTR, errno.EAGAIN}:
                        continue
                    raise
                self._handle(request)
        finally:
            os.close(self._fuse)
            os.close(self._file)

    def _handle(self, request: bytes) -> None:  # noqa: C901, PLR0912 - one row per request
        _, kind, unique, node, *_ = _IN.unpack_from(request)
        body = memoryview(request)[_IN.size :]
        if kind in {_FORGET, _BATCH_FORGET}:
            return
        status, answer = 0, b""
        if kind == _INIT:
            answer = struct.pack("<IIIIHHIIHH28x", 7, 31, 1 << 16, 1 << 5, 16, 16, _MAX_WRITE, 1, _MAX_WRITE // 4096, 0)
        elif kind == _LOOKUP and bytes(body).rstrip(b"\0") == _NAME:
            answer = struct.pack("<QQQQII", _FILE_INODE, 0, 3600, 3600, 0, 0) + self._attributes(_FILE_INODE)
        elif kind == _LOOKUP:
            status = -errno.ENOENT
        elif kind in {_GETATTR, _SETATTR}:
            answer = struct.pack("<QII", 3600, 0, 0) + self._attributes(node)
        elif kind == _OPEN:
            answer = struct.pack("<QII", 1, _KEEP_CACHE, 0)
        elif kind == _READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            answer = os.pread(self._file, size, offset)
        elif kind == _WRITE:
            _, offset, size = struct.unpack_from("<QQI", body)
            self._write(offset, bytes(body[40 : 40 + size]))
            answer = struct.pack("<II", size, 0)
        elif kind == _FALLOCATE:  # discards: without them the device keeps what was there
            status = -errno.EOPNOTSUPP
        elif kind == _FSYNC:
            if self.is_recording:
                self.log.append(Flush())
        elif kind == _STATFS:
            answer = struct.pack("<QQQQQIIII24x", 1 << 20, 1 << 20, 1 << 20, 8, 8, 4096, 255, 4096, 0)
        elif kind not in {_FLUSH, _RELEASE, _ACCESS}:
            status = -errno.ENOSYS
        os.write(self._fuse, _OUT.pack(_OUT.size + len(answer), status, unique) + answer)

    def _write(self, offset: int, data: bytes) -> None:
        os.pwrite(self._file, data, offset)
        if self.is_recording:
            self.log.append(Write(offset, data))

    def _attributes(self, node: int) -> bytes:
        mode, size = (0o100600, self._size_bytes) if node == _FILE_INODE else (0o40755, 0)
        return _ATTR.pack(node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


@contextmanager
def recorded(kind: str, image: Path, at: Path, directory: Path) -> Iterator[RecordingDisk]:
    """Mount the file system in `image`, which is changed, on a recording disk; all is recorded until the block ends."""
    served = directory / "served"
    served.mkdir()
    disk = RecordingDisk(image)
    thread = disk.serve(served)
    try:
        with looped(served / os.fsdecode(_NAME)) as device:
            _run("mount", "-t", kind, "-o", OPTIONS[kind], device, str(at))
            try:
                yield disk
            finally:
                disk.is_recording = False
                _run("umount", str(at))
    finally:
        _run("umount", str(served))
        thread.join()
        served.rmdir()


MAKERS: Final = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}
SIZES: Final = {"ext4": 96 << 20, "xfs": 320 << 20, "btrfs": 160 << 20}
OPTIONS: Final = {"ext4": "commit=1", "xfs": "rw", "btrfs": "commit=1"}


def require(kind: str) -> None:
    """Skip where this host cannot do it, and say why."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts")
    if shutil.which(MAKERS[kind][0]) is None:
        pytest.skip(f"{MAKERS[kind][0]} is not installed")
    known = Path("/proc/filesystems").read_text().split()
    for needed in (kind, "fuse"):
        if needed not in known and subprocess.run(["modprobe", needed], capture_output=True, check=False).returncode:
            pytest.skip(f"this kernel has no {needed}")
    if not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        pytest.skip("needs /dev/fuse and loop devices")


def make_file_system(kind: str, image: Path) -> None:
    """Make one in a file."""
    with image.open("wb") as file:
        file.truncate(SIZES[kind])
    _run(*MAKERS[kind], str(image))


@contextmanager
def looped(image: Path) -> Iterator[str]:
    """A loop device over a file."""
    device = _run("losetup", "--find", "--show", str(image)).strip()
    try:
        yield device
    finally:
        _run("losetup", "--detach", device)


@contextmanager
def mounted_image(kind: str, image: Path, at: Path) -> Iterator[None]:
    """Mount a file system as after a power loss: its log is replayed."""
    with looped(image) as device:
        _run("mount", "-t", kind, device, str(at))
        try:
            yield
        finally:
            _run("umount", str(at))


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr}"
    return done.stdout
