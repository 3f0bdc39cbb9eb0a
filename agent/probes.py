"""Owns one look at whether the hot build works: HTTP, TCP, a systemd unit, a command; all that are given must agree.

How often is looked, and what follows, is left to `agent.prove`; running commands is left to `agent.hooks`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from typing import Annotated, Final

import aiohttp
import msgspec
from yarl import URL

from agent.hooks import Hook, run_hook

_BODY_BYTES: Final = 64 * 1024
_EXCERPT_CHARACTERS: Final = 200
_UNIT_PROPERTIES: Final = "ActiveState,SubState,NRestarts"


class ProbeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[probe]` table. Without `url`, `tcp`, `unit` and `command` every build counts as proved.

    Attributes:
        url: asked by GET; redirects are answers, not followed.
        headers: sent with it, such as `Host`.
        status: the answers that count as success.
        body: a regular expression that must be found in the first 64 KiB of the answer.
        tcp: "HOST:PORT" or the path of a Unix socket that must accept a connection.
        unit: a systemd unit that must be active, and not restart by itself again and again.
        max_restarts: how often it may restart by itself while it is proved or watched.
        command: succeeds by exit status 0; run as hooks are.
        successes: how many in a row prove the build.
        interval_s: the pause between two attempts.
        timeout_s: for one attempt.
        deadline_s: for all of them.
        watch_s: how long a proved build is watched while it serves; 0: not at all.
        watch_failures: how many in a row end the watch, and send the host back.
    """

    url: str | None = None
    headers: dict[str, str] = {}
    status: Annotated[tuple[Annotated[int, msgspec.Meta(ge=100, le=599)], ...], msgspec.Meta(min_length=1)] = (200,)
    body: str | None = None
    tcp: str | None = None
    unit: str | None = None
    max_restarts: Annotated[int, msgspec.Meta(ge=0)] = 2
    command: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] | None = None
    successes: Annotated[int, msgspec.Meta(ge=1)] = 1
    interval_s: Annotated[float, msgspec.Meta(ge=0)] = 1
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 5
    deadline_s: Annotated[float, msgspec.Meta(gt=0)] = 60
    watch_s: Annotated[float, msgspec.Meta(ge=0)] = 0
    watch_failures: Annotated[int, msgspec.Meta(ge=1)] = 3

    def __post_init__(self) -> None:
        """Refuse what could never prove anything; msgspec adds where it stands."""
        if self.url is None and (self.body is not None or self.headers):
            raise ValueError("`body` and `headers` belong to a `url`, which is missing")
        if self.watch_s and not self.is_given:
            raise ValueError("`watch_s` needs something to look at: `url`, `tcp`, `unit` or `command`")
        if self.url is not None:
            _check_url(self.url)
        if self.tcp is not None:
            _tcp_address(self.tcp)
        if self.unit is not None and not re.fullmatch(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*", self.unit):
            raise ValueError(f"`unit` is {self.unit!r}, which names no systemd unit")
        if self.command is not None:
            Hook(argv=self.command)
        try:
            re.compile(self.body or "")
        except re.error as error:
            raise ValueError(f"`body` is no regular expression: {error}") from error

    @property
    def is_given(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self.name)

    @property
    def name(self) -> str:
        """All that is looked at, for people."""
        unit = None if self.unit is None else f"unit {self.unit}"
        tcp = None if self.tcp is None else f"connecting to {self.tcp}"
        return " and ".join(filter(None, (unit, tcp, self.url, " ".join(self.command or ()))))


class Unproved(Exception):
    """One look was not a success; says what was seen.

    Attributes:
        is_final: looking again cannot help.
    """

    def __init__(self, saw: str, *, is_final: bool = False) -> None:
        super().__init__(saw)
        self.is_final = is_final


class Probe:
    """Looks at the hot build; remembers how often its unit had restarted before the first look.

    Args:
        settings: what is looked at.
        session: for `url`; its own timeouts and proxies should be off.
        environment: for `command`, as for a hook.
    """

    def __init__(
        self, settings: ProbeSettings, *, session: aiohttp.ClientSession, environment: Mapping[str, str]
    ) -> None:
        self._settings = settings
        self._session = session
        self._environment = environment
        self._restarts_before: int | None = None

    async def look(self, timeout_s: float) -> str:
        """Look once at all that is given, the cheapest first, and say what was seen last: it begins with "ok".

        Raises:
            Unproved: something is not as it should be, or did not answer within `timeout_s`.
        """
        settings, saw = self._settings, "ok"
        try:
            async with asyncio.timeout(timeout_s):
                if settings.unit is not None:
                    saw = await self._see_unit(settings.unit, timeout_s)
                if settings.tcp is not None:
                    saw = await _connect(settings.tcp)
                if settings.url is not None:
                    saw = await _get(settings, self._session)
        except TimeoutError:
            raise Unproved(f"no answer within {timeout_s:.1f} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unproved(f"no answer: {str(error) or type(error).__name__}") from error
        if settings.command is not None:
            saw = await _run(Hook(argv=settings.command, timeout_s=timeout_s), self._environment)
        return saw

    async def _see_unit(self, unit: str, timeout_s: float) -> str:
        argv = ("systemctl", "show", f"--property={_UNIT_PROPERTIES}", "--", unit)
        run = await run_hook("probe", Hook(argv=argv, timeout_s=timeout_s), environment=self._environment)
        if not run.succeeded:
            raise Unproved(f"systemctl cannot tell of unit {unit}: {_excerpt(run.output[-_EXCERPT_CHARACTERS:])}")
        seen = dict(line.partition("=")[::2] for line in run.output.splitlines())
        restarts = int(seen.get("NRestarts") or 0)
        before = restarts if self._restarts_before is None else min(restarts, self._restarts_before)
        self._restarts_before = before
        if restarts - before > self._settings.max_restarts:
            raise Unproved(
                f"unit {unit} has restarted by itself {restarts - before} times: a crash loop", is_final=True
            )
        if seen.get("ActiveState") != "active":
            raise Unproved(f"unit {unit} is {seen.get('ActiveState')} ({seen.get('SubState')})")
        return f"ok: unit {unit} is active"


async def _connect(where: str) -> str:
    address = _tcp_address(where)
    if isinstance(address, str):
        _, writer = await asyncio.open_unix_connection(address)
    else:
        _, writer = await asyncio.open_connection(*address)
    writer.close()
    with contextlib.suppress(ConnectionError):  # it was accepted; who hangs up first does not matter
        await writer.wait_closed()
    return f"ok: {where} accepts connections"


async def _get(settings: ProbeSettings, session: aiohttp.ClientSession) -> str:
    # A connection that is kept open may still lead to a worker of the build before.
    headers = {**settings.headers, "Connection": "close"}
    async with session.get(URL(settings.url or ""), headers=headers, allow_redirects=False) as response:
        body = await _first_bytes(response.content)
        text = body.decode(errors="replace")
        excerpt = _excerpt(text[:_EXCERPT_CHARACTERS])
        if response.status not in settings.status:
            wanted = ", ".join(map(str, settings.status))
            raise Unproved(f"status {response.status}, wanted {wanted}: {excerpt!r}")
        if settings.body is not None and re.search(settings.body, text) is None:
            raise Unproved(f"status {response.status}, but nothing like {settings.body!r} in the body: {excerpt!r}")
        return f"ok: status {response.status}"


async def _first_bytes(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) >= _BODY_BYTES:
            break
    return bytes(body[:_BODY_BYTES])


async def _run(hook: Hook, environment: Mapping[str, str]) -> str:
    run = await run_hook("probe", hook, environment=environment)
    if not run.succeeded:
        excerpt = _excerpt(run.output)[-_EXCERPT_CHARACTERS:]
        raise Unproved(f"the command {run.verdict}: {excerpt!r}")
    return "ok: status 0"


def _excerpt(text: str) -> str:
    return " ".join(text.split())


def _tcp_address(where: str) -> tuple[str, int] | str:
    """The host and port, or the path of a Unix socket, that `where` names."""
    if where.startswith("/"):
        return where
    host, _, port = where.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"`tcp` is {where!r}; it needs HOST:PORT, or the path of a Unix socket")
    return host.strip("[]"), int(port)


def _check_url(text: str) -> None:
    try:
        url = URL(text)
    except ValueError as error:
        raise ValueError(f"`url` is {text!r}: {error}") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"`url` is {text!r}; a probe needs http://host or https://host")
