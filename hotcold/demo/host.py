"""Owns one host of the demo: its directories, its app, its agent and the agent's configuration.

What is deployed to it, and when its agent is killed, is left to `hotcold.demo.story`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Final

from agent.blocking import run_blocking
from hotcold.demo.builds import APP
from hotcold.demo.children import Child, Children, DemoFailed
from hotcold.socket_client import AgentRefused, AgentUnreachable, ask
from hotcold.status_document import Status, status_of

TIER: Final = "prod"
_SOCKET_BYTES: Final = 107  # what Linux takes as the path of a Unix socket

_CONFIG: Final = """\
app = {app}
tier = {tier}
host = {host}
root = {root}
state_dir = {state_dir}
socket = {socket}

[consul]
address = {store}

[fetch]
retry_initial_s = 0.2
retry_max_s = 2.0

# The app's workers finish what they have in hand and take no more; then nobody has `hot` open.
[hooks.before_drain]
argv = ["touch", {pause}]

[[drain.workers]]
command = {command}

[drain]
timeout_s = 30.0
poll_s = 0.02

# The new build must answer before any client reaches it.
[probe]
url = {probe}
successes = 3
interval_s = 0.1
timeout_s = 2.0
deadline_s = 3.0

# Clients come back when the build is proved, when the old one is back, or when the deploy was given up.
[hooks.proved]
argv = ["rm", "-f", {pause}]

[hooks.reverted]
argv = ["rm", "-f", {pause}]

[hooks.failed]
argv = ["rm", "-f", {pause}]
"""


class Host:
    """A host with its own root, state directory and socket below `directory`.

    Attributes:
        name: in orders, reports and on the screen.
        tier: that it belongs to.
        root: with `hot`, `cold` and `releases/`.
        socket: the agent's status socket.
        pause: while this file exists, the app takes no requests from clients.
        warming: while this file exists, the app answers no probes.
        port: where the app serves clients; 0 before it has started.
        agent: the agent's process; None before it has started.
    """

    def __init__(self, name: str, directory: Path, *, tier: str = TIER) -> None:
        self.name = name
        self.tier = tier
        self.root = directory / APP
        self.socket = directory / "agent.sock"
        self.pause = directory / "paused"
        self.warming = directory / "warming"
        self.config = directory / "agent.toml"
        self.port = 0
        self.agent: Child | None = None
        self._state = directory / "state"
        if len(bytes(self.socket)) > _SOCKET_BYTES:
            raise DemoFailed(f"{self.socket} is longer than a socket's path may be: choose a shorter --dir")

    @property
    def hot(self) -> Path:
        """The link that the app serves from."""
        return self.root / "hot"

    async def start(self, children: Children, store: str) -> None:
        """Start the app, on a bare root, and an agent that speaks to the store at `store`."""
        for directory in (self.root, self._state):
            directory.mkdir(parents=True)
        command = ["-m", "hotcold.demo.app", "--root", str(self.root)]
        command += ["--pause", str(self.pause), "--warming", str(self.warming)]
        app = await children.start(f"app-{self.name}", [sys.executable, *command], is_read=True)
        ports = json.loads(await app.line())
        self.port = ports["port"]
        self.config.write_text(
            _CONFIG.format(
                app=_toml(APP),
                tier=_toml(self.tier),
                host=_toml(self.name),
                root=_toml(str(self.root)),
                state_dir=_toml(str(self._state)),
                socket=_toml(str(self.socket)),
                store=_toml(store),
                pause=_toml(str(self.pause)),
                command=_toml(re.escape(" ".join(command))),
                probe=_toml(f"http://127.0.0.1:{ports['probe_port']}/"),
            )
        )
        await self.start_agent(children)

    async def start_agent(self, children: Children) -> None:
        """Start the agent, as a service manager would, first and after a kill."""
        self.agent = await children.start(
            f"agent-{self.name}", [sys.executable, "-m", "hotcold", "agent", "--config", str(self.config)]
        )

    async def status(self) -> Status | None:
        """What the agent says of itself; None while none answers."""
        try:
            return status_of(await run_blocking(ask, self.socket, "GET", "/v1/status"))
        except (AgentUnreachable, AgentRefused):
            return None


def _toml(text: str) -> str:
    """A TOML basic string; JSON's are a subset, save for DEL."""
    return json.dumps(text).replace("\x7f", "\\u007f")
