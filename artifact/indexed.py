"""Owns pulling a build of ours: only what this host lacks, into a tree that may hold an earlier build.

Getting the index is left to `artifact.documents`, comparing to `artifact.plan`, carrying it out to `artifact.filling`.
Whatever interrupts this, the same call again goes on from what is on the disk.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from artifact.allocation import give_back_freed_memory
from artifact.contents import Base, LocalContents, PatchedContents
from artifact.delivery import Delivery, plan_runs
from artifact.diskerrors import disk_error
from artifact.documents import Buckets, fetch_patch, fetch_root, gather_buckets
from artifact.errors import ArtifactRejected, TransientError
from artifact.filling import Filling, staging_name
from artifact.index import Kind, Root, decode_root, digest_of
from artifact.limits import Limits
from artifact.manifest import IndexRef, ManifestRef
from artifact.patch import Patch, decode_patch
from artifact.plan import Known, Plan, Planner, check_names
from artifact.pullwire import Local, Progress, PullSettings
from artifact.ranges import Places
from artifact.statcheck import StatCheck
from artifact.table import STAT_FIELDS, Entries, read_table, write_table
from artifact.treefill import Tree
from artifact.urls import shown
from artifact.writeback import written_back
from artifact.writers import Writers

WITHOUT_INDEX: Final = frozenset({"http_401", "http_403", "http_404", "http_410", "no_ranges"})
"""Failures after which the artifact is taken whole: index and ranges are a short cut that a server may not offer. One
place's is enough: it will not offer them tomorrow, and the others failed as well."""

_MAX_WORKERS: Final = 4
"""That check, decompress and write; a core has one. More take turns with the interpreter, and with the journal."""
_BLOCK_BYTES: Final = 4096
_WORTH_WRITING_BACK_BYTES: Final = 64 << 20
_PROGRESS_INTERVAL_S: Final = 0.1


@dataclass(frozen=True)
class _Used:
    """A patch, and the release that it is used on."""

    patch: Patch
    base: Base


@dataclass(frozen=True)
class Estimate:
    """What a pull would do, if the trees of this host are as their tables say.

    Attributes:
        fetched_bytes: what would be received, the index included.
        fetched_files: files of which this host has the contents nowhere.
        written_files: files and links that would be made, those included.
        written_bytes: of those files.
        entries: of the whole build.
    """

    fetched_bytes: int
    fetched_files: int
    written_files: int
    written_bytes: int
    entries: int


@dataclass(frozen=True)
class _Compared:
    """The build beside what is here."""

    root: Root
    buckets: Buckets
    plan: Plan
    used: _Used | None


class IndexedPull:
    """One pull. To be made before this process has threads: it forks those that look at the tree, or write it.

    Args:
        ref: the build.
        index: of its artifact.
        into: the tree, which exists.
        local: what else is on this host.
        settings: limits and timeouts.
        on_progress: told how far it is.
        patch: that was fetched already; empty: none was.
        is_trusting: take the tree for what its table says, without a look; for `estimate` alone.
    """

    def __init__(
        self,
        ref: ManifestRef,
        index: IndexRef,
        into: Path,
        *,
        local: Local,
        settings: PullSettings,
        on_progress: Callable[[Progress], None],
        patch: bytes = b"",
        is_trusting: bool = False,
    ) -> None:
        self._ref = ref
        self._index = index
        self._into = into
        self._local = local
        self._settings = settings
        self._on_progress = on_progress
        self._known = None if local.own_table is None else _known(Path(local.own_table))
        self._own = None if self._known is None else self._known.table
        self._check = (
            None
            if self._known is None or is_trusting
            else StatCheck(self._known.entries, into, is_linked=local.is_read_only)
        )
        # Where a tree is known, little has to be written.
        self._writers = Writers(_cores(), into) if self._known is None and not is_trusting else None
        self._bases = [Base(Path(base.tree), Path(base.table)) for base in local.bases]
        self._patch = patch
        self._bytes_done = self._bytes_total = len(patch)

    async def run(self) -> None:
        """Make the tree the build's, and write its table.

        Raises:
            TransientError, ConfigError, ArtifactRejected: as `artifact.pull.pull`; what is in the tree is of use for
                the next try.
        """
        try:
            async with Places(self._ref.urls, self._settings, chance=random.Random()) as places:  # noqa: S311 - for pauses
                found = await self._compare(places)
                plan = found.plan
                self._check_space(plan)
                stats = await self._fill(plan, found.root, found.buckets, places, found.used)
                self._write_table(plan, found.root, found.buckets, stats)
            self._report(len(plan.paths))
        finally:
            if self._writers is not None:
                self._writers.close()

    async def estimate(self) -> Estimate:
        """What `run` would do; receives the index and a patch, and writes nothing.

        Raises:
            TransientError, ArtifactRejected: as `run` before it writes, `disk_full` included.
        """
        async with Places(self._ref.urls, self._settings, chance=random.Random()) as places:  # noqa: S311 - for pauses
            found = await self._compare(places)
        plan, used = found.plan, found.used
        self._check_space(plan)
        contents = self._contents(plan)
        patched = None if used is None else PatchedContents(used.patch, used.base.tree)
        missing = [
            wanted
            for wanted in plan.created
            if wanted.row.kind == Kind.FILE
            and not (patched is not None and patched.has(wanted.frame, wanted.at))
            and contents.far(wanted.row) is None
            and contents.own(wanted.row) is None
        ]
        offsets = found.root.frame_offsets
        runs = plan_runs(found.root, missing)
        return Estimate(
            fetched_bytes=self._bytes_done + sum(offsets[run.frames.stop] - offsets[run.frames.start] for run in runs),
            fetched_files=len(missing),
            written_files=len(plan.created),
            written_bytes=plan.content_bytes,
            entries=len(plan.paths),
        )

    async def _compare(self, places: Places) -> _Compared:
        root, used = await self._find_root(places)
        _check_limits(root, self._settings.limits)
        bases = [base for base in self._bases if used is None or base is not used.base]
        buckets = await gather_buckets(
            places,
            root,
            own=self._own,
            bases=[*([used.base] if used else ()), *bases],
            patch=used.patch if used else None,
            on_bytes=self._received,
        )
        changed: set[int] = set() if self._check is None else self._check.changed()
        if self._own is not None and not self._own.is_right:
            self._own = self._known = None
        plan = Planner(root, buckets.decoded, self._known, changed).plan()
        check_names(plan, allow_case_collisions=self._settings.limits.allow_case_collisions)
        give_back_freed_memory()
        return _Compared(root, buckets, plan, used)

    async def _find_root(self, places: Places) -> tuple[Root, _Used | None]:
        """The root; from a patch where there is one for a release that is here."""
        if self._patch:
            with suppress(ValueError):
                found = self._from_patch(decode_patch(self._patch))
                if found is not None:
                    return found
        for reference in self._index.patches:
            if any(base.digest == reference.base for base in self._bases):
                patch = await fetch_patch(places, reference, self._received)
                found = None if patch is None else self._from_patch(patch)
                if found is not None:
                    return found
        return await fetch_root(places, self._ref, self._index, self._received), None

    def _from_patch(self, patch: Patch) -> tuple[Root, _Used] | None:
        base = next((base for base in self._bases if base.digest == f"sha256:{patch.base.hex()}"), None)
        if base is None or base.table is None:
            return None
        data = patch.root(base.table.root.data)
        if digest_of(data) != self._index.digest:
            return None
        return decode_root(data, artifact_bytes=self._ref.size), _Used(patch, base)

    async def _fill(self, plan: Plan, root: Root, buckets: Buckets, places: Places, used: _Used | None) -> array[int]:
        with ExitStack() as stack:
            executor = stack.enter_context(ThreadPoolExecutor(max(2, _cores()), thread_name_prefix="fill"))
            directories = frozenset((staging_name(plan), *(wanted.row.path for wanted in plan.directories)))
            tree = Tree(self._into, directories, is_secured=self._local.is_secured)
            stack.callback(tree.close)
            if not self._local.is_secured and plan.content_bytes > _WORTH_WRITING_BACK_BYTES:
                stack.enter_context(written_back(tree.root_fd, self._into))
            if self._writers is not None:
                await self._writers.start(sorted(directories), is_secured=self._local.is_secured)
            filling = Filling(
                plan,
                root,
                tree,
                self._contents(plan),
                None if used is None else PatchedContents(used.patch, used.base.tree),
                is_resumed=self._local.is_resumed,
                is_linking=self._local.is_read_only,
                writers=self._writers,
                executor=executor,
            )
            delivery = Delivery(
                root,
                buckets,
                places,
                tree,
                writers=self._writers,
                executor=executor,
                on_bytes=self._received,
                on_files=filling.note_all,
            )
            reports = asyncio.create_task(self._report_for_ever(plan, filling), name="progress")
            try:
                await filling.fill(delivery, self._will_receive)
            finally:
                reports.cancel()
            return filling.stats

    def _contents(self, plan: Plan) -> LocalContents:
        digests = frozenset(wanted.row.digest for wanted in plan.created) if self._bases or self._own else frozenset()
        return LocalContents(self._bases, digests, self._own, self._into)

    def _write_table(self, plan: Plan, root: Root, buckets: Buckets, stats: array[int]) -> None:
        if self._known is not None:
            old = self._known.entries.stats
            made = {wanted.entry for wanted in (*plan.created, *plan.directories)}
            for first, entries in plan.spans:
                for part, old_part in _parts(first, entries, made):
                    stats[part.start * STAT_FIELDS : part.stop * STAT_FIELDS] = old[
                        old_part.start * STAT_FIELDS : old_part.stop * STAT_FIELDS
                    ]
        if self._local.table is not None:
            entries_now = Entries(plan.starts, plan.paths, stats, plan.links, time.time_ns())
            try:
                write_table(Path(self._local.table), root, [buckets.data[at] for at in range(len(root))], entries_now)
            except OSError as error:
                raise disk_error(error, Path(self._local.table).parent, "writing the table") from error

    def _check_space(self, plan: Plan) -> None:
        """Find out before the first byte whether all will fit.

        Raises:
            TransientError: kind `disk_full`.
        """
        space = os.statvfs(self._into)
        free_bytes = space.f_bavail * space.f_frsize
        needed_bytes = plan.content_bytes + _BLOCK_BYTES * (len(plan.created) + len(plan.directories)) // 2
        needed_inodes = len(plan.created) + len(plan.directories)
        if needed_bytes > free_bytes or (space.f_files and needed_inodes > space.f_favail):
            here_bytes, here_inodes = self._held(plan)
            needed_bytes, needed_inodes = needed_bytes - here_bytes, needed_inodes - here_inodes
        if needed_bytes > free_bytes:
            raise TransientError(
                f"{needed_bytes} bytes are needed below {self._into}, {free_bytes} are free: free "
                f"{needed_bytes - free_bytes} bytes on that file system",
                kind="disk_full",
            )
        if space.f_files and needed_inodes > space.f_favail:
            raise TransientError(
                f"{needed_inodes} inodes are needed below {self._into}, {space.f_favail} are free (df -i): remove "
                "files there",
                kind="disk_full",
            )

    def _held(self, plan: Plan) -> tuple[int, int]:
        """Bytes and inodes of entries that stand where others will, and that go or are kept before those are made."""
        prefix = os.fsencode(self._into) + b"/"
        held_bytes = held_inodes = 0
        for path in (*(wanted.row.path for wanted in (*plan.created, *plan.directories)), *plan.removed):
            with suppress(OSError):
                found = os.lstat(prefix + path)
                held_bytes += min(found.st_size, found.st_blocks * 512)
                held_inodes += 1
        return held_bytes, held_inodes

    # --- progress -----------------------------------------------------------------------------------------------------

    def _received(self, count_bytes: int) -> None:
        self._bytes_done += count_bytes

    def _will_receive(self, count_bytes: int) -> None:
        self._bytes_total = self._bytes_done + count_bytes

    async def _report_for_ever(self, plan: Plan, filling: Filling) -> None:
        kept = len(plan.paths) - len(plan.created) - len(plan.directories)
        while True:
            self._report(kept + filling.done_count, len(plan.paths))
            await asyncio.sleep(_PROGRESS_INTERVAL_S)

    def _report(self, files_done: int, files_total: int | None = None) -> None:
        self._on_progress(
            Progress(
                bytes_done=self._bytes_done,
                bytes_total=max(self._bytes_total, self._bytes_done),
                files_done=files_done,
                files_total=files_done if files_total is None else files_total,
                url=shown(self._ref.urls[0]),
            )
        )


def _cores() -> int:
    return min(_MAX_WORKERS, len(os.sched_getaffinity(0)))


def _parts(first: int, entries: range, made: set[int]) -> Iterator[tuple[range, range]]:
    """The parts of a span in which nothing was made, with the old numbers of their entries."""
    start = first
    for entry in (*sorted(made.intersection(range(first, first + len(entries)))), first + len(entries)):
        if entry > start:
            yield range(start, entry), entries[start - first : entry - first]
        start = entry + 1


def _known(path: Path) -> Known | None:
    table = read_table(path)
    return None if table is None or table.entries is None else Known(table, table.entries)


def _check_limits(root: Root, limits: Limits) -> None:
    for found, limit, what in (
        (root.entries, limits.max_files, "max_files"),
        (root.content_bytes, limits.max_bytes, "max_bytes"),
    ):
        if found > limit:
            raise ArtifactRejected(
                f"the build has {found} where {what} allows {limit}: raise the limit if it really is that large",
                kind="archive_too_big",
            )
