"""Owns asking servers themselves whether they still work: PHP-FPM, nginx, a number over HTTP, any command.

How long to ask, and what the answers mean for a deploy, is left to `agent.drain`.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from typing import Annotated, Final

import aiohttp
import msgspec
from yarl import URL

from agent.fastcgi import BrokenAnswer, get
from agent.hooks import Hook, run_hook
from agent.workers import Busy

_BODY_BYTES: Final = 64 * 1024
_EXCERPT_CHARACTERS: Final = 200
_SHOWN_REQUESTS: Final = 20
_US_PER_S: Final = 1_000_000
_IDLE: Final = "Idle"
_STUB: Final = re.compile(r"Reading: (\d+) Writing: (\d+) Waiting: (\d+)")


class Gauge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[drain.gauges]]` entry: a server that is asked how much it still has to do. Exactly one of the four kinds.

    Attributes:
        php_fpm: socket of a pool, a path or `host:port`, whose `pm.status_path` is `path`.
        path: of that status page.
        nginx: url of a page with `stub_status`.
        url: of a page with a number.
        pattern: a regular expression whose first group is that number.
        command: succeeds by exit status 0 if nothing is left to do; run as hooks are.
        at_most: so much may be left: requests, connections, the number.
        absent_is_idle: nobody listening there means that nothing is left, and not that nothing is known.
        timeout_s: for one answer.
    """

    php_fpm: str | None = None
    path: str = "/status"
    nginx: str | None = None
    url: str | None = None
    pattern: str = r"(\d+)"
    command: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] | None = None
    at_most: Annotated[int, msgspec.Meta(ge=0)] = 0
    absent_is_idle: bool = False
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 5

    def __post_init__(self) -> None:
        """Refuse what could never be answered; msgspec adds where it stands."""
        kinds = [kind for kind in (self.php_fpm, self.nginx, self.url, self.command) if kind is not None]
        if len(kinds) != 1:
            raise ValueError("needs exactly one of `php_fpm`, `nginx`, `url`, `command`; write an entry for each")
        if self.php_fpm is not None and not self.php_fpm.startswith("/"):
            port = self.php_fpm.rpartition(":")[2]
            if ":" not in self.php_fpm or not port.isdecimal():
                raise ValueError(f"`php_fpm` is {self.php_fpm!r}; allowed: an absolute path, or host:port")
        if not self.path.startswith("/"):
            raise ValueError(f"`path` is {self.path!r}; it begins with a slash, as `pm.status_path` does")
        for text in (self.nginx, self.url):
            if text is not None and (URL(text).scheme not in {"http", "https"} or not URL(text).host):
                raise ValueError(f"{text!r} is no url: a gauge needs http://host or https://host")
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            raise ValueError(f"`pattern` is no regular expression: {error}") from error
        if groups < 1:
            raise ValueError(f"`pattern` is {self.pattern!r}; its first group is the number, and it has none")
        if self.command is not None:
            Hook(argv=self.command)

    @property
    def name(self) -> str:
        """What is asked, for people."""
        if self.php_fpm is not None:
            return f"php-fpm at {self.php_fpm}"
        return f"nginx at {self.nginx}" if self.nginx is not None else self.url or " ".join(self.command or ())


class _Unknown(Exception):
    """There is no answer that means anything; says why."""


async def read_gauge(
    gauge: Gauge, *, session: aiohttp.ClientSession, environment: Mapping[str, str]
) -> tuple[Busy, ...]:
    """Ask once. Whoever cannot be asked counts as busy: nobody is called drained unseen.

    Args:
        gauge: whom to ask.
        session: for pages; its own timeouts and proxies should be off.
        environment: for a command, as for a hook.

    Returns:
        At most one worker, without a pid, with the reasons; none if nothing more is left than is allowed.
    """
    try:
        reasons = await _ask(gauge, session, environment)
    except (ConnectionRefusedError, FileNotFoundError, aiohttp.ClientConnectorError) as error:
        reasons = [] if gauge.absent_is_idle else [f"cannot be asked: {error.strerror or error}"]
    except PermissionError as error:
        reasons = [f"cannot be asked: {error.strerror}: let the agent's user connect (PHP-FPM: `listen.acl_users`)"]
    except TimeoutError:
        reasons = [f"cannot be asked: no answer within {gauge.timeout_s:g} s"]
    except (_Unknown, BrokenAnswer, aiohttp.ClientError, OSError) as error:
        reasons = [f"cannot be asked: {str(error) or type(error).__name__}"]
    return (Busy(None, gauge.name, tuple(reasons)),) if reasons else ()


async def _ask(gauge: Gauge, session: aiohttp.ClientSession, environment: Mapping[str, str]) -> list[str]:
    if gauge.command is not None:
        run = await run_hook("drain", Hook(argv=gauge.command, timeout_s=gauge.timeout_s), environment=environment)
        excerpt = " ".join(run.output.split())[-_EXCERPT_CHARACTERS:]
        return [] if run.succeeded else [f"{run.verdict}: {excerpt or '(no output)'}"]
    async with asyncio.timeout(gauge.timeout_s):
        if gauge.php_fpm is not None:
            return await _ask_php_fpm(gauge.php_fpm, gauge)
        text = await _page(gauge.nginx or gauge.url or "", session)
    if gauge.nginx is not None:
        stub = _STUB.search(text)
        if stub is None:
            raise _Unknown(f"that is no page of stub_status: {_excerpt(text)!r}")
        # One of those that are written to is this question; those that wait are idle, between two requests.
        active = int(stub[1]) + int(stub[2]) - 1
        return [f"{active} active connection(s)"] if active > gauge.at_most else []
    found = re.search(gauge.pattern, text)
    if found is None or not found[1].isdecimal():
        raise _Unknown(f"no number like {gauge.pattern!r} in {_excerpt(text)!r}")
    return [f"says {found[1]}, at most {gauge.at_most} may be left"] if int(found[1]) > gauge.at_most else []


class _Process(msgspec.Struct, frozen=True):
    pid: int
    state: str
    duration_us: int = msgspec.field(name="request duration", default=0)
    method: str = msgspec.field(name="request method", default="-")
    uri: str = msgspec.field(name="request uri", default="-")


class _Pool(msgspec.Struct, frozen=True):
    processes: tuple[_Process, ...]


async def _ask_php_fpm(socket: str, gauge: Gauge) -> list[str]:
    """Each request that a pool works on. The one that asks is told from others by a number used once."""
    once = secrets.token_hex(8)
    query = f"json&full&{once}"
    head, body = await get(
        socket,
        {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": gauge.path,
            "SCRIPT_FILENAME": gauge.path,
            "REQUEST_URI": f"{gauge.path}?{query}",
            "QUERY_STRING": query,
            "SERVER_PROTOCOL": "HTTP/1.1",
        },
    )
    try:
        pool = msgspec.json.decode(body, type=_Pool)
    except msgspec.DecodeError:
        what = f"{head.decode(errors='replace')} {body.decode(errors='replace')}"
        raise _Unknown(
            f"{gauge.path} is no status page ({_excerpt(what)!r}): set `pm.status_path` in the pool, and `path` here"
        ) from None
    working = [process for process in pool.processes if process.state != _IDLE and once not in process.uri]
    if len(working) <= gauge.at_most:
        return []
    shown = [
        f"pid {process.pid}: {process.method} {process.uri}, {process.state}, {process.duration_us / _US_PER_S:.1f} s"
        for process in working[:_SHOWN_REQUESTS]
    ]
    return [*shown, *([f"{len(working) - len(shown)} more requests"] if len(working) > len(shown) else [])]


async def _page(url: str, session: aiohttp.ClientSession) -> str:
    async with session.get(URL(url), headers={"Connection": "close"}, allow_redirects=False) as response:
        body = await response.content.read(_BODY_BYTES)
        text = body.decode(errors="replace")
        if not response.ok or response.status >= 300:  # noqa: PLR2004 - a redirect has no number
            raise _Unknown(f"status {response.status}: {_excerpt(text)!r}")
        return text


def _excerpt(text: str) -> str:
    return " ".join(text.split())[:_EXCERPT_CHARACTERS]
