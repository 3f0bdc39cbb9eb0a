"""Who may open the status socket, and who may give orders through it, as the kernel tells of the other end."""

from __future__ import annotations

import asyncio
import grp
import http.client
import json
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from agent.config import SocketAccess, parse_settings
from agent.events import Command, HoldLifted, HoldPlaced, RefusalLifted, RepullRequested
from agent.history import History
from agent.peers import Peer, objection, peer_of
from agent.server import StatusServer, Writers
from agent.states import Refusal
from agent.work import Observed
from artifact import ConfigError
from fleet import Problem

IDENTITY = 'app = "shop"\ntier = "prod"\nhost = "web-1"\nroot = "/srv/shop"\n'
NOBODY = 65534
BY_DEFAULT = SocketAccess()
ORDERS = ("/v1/repull", "/v1/forget", "/v1/hold", "/v1/unhold")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which needs root")
A_GROUP = grp.getgrgid(os.getgid()).gr_name
ANOTHER = next(group for group in grp.getgrall() if group.gr_gid not in {0, NOBODY, os.getgid()})

# Says status and answer. It becomes the other user after it was loaded: that one may not reach the interpreter.
ASK = """
import json, os, socket, sys
path, method, target, body, who = sys.argv[1:]
if who := json.loads(who):
    os.setgroups(who["groups"][1:])
    os.setgid(who["groups"][0])
    os.setuid(who["user"])
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(20)
    try:
        sock.connect(path)
    except PermissionError:
        sys.exit("may not connect")
    head = f"{method} {target} HTTP/1.0\\r\\nHost: agent\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
    sock.sendall((head + body).encode())
    answer = b""
    while part := sock.recv(65536):
        answer += part
head, _, body = answer.partition(b"\\r\\n\\r\\n")
print(head.split()[1].decode(), body.decode())
"""


class Asked:
    """A server, and what reached the loop behind it."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.write_group: str | None = None
        self.refusal: Refusal | None = None

    async def ask(self, path: Path, method: str, target: str, body: str = "", **who: Any) -> tuple[int, Any]:
        """As another user where `who` says so: `user`, and `groups`, the first of them his own."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", ASK, str(path), method, target, body, json.dumps(who)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        if process.returncode:
            raise ConnectionError(err.decode())
        status, _, text = out.decode().partition(" ")
        return int(status), json.loads(text)


@asynccontextmanager
async def serving(path: Path, access: SocketAccess = BY_DEFAULT) -> AsyncIterator[Asked]:
    asked = Asked()

    async def a_status() -> dict[str, Any]:
        return {"order": {"build": "b2"}}

    server = StatusServer(
        path,
        access,
        writers=lambda: Writers(asked.write_group, "/etc/hotcold/shop.toml"),
        status=a_status,
        observed=Observed(),
        unhealthy=lambda: None,
        post=asked.commands.append,
        refusal=lambda: asked.refusal,
        history=await History.open(path.parent),
    )
    await server.start()
    try:
        yield asked
    finally:
        await server.aclose()


# --- the socket itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["0600", "0660", "666"])
async def test_the_socket_has_the_mode_and_the_group_that_are_configured(tmp_path: Path, mode: str) -> None:
    """Whoever may not open it can neither look nor ask."""
    access = parse_settings(f'{IDENTITY}[access]\nmode = "{mode}"\ngroup = "{A_GROUP}"\n', {}).identity.access
    async with serving(tmp_path / "s", access):
        found = (tmp_path / "s").stat()
        assert stat.S_IMODE(found.st_mode) == int(mode, 8)
        assert found.st_gid == os.getgid()


@pytest.mark.parametrize("mode", ["0777", "0060", "rw", "", "00660", "0440"])
def test_a_mode_that_makes_no_sense_is_refused(mode: str) -> None:
    with pytest.raises(ConfigError, match=r"access\.mode = .*octal mode"):
        parse_settings(f'{IDENTITY}[access]\nmode = "{mode}"\n', {})


async def test_a_group_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such group"):
        async with serving(tmp_path / "s", SocketAccess(group="no-such-group")):
            pass


# --- who asks ---------------------------------------------------------------------------------------------------------


def test_the_kernel_tells_who_connected(tmp_path: Path) -> None:
    """This process, with all of its groups."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        client.connect(str(tmp_path / "s"))
        accepted, _ = listener.accept()
        with closing(accepted):
            assert peer_of(accepted) == Peer(os.geteuid(), frozenset((os.getegid(), *os.getgroups())))


def test_who_may_give_orders() -> None:
    """Root, the agent's own user, and members of the group that is configured; nobody else."""
    stranger = Peer(NOBODY, frozenset({NOBODY}))
    member = Peer(NOBODY, frozenset({NOBODY, ANOTHER.gr_gid}))
    for peer in (Peer(0, frozenset()), Peer(os.geteuid(), frozenset())):
        assert objection(peer, None, "/x.toml") is None
    assert objection(member, ANOTHER.gr_name, "/x.toml") is None

    for refused in (objection(stranger, None, "/x.toml"), objection(member, None, "/x.toml")):
        assert refused is not None
        assert f"(uid {NOBODY})" in refused
        assert "set `access.write_group` in /x.toml" in refused
    refused = objection(stranger, ANOTHER.gr_name, "/x.toml")
    assert refused is not None
    assert f"members of the group {ANOTHER.gr_name}" in refused
    assert f"usermod -aG {ANOTHER.gr_name}" in refused
    refused = objection(member, "no-such-group", "/x.toml")
    assert refused is not None
    assert "no such group" in refused


async def test_the_agents_own_user_gives_orders(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as asked:
        asked.refusal = Refusal(1, "b2", "d", Problem(kind="proof_failed", message="answered 500"), swapped=True)
        for target, body in zip(ORDERS, ("", "", '{"reason": "anna"}', ""), strict=True):
            assert (await asked.ask(tmp_path / "s", "POST", target, body))[0] == 202
        assert asked.commands == [RepullRequested(), RefusalLifted(), HoldPlaced("anna"), HoldLifted()]


@pytest.mark.root
@needs_root
async def test_another_user_may_look_and_not_give_orders(open_path: Path) -> None:
    """By the mode of the socket he reads; each order is refused, says who was and what to set, and reaches nobody."""
    path = open_path / "s"
    stranger = {"user": NOBODY, "groups": [NOBODY]}
    async with serving(path, SocketAccess(mode=0o666)) as asked:
        assert (await asked.ask(path, "GET", "/v1/status", **stranger))[0] == http.client.OK
        for target in (*ORDERS, "/v1/no-such-order"):
            status, answer = await asked.ask(path, "POST", target, '{"reason": "x"}', **stranger)
            assert (status, answer["error"]["kind"]) == (403, "not_allowed")
            assert f"(uid {NOBODY}) may look at this agent" in answer["error"]["message"]
            assert "`access.write_group` in /etc/hotcold/shop.toml" in answer["error"]["message"]
        assert (await asked.ask(path, "DELETE", "/v1/status", **stranger))[0] == 403
        assert asked.commands == []


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(
    "become",
    [
        lambda gid: [NOBODY, gid],
        lambda gid: [gid],
        lambda gid: [NOBODY, *range(100_000, 100_400), gid],
    ],
    ids=["supplementary", "primary", "one of hundreds"],
)
async def test_a_member_of_the_group_gives_orders(open_path: Path, become: Callable[[int], list[int]]) -> None:
    """As the group is configured at that moment: a reload counts at once."""
    path, member = open_path / "s", {"user": NOBODY, "groups": become(ANOTHER.gr_gid)}
    async with serving(path, SocketAccess(mode=0o666)) as asked:
        assert (await asked.ask(path, "POST", "/v1/unhold", **member))[0] == 403
        asked.write_group = ANOTHER.gr_name
        assert (await asked.ask(path, "POST", "/v1/unhold", **member))[0] == 202
        assert asked.commands == [HoldLifted()]


@pytest.mark.root
@needs_root
async def test_the_mode_keeps_strangers_from_looking(open_path: Path) -> None:
    stranger = {"user": NOBODY, "groups": [NOBODY]}
    async with serving(open_path / "s", SocketAccess(mode=0o660)) as asked:
        with pytest.raises(ConnectionError, match="may not connect"):
            await asked.ask(open_path / "s", "GET", "/v1/status", **stranger)


# --- forget -----------------------------------------------------------------------------------------------------------


async def test_only_what_is_refused_can_be_forgotten(tmp_path: Path) -> None:
    """Another build than the one that is meant is left alone; the answer says what it had been refused for."""
    async with serving(tmp_path / "s") as asked:
        status, answer = await asked.ask(tmp_path / "s", "POST", "/v1/forget")
        assert (status, answer["error"]["kind"]) == (409, "nothing_refused")
        asked.refusal = Refusal(1, "b2", "d", Problem(kind="proof_failed", message="answered 500"), swapped=True)
        status, answer = await asked.ask(tmp_path / "s", "POST", "/v1/forget", '{"build": "b1"}')
        assert status == 409
        assert "b1 is not refused on this host; b2 is" in answer["error"]["message"]
        assert (await asked.ask(tmp_path / "s", "POST", "/v1/forget", '{"bild": "b2"}'))[0] == 400
        assert asked.commands == []
        status, answer = await asked.ask(tmp_path / "s", "POST", "/v1/forget", '{"build": "b2"}')
        assert (status, answer["build"], answer["problem"]["message"]) == (202, "b2", "answered 500")
        assert asked.commands == [RefusalLifted()]
