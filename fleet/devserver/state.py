"""Owns everything the server remembers and the one index that orders it; wakes whoever waits for what changed.

The tables decide what a write does; requests and answers are left to the handlers.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from fleet.devserver.catalog import Catalog
from fleet.devserver.kv import Item, KvTable
from fleet.devserver.sessions import Session, SessionTable
from fleet.devserver.waiting import Waiters


@dataclass(frozen=True)
class Node:
    """The one node there is."""

    name: str
    id: str
    address: str
    datacenter: str = "dc1"


class State:
    """The tables, the index and the clock. Every change ends with `publish`.

    Attributes:
        deadline_moved: called after a publish, so that the owner of the timer can look at `next_deadline_s`.
    """

    def __init__(self, node: Node, *, clock: Callable[[], float], session_ttl_min_s: float) -> None:
        self.node = node
        self.clock = clock
        self.session_ttl_min_s = session_ttl_min_s
        self.kv = KvTable()
        self.sessions = SessionTable()
        self.catalog = Catalog()
        self.waiters = Waiters()
        self.deadline_moved: Callable[[], None] = _nothing
        self._lock_delays_s: dict[str, float] = {}
        self._index = 0

    def next_index(self) -> int:
        """The index of a write that begins."""
        self._index += 1
        return self._index

    def publish(self) -> None:
        """Wake whoever waits for what has changed."""
        for table in (self.kv, self.sessions, self.catalog):
            self.waiters.wake(table.changes)
            table.changes.clear()
        self.deadline_moved()

    def adopt(self, kv: KvTable) -> None:
        """Let the outcome of a transaction be the truth."""
        self.kv = kv
        self.publish()

    def is_lock_delayed(self, key: str) -> bool:
        """Whether nobody may lock `key` yet, because its last holder was cut off rather than let go."""
        until_s = self._lock_delays_s.get(key)
        if until_s is None:
            return False
        if until_s > self.clock():
            return True
        del self._lock_delays_s[key]
        return False

    def open_session(self, session: Session) -> Session:
        """Add a session under a fresh id; its TTL starts."""
        session = replace(session, id=str(uuid.uuid4()), create_index=self.next_index())
        self.sessions.add(session, self.clock())
        self.publish()
        return session

    def end_session(self, session: Session) -> None:
        """End a session: its locks are released or their keys deleted, and may not be locked for the lock delay."""
        at = self.next_index()
        self.sessions.remove(session, at)
        for item in self.kv.held_by(session.id):
            self._take_from(session, item, at)
        self.publish()

    def expire(self) -> None:
        """Do what time alone does: sessions, checks and services that have run out."""
        now_s = self.clock()
        for session in self.sessions.due(now_s):
            self.end_session(session)
        deadline_s = self.catalog.next_deadline_s()
        if deadline_s is not None and deadline_s <= now_s:
            self.catalog.expire(self.next_index(), now_s)
            self.check_sessions()
            self.publish()

    def check_sessions(self) -> None:
        """End the sessions that depend on a check that is critical or gone."""
        for session in self.sessions.all():
            checks = [self.catalog.check(check_id) for check_id in session.checks]
            if any(check is None or check.status == "critical" for check in checks):
                self.end_session(session)

    def next_deadline_s(self) -> float | None:
        """When `expire` has something to do next, by the clock."""
        deadlines_s = (self.sessions.next_deadline_s(), self.catalog.next_deadline_s())
        return min((deadline_s for deadline_s in deadlines_s if deadline_s is not None), default=None)

    def _take_from(self, session: Session, item: Item, at: int) -> None:
        if session.behavior == "delete":
            self.kv.delete(item.key, at)
        else:
            self.kv.unlock(item, at)
        if session.lock_delay_s > 0:
            self._lock_delays_s[item.key] = self.clock() + session.lock_delay_s


def _nothing() -> None:
    """Without a timer, time passes only when a request comes."""
