"""Owns carrying out a plan: make room, take what is here, fetch the rest, then links, then directories.

What has to change is left to `artifact.plan`. Everything that is written is verified as it is written; what is
interrupted leaves a tree that the next try compares anew.
"""

from __future__ import annotations

import asyncio
import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final, TypeVar

import msgspec

from artifact.contents import LocalContents, PatchedContents
from artifact.delivery import Delivery, finished, first_of, plan_runs
from artifact.errors import HotcoldError
from artifact.index import Kind, Root
from artifact.newfile import ContentDiffers
from artifact.plan import Plan, Wanted
from artifact.table import STAT_FIELDS, Stat
from artifact.treefill import Tree
from artifact.writers import Writers

_STAGING: Final = b".hotcold-moving"
_BATCH: Final = 64
_ALL_BITS: Final = (1 << 64) - 1
_STAT: Final = struct.Struct(f"={STAT_FIELDS}Q")

_Done = TypeVar("_Done")


class Filling:
    """One carrying out of a plan.

    Args:
        plan: what has to change.
        root: of the build's index.
        tree: where.
        contents: what this host has.
        patched: what a patch gives, or None.
        is_resumed: the tree may hold parts of this build already: they are read again, and kept if they are right.
        is_linking: files of other releases are given another name in this one, where that is possible.
        writers: processes that copy files, or None.
        executor: threads, for all else that blocks.

    Attributes:
        stats: `STAT_FIELDS` numbers of every entry that was made or found right; zeros of the others.
        done_count: how many those are.
    """

    def __init__(
        self,
        plan: Plan,
        root: Root,
        tree: Tree,
        contents: LocalContents,
        patched: PatchedContents | None,
        *,
        is_resumed: bool,
        is_linking: bool,
        writers: Writers | None,
        executor: Executor,
    ) -> None:
        self._plan = plan
        self._root = root
        self._tree = tree
        self._contents = contents
        self._patched = patched
        self._is_resumed = is_resumed
        self._is_linking = is_linking
        self._writers = writers
        self._executor = executor
        self._moved: list[Wanted] = []
        self._staging = staging_name(plan)
        self.stats: array[int] = array("Q", bytes(8 * STAT_FIELDS * len(plan.paths)))
        self.done_count = 0

    async def fill(self, delivery: Delivery, on_total: Callable[[int], None]) -> None:
        """Do it. No thread works in the tree any more when this returns or raises.

        After an error, processes may, until their owner has ended them.

        Args:
            delivery: fetches what is not here.
            on_total: told how many bytes will be fetched.
        """
        await self._in_thread(self._make_room)
        files = [wanted for wanted in self._plan.created if wanted.row.kind == Kind.FILE]
        batches = [files[at : at + _BATCH] for at in range(0, len(files), _BATCH)]
        missing: list[Wanted] = []
        if self._is_resumed or self._patched is not None or self._contents.has_any:
            if self._writers is not None and not self._is_resumed:
                await self._copy_in_processes(batches)
            loop = asyncio.get_running_loop()
            work: list[asyncio.Future[list[Wanted]]] = [
                loop.run_in_executor(self._executor, self._take_what_is_here, batch) for batch in batches
            ]
            try:
                for each in work:
                    part = await finished(each)
                    missing += part
            finally:
                for each in work:
                    each.cancel()
                if work:
                    await asyncio.wait(work)
        else:
            missing = [wanted for wanted in files if not self._is_done(wanted)]
        runs = plan_runs(self._root, missing)
        offsets = self._root.frame_offsets
        on_total(sum(offsets[run.frames.stop] - offsets[run.frames.start] for run in runs))
        await delivery.deliver(runs)
        await self._in_thread(self._finish)

    async def _copy_in_processes(self, batches: Iterable[Sequence[Wanted]]) -> None:
        """Have files taken from other releases where that needs no patch; what cannot be is left to what follows."""
        writers = self._writers
        assert writers is not None  # noqa: S101 - asked before
        ahead = iter(batches)

        async def copy() -> None:
            for batch in ahead:
                pairs = await self._in_thread(partial(self._sources, batch))
                rows, sources = [wanted.row for wanted, _ in pairs], [source for _, source in pairs]
                stats = await writers.copy(rows, sources, is_linking=self._is_linking) if pairs else []
                for (wanted, _), stat in zip(pairs, stats, strict=True):
                    if stat is not None:
                        self.note(wanted, stat)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(2 * writers.count):
                    group.create_task(copy(), name="copy")
        except* HotcoldError as errors:
            raise first_of(errors) from errors

    def _sources(self, files: Iterable[Wanted]) -> list[tuple[Wanted, bytes]]:
        """Those of which another release has the contents, in the order of preference of `_made`, and where."""
        found = []
        for wanted in files:
            source = self._contents.near(wanted.row)
            if source is None and not self._has_patch(wanted):
                source = self._contents.far(wanted.row)
            if source is not None:
                found.append((wanted, source))
        return found

    def note(self, wanted: Wanted, stat: Stat) -> None:
        """Take down that an entry is right."""
        at = wanted.entry * _STAT.size
        try:
            _STAT.pack_into(self.stats, at, *stat)
        except struct.error:
            # A time before 1970 gives a number that no look finds again: such a file is never trusted.
            _STAT.pack_into(self.stats, at, *(number & _ALL_BITS for number in stat))
        self.done_count += 1  # for progress alone: threads may miss one

    def note_all(self, wanted: Iterable[Wanted], stats: Iterable[Stat]) -> None:
        """Take down that entries are right."""
        for each, stat in zip(wanted, stats, strict=True):
            self.note(each, stat)

    def _is_done(self, wanted: Wanted) -> bool:
        return self.stats[wanted.entry * STAT_FIELDS] != 0  # an inode's number never is

    async def _in_thread(self, work: Callable[[], _Done]) -> _Done:
        return await finished(asyncio.get_running_loop().run_in_executor(self._executor, work))

    def _make_room(self) -> None:
        """Take away what the build does not have, and what it has otherwise."""
        plan, tree = self._plan, self._tree
        if tree.is_empty():
            return
        for wanted in sorted(plan.directories, key=lambda each: each.row.path):  # from above: what holds may be closed
            tree.open_up(wanted.row.path)
        tree.remove(self._staging)
        self._stage_moved()
        for path in sorted(plan.removed):
            tree.remove(path)
        wanted_paths = frozenset(plan.paths)
        unknown = plan.doubtful if plan.spans else [wanted.row.path for wanted in plan.directories]
        for path in (b"", *unknown):
            tree.clear(path, lambda name: name in wanted_paths or name == self._staging)
        if not self._is_resumed:
            for wanted in plan.created:
                tree.remove(wanted.row.path)
        for wanted in self._moved:
            tree.remove(wanted.row.path)
            self.note(wanted, tree.rename(self._staged(wanted), wanted.row.path))
        tree.remove(self._staging)

    def _stage_moved(self) -> None:
        """Copy what the tree has under another path, before it is removed there."""
        for wanted in self._plan.created:
            row = wanted.row
            if row.kind != Kind.FILE or self._contents.near(row) is not None or self._has_patch(wanted):
                continue
            source = self._contents.own(row)
            if source is not None:
                staged = msgspec.structs.replace(row, path=self._staged(wanted))
                if self._tree.take_file(staged, source, is_linking=False) is not None:
                    self._moved.append(wanted)

    def _staged(self, wanted: Wanted) -> bytes:
        return b"%b/%d" % (self._staging, wanted.entry)

    def _take_what_is_here(self, files: Sequence[Wanted]) -> list[Wanted]:
        """Make the files of which this host has the contents; return the others."""
        missing = []
        for wanted in files:
            if self._is_done(wanted):
                continue
            stat = self._adopted(wanted) or self._made(wanted)
            if stat is None:
                missing.append(wanted)
            else:
                self.note(wanted, stat)
        return missing

    def _adopted(self, wanted: Wanted) -> Stat | None:
        if not self._is_resumed:
            return None
        stat = self._tree.adopt_file(wanted.row)
        if stat is None:
            self._tree.remove(wanted.row.path)
        return stat

    def _made(self, wanted: Wanted) -> Stat | None:
        row = wanted.row
        near = self._contents.near(row)
        if near is not None and (stat := self._tree.take_file(row, near, is_linking=self._is_linking)):
            return stat
        if self._patched is not None and self._has_patch(wanted):
            try:
                return self._tree.create_file(row, (self._patched.content(wanted.frame, wanted.at, row),))
            except (ContentDiffers, ValueError, OSError):
                pass  # it was only a short cut
        far = self._contents.far(row)
        return None if far is None else self._tree.take_file(row, far, is_linking=self._is_linking)

    def _has_patch(self, wanted: Wanted) -> bool:
        return self._patched is not None and self._patched.has(wanted.frame, wanted.at)

    def _finish(self) -> None:
        """Links appear only after all files, directories get their modes and times after all that they hold."""
        tree = self._tree
        for wanted in self._plan.created:
            if wanted.row.kind == Kind.SYMLINK:
                tree.remove(wanted.row.path)
                self.note(wanted, tree.create_link(wanted.row))
        for wanted in sorted(self._plan.directories, key=lambda each: each.row.path, reverse=True):
            self.note(wanted, tree.finish_directory(wanted.row))
        tree.finish_root()


def staging_name(plan: Plan) -> bytes:
    """The directory that holds copies of files that move within the tree, until what is in their way has gone."""
    name = _STAGING
    while name in plan.paths or name in plan.removed:
        name += b"~"
    return name
