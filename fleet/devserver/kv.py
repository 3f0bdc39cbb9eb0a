"""Owns the key-value table: entries, check-and-set, locks, tombstones and the index that each read shows.

Pure: who may lock, when locks end and who is woken is left to `fleet.devserver.state`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fleet.devserver.waiting import Change


@dataclass(frozen=True)
class Item:
    """One key. `session` is empty while nobody holds its lock."""

    key: str
    value: bytes
    flags: int = 0
    session: str = ""
    lock_index: int = 0
    create_index: int = 0
    modify_index: int = 0


class KvTable:
    """Every mutator takes `at`, the index of the write, and the new item; a write of what is there changes nothing.

    Attributes:
        changes: names changed since they were last taken.
    """

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._graves: dict[str, int] = {}  # without them a list's index would fall when its newest key is deleted
        self._index = 0
        self.changes: set[Change] = set()

    def copy(self) -> KvTable:
        """A table to try a transaction on."""
        other = KvTable()
        other._items, other._graves, other._index = dict(self._items), dict(self._graves), self._index
        return other

    def get(self, key: str) -> Item | None:
        """The item, or None."""
        return self._items.get(key)

    def read(self, key: str) -> tuple[int, Item | None]:
        """The item with the index to wait after; a missing key shows the table's."""
        item = self._items.get(key)
        return (self._index, None) if item is None else (item.modify_index, item)

    def read_below(self, prefix: str) -> tuple[int, list[Item]]:
        """The items below `prefix` by key, with the index to wait after."""
        items = sorted((item for key, item in self._items.items() if key.startswith(prefix)), key=lambda i: i.key)
        if not prefix:
            return self._index, items
        graves = (index for key, index in self._graves.items() if key.startswith(prefix))
        index = max([*graves, *(item.modify_index for item in items)], default=0)
        return index or self._index, items

    def held_by(self, session: str) -> list[Item]:
        """The items that `session` has locked."""
        return [item for item in self._items.values() if item.session == session]

    def set(self, new: Item, at: int) -> Item:
        """Write; a lock stays with its holder, but its lock index is reset, as Consul does."""
        old = self._items.get(new.key)
        return self._store(replace(new, session=old.session if old else "", lock_index=0), at)

    def check_and_set(self, new: Item, expected: int, at: int) -> Item | None:
        """Write where the key stands at `expected` (0: does not exist); else None."""
        old = self._items.get(new.key)
        if (old.modify_index if old else 0) != expected:
            return None
        return self.set(new, at)

    def lock(self, new: Item, at: int) -> Item | None:
        """Write and hold for `new.session`; None where another session holds it."""
        old = self._items.get(new.key)
        if old is None:
            return self._store(replace(new, lock_index=1), at)
        if old.session == new.session:
            return self._store(replace(new, lock_index=old.lock_index), at)
        if old.session:
            return None
        return self._store(replace(new, lock_index=old.lock_index + 1), at)

    def unlock(self, new: Item, at: int) -> Item | None:
        """Write and let go; None where `new.session` does not hold it."""
        old = self._items.get(new.key)
        if old is None or old.session != new.session:
            return None
        return self._store(replace(new, session="", lock_index=old.lock_index), at)

    def delete(self, key: str, at: int) -> None:
        """Delete, whoever holds it; a missing key is deleted already."""
        if self._items.pop(key, None) is not None:
            self._bury(key, at)
            self.changes.add(("kv", key))

    def check_and_delete(self, key: str, expected: int, at: int) -> bool:
        """Delete where the key stands at `expected`; a missing key is deleted already."""
        item = self._items.get(key)
        if item is not None and item.modify_index != expected:
            return False
        self.delete(key, at)
        return True

    def delete_below(self, prefix: str, at: int) -> None:
        """Delete every key that begins with `prefix`."""
        doomed = [key for key in self._items if key.startswith(prefix)]
        for key in doomed:
            del self._items[key]
            self.changes.add(("kv", key))
        # One grave for the whole tree, as in Consul: a list below a longer prefix may show an older grave's index.
        if doomed:
            self._bury(prefix, at)

    def _bury(self, key: str, at: int) -> None:
        self._graves[key] = at
        self._index = at

    def _store(self, new: Item, at: int) -> Item:
        old = self._items.get(new.key)
        if old is not None:
            unchanged = replace(new, create_index=old.create_index, modify_index=old.modify_index)
            if unchanged == old:
                return old
        item = replace(new, create_index=old.create_index if old else at, modify_index=at)
        self._items[item.key] = item
        self._index = at
        self.changes.add(("kv", item.key))
        return item
