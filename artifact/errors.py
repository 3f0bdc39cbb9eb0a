"""Owns the error tree that every package shares; leaves each concrete error to the module that meets it.

The tree says who must act::

    HotcoldError            kind: a stable, machine-readable word used in status, reports and metrics
    ├── ConfigError         the operator: configuration, permissions, a wrong path
    ├── TransientError      time: the network, a full disk, a store without leader; retried with back-off
    ├── Refused             the sender: an order, manifest or archive that must not be obeyed
    │   └── ArtifactRejected    the build's author: a hostile or broken archive; never retried as it is
    └── IllegalTransition   us: a programming error; nothing was changed
"""

from __future__ import annotations


class HotcoldError(Exception):
    """Every error that hotcold raises on purpose.

    Attributes:
        kind: a stable word in snake_case for status, reports and metrics; may be set per instance.
    """

    kind: str = "error"

    def __init__(self, message: str, *, kind: str | None = None) -> None:
        super().__init__(message)
        if kind is not None:
            self.kind = kind


class ConfigError(HotcoldError):
    """The operator must act: the message names the file or path, what was found, and what to do."""

    kind = "config"


class TransientError(HotcoldError):
    """Time may heal it: retried with jitter and back-off, for ever."""

    kind = "transient"


class Refused(HotcoldError):
    """Data from outside that must not be obeyed as it is; nothing was changed by it."""

    kind = "refused"


class ArtifactRejected(Refused):
    """The archive itself must not be opened: the message names the offending entry."""

    kind = "artifact_rejected"


class IllegalTransition(HotcoldError):
    """A programmer's error: an event that cannot happen in this state. The state is unchanged."""

    kind = "illegal_transition"
