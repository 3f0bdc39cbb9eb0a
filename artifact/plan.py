"""Owns what has to change in a tree so that it becomes another build. Pure.

Carrying it out is left to `artifact.indexed`; how the tree looks now is found out by `artifact.statcheck`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

import msgspec

from artifact.index import Bucket, Kind, Root, Row, broken
from artifact.names import MAX_COMPONENT_BYTES, NameTable, check_collisions, check_link, check_targets, fold, reject
from artifact.table import Entries, Table

_SUSPICIOUS: Final = (
    *(b"\0/", b"/\0", b"//"),
    *(b"\0.\0", b"\0./", b"/.\0", b"/./"),
    *(b"\0..\0", b"\0../", b"/..\0", b"/../"),
)
"""In paths joined by NUL, with one before the first and one after the last."""
_FEW: Final = 32
"""So many names are searched for faster than all paths are hashed."""


@dataclass(frozen=True)
class Known:
    """What a table tells of a tree."""

    table: Table
    entries: Entries


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """One row of the new build, and where it stands. As small as can be: there is one for each file of a new tree.

    Attributes:
        entry: its number among all entries of the new build.
        frame: number of the frame, and so of the bucket, that has it.
        at: its number in the bucket.
        row: what it shall be.
    """

    entry: int
    frame: int
    at: int
    row: Row


@dataclass
class Plan:
    """The way from a tree to a build.

    Attributes:
        paths: of all entries of the build, in order.
        starts: number of each bucket's first entry; one more, the number of entries.
        spans: entries that stay as they are: number of the first, and the old entries' numbers. Those of them that
            are `created` or `directories` after all do not.
        created: files and links to be made; what stands at their paths goes.
        directories: those to be made, or of which mode or time has to be set.
        removed: old paths that the build does not have.
        doubtful: directories of which nothing is known, or that somebody else changed: what is in them and not in the
            build goes.
        links: every symbolic link of the build: path and target.
    """

    paths: list[bytes] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    spans: list[tuple[int, range]] = field(default_factory=list)
    created: list[Wanted] = field(default_factory=list)
    directories: list[Wanted] = field(default_factory=list)
    removed: list[bytes] = field(default_factory=list)
    doubtful: list[bytes] = field(default_factory=list)
    links: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def content_bytes(self) -> int:
        """Of the files to be made."""
        return sum(wanted.row.size for wanted in self.created)


class Planner:
    """Compares a build with what is there.

    Args:
        root: of the build's index.
        bucket: decodes one of its buckets.
        known: the tree's index and entries; None: nothing is known of it.
        changed: numbers of the known entries that cannot be trusted.
    """

    def __init__(
        self, root: Root, bucket: Callable[[int], Bucket], known: Known | None, changed: AbstractSet[int]
    ) -> None:
        self._root = root
        self._bucket = bucket
        self._entries = None if known is None else known.entries
        self._changed = changed
        self._plan = Plan()
        self._gone: dict[bytes, tuple[int, Row]] = {}
        self._held: dict[bytes, range] = {}
        self._vanished: set[bytes] = set()
        if known is not None:
            wanted = frozenset(root.digests)
            for number, digest in enumerate(known.table.root.digests):
                entries = known.entries.of_bucket(number)
                if digest in wanted:
                    self._held[digest] = entries
                else:
                    rows = known.table.bucket(number).rows
                    self._gone |= {row.path: (entry, row) for entry, row in zip(entries, rows, strict=True)}

    def plan(self) -> Plan:
        """What has to change.

        Raises:
            ArtifactRejected: kind `index_broken`: no tree can be made from this index.
        """
        plan = self._plan
        for number, digest in enumerate(self._root.digests):
            plan.starts.append(len(plan.paths))
            entries = self._held.get(digest)
            if self._entries is None or entries is None:
                self._add_rows(number)
            else:
                if entries:  # a bucket may come again only if it has no rows: then `check_names` finds the paths twice
                    del self._held[digest]
                self._add_held(number, self._entries.paths[entries.start : entries.stop], entries)
        plan.starts.append(len(plan.paths))
        if len(plan.paths) != self._root.entries:
            raise broken(f"it has {len(plan.paths)} rows and speaks of {self._root.entries}")
        if not plan.paths:
            raise broken("it lists nothing: an empty build would serve nothing")
        made, said = plan.content_bytes, self._root.content_bytes
        if made > said or (made != said and not plan.spans):
            raise broken(f"its files have {made} bytes, and it speaks of {said}")
        plan.removed = list(self._gone)
        self._check_vanished()
        self._finish_touched()
        plan.links = self._links()
        return plan

    def _add_rows(self, number: int) -> None:
        """Add a bucket that is new; rows that another bucket had, the same and unchanged, stay."""
        for at, row in enumerate(self._bucket(number).rows):
            entry = len(self._plan.paths)
            self._plan.paths.append(row.path)
            old = self._gone.pop(row.path, None)
            if old is not None and old[0] not in self._changed and _is_same(old[1], row):
                self._plan.spans.append((entry, range(old[0], old[0] + 1)))
                continue
            self._want(Wanted(entry, number, at, row))
            if row.kind == Kind.DIRECTORY:
                if old is None or old[0] in self._changed:
                    self._plan.doubtful.append(row.path)
            elif old is not None and old[1].kind == Kind.DIRECTORY:
                self._vanished.add(row.path)

    def _add_held(self, number: int, paths: Sequence[bytes], entries: range) -> None:
        """Add a bucket that is the same in both builds; what somebody else changed of it is wanted anew."""
        first = len(self._plan.paths)
        self._plan.paths += paths
        self._plan.spans.append((first, entries))
        if self._changed.isdisjoint(entries):
            return
        for at, (old, row) in enumerate(zip(entries, self._bucket(number).rows, strict=True)):
            if old in self._changed:
                self._want(Wanted(first + at, number, at, row))
                if row.kind == Kind.DIRECTORY:
                    self._plan.doubtful.append(row.path)

    def _check_vanished(self) -> None:
        """Refuse an index that keeps entries and not the directory around them: they would go with it."""
        self._vanished.update(path for path, (_, row) in self._gone.items() if row.kind == Kind.DIRECTORY)
        if self._vanished:
            for path in self._plan.paths:
                parent = path.rpartition(b"/")[0]
                if parent in self._vanished:
                    raise broken(f"{parent!a} holds entries and is no directory")

    def _want(self, wanted: Wanted) -> None:
        (self._plan.directories if wanted.row.kind == Kind.DIRECTORY else self._plan.created).append(wanted)

    def _finish_touched(self) -> None:
        """Directories in which something changes get their time back."""
        plan = self._plan
        if not plan.spans:
            return
        changes = [wanted.row.path for wanted in (*plan.created, *plan.directories)] + plan.removed + plan.doubtful
        touched = {path.rpartition(b"/")[0] for path in changes}
        touched -= {wanted.row.path for wanted in plan.directories}
        touched.discard(b"")
        if not touched:
            return
        for entry in [entry for entry, path in enumerate(plan.paths) if path in touched]:
            number = bisect_right(plan.starts, entry) - 1
            at = entry - plan.starts[number]
            row = self._bucket(number).rows[at]
            if row.kind == Kind.DIRECTORY:  # else it was one, and is among the created
                plan.directories.append(Wanted(entry, number, at, row))

    def _links(self) -> dict[bytes, bytes]:
        links = {} if self._entries is None else dict(self._entries.links)
        for path in self._plan.removed:
            links.pop(path, None)
        for wanted in (*self._plan.created, *self._plan.directories):
            if wanted.row.kind == Kind.SYMLINK:
                links[wanted.row.path] = wanted.row.target
            else:
                links.pop(wanted.row.path, None)
        return links


def check_names(plan: Plan, *, allow_case_collisions: bool) -> None:
    """Refuse names and links that a host must not create; quick where nothing is suspicious.

    Names that stay were checked when they came.

    Args:
        plan: the way to the build.
        allow_case_collisions: accept names that differ only by case or Unicode form.

    Raises:
        ArtifactRejected: kind `archive_hostile`, naming the entry.
    """
    paths, rows = plan.paths, [wanted.row for wanted in (*plan.directories, *plan.created)]
    check_targets({_text(path): _text(target) for path, target in plan.links.items()})
    for row in rows:
        if row.kind == Kind.SYMLINK:
            check_link(_text(row.path), _text(row.target))
    joined = b"\0%b\0" % b"\0".join(row.path for row in rows)
    is_plain = (
        joined.count(b"\0") == len(rows) + 1
        and not any(part in joined for part in _SUSPICIOUS)
        and all(len(row.path) <= MAX_COMPONENT_BYTES for row in rows)
        and joined.isascii()
        and _are_single(paths, [row.path for row in rows])
        and (allow_case_collisions or _are_apart(paths, rows))
    )
    if is_plain:
        return
    if len(frozenset(paths)) != len(paths):
        raise broken("it lists a path twice")
    names = NameTable(allow_case_collisions=True)
    for row in rows:
        name = _text(row.path)
        match row.kind:
            case Kind.DIRECTORY:
                parts = names.add_directory(name)
            case Kind.SYMLINK:
                parts = names.add_symlink(name, _text(row.target))
            case _:
                parts = names.add_file(name)
        if "/".join(parts) != name:
            raise reject(name, "is not in the plain form of an index: no '.', no '/' at its end")
    if not allow_case_collisions:
        check_collisions(map(_text, paths))


def _are_single(paths: Sequence[bytes], names: Sequence[bytes]) -> bool:
    """Whether none of `names`, which are ASCII, is in `paths` twice, in whatever case."""
    if len(names) > _FEW:
        return len({path.lower() for path in paths}) == len(paths)
    joined = b"\0%b\0" % b"\0\0".join(paths).lower()  # two between: what was counted is not searched again
    return all(joined.count(b"\0%b\0" % name.lower()) == 1 for name in names)


def _are_apart(paths: Sequence[bytes], rows: Sequence[Row]) -> bool:
    """Whether no new path, which is ASCII, differs by case or Unicode form from one that is not."""
    strange = {fold(_text(path)) for path in paths if not path.isascii()}
    return not strange or strange.isdisjoint(fold(_text(row.path)) for row in rows)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _is_same(old: Row, new: Row) -> bool:
    """Whether nothing has to be done; where a row lies in its frame is no matter."""
    return (
        old.kind == new.kind
        and old.digest == new.digest
        and old.mode == new.mode
        and old.mtime_s == new.mtime_s
        and old.size == new.size
        and old.target == new.target
    )
