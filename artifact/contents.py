"""Owns finding files' contents on this host: in the trees of other releases, by digest, and through a patch.

What is found here is verified when it is written, by `artifact.treefill`: nothing read is trusted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from pathlib import Path

from artifact.index import Kind, Row
from artifact.newfile import read_chunks
from artifact.patch import Patch, expanded
from artifact.table import Table, read_table, read_table_digest, rows_of


class Base:
    """Another release on this host, complete and not to be changed; read when it is asked for.

    Args:
        tree: its directory.
        table: of it.
    """

    def __init__(self, tree: Path, table: Path) -> None:
        self.tree = tree
        self._path = table

    @cached_property
    def digest(self) -> str | None:
        """Of its build's index; None where nothing is known."""
        return read_table_digest(self._path)

    @cached_property
    def table(self) -> Table | None:
        """What is known of it; None where nothing is."""
        return read_table(self._path)


class LocalContents:
    """Where the contents lie that this host has.

    Args:
        bases: other releases, the most similar first.
        digests: of the contents that may be asked for; of others nothing is kept.
        own: what is known of the tree that is changed, None: nothing.
        own_tree: that tree.
    """

    def __init__(self, bases: Iterable[Base], digests: AbstractSet[bytes], own: Table | None, own_tree: Path) -> None:
        self._digests = digests
        self._bases = tuple(bases)
        self._own = own
        self._own_tree = own_tree

    @property
    def has_any(self) -> bool:
        """Whether there is any other release to look in."""
        return any(base.digest is not None for base in self._bases)

    def near(self, row: Row) -> bytes | None:
        """A file with this content in a part of another release in which it differs from the changed tree."""
        return self._near.get(row.digest)

    def far(self, row: Row) -> bytes | None:
        """A file with this content anywhere in another release; costs reading all of their tables once."""
        return self._far.get(row.digest)

    def own(self, row: Row) -> bytes | None:
        """A file with this content in the tree that is changed."""
        return self._own_files.get(row.digest)

    @cached_property
    def _near(self) -> dict[bytes, bytes]:
        known = frozenset() if self._own is None else frozenset(self._own.root.digests)
        found: dict[bytes, bytes] = {}
        for tree, table in self._tables():
            numbers = [number for number, digest in enumerate(table.root.digests) if digest not in known]
            found.update(self._files(tree, table, numbers))
        return found

    @cached_property
    def _far(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for tree, table in self._tables():
            found.update(self._files(tree, table, range(len(table.root))))
        return found

    def _tables(self) -> Iterator[tuple[Path, Table]]:
        for base in self._bases:
            if base.table is not None:
                yield base.tree, base.table

    @cached_property
    def _own_files(self) -> dict[bytes, bytes]:
        if self._own is None:
            return {}
        return dict(self._files(self._own_tree, self._own, range(len(self._own.root))))

    def _files(self, tree: Path, table: Table, buckets: Sequence[int]) -> Iterator[tuple[bytes, bytes]]:
        prefix = os.fsencode(tree) + b"/"
        for row in rows_of(table, buckets):
            if row.kind == Kind.FILE and row.digest in self._digests:
                yield row.digest, prefix + row.path


class PatchedContents:
    """Contents that a patch gives together with the earlier build's files.

    Args:
        patch: the patch.
        tree: the earlier build's, complete.
    """

    def __init__(self, patch: Patch, tree: Path) -> None:
        self._patch = patch
        self._tree = tree
        self._numbers = {(file.bucket, file.row): number for number, file in enumerate(patch.files)}

    def has(self, bucket: int, at: int) -> bool:
        """Whether it speaks of this row."""
        return (bucket, at) in self._numbers

    def content(self, bucket: int, at: int, row: Row) -> bytes:
        """The content of a row.

        Raises:
            ValueError: the patch is broken, or not for the file that is here.
            OSError: that file cannot be read.
        """
        number = self._numbers[bucket, at]
        base = b""
        if self._patch.files[number].has_base:
            base = b"".join(opened_chunks(os.fsencode(self._tree) + b"/" + row.path))
        return expanded(self._patch.blob(number), base, max_bytes=row.size)


def opened_chunks(path: bytes) -> Iterator[bytes]:
    """A local file's content.

    Raises:
        OSError: it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield from read_chunks(fd)
    finally:
        os.close(fd)
