"""Owns asking the agent on this host: finding its status socket, one request, one answer.

What answers look like is left to `hotcold.status_view`. Plain blocking HTTP: a question to a local process.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any, Final

from artifact import ConfigError, HotcoldError

SOCKETS: Final = Path("/run/hotcold")
TIMEOUT_S: Final = 10.0


class AgentUnreachable(HotcoldError):
    """No agent answers at the socket; the message says what to look at."""

    kind = "agent_unreachable"


class AgentRefused(HotcoldError):
    """The agent answered that it will not."""

    kind = "agent_refused"


class NotAllowed(ConfigError):
    """The agent takes no orders from this user; the message says from whom, and what to set."""

    kind = "not_allowed"


def find_socket(app: str | None, path: Path | None, *, sockets: Path = SOCKETS) -> Path:
    """The socket that is meant: the given one, the app's, or the only one there is.

    Raises:
        ConfigError: both were given, or neither and there is not exactly one agent.
    """
    if path is not None:
        if app is not None:
            raise ConfigError("give --app or --socket, not both")
        return path
    if app is not None:
        return sockets / f"{app}.sock"
    found = sorted(sockets.glob("*.sock"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(f"no agent's socket is in {sockets}; name one with --app or --socket")
    raise ConfigError(f"{len(found)} agents are on this host: choose --app {' or --app '.join(p.stem for p in found)}")


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, target: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send one request and return the decoded answer.

    Raises:
        AgentUnreachable: nobody listens, no answer within `TIMEOUT_S`, or one that is not the agent's.
        AgentRefused: an answer outside 2xx; the message is the agent's.
        NotAllowed: the user who asks may not.
    """
    connection = _Connection(path)
    try:
        connection.request(method, target, None if body is None else json.dumps(body))
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AgentUnreachable(f"no agent answers at {path}: {_why(error)}\n{_advice(path)}") from error
    finally:
        connection.close()
    if not isinstance(answer, dict):
        raise AgentUnreachable(f"what answers at {path} is not a hotcold agent")
    if response.status >= http.client.BAD_REQUEST:
        message = str(answer.get("error", {}).get("message", f"HTTP {response.status}"))
        raise NotAllowed(message) if response.status == http.client.FORBIDDEN else AgentRefused(message)
    return answer


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such socket"
    if isinstance(error, ConnectionRefusedError):
        return "the socket is there, but no process listens"
    if isinstance(error, PermissionError):
        return "no permission; become root or join the socket's group"
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_S:g} s"
    return str(error) or type(error).__name__


def _advice(path: Path) -> str:
    unit = f"hotcold-agent@{path.stem}"
    return f"is the service running? look at: systemctl status {unit}; journalctl -u {unit} -n 50"
