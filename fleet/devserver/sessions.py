"""Owns the sessions and when they run out; leaves what becomes of their locks to `fleet.devserver.state`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fleet.devserver.waiting import Change

TTL_MULTIPLIER = 2
"""A session ends this many TTLs after its last renewal: Consul promises "not before one TTL" and takes two."""


@dataclass(frozen=True)
class Session:
    """A session. `ttl` is the text it was created with, `ttl_s` what it means; 0: it never runs out."""

    id: str
    name: str
    node: str
    behavior: Literal["release", "delete"]
    lock_delay_s: float
    ttl: str
    ttl_s: float
    checks: tuple[str, ...]
    create_index: int


class SessionTable:
    """Sessions by id.

    Attributes:
        index: of the latest creation or end.
        changes: names changed since they were last taken.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._deadlines_s: dict[str, float] = {}
        self.index = 0
        self.changes: set[Change] = set()

    def get(self, session_id: str) -> Session | None:
        """The session, or None."""
        return self._sessions.get(session_id)

    def all(self) -> list[Session]:
        """All sessions by id."""
        return sorted(self._sessions.values(), key=lambda session: session.id)

    def add(self, session: Session, now_s: float) -> None:
        """Add a session; its TTL starts."""
        self._sessions[session.id] = session
        self.index = session.create_index
        self.changes.add(("session", session.id))
        self.renew(session, now_s)

    def renew(self, session: Session, now_s: float) -> None:
        """Start the session's TTL again."""
        if session.ttl_s > 0:
            self._deadlines_s[session.id] = now_s + TTL_MULTIPLIER * session.ttl_s

    def remove(self, session: Session, at: int) -> None:
        """Remove a session."""
        del self._sessions[session.id]
        self._deadlines_s.pop(session.id, None)
        self.index = at
        self.changes.add(("session", session.id))

    def due(self, now_s: float) -> list[Session]:
        """The sessions that have run out."""
        return [self._sessions[key] for key, deadline_s in self._deadlines_s.items() if deadline_s <= now_s]

    def next_deadline_s(self) -> float | None:
        """When the next session runs out."""
        return min(self._deadlines_s.values(), default=None)
