"""Owns what the command reads of the agent's status document, typed; leaves drawing it to `hotcold.status_view`.

Unknown fields are ignored and most may be missing: an agent may be of another version than the command that asks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hotcold.socket_client import AgentUnreachable

STEADY: Final = 0
BUSY: Final = 3
NOT_AS_WANTED: Final = 4
UNREACHABLE: Final = 5

_NOT_AS_WANTED_STATES: Final = frozenset({"rolled_back", "build_refused", "backing_off", "held", "halted"})


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the document."""


class State(_Part, frozen=True):
    """What the agent does. `for_s`: seconds since it began."""

    name: str
    for_s: float = 0.0
    detail: str = ""


class Ordered(_Part, frozen=True):
    """The order that is obeyed.

    `build`: what this host shall run, None: what it has. `signed_by`: the trusted key, None where none is asked for.
    """

    serial: int
    build: str | None = None
    reason: str = ""
    by: str = ""
    at: str = ""
    percent: float = 100.0
    signed_by: str | None = None


class Tree(_Part, frozen=True):
    """A release directory."""

    name: str
    build: str | None = None
    path: str = ""
    proved: bool = False


class Fetched(_Part, frozen=True):
    """How far the artifact has come."""

    bytes_done: int = 0
    bytes_total: int = 0
    files_done: int = 0
    files_total: int = 0
    url: str = ""
    rate_bytes: float | None = None
    left_s: float | None = None


class Busy(_Part, frozen=True):
    """Who still works in `hot`; without `pid`, a server as it told itself."""

    pid: int | None = None
    command: str = ""
    reasons: tuple[str, ...] = ()


class Use(_Part, frozen=True):
    """Workers that live in one release directory."""

    build: str
    is_hot: bool = False
    pids: tuple[int, ...] = ()


class Workers(_Part, frozen=True):
    """Which builds the running workers really use."""

    count: int = 0
    uses: tuple[Use, ...] = ()
    unseen: tuple[int, ...] = ()
    problem: str | None = None


class Artifacts(_Part, frozen=True):
    """How artifact servers have answered."""

    url: str | None = None
    last_answer_s_ago: float | None = None
    failing_for_s: float | None = None
    error: str | None = None


class Trouble(_Part, frozen=True):
    """Why something is not as it should be."""

    kind: str
    message: str


class Contact(_Part, frozen=True):
    """The connection to the store."""

    address: str = ""
    is_connected: bool = False
    last_answer_s_ago: float | None = None
    failing_for_s: float | None = None
    error: str | None = None


class Configured(_Part, frozen=True):
    """Where the configuration is; `problem`: why the last reload was refused."""

    path: str = ""
    problem: str | None = None


class Process(_Part, frozen=True):
    """The agent itself."""

    version: str = ""
    pid: int = 0
    up_for_s: float = 0.0
    rss_bytes: int = 0


class Space(_Part, frozen=True):
    """Room on the disk of the releases."""

    free_bytes: int = 0
    total_bytes: int = 0


class HookRun(_Part, frozen=True):
    """The last run of a hook."""

    exit: int | None = None
    duration_s: float = 0.0
    timed_out: bool = False
    output: str = ""


class Status(_Part, frozen=True):
    """The document of `/v1/status`."""

    app: str
    tier: str
    host: str
    state: State
    order: Ordered | None = None
    hot: Tree | None = None
    cold: Tree | None = None
    standby: Tree | None = None
    progress: Fetched | None = None
    waiting_for: tuple[Busy, ...] = ()
    problem: Trouble | None = None
    order_problem: Trouble | None = None
    disk_problems: tuple[str, ...] = ()
    retry_in_s: float | None = None
    hooks: Mapping[str, HookRun] = {}
    workers: Workers = Workers()
    store: Contact = Contact()
    artifacts: Artifacts | None = None
    config: Configured = Configured()
    agent: Process = Process()
    disk: Space | None = None

    @property
    def exit_code(self) -> int:
        """What scripts shall make of it."""
        is_disobeying = self.order_problem is not None and self.order_problem.kind != "order_absent"
        if self.state.name in _NOT_AS_WANTED_STATES or is_disobeying:
            return NOT_AS_WANTED
        return STEADY if self.state.name == "steady" else BUSY


def status_of(document: Mapping[str, Any]) -> Status:
    """Read the document.

    Raises:
        AgentUnreachable: it is not the status of an agent that this command understands.
    """
    try:
        return msgspec.convert(document, Status)
    except msgspec.ValidationError as error:
        raise AgentUnreachable(f"what answers is not an agent that this hotcold understands: {error}") from error
