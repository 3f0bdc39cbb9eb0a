"""Owns the checks of the root's file system: room, how links are exchanged, how files are copied, what lies where.

What it tries it tries in a directory of its own below the root, which it removes again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from hotcold.doctor.finding import Finding
from hotcold.doctor.patient import Patient
from hotcold.terminal import size
from swapper import LINUX, Kernel, Layout
from swapper.kernel import EXCHANGE_UNSUPPORTED

_FICLONE: Final = 0x40049409  # ioctl_ficlone(2)
_LOW: Final = 0.1
_VERY_LOW: Final = 0.02
_REMOTE: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "lustre", "afs"})
_BLOCK: Final = b"hotcold\n" * 8192
_PREFIX: Final = ".hotcold-doctor-"
_NAMES: Final = ("one", "other", "source", "target")


def look_at_space(patient: Patient) -> Sequence[Finding]:
    """Bytes and inodes that are free, where releases lie and where the agent keeps its own files."""
    layout = patient.settings.identity.layout
    places = {path.stat().st_dev: path for path in (layout.state_dir, layout.root) if path.exists()}
    return [finding for path in reversed(places.values()) for finding in _space(path)]


def _space(path: Path) -> Iterator[Finding]:
    found = os.statvfs(path)
    free_bytes, all_bytes = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    told = f"{path}: {size(free_bytes)} of {size(all_bytes)} free"
    shares = [free_bytes / all_bytes if all_bytes else 1.0]
    if found.f_files:  # file systems such as btrfs make inodes as they are needed
        told += f", {found.f_favail:,} of {found.f_files:,} inodes"
        shares.append(found.f_favail / found.f_files)
    remedy = "free some; or lower `releases.keep`, and restart the agent: a start removes old releases"
    if min(shares) < _VERY_LOW:
        yield Finding("space", "wrong", told, remedy)
    elif min(shares) < _LOW:
        yield Finding("space", "warning", told, remedy)
    else:
        yield Finding("space", "ok", told)


def look_at_exchange(patient: Patient, kernel: Kernel = LINUX) -> Sequence[Finding]:
    """Whether two links can be exchanged in one step, and files copied without their bytes."""
    root = patient.settings.identity.layout.root
    kind = _kind_of_file_system(root)
    if kind in _REMOTE:
        message = f"{root} is on {kind}, a network file system: nothing is promised there"
        return [Finding("exchange", "wrong", message, "use a local one")]
    try:
        with _scratch(root) as fd:
            return [_exchange(fd, kind, kernel), _copies(fd, kind)]
    except PermissionError:
        return [Finding("exchange", "unknown", f"cannot be tried: {root} is not yours to write in", "try it as root")]
    except OSError as error:
        return [
            Finding("exchange", "wrong", f"nothing can be written in {root}: {error.strerror}", "mend that file system")
        ]


@contextmanager
def _scratch(root: Path) -> Iterator[int]:
    """A descriptor of a directory that is ours.

    All is done by it and by names in it: who owns the root could put another directory, or a link, in its place, and we
    may be root.
    """
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            raise OSError(errno.ESTALE, "somebody is at work there", directory)
        yield fd
    finally:
        for name in _NAMES:
            with suppress(OSError):
                os.unlink(name, dir_fd=fd)
        os.close(fd)
        with suppress(OSError):
            directory.rmdir()


def _exchange(fd: int, kind: str, kernel: Kernel) -> Finding:
    try:
        for name in ("one", "other"):
            os.symlink(name, name, dir_fd=fd)
        kernel.exchange("one", "other", dir_fd=fd)
        is_done = os.readlink("one", dir_fd=fd) == "other"
    except OSError as error:
        if error.errno not in EXCHANGE_UNSUPPORTED:
            raise
        message = f"{kind} cannot exchange names ({EXCHANGE_UNSUPPORTED[error.errno]}): hot changes first, then cold"
        return Finding("exchange", "warning", message, "nothing must be done; ext4, XFS, btrfs and tmpfs can")
    if not is_done:
        message = f"{kind} says that it exchanged two names, and did not"
        return Finding("exchange", "wrong", message, "use another file system")
    return Finding("exchange", "ok", f"hot and cold are exchanged in one step ({kind})")


def _copies(fd: int, kind: str) -> Finding:
    with _created("source", fd) as source, _created("target", fd) as target:
        source.write(_BLOCK)
        source.flush()
        try:
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
        except OSError:
            return Finding("copies", "ok", f"unchanged files are copied byte by byte: {kind} has no reflinks")
    return Finding("copies", "ok", f"unchanged files share their blocks: {kind} has reflinks")


def _created(name: str, fd: int) -> BinaryIO:
    return os.fdopen(os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=fd), "r+b")


def _kind_of_file_system(path: Path) -> str:
    """Name of the file system, as the kernel lists it for the device; of stacked mounts the last one counts."""
    device = path.stat().st_dev
    number, kind = f"{os.major(device)}:{os.minor(device)}", "this file system"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == number:
            kind = after.split()[0]
    return kind


def look_at_layout(patient: Patient) -> Sequence[Finding]:
    """What is where it should be: one file system for the root and all releases, and links that are links."""
    layout = patient.settings.identity.layout
    if not layout.root.is_dir():
        return [
            Finding(
                "layout",
                "wrong",
                f"{layout.root} is no directory",
                f"install -d -m 0755 -o USER -g GROUP {layout.root}, with the agent's user and group",
            )
        ]
    problems = [*_other_devices(layout), *_foreign_links(layout)]
    return problems or [Finding("layout", "ok", f"{layout.root}: {_shown(layout)}, all on one file system")]


def _other_devices(layout: Layout) -> Iterator[Finding]:
    device = layout.root.stat().st_dev
    remedy = "mount that file system at the root instead"
    if layout.releases.is_symlink():
        yield Finding("layout", "wrong", f"{layout.releases} is a link; it must be a directory", remedy)
    elif layout.releases.exists():
        for path in (layout.releases, *layout.releases.iterdir()):
            if path.lstat().st_dev != device:
                yield Finding("layout", "wrong", f"{path} is another file system than {layout.root}", remedy)


def _foreign_links(layout: Layout) -> Iterator[Finding]:
    for link in (layout.hot, layout.cold):
        try:
            mode = link.lstat().st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISLNK(mode):
            yield Finding(
                "layout",
                "wrong",
                f"{link} is no link: it was not made by hotcold",
                f"mv {link} {link}.before, then deploy",
            )
            continue
        target = link.parent / link.readlink()
        if target.parent != layout.releases:
            message = f"{link} leads to {target}, which is no release of hotcold"
            yield Finding("layout", "wrong", message, f"move it aside: mv {link} {link}.before, then deploy")
        elif not target.is_dir():
            yield Finding("layout", "wrong", f"{link} leads to {target}, which is not there", "hotcold repull")


def _shown(layout: Layout) -> str:
    shown = [f"{link.name} -> {link.readlink().name}" for link in (layout.hot, layout.cold) if link.is_symlink()]
    return ", ".join(shown) or "nothing is deployed yet"
