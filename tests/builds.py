"""Owns trees, builds and releases as the tests of packing and pulling use them: made, packed, pulled, compared."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from artifact import Manifest, ManifestRef
from artifact.index import Bucket, Root, Row, decode_bucket, decode_root
from artifact.locate import reference
from artifact.pack import PackProgress, pack
from artifact.previous import opened_previous
from artifact.pull import Local, LocalBase, Progress, PullSettings, pull
from artifact.table import read_table, write_table

CREATED = "2026-11-23T12:00:00Z"
THEN_S = 1_700_000_000
SETTINGS = PullSettings(connect_timeout_s=2, stall_timeout_s=2)


@dataclass(frozen=True)
class File:
    """A regular file."""

    content: bytes = b""
    mode: int = 0o644
    mtime_s: int = THEN_S


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str
    mtime_s: int = THEN_S


@dataclass(frozen=True)
class Directory:
    """A directory; those on the way to other entries need not be named."""

    mode: int = 0o755
    mtime_s: int = THEN_S


Entry = File | Link | Directory
Shape = dict[bytes, tuple[int, int, bytes | None]]


def write_tree(root: Path, entries: Mapping[str, Entry]) -> Path:
    """Make a tree; modes and times as said, also of directories."""
    root.mkdir()
    directories: dict[Path, Directory] = {}
    for name, entry in entries.items():
        path = root / name
        for parent in path.relative_to(root).parents:
            if parent.parts:
                directories.setdefault(root / parent, Directory())
        path.parent.mkdir(parents=True, exist_ok=True)
        match entry:
            case File(content, mode):
                path.write_bytes(content)
                path.chmod(mode)
            case Link(target):
                path.symlink_to(target)
            case Directory():
                path.mkdir(exist_ok=True)
                directories[path] = entry
        os.utime(path, (entry.mtime_s, entry.mtime_s), follow_symlinks=False)
    for path, directory in sorted(directories.items(), reverse=True):
        path.chmod(directory.mode)
        os.utime(path, (directory.mtime_s, directory.mtime_s))
    return root


def shape_of(root: Path) -> Shape:
    """Names, types, modes, whole seconds, and contents or targets, of all that is in a tree."""
    found: Shape = {}
    for path in root.rglob("*"):
        state = path.lstat()
        content = None
        if stat.S_ISLNK(state.st_mode):
            content = os.fsencode(path.readlink())
        elif stat.S_ISREG(state.st_mode):
            content = path.read_bytes()
        found[os.fsencode(path.relative_to(root))] = (state.st_mode, state.st_mtime_ns // 1_000_000_000, content)
    return found


def inodes_of(root: Path) -> dict[str, int]:
    """The inode of each entry that is no directory."""
    return {
        str(path.relative_to(root)): path.lstat().st_ino
        for path in root.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


@contextmanager
def held_inodes(root: Path) -> Iterator[dict[str, int]]:
    """The same, all held open: a file system gives the number of an inode that is gone to the next that is made."""
    with ExitStack() as held:
        inodes = inodes_of(root)
        for name in inodes:
            held.callback(os.close, os.open(root / name, os.O_PATH | os.O_NOFOLLOW))
        yield inodes


def stats_of(root: Path) -> dict[str, tuple[int, ...]]:
    """What any change of a tree would show: inode, mode, names, size, both times; of everything, the root included."""
    return {
        str(path): (state.st_ino, state.st_mode, state.st_nlink, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        for path in (root, *root.rglob("*"))
        for state in [path.lstat()]
    }


@dataclass(frozen=True)
class Packed:
    """A build that was packed."""

    tree: Path
    manifest: Manifest
    document: Path

    @property
    def ref(self) -> ManifestRef:
        """With its files beside the manifest."""
        return reference(self.manifest, str(self.document))

    @property
    def artifact(self) -> Path:
        """The file with the frames."""
        return self.document.with_suffix(".tar.zst")

    @property
    def index(self) -> Path:
        """The file with root and buckets."""
        return self.document.with_suffix(".tar.zst.index")

    @property
    def patches(self) -> list[Path]:
        """The files with patches."""
        return sorted(self.document.parent.glob(f"{glob_quoted(self.artifact.name)}.from-*"))

    def root(self) -> Root:
        """The index's root."""
        assert self.manifest.index is not None
        return decode_root(self.index.read_bytes()[: self.manifest.index.size])

    def buckets(self) -> list[Bucket]:
        """The index's buckets."""
        data, root = self.index.read_bytes(), self.root()
        ends = root.bucket_offsets
        return [decode_bucket(data[ends[at] : ends[at + 1]], digest) for at, digest in enumerate(root.digests)]

    def shape(self) -> Shape:
        """What its tree shall be: as `shape_of`, with the times that were packed."""
        rows = self.rows()
        return {path: (mode, rows[path].mtime_s, content) for path, (mode, _, content) in shape_of(self.tree).items()}

    def rows(self) -> dict[bytes, Row]:
        """Every row by path."""
        return {row.path: row for bucket in self.buckets() for row in bucket.rows}


def glob_quoted(name: str) -> str:
    """A file name as a pattern that fits it alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def ignore(_: PackProgress | Progress) -> None:
    """Nobody watches."""


class Depot:
    """Where builds are packed to; their trees are kept beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "trees").mkdir(parents=True)
        (path / "out").mkdir()

    def pack(
        self, build_id: str, entries: Mapping[str, Entry], *, against: Packed | None = None, newest_s: int | None = None
    ) -> Packed:
        """Make a tree and pack it."""
        return self.pack_tree(
            build_id, write_tree(self.path / "trees" / build_id, entries), against=against, newest_s=newest_s
        )

    def pack_tree(
        self, build_id: str, tree: Path, *, against: Packed | None = None, newest_s: int | None = None
    ) -> Packed:
        """Pack a tree that is there."""
        out = self.path / "out"
        arguments = {"app": "shop", "build_id": build_id, "out": out, "created": CREATED, "newest_s": newest_s}
        if against is None:
            manifest = pack(tree, on_progress=ignore, **arguments)
        else:
            with opened_previous(str(against.document)) as previous:
                manifest = pack(tree, on_progress=ignore, previous=previous, **arguments)
        return Packed(tree, manifest, out / f"shop-{build_id}.json")


class Releases:
    """The release directories of one host, with their tables."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        (path / "tables").mkdir()

    def tree(self, name: str) -> Path:
        """The release's directory."""
        return self.path / name

    def table(self, name: str) -> Path:
        """The release's table."""
        return self.path / "tables" / name

    def take_over(self, spare: str, name: str) -> None:
        """Give a tree to another release, as the swapper does."""
        self.tree(spare).rename(self.tree(name))

    def pull(self, name: str, ref: ManifestRef, **arguments: Any) -> int:
        """As `pulling`, where no loop runs."""
        return asyncio.run(self.pulling(name, ref, **arguments))

    async def pulling(
        self,
        name: str,
        ref: ManifestRef,
        *,
        own: str | None = None,
        bases: Sequence[str] = (),
        is_resumed: bool = False,
        is_secured: bool = False,
        is_read_only: bool = False,
        settings: PullSettings = SETTINGS,
        seen: list[Progress] | None = None,
    ) -> int:
        """Fill a release, by a process of its own; return how many bytes were received.

        Args:
            name: of the release; its directory is made where it is missing.
            ref: the build.
            own: the release whose table tells what is in the directory.
            bases: other releases.
            is_resumed, is_secured, is_read_only: as in `Local`.
            settings: of the pull.
            seen: takes what was told of the progress.
        """
        told: list[Progress] = [] if seen is None else seen
        self.tree(name).mkdir(exist_ok=True)
        local = self.local(
            name, own=own, bases=bases, is_resumed=is_resumed, is_secured=is_secured, is_read_only=is_read_only
        )
        await pull(ref, self.tree(name), settings=settings, on_progress=told.append, local=local)
        return told[-1].bytes_done

    def local(
        self,
        name: str,
        *,
        own: str | None = None,
        bases: Sequence[str] = (),
        is_resumed: bool = False,
        is_secured: bool = False,
        is_read_only: bool = False,
    ) -> Local:
        """What the pull of a release may use."""
        return Local(
            table=str(self.table(name)),
            own_table=None if own is None else str(self.table(own)),
            bases=tuple(LocalBase(tree=str(self.tree(base)), table=str(self.table(base))) for base in bases),
            is_resumed=is_resumed,
            is_secured=is_secured,
            is_read_only=is_read_only,
        )

    def settle(self, name: str) -> None:
        """Let a release have been filled long before its table was written, as if it had taken a second."""
        table = read_table(self.table(name))
        assert table is not None
        assert table.entries is not None
        entries = replace(table.entries, recorded_ns=table.entries.recorded_ns + 1_000_000_000)
        write_table(self.table(name), table.root, table.buckets, entries)
