"""Owns who is at the other end of the status socket, and whether that one may give orders; serving is `agent.server`'s.

The kernel says who it is, as of the moment of connecting: no process number is looked up that another process could
have by now. Closed on doubt: whose groups are not told is in none.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import socket
import struct
from array import array
from dataclasses import dataclass
from typing import Final, Protocol

_SO_PEERGROUPS: Final = 59
_CREDENTIALS: Final = struct.Struct("3i")
_ID_BYTES: Final = 4
_MOST_GROUPS: Final = 65536  # NGROUPS_MAX of Linux
_FEW_GROUPS_BYTES: Final = 1024  # more than that `socket.getsockopt` does not take


class Connected(Protocol):
    """A connected Unix socket, or what asyncio gives out in its place."""

    def fileno(self) -> int:
        """Its descriptor."""

    def getsockopt(self, level: int, name: int, size: int, /) -> bytes:
        """See `socket.socket.getsockopt`."""


@dataclass(frozen=True)
class Peer:
    """Who connected. `groups`: the effective group and the supplementary ones."""

    uid: int
    groups: frozenset[int]


def peer_of(connection: Connected) -> Peer:
    """Who is at the other end.

    Raises:
        OSError: it is no connected Unix socket.
    """
    _, uid, gid = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Peer(uid, frozenset((gid, *_supplementary(connection))))


def _supplementary(connection: Connected) -> array[int]:
    groups = array("I")
    try:
        groups.frombytes(connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _FEW_GROUPS_BYTES))
    except OSError:
        # More groups than fit, as in large directories; or Linux before 4.13, which tells none.
        groups.frombytes(_many_groups(connection.fileno()))
    return groups


def _many_groups(fd: int) -> bytes:
    buffer = ctypes.create_string_buffer(_MOST_GROUPS * _ID_BYTES)
    size = ctypes.c_uint(len(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.getsockopt(fd, socket.SOL_SOCKET, _SO_PEERGROUPS, buffer, ctypes.byref(size))
    return b"" if failed else buffer.raw[: size.value]


def objection(peer: Peer, write_group: str | None, config_path: str) -> str | None:
    """Why the peer may not give orders to this agent; None where it may. Blocking: asks the system's directories.

    Args:
        peer: who asks.
        write_group: name of the group whose members may; None: none is configured.
        config_path: of the file in which that stands, for the message.
    """
    if peer.uid in {0, os.geteuid()}:
        return None
    group = None
    if write_group is not None:
        try:
            group = grp.getgrnam(write_group).gr_gid
        except KeyError:
            return (
                f"{_user(peer.uid)} may look at this agent and not give it orders: `access.write_group` in "
                f"{config_path} is {write_group!r}, and this host knows no such group: create it "
                f"(groupadd {write_group}), or become root"
            )
        if group in peer.groups:
            return None
    remedy = (
        f"set `access.write_group` in {config_path} to a group of that user and reload the agent"
        if group is None
        else f"let that user join: usermod -aG {write_group} {name_of(peer.uid)}, and log in anew"
    )
    others = [] if os.geteuid() == 0 else [_user(os.geteuid())]
    others += [] if group is None else [f"members of the group {write_group}"]
    return (
        f"{_user(peer.uid)} may look at this agent and not give it orders: only {' and '.join(['root', *others])} may; "
        f"become root, or {remedy}"
    )


def name_of(uid: int) -> str:
    """The user's name, or the number where it has none. Blocking."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _user(uid: int) -> str:
    name = name_of(uid)
    return f"user {name}" if name == str(uid) else f"user {name} (uid {uid})"
