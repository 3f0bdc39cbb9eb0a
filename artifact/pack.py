"""Owns making an artifact out of a tree: the same tree gives the same bytes, on any machine.

Choosing what goes in is left to `artifact.scan`, putting the files in place to `artifact.publish`.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final, cast

import msgspec
import zstandard

from artifact.diskerrors import disk_error
from artifact.entries import EntryKind
from artifact.errors import ConfigError
from artifact.framing import Sink, Workers, frame_tree, make_patch
from artifact.index import digest_of
from artifact.manifest import IndexRef, Manifest, PatchRef, check_build_id, encode_manifest
from artifact.previous import Previous
from artifact.publish import HashingWriter, check_unused, publish, publish_data, published_manifest, unpublished
from artifact.scan import Found, Scan
from artifact.tarwrite import END, header, padding, unchanged_content
from artifact.urls import INDEX_SUFFIX, patch_suffix

PACKED_FORMATS: Final = ("tar.zst", "tar.gz", "tar")
DEFAULT_LEVELS: Final = {"tar.zst": 3, "tar.gz": 6, "tar": 1}
"""Of compression. gzip's 9 takes three times as long as its 6 for a percent; zstd's 9 uses every core."""

_APP: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NS: Final = 1_000_000_000
_GIT_TIMEOUT_S: Final = 10.0


class PackProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far packing is; bytes are those of the tree's files.

    Attributes:
        files_total, bytes_total: what was found so far; soon, all.
    """

    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int


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
    previous: Previous | None = None,
    newest_s: int | None = None,
    sign: Callable[[Manifest], str] | None = None,
) -> Manifest:
    """Write `<app>-<build_id>.<format>` and then `<app>-<build_id>.json` to the existing directory `out`.

    A `tar.zst` is made of frames, as `artifact.frames` says, and gets an index beside it; with `previous`, a patch too.

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
        previous: the build before; what did not change since keeps its modification time. For `tar.zst` alone.
        newest_s: later modification times are set to this (`SOURCE_DATE_EPOCH`); None: kept.
        sign: gives the signature over what was packed, see `artifact.signing`; a manifest that is there gets it, too.

    Raises:
        ConfigError: `bad_name`, `bad_format`, `build_exists`, `no_tree`, `no_directory`, `out_in_tree`,
            `tree_changed`, `disk_not_writable`,
            `artifact_unusable` (that of `previous`).
        ArtifactRejected: the tree holds what no host would open.
        TransientError: `disk_full`, `disk_error`.
    """
    _check_arguments(tree=tree, out=out, app=app, build_id=build_id, archive_format=format, level=level)
    if level is None:
        level = DEFAULT_LEVELS[format]
    name = f"{app}-{build_id}"
    artifact, document = out / f"{name}.{format}", out / f"{name}.json"
    with ExitStack() as stack:
        found = stack.enter_context(Scan(tree))
        meter = _Meter(found, on_progress)
        file = stack.enter_context(unpublished(out))
        writer = HashingWriter(file)
        index, companions = None, {}
        if format == "tar.zst":
            workers = stack.enter_context(Workers())
            framed = frame_tree(
                tree,
                found,
                _Translated(writer, artifact),
                level=level,
                newest_s=newest_s,
                previous=previous,
                workers=workers,
                on_group=meter.finish_all,
            )
            companions[INDEX_SUFFIX] = b"".join((framed.root, *framed.buckets))
            patches: tuple[PatchRef, ...] = ()
            if previous is not None:
                patch = make_patch(tree, meter.finished, framed, previous, workers=workers)
                if patch is not None:
                    companions[patch_suffix(previous.root.digest)] = patch
                    patches = (PatchRef(base=previous.root.digest, size=len(patch)),)
            index = IndexRef(digest=digest_of(framed.root), size=len(framed.root), patches=patches)
        else:
            with _compressed(_Translated(writer, artifact), format, level) as sink:
                _write_tar(tree, found, sink, newest_s, meter)
        published = published_manifest(document, writer.digest)
        check_unused(artifact, writer.digest)
        for suffix, data in companions.items():
            publish_data(data, out / f"{artifact.name}{suffix}")
        publish(file, artifact)
    packed = Manifest(
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
        index=index,
    )
    manifest = published if published is not None and published.index == index else packed
    if sign is not None:
        # Over what was just packed, whatever the manifest that is there says: anybody may have written it.
        manifest = msgspec.structs.replace(manifest, signature=sign(packed))
    if manifest != published:
        publish_data(encode_manifest(manifest), document)
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


class _Meter:
    """Tells how far packing is.

    Attributes:
        finished: the entries that were packed whole, as `finish_all` was told.
    """

    def __init__(self, found: Scan, on_progress: Callable[[PackProgress], None]) -> None:
        self._on_progress = on_progress
        self._found = found
        self._files_done = self._bytes_done = 0
        self.finished: list[Found] = []

    def add(self, *, files: int = 0, count_bytes: int = 0) -> None:
        """Count what was packed."""
        self._files_done += files
        self._bytes_done += count_bytes
        self._on_progress(
            PackProgress(
                files_done=self._files_done,
                files_total=self._found.files,
                bytes_done=self._bytes_done,
                bytes_total=self._found.content_bytes,
            )
        )

    def finish_all(self, entries: Sequence[Found]) -> None:
        """Count entries that are packed whole."""
        self.finished += entries
        self.add(files=len(entries), count_bytes=sum(entry.size for entry in entries))


class _Translated:
    """Says of a failing write where it was."""

    def __init__(self, writer: HashingWriter, artifact: Path) -> None:
        self._writer = writer
        self._artifact = artifact

    def write(self, data: bytes, /) -> int:
        """Write all of `data`."""
        try:
            return self._writer.write(data)
        except OSError as error:
            raise disk_error(error, self._artifact.parent, f"writing {self._artifact.name}") from error

    def flush(self) -> None:
        """Nothing is held here."""


@contextmanager
def _compressed(writer: _Translated, archive_format: str, level: int) -> Iterator[Sink]:
    if archive_format == "tar":
        yield writer
        return
    # The stubs ask for a whole IO, the code calls `write` and `flush` alone.
    target = cast(IO[bytes], writer)
    with gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=target, mtime=0) as sink:
        yield sink


def _write_tar(tree: Path, found: Iterable[Found], sink: Sink, newest_s: int | None, meter: _Meter) -> None:
    for entry in found:
        mtime_s = entry.mtime_ns // _NS
        sink.write(header(entry, mtime_s if newest_s is None else min(mtime_s, newest_s)))
        if entry.kind is EntryKind.FILE:
            for chunk in unchanged_content(tree, entry):
                sink.write(chunk)
                meter.add(count_bytes=len(chunk))
            sink.write(padding(entry.size))
        meter.add(files=1)
    sink.write(END)
