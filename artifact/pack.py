"""Owns making an artifact out of a tree: the same tree gives the same bytes, on any machine.

Choosing what goes in is left to `artifact.scan`, putting the files in place to `artifact.publish`.
"""

from __future__ import annotations

import errno
import gzip
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Protocol, cast

import msgspec
import zstandard

from artifact.diskerrors import disk_error
from artifact.entries import CHUNK_BYTES, EntryKind
from artifact.errors import ConfigError
from artifact.manifest import Manifest, check_build_id
from artifact.publish import HashingWriter, check_unused, publish, publish_manifest, published_manifest, unpublished
from artifact.scan import Found, scan

PACKED_FORMATS: Final = ("tar.zst", "tar.gz", "tar")
DEFAULT_LEVELS: Final = {"tar.zst": 9, "tar.gz": 6, "tar": 1}
"""Of compression. gzip's 9 takes three times as long as its 6 for a percent; zstd's 9 uses every core."""

_APP: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NS: Final = 1_000_000_000
_GIT_TIMEOUT_S: Final = 10.0
_TYPES: Final = {
    EntryKind.FILE: tarfile.REGTYPE,
    EntryKind.DIRECTORY: tarfile.DIRTYPE,
    EntryKind.SYMLINK: tarfile.SYMTYPE,
}


class PackProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far packing is; bytes are those of the tree's files."""

    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int


class _Sink(Protocol):
    def write(self, data: bytes, /) -> int:
        """Write all of `data`."""


def pack(
    tree: Path,
    *,
    app: str,
    build_id: str,
    out: Path,
    created: str,
    on_progress: Callable[[PackProgress], None],
    format: str = "tar.zst",  # noqa: A002 - the manifest's word for it
    level: int | None = None,
    url_base: Sequence[str] = (),
    revision: str | None = None,
    notes: str | None = None,
) -> Manifest:
    """Write `<app>-<build_id>.<format>` and then `<app>-<build_id>.json` to the existing directory `out`.

    Blocks. Kept are names, contents, permission bits, whole seconds of modification times, symbolic links and empty
    directories; not owners, extended attributes, or that two names are one file. Packing an unchanged tree again is
    harmless and returns the manifest that is there. After an error `out` holds no partial file; a crash may leave a
    hidden temporary one.

    Args:
        tree: the directory whose contents are the build.
        app: part of the file names: letters, digits, `.`, `_`, `-`.
        build_id: used once, for ever.
        out: where the two files go; it may not lie within `tree`.
        created: RFC 3339 time in UTC.
        on_progress: called after each entry and now and then within large files.
        format: one of `PACKED_FORMATS`.
        level: of compression, 1 to 9 for `tar.gz`, 1 to 22 for `tar.zst`; None: `DEFAULT_LEVELS`.
        url_base: where `out` will be served; empty: the artifact lies beside the manifest.
        revision: git commit; see `git_revision`.
        notes: free text for people.

    Raises:
        ConfigError: `bad_name`, `bad_format`, `build_exists`, `no_tree`, `no_directory`, `out_in_tree`,
            `tree_changed`, `disk_not_writable`.
        ArtifactRejected: the tree holds what no host would open.
        TransientError: `disk_full`, `disk_error`.
    """
    _check_arguments(tree=tree, out=out, app=app, build_id=build_id, archive_format=format, level=level)
    if level is None:
        level = DEFAULT_LEVELS[format]
    found = scan(tree)
    artifact, document = out / f"{app}-{build_id}.{format}", out / f"{app}-{build_id}.json"
    with unpublished(out) as file:
        writer = HashingWriter(file)
        try:
            with _compressed(writer, format, level) as sink:
                _write_tar(tree, found, sink, on_progress)
        except OSError as error:
            raise disk_error(error, out, f"writing {artifact.name}") from error
        published = published_manifest(document, writer.digest)
        check_unused(artifact, writer.digest)
        publish(file, artifact)
    if published is not None:
        return published
    manifest = Manifest(
        v=1,
        app=app,
        id=build_id,
        urls=tuple(f"{base.rstrip('/')}/{artifact.name}" for base in url_base) or (artifact.name,),
        digest=writer.digest,
        size=writer.size_bytes,
        format=format,
        created=created,
        revision=revision,
        notes=notes,
    )
    publish_manifest(manifest, document)
    return manifest


def git_revision(tree: Path) -> str | None:
    """The commit that is checked out where `tree` lies; None outside of git's work trees, or without git."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command, without a shell
            [git, "-C", os.fspath(tree), "rev-parse", "--verify", "--quiet", "HEAD^{commit}"],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=_GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.decode("ascii").strip() if answer.returncode == 0 else None


def _check_arguments(*, tree: Path, out: Path, app: str, build_id: str, archive_format: str, level: int | None) -> None:
    if not _APP.fullmatch(app) or ".." in app:
        raise ConfigError(
            f"app {app!r} must be letters, digits, '.', '_' and '-', at most 63, without '..'", kind="bad_name"
        )
    try:
        check_build_id(build_id)
    except ValueError as error:
        raise ConfigError(str(error), kind="bad_name") from error
    if archive_format not in PACKED_FORMATS:
        raise ConfigError(
            f"format {archive_format!r} cannot be packed: choose one of {', '.join(PACKED_FORMATS)}", kind="bad_format"
        )
    highest = zstandard.MAX_COMPRESSION_LEVEL if archive_format == "tar.zst" else 9
    if level is not None and not 1 <= level <= highest:
        raise ConfigError(f"level {level} is not within 1 and {highest}", kind="bad_format")
    if out.resolve().is_relative_to(tree.resolve()):
        raise ConfigError(
            f"{out} lies within {tree}: the artifact would become part of the next one; choose another directory",
            kind="out_in_tree",
        )


@contextmanager
def _compressed(writer: HashingWriter, archive_format: str, level: int) -> Iterator[_Sink]:
    # The stubs of both ask for a whole IO, their code calls `write` and `flush` alone.
    target = cast(IO[bytes], writer)
    match archive_format:
        case "tar.zst":
            # At least one worker thread: without any, the frame is cut otherwise and the bytes differ.
            compressor = zstandard.ZstdCompressor(level=level, threads=os.cpu_count() or 1, write_checksum=True)
            with compressor.stream_writer(target, closefd=False) as sink:
                yield sink
        case "tar.gz":
            with gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=target, mtime=0) as sink:
                yield sink
        case _:
            yield writer


def _write_tar(tree: Path, found: Sequence[Found], sink: _Sink, on_progress: Callable[[PackProgress], None]) -> None:
    bytes_total, bytes_done = sum(entry.size for entry in found), 0

    def advance(files_done: int, count_bytes: int) -> None:
        nonlocal bytes_done
        bytes_done += count_bytes
        on_progress(
            PackProgress(files_done=files_done, files_total=len(found), bytes_done=bytes_done, bytes_total=bytes_total)
        )

    for files_done, entry in enumerate(found):
        sink.write(_header(entry))
        if entry.kind is EntryKind.FILE:
            for chunk in _unchanged_content(tree, entry):
                sink.write(chunk)
                advance(files_done, len(chunk))
            sink.write(bytes(-entry.size % tarfile.BLOCKSIZE))
        advance(files_done + 1, 0)
    sink.write(bytes(2 * tarfile.BLOCKSIZE))


def _header(entry: Found) -> bytes:
    header = tarfile.TarInfo(entry.name)
    header.type = _TYPES[entry.kind]
    header.mode, header.mtime, header.size, header.linkname = (
        entry.mode,
        entry.mtime_ns // _NS,
        entry.size,
        entry.target,
    )
    return header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _unchanged_content(tree: Path, entry: Found) -> Iterator[bytes]:
    """The file's bytes, exactly as many as the header says.

    Raises:
        ConfigError: kind `tree_changed`: it is not, before and after, the file that was found.
    """
    path = tree / entry.name
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _changed(path) from error
    except OSError as error:
        if error.errno == errno.ELOOP:  # O_NOFOLLOW's word for a symbolic link
            raise _changed(path) from error
        raise disk_error(error, path, "reading the tree to pack") from error
    with os.fdopen(fd, "rb", buffering=0) as file:
        missing = entry.size
        while missing:
            data = file.read(min(CHUNK_BYTES, missing))
            if not data:
                raise _changed(path)
            missing -= len(data)
            yield data
        state = os.fstat(fd)
        if (state.st_ino, state.st_size, state.st_mtime_ns) != (entry.inode, entry.size, entry.mtime_ns):
            raise _changed(path)


def _changed(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} changed while the tree was packed: pack a tree that nobody writes to", kind="tree_changed"
    )
