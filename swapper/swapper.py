"""Owns the sequence of each change to what is served; leaves deciding *when* to the agent.

Every method leaves the disk in a state that `open` recovers from, whichever system call was its last.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from artifact.errors import ConfigError, IllegalTransition, TransientError
from swapper.disk import Disk, Release, Survey, choose_standby, describe, survey
from swapper.durable import opened_directory, sync_tree
from swapper.failures import explained
from swapper.kernel import LINUX, Kernel
from swapper.layout import COLD, RELEASES, TRASH_PREFIX, Layout, name_release
from swapper.links import How, Links
from swapper.locks import Locks
from swapper.records import VERSION, Counter, Record, Records
from swapper.recovery import recover
from swapper.removal import RemovalInterrupted, empty_trash, set_aside
from swapper.retention import Collected, list_spares, split_removable
from swapper.root import make_fit

Durability = Literal["syncfs", "fsync"]
"""`syncfs`: one call, fastest. `fsync`: file by file, spares the other writers of the file system."""

_RELEASE_MODE: Final = 0o755  # workers run as other users


@dataclass(frozen=True)
class Swap:
    """A swap that took place.

    Attributes:
        release: hot now; not proved, unless it was before.
        former: hot before, None at the first deploy.
        how: see `swapper.links.How`.
        took_s: from before the exchange until it was durable.
        unrecorded: why the record of it waits (a full disk), or None; the swap itself is durable.
    """

    release: Release
    former: Release | None
    how: How
    took_s: float
    unrecorded: str | None


@dataclass(frozen=True)
class Prepared:
    """A release to be filled, and what is in it.

    Attributes:
        release: it.
        own_table: the table of what was in its tree, None: nothing is known of that.
        is_resumed: its tree may have been changed since that table; else the table tells all, or the tree is empty.
    """

    release: Release
    own_table: Path | None
    is_resumed: bool


class Swapper:
    """The one writer of a root, made by `open`. Synchronous; only `look` may run beside another method in a thread."""

    def __init__(
        self,
        layout: Layout,
        *,
        resources: ExitStack,
        root_fd: int,
        releases_fd: int,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        kernel: Kernel,
    ) -> None:
        self._layout = layout
        self._resources = resources
        self._releases_fd = releases_fd
        self._now = now
        self._clock = clock
        self._kernel = kernel
        self._links = Links(layout.root, root_fd, kernel)
        self._records = Records(layout.records, kernel)
        self._counter = Counter(layout.counter, kernel)
        self._filling: dict[str, int] = {}
        self._unrecorded: set[str] = set()  # were hot, although their records could not say so
        self._is_closed = False
        self._failures: dict[str, str] = {}

    @classmethod
    def open(
        cls,
        layout: Layout,
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
        kernel: Kernel = LINUX,
    ) -> Swapper:
        """Create what is missing, become the one writer, and put right what a crash left.

        Args:
            layout: where root and state directory are.
            now: wall clock, for records.
            clock: monotonic seconds, for durations.
            kernel: the system calls.

        Raises:
            ConfigError: kind `locked` (naming the holder), `layout`, `foreign_link`, `read_only`, `permission`,
                `cross_device`; no lock is held, nothing that existed was changed.
            TransientError: kind `disk_full`, `disk_error`, `scarce` or `os_error`; no lock is held.
        """
        make_fit(layout, kernel)
        resources = ExitStack()
        try:
            with explained("open", layout.root):
                root_fd = resources.enter_context(opened_directory(layout.root))
                releases_fd = resources.enter_context(opened_directory(RELEASES, dir_fd=root_fd))
            resources.callback(Locks.take(layout, root_fd).release)
            swapper = cls(
                layout,
                resources=resources,
                root_fd=root_fd,
                releases_fd=releases_fd,
                now=now,
                clock=clock,
                kernel=kernel,
            )
            swapper._recover(keeps_resumable=True)
        except BaseException:
            resources.close()
            raise
        return swapper

    def close(self) -> None:
        """Give back locks and descriptors; twice is fine, any other call afterwards is an IllegalTransition.

        A release in preparation is removed at the next `open`.
        """
        self._is_closed = True
        self._forget_filling()
        self._resources.close()

    def look(self) -> Disk:
        """Return what is on the disk now; beside a running change, links and releases may be of different moments.

        Raises:
            TransientError, ConfigError: the disk cannot be read.
        """
        disk = self._survey().disk
        return replace(disk, problems=(*disk.problems, *self._failures.values()))

    def prepare(self, build_id: str, digest: str) -> Release:
        """Make a new, empty release directory to be filled, and aim `cold` at it.

        Any earlier preparation that was neither completed nor abandoned is superseded: its tree is removed.

        Raises:
            Refused: kind `build_id`, it cannot stand in a path.
            TransientError, ConfigError: `hot` is as before; what was begun is removed by the next `prepare` or `open`.
        """
        self._forget_filling()
        found = self._recover(keeps_resumable=False)
        return self._begin_empty(found, build_id, digest, is_resumable=False)

    def prepare_from_spare(
        self,
        build_id: str,
        digest: str,
        *,
        keep: int,
        pinned: Collection[str],
        in_use: Callable[[Sequence[Path]], Mapping[Path, str]],
    ) -> Prepared:
        """Make a release directory that may hold something already, to be turned into the build; aim `cold` at it.

        A preparation of the same build that was left is gone on with. Else a tree that would have to go for this one
        (see `retention`) gets the new release's path, which was never used; else the directory is empty.

        Args:
            build_id: of the build.
            digest: of its artifact.
            keep: as for `collect`.
            pinned: as for `collect`.
            in_use: as for `collect`.

        Raises:
            Refused: kind `build_id`, it cannot stand in a path.
            TransientError, ConfigError: `hot` is as before; what was begun is gone on with the next time.
        """
        self._forget_filling()
        found = self._recover(keeps_resumable=True)
        unfinished = [found.records[name] for name in found.filling if found.records[name].is_resumable]
        for record in unfinished:
            if (record.build, record.digest) == (build_id, digest):
                release = describe(self._layout, record.name, record)
                self._begin_filling(release)
                return Prepared(release, self._base_of(record), is_resumed=True)
        for spare in list_spares(found.disk, keep=keep, pinned=pinned):
            known = found.records.get(spare.name)
            if known is None or not (spare.complete or known.is_resumable) or in_use([spare.path]):
                continue
            base = known.name if spare.complete else known.base
            release = self._take_over(found, spare.name, build_id, digest, base)
            is_known = spare.complete and self._layout.table(spare.name).exists()
            return Prepared(release, self._layout.table(base) if base else None, is_resumed=not is_known)
        return Prepared(self._begin_empty(found, build_id, digest, is_resumable=True), None, is_resumed=False)

    def _begin_empty(self, found: Survey, build_id: str, digest: str, *, is_resumable: bool) -> Release:
        record = self._new_record(found, build_id, digest, base=None, is_resumable=is_resumable)
        release = describe(self._layout, record.name, record)
        self._records.write(record)  # before the tree: a tree without a record is not ours to remove
        with explained("create", release.path):
            os.mkdir(record.name, dir_fd=self._releases_fd)
        self._begin_filling(release)
        return release

    def _take_over(self, found: Survey, spare: str, build_id: str, digest: str, base: str | None) -> Release:
        """Give the tree of `spare` to a new release; nothing in it has changed yet when this returns."""
        record = self._new_record(found, build_id, digest, base=base, is_resumable=True)
        release = describe(self._layout, record.name, record)
        self._records.write(record)
        with explained("take over", release.path):
            # Crash before: the spare is what it was, the new record has no tree and is removed. After: the spare's
            # record has none, and the new release is being filled. The name must not come back after a power loss,
            # on a tree that has changed.
            self._kernel.rename(spare, record.name, dir_fd=self._releases_fd)
            self._kernel.fsync(self._releases_fd)
        self._records.remove(spare)
        self._begin_filling(release)
        return release

    def _new_record(self, found: Survey, build_id: str, digest: str, *, base: str | None, is_resumable: bool) -> Record:
        return Record(
            v=VERSION,
            name=name_release(build_id, self._counter.next(above=found.highest_number)),
            build=build_id,
            digest=digest,
            status="filling",
            served=0,
            proved=False,
            created=self._now().isoformat(),
            base=base,
            is_resumable=is_resumable,
        )

    def _begin_filling(self, release: Release) -> None:
        with explained("open", release.path):
            # Opened before the first write into it, so that syncfs reports every failed write-back since.
            descriptor = os.open(release.name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._releases_fd)
            self._filling[release.name] = descriptor
            os.fchmod(descriptor, _RELEASE_MODE)
        self._links.aim(COLD, release.name)

    def _base_of(self, record: Record) -> Path | None:
        return None if record.base is None else self._layout.table(record.base)

    def complete(self, release: Release, durability: Durability | Literal["done"] = "syncfs") -> Release:
        """Make a filled release durable and record it as complete; "done": all that was written is durable already.

        Raises:
            IllegalTransition: it is not in preparation here (or `complete` has failed before).
            TransientError: kind `disk_error` means that bytes were lost. After any error the release can only be
                abandoned: asking the kernel again would report success for the same lost bytes.
        """
        descriptor = self._filling.pop(release.name, None)
        if descriptor is None:
            raise IllegalTransition(f"{release.name} is not in preparation: abandon it and prepare the build anew")
        try:
            with explained("make durable", release.path):
                self._secure(descriptor, durability)
        finally:
            os.close(descriptor)
        # Crash before: recorded as filling, removed or gone on with. After: complete, swapped in without a new fetch.
        found = self._survey()
        base = found.records[release.name].base if release.name in found.records else None
        completed = self._update(found, release.name, status="complete", base=None, is_resumable=False)
        if base is not None:
            self._drop_table(base)
        return completed

    def leave(self, release: Release) -> None:
        """Aim `cold` back at the standby, and leave a preparation to `prepare_from_spare`, which may go on with it.

        Raises:
            TransientError, ConfigError: `hot` is as before; so is the preparation.
        """
        found = self._require_ours()
        if (descriptor := self._filling.pop(release.name, None)) is not None:
            os.close(descriptor)
        if release.name == found.cold_link.release and release.name != found.hot_link.release:
            self._aim_cold_at(found.disk.standby)

    def abandon(self, release: Release) -> None:
        """Aim `cold` back at the standby and remove the release; one that is gone is fine.

        A release that was ever hot keeps its tree, for processes may still live there: `collect` removes it.

        Raises:
            IllegalTransition: it is hot.
            TransientError, ConfigError: `hot` is as before; the next `prepare` or `open` removes the rest.
        """
        found = self._require_ours()
        if release.name == found.hot_link.release:
            raise IllegalTransition(f"{release.name} is hot and cannot be abandoned: swap another release in first")
        if (descriptor := self._filling.pop(release.name, None)) is not None:
            os.close(descriptor)
        if release.name == found.cold_link.release:
            self._aim_cold_at(found.disk.standby)
        current = found.disk.find(release.name)
        if current is not None and current.served == 0 and current.name not in self._unrecorded:
            self._remove(release.name)
            base = found.records[release.name].base if release.name in found.records else None
            if base is not None:
                self._drop_table(base)

    def swap_in(self, release: Release) -> Swap:
        """Make a complete release hot, and the former hot cold; going back is the same call with the standby.

        Raises:
            IllegalTransition: it is hot already, not complete, or gone; nothing was changed.
            ConfigError: kind `foreign_link` and others; nothing was changed.
            TransientError: read `look().hot` to know: `disk_error` may come from securing a swap that took place.
        """
        found = self._require_ours()
        current = self._require_complete(found, release)
        if found.cold_link.release != current.name:
            self._links.aim(COLD, current.name)
        started = self._clock()
        how = self._links.flip()
        took_s = self._clock() - started
        if found.hot_link.release is not None and found.disk.hot is None:
            self._aim_cold_at(choose_standby(found.disk.releases, current.name))  # the former hot dangled
        unrecorded = None
        try:
            current = self._update(found, current.name, served=found.highest_served + 1)
        except TransientError as error:
            # The swap is done and durable. The link says so; the record follows when there is room.
            if error.kind != "disk_full":
                raise
            unrecorded = str(error)
            self._unrecorded.add(current.name)
        return Swap(current, former=found.disk.hot, how=how, took_s=took_s, unrecorded=unrecorded)

    def mark_proved(self, release: Release) -> Release:
        """Record that the hot release is healthy: from now on it is a place to roll back to. Twice is fine.

        Raises:
            IllegalTransition: it is not hot.
            TransientError, ConfigError: not recorded.
        """
        found = self._survey()
        hot = found.disk.hot
        if hot is None or hot.name != release.name:
            raise IllegalTransition(f"{release.name} is not hot, so nothing can have proved it")
        return self._update(found, hot.name, proved=True, served=hot.served or found.highest_served + 1)

    def collect(
        self,
        *,
        keep: int,
        pinned: Collection[str],
        in_use: Callable[[Sequence[Path]], Mapping[Path, str]],
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> Collected:
        """Remove releases that nobody needs; never hot, cold, standby, pinned, in preparation or in use.

        First all of them lose their names, which is quick; then they are emptied, and what is left of earlier ones.

        Args:
            keep: how many successful releases stay, hot and standby included.
            pinned: ids of builds that stay.
            in_use: told all candidates once, returns those that processes live in, with the reason. A process that
                enters one afterwards is not noticed.
            is_interrupted: asked often while trees are emptied; true: leave the rest to the next call.

        Raises:
            TransientError, ConfigError: the disk cannot be read. A tree that cannot be removed is `failed` instead.
        """
        found = self._require_ours()
        removable, kept = split_removable(found.disk, keep=keep, pinned=pinned, filling=self._filling)
        busy = in_use([release.path for release in removable]) if removable else {}
        removed: list[str] = []
        failed: dict[str, str] = {}
        trash = list(found.trash)
        for release in removable:
            if release.path in busy:
                kept[release.name] = f"in use: {busy[release.path]}"
                continue
            try:
                trash.append(self._set_aside(release.name))
            except (TransientError, ConfigError) as error:
                failed[release.name] = str(error)
        with suppress(RemovalInterrupted):
            for aside in trash:
                name = aside.removeprefix(TRASH_PREFIX)
                try:
                    self._empty(aside, is_interrupted)
                except (TransientError, ConfigError) as error:
                    failed[name] = str(error)
                else:
                    removed.append(name)
                    self._failures.pop(name, None)
                    self._failures.pop(aside, None)
        self._failures |= failed
        return Collected(tuple(removed), kept, failed)

    def _survey(self) -> Survey:
        if self._is_closed:  # the numbers of its descriptors may stand for other directories by now
            raise IllegalTransition(f"the swapper of {self._layout.root} is closed")
        return survey(self._layout, self._links, self._records)

    def _require_ours(self) -> Survey:
        found = self._survey()
        found.hot_link.require_ours()
        found.cold_link.require_ours()
        return found

    def _recover(self, *, keeps_resumable: bool) -> Survey:
        found = self._survey()
        self._failures = recover(
            found,
            layout=self._layout,
            links=self._links,
            records=self._records,
            counter=self._counter,
            releases_fd=self._releases_fd,
            kernel=self._kernel,
            now=self._now,
            keeps_resumable=keeps_resumable,
        )
        return found

    def _require_complete(self, found: Survey, release: Release) -> Release:
        current = found.disk.find(release.name)
        if current is None:
            raise IllegalTransition(f"{release.path} is gone: prepare the build anew")
        if not current.complete:
            raise IllegalTransition(f"{release.name} is not complete: only durable releases become hot")
        if current.name == found.hot_link.release:
            raise IllegalTransition(f"{release.name} is hot already")
        return current

    def _secure(self, descriptor: int, durability: Durability | Literal["done"]) -> None:
        if durability == "syncfs":
            self._kernel.syncfs(descriptor)
            return
        if durability == "fsync":
            sync_tree(descriptor, self._kernel)
        self._kernel.fsync(self._releases_fd)

    def _update(self, found: Survey, name: str, **changes: object) -> Release:
        record = found.records.get(name)
        if record is None:
            raise IllegalTransition(f"{name} has no record: prepare the build anew")
        record = msgspec.structs.replace(record, **changes)
        self._records.write(record)
        return describe(self._layout, record.name, record)

    def _aim_cold_at(self, standby: Release | None) -> None:
        if standby is None:
            self._links.drop_cold()
        else:
            self._links.aim(COLD, standby.name)

    def _remove(self, name: str) -> None:
        self._empty(self._set_aside(name), lambda: False)

    def _set_aside(self, name: str) -> str:
        with explained("remove", self._layout.releases / name):
            trash = set_aside(name, releases_fd=self._releases_fd, kernel=self._kernel)
        self._records.remove(name)
        self._drop_table(name)
        return trash

    def _drop_table(self, name: str) -> None:
        with suppress(OSError):  # it only takes room; the next start removes it
            self._layout.table(name).unlink(missing_ok=True)

    def _empty(self, trash: str, is_interrupted: Callable[[], bool]) -> None:
        with explained("remove", self._layout.releases / trash):
            empty_trash(trash, releases_fd=self._releases_fd, is_interrupted=is_interrupted)

    def _forget_filling(self) -> None:
        while self._filling:
            os.close(self._filling.popitem()[1])
