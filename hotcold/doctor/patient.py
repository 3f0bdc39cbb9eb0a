"""Owns what the checks are about: one host's settings, where its files are, and which user its agent is.

Looking at any of it is left to the checks.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.config import Settings
from agent.memory import Memory
from agent.peers import name_of, peer_of
from artifact import HotcoldError
from fleet import ConsulStore, Order, decode_order
from fleet.keys import tier_key

ACCOUNT: Final = "hotcold"
"""The user of the unit file."""
_SOCKET_S: Final = 2.0


@dataclass(frozen=True)
class AgentUser:
    """The user that the agent is, or will be. `found`: how that is known."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    found: str

    @property
    def name(self) -> str:
        """For people."""
        return name_of(self.uid)

    def may(self, access: str, path: Path) -> bool | None:
        """Whether it may read (`r`), write (`w`) or enter (`x`) something; None where this user cannot find out."""
        if self.uid == os.geteuid():
            flags = {"r": os.R_OK, "w": os.W_OK, "x": os.X_OK}
            return os.access(path, flags[access], effective_ids=True)
        if os.geteuid() != 0:
            return None
        # Asked by a process of that user: the kernel knows lists of access rights and mounts, a look at the mode not.
        tried = subprocess.run(  # noqa: S603 - a fixed program
            ["/usr/bin/test", f"-{access}", path],
            user=self.uid,
            group=self.gid,
            extra_groups=self.groups,
            cwd="/",
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return tried.returncode == 0


@dataclass(frozen=True)
class Patient:
    """One app on this host.

    Attributes:
        etc: where the configuration of other programs lies, usually `/etc`.
        patience_s: how long one answer from elsewhere may take.
    """

    config_path: Path
    settings: Settings
    etc: Path
    patience_s: float

    @property
    def unit(self) -> str:
        """The agent's unit, if it is run by systemd as shipped."""
        return f"hotcold-agent@{self.settings.identity.app}.service"

    def agent_user(self) -> AgentUser:
        """The user that answers at the socket; else the unit's; else the one who asks."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_SOCKET_S)
                connection.connect(str(self.settings.identity.socket))
                peer = peer_of(connection)
        except OSError:
            try:
                account = pwd.getpwnam(ACCOUNT)
            except KeyError:
                return AgentUser(os.geteuid(), os.getegid(), tuple(os.getgroups()), "no agent answers: taken for yours")
            groups = os.getgrouplist(ACCOUNT, account.pw_gid)
            return AgentUser(account.pw_uid, account.pw_gid, tuple(groups), "the unit's user")
        gid = next(iter(peer.groups)) if len(peer.groups) == 1 else _primary(peer.uid, peer.groups)
        return AgentUser(peer.uid, gid, tuple(peer.groups), "who answers at the socket")

    async def order(self) -> Order | None:
        """The order in the tier's key; where Consul does not answer, the one that the agent remembers; None: neither.

        Raises:
            Refused: what stands in the key is none.
        """
        identity = self.settings.identity
        try:
            async with asyncio.timeout(self.patience_s), ConsulStore(identity.consul, grace_s=self.patience_s) as store:
                entry = await store.read(tier_key(identity.app, identity.tier))
        except (TimeoutError, HotcoldError):
            return await asyncio.get_running_loop().run_in_executor(None, self._remembered)
        return None if entry is None else decode_order(entry.value)

    def _remembered(self) -> Order | None:
        return Memory(self.settings.identity.layout.state_dir).recall().order


def _primary(uid: int, groups: frozenset[int]) -> int:
    try:
        gid = pwd.getpwuid(uid).pw_gid
    except KeyError:
        gid = min(groups)
    return gid if gid in groups else min(groups)
