"""Owns the proof that a build works where it serves: successes in a row, within a deadline.

What a proof or its failure leads to is left to `agent.machine`; running a probe command is left to `agent.hooks`.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import aiohttp
import msgspec
from yarl import URL

from agent.hooks import Hook, run_hook
from artifact import HotcoldError

_TOLD_COUNT: Final = 5
_BODY_BYTES: Final = 64 * 1024
_EXCERPT_CHARACTERS: Final = 200


class ProbeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[probe]` table. Without `url` and `command` every build counts as proved.

    Attributes:
        url: asked by GET; redirects are answers, not followed.
        headers: sent with it, such as `Host`.
        status: the answers that count as success.
        body: a regular expression that must be found in the first 64 KiB of the answer.
        command: instead of `url`: succeeds by exit status 0; run as hooks are.
        successes: how many in a row prove the build.
        interval_s: the pause between two attempts.
        timeout_s: for one attempt.
        deadline_s: for all of them.
    """

    url: str | None = None
    headers: dict[str, str] = {}
    status: Annotated[tuple[Annotated[int, msgspec.Meta(ge=100, le=599)], ...], msgspec.Meta(min_length=1)] = (200,)
    body: str | None = None
    command: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] | None = None
    successes: Annotated[int, msgspec.Meta(ge=1)] = 1
    interval_s: Annotated[float, msgspec.Meta(ge=0)] = 1
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 5
    deadline_s: Annotated[float, msgspec.Meta(gt=0)] = 60

    def __post_init__(self) -> None:
        """Refuse what could never prove anything; msgspec adds where it stands."""
        if self.url is not None and self.command is not None:
            raise ValueError("`url` and `command` exclude each other; wrap both in one command if both are needed")
        if self.url is None and (self.body is not None or self.headers):
            raise ValueError("`body` and `headers` belong to a `url`, which is missing")
        if self.url is not None:
            _check_url(self.url)
        if self.command is not None:
            Hook(argv=self.command)
        try:
            re.compile(self.body or "")
        except re.error as error:
            raise ValueError(f"`body` is no regular expression: {error}") from error


@dataclass(frozen=True)
class Attempt:
    """One attempt: when, counted from the first, and what was seen. `saw` begins with "ok" on success."""

    number: int
    at_s: float
    is_success: bool
    saw: str


@dataclass(frozen=True)
class Proved:
    """The build is proved."""

    took_s: float
    attempt_count: int


class ProofFailed(HotcoldError):
    """The build did not prove itself in time. It still serves: swapping back is the caller's.

    Attributes:
        attempts: the last few attempts.
    """

    kind = "proof_failed"

    def __init__(self, message: str, attempts: tuple[Attempt, ...]) -> None:
        super().__init__(message)
        self.attempts = attempts


async def prove(
    settings: ProbeSettings,
    *,
    session: aiohttp.ClientSession,
    environment: Mapping[str, str],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Proved:
    """Probe until `successes` attempts in a row have succeeded.

    Args:
        settings: what is probed, and how often.
        session: for `url`; its own timeouts and proxies should be off.
        environment: for `command`, as for a hook.
        clock: monotonic seconds.
        sleep: waits that many seconds.

    Raises:
        ProofFailed: the deadline came first, or can no longer be met; says what the last attempts saw.
        asyncio.CancelledError: the caller was cancelled; a probe command has ended.
    """
    started = clock()
    told: deque[Attempt] = deque(maxlen=_TOLD_COUNT)
    number = streak = 0
    if settings.url is None and settings.command is None:
        return Proved(took_s=0.0, attempt_count=0)
    while (at_s := clock() - started) < settings.deadline_s:
        number += 1
        try:
            saw = await _probe(settings, min(settings.timeout_s, settings.deadline_s - at_s), session, environment)
            told.append(Attempt(number, at_s, is_success=True, saw=saw))
            streak += 1
        except _Unproved as error:
            told.append(Attempt(number, at_s, is_success=False, saw=str(error)))
            streak = 0
        if streak >= settings.successes:
            return Proved(took_s=clock() - started, attempt_count=number)
        if clock() - started + settings.interval_s >= settings.deadline_s:
            break
        await sleep(settings.interval_s)
    raise ProofFailed(
        f"{settings.url or ' '.join(settings.command or ())} did not succeed {settings.successes} time(s) in a row "
        f"within {settings.deadline_s:g} s; {' | '.join(_tell(told))}; look at the build's own log, "
        "or, if it only starts slowly, raise `probe.deadline_s`",
        tuple(told),
    )


def _tell(attempts: Iterable[Attempt]) -> Iterator[str]:
    """One sentence for each attempt; those in a row that saw the same share one."""
    for saw, group in itertools.groupby(attempts, key=lambda attempt: attempt.saw):
        alike = list(group)
        last = alike[-1]
        which = f"attempts {alike[0].number} to {last.number}, the last" if len(alike) > 1 else f"attempt {last.number}"
        yield f"{which} at {last.at_s:.1f} s: {saw}"


class _Unproved(Exception):
    """One attempt did not succeed; says what was seen."""


async def _probe(
    settings: ProbeSettings, timeout_s: float, session: aiohttp.ClientSession, environment: Mapping[str, str]
) -> str:
    """Make one attempt and say what was seen.

    Raises:
        _Unproved: it was not a success.
    """
    if settings.command is not None:
        return await _run(Hook(argv=settings.command, timeout_s=timeout_s), environment)
    try:
        async with asyncio.timeout(timeout_s):
            return await _get(settings, session)
    except TimeoutError:
        raise _Unproved(f"no answer within {timeout_s:.1f} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise _Unproved(f"no answer: {str(error) or type(error).__name__}") from error


async def _get(settings: ProbeSettings, session: aiohttp.ClientSession) -> str:
    # A connection that is kept open may still lead to a worker of the build before.
    headers = {**settings.headers, "Connection": "close"}
    async with session.get(URL(settings.url or ""), headers=headers, allow_redirects=False) as response:
        body = await _first_bytes(response.content)
        text = body.decode(errors="replace")
        excerpt = " ".join(text[:_EXCERPT_CHARACTERS].split())
        if response.status not in settings.status:
            wanted = ", ".join(map(str, settings.status))
            raise _Unproved(f"status {response.status}, wanted {wanted}: {excerpt!r}")
        if settings.body is not None and re.search(settings.body, text) is None:
            raise _Unproved(f"status {response.status}, but nothing like {settings.body!r} in the body: {excerpt!r}")
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
        excerpt = " ".join(run.output.split())[-_EXCERPT_CHARACTERS:]
        raise _Unproved(f"the command {run.verdict}: {excerpt!r}")
    return "ok: status 0"


def _check_url(text: str) -> None:
    try:
        url = URL(text)
    except ValueError as error:
        raise ValueError(f"`url` is {text!r}: {error}") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"`url` is {text!r}; a probe needs http://host or https://host")
