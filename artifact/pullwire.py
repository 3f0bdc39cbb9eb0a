"""Owns what `artifact.pull`, its child process and the child's own child say to each other; leaves saying it to them.

The child, `artifact.puller`, gets one line, a `Spec`, and then an open pipe whose end tells it to die. It answers with
lines: any number of `Confined` and `Progress`, then exactly one `Finished` or `Failed`.

The child's child, `artifact.opener`, gets an `OpenTask` as its argument. It answers with lines: at most one `Confined`,
any number of `Opened`, then `Finished` or `Failed`, or nothing more when its archive breaks off.
"""

from __future__ import annotations

import os
from typing import Annotated, Final, Literal

import msgspec

from artifact.errors import ArtifactRejected, ConfigError, HotcoldError, Refused, TransientError
from artifact.limits import Limits
from artifact.manifest import ManifestRef

MAX_MESSAGE_CHARS: Final = 16_000
"""Longest error text that crosses; an order may name many urls, and a report carries the text further."""

OPENER_DIED: Final = "opener_died"
"""Kind of the error for an opener that ended without a result."""

_ERRORS: Final = (ArtifactRejected, Refused, ConfigError, TransientError)


class PullSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to fetch, and how much to accept.

    Attributes:
        limits: what an archive may expand to.
        connect_timeout_s: for one TCP and TLS connection.
        stall_timeout_s: longest silence of a server, before its answer and within it.
        min_rate_bytes: per second, averaged over `rate_window_s` of waiting for the network; slower is an error.
            Time in which the disk is the slow one does not count.
        rate_window_s: see `min_rate_bytes`.
        max_rate_bytes: per second, over all connections of a pull; 0: no limit.
        ca_cert: path of a PEM file with the only authorities to trust; None: the system's.
        user_agent: sent with every request.
        require_sandbox: open nothing where this kernel cannot confine the process that does wholly.
    """

    limits: Limits = Limits()
    connect_timeout_s: float = 10.0
    stall_timeout_s: float = 30.0
    min_rate_bytes: int = 16 << 10
    rate_window_s: float = 30.0
    max_rate_bytes: int = 0
    ca_cert: str | None = None
    user_agent: str = "hotcold"
    require_sandbox: bool = False


class LocalBase(msgspec.Struct, frozen=True, kw_only=True):
    """Another complete release on this host: its directory, and its table."""

    tree: str
    table: str


class Local(msgspec.Struct, frozen=True, kw_only=True):
    """What a pull may use of this host, besides the directory to fill.

    Attributes:
        table: where the new tree's table goes; None: none is kept.
        own_table: of what is in the directory to fill; None: nothing is known of it.
        bases: other releases, the most similar first.
        is_resumed: a pull of the same build was interrupted here.
        is_secured: fsync each file that is written; else making durable is left to the caller.
        is_read_only: nobody ever writes into a release: files may be links to those of other releases, and change
            times, which every link changes, do not count for trust.
    """

    table: str | None = None
    own_table: str | None = None
    bases: tuple[LocalBase, ...] = ()
    is_resumed: bool = False
    is_secured: bool = False
    is_read_only: bool = False


class Progress(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """How far a pull is. `bytes_done` and `files_done` start again at 0 when the next url is tried.

    Attributes:
        bytes_done: received.
        bytes_total: to be received; 0 while that is not known yet.
        files_done: entries that are right in the tree; links appear at the end.
        files_total: entries of the build; 0 where that is not known.
        url: where the bytes come from, without its secrets.
    """

    bytes_done: int
    bytes_total: int
    files_done: int
    files_total: int = 0
    url: str


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """The child's task.

    Attributes:
        ref: the build.
        into: the directory to fill.
        settings: limits and timeouts.
        local: what may be used of this host.
        parent_pid: with which it dies.
        patch_bytes: of a patch that follows the line; 0: none does.
    """

    ref: ManifestRef
    into: str
    settings: PullSettings
    local: Local = Local()
    parent_pid: int
    patch_bytes: int = 0


class OpenTask(msgspec.Struct, frozen=True, kw_only=True):
    """What the child's child is to open. It is its argument, where `ps` shows it, so no url stands in it."""

    archive_format: str
    archive_bytes: int
    limits: Limits
    require_sandbox: bool
    parent_pid: int


class Opened(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """How many entries of the archive have been created so far."""

    entry_count: int


class Confined(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The process that opens the archive is confined now; `gaps` says what this kernel could not close, if anything."""

    gaps: tuple[str, ...]


class Finished(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The tree is complete and is what the reference names. `is_secured`: a power loss leaves it so."""

    is_secured: bool = False


class Failed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """An error of the tree in `artifact.errors`, to be raised again on the other side."""

    error: Literal["ArtifactRejected", "Refused", "ConfigError", "TransientError"]
    kind: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]{1,64}$")]
    message: str


Line = Progress | Confined | Finished | Failed
OpenerLine = Opened | Confined | Finished | Failed


def send(fd: int, line: Line | OpenerLine) -> None:
    """Write one line; blocks until it is written."""
    rest = memoryview(msgspec.json.encode(line) + b"\n")
    while rest:
        rest = rest[os.write(fd, rest) :]


def failed(error: HotcoldError) -> Failed:
    """Describe an error for the other side."""
    name = next((kind.__name__ for kind in _ERRORS if isinstance(error, kind)), "TransientError")
    message = str(error)
    if len(message) > MAX_MESSAGE_CHARS:
        message = f"{message[:MAX_MESSAGE_CHARS]} ..."
    return msgspec.convert({"type": "Failed", "error": name, "kind": error.kind, "message": message}, Failed)


def as_error(line: Failed) -> HotcoldError:
    """The error that the other side described."""
    kinds = {kind.__name__: kind for kind in _ERRORS}
    return kinds[line.error](line.message, kind=line.kind)
