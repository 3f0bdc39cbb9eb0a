"""Owns blocking queries: what `index` and `wait` mean, and asking again until there is something newer.

What is read, and which changes matter for it, is left to the handlers.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TypeVar

from aiohttp import web

from fleet.devserver.answers import RequestRefused
from fleet.devserver.durations import parse_duration
from fleet.devserver.waiting import Waiters, Watch

DEFAULT_WAIT_S = 300.0
MAX_WAIT_S = 600.0
JITTER_FRACTION = 16
"""A wait is drawn out by up to this part of it, so that clients do not come back together."""

_Result = TypeVar("_Result")


def check_query(request: web.Request, datacenter: str) -> None:
    """Refuse parameters that every endpoint understands, where they are wrong.

    Raises:
        RequestRefused: index or wait without meaning, two consistency modes, another datacenter.
    """
    _wanted_index(request)
    _wait_s(request)
    if "stale" in request.query and "consistent" in request.query:
        raise RequestRefused(400, "Cannot specify ?stale with ?consistent, conflicting semantics.")
    if request.query.get("dc") not in {None, "", datacenter}:
        raise RequestRefused(500, "No path to datacenter")


async def read_when_newer(
    request: web.Request, waiters: Waiters, watch: Watch, read: Callable[[], tuple[int, _Result]]
) -> tuple[int, _Result]:
    """What `read` says, as soon as its index is above the one that the client has, or when its wait is over."""
    known = _wanted_index(request)
    index, result = read()
    if known == 0 or index > known:
        return index, result
    wait_s = _wait_s(request)
    try:
        async with asyncio.timeout(wait_s + random.uniform(0, wait_s / JITTER_FRACTION)):  # noqa: S311 - spreads load
            while index <= known and not waiters.closed:
                await waiters.wait(watch)
                index, result = read()
    except TimeoutError:
        index, result = read()
    return index, result


def _wanted_index(request: web.Request) -> int:
    text = request.query.get("index", "")
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise RequestRefused(400, "Invalid index")
    return int(text)


def _wait_s(request: web.Request) -> float:
    text = request.query.get("wait", "")
    if not text:
        return DEFAULT_WAIT_S
    try:
        wait_s = parse_duration(text)
    except ValueError as error:
        raise RequestRefused(400, "Invalid wait time") from error
    if wait_s <= 0:
        return DEFAULT_WAIT_S if wait_s == 0 else 0.0
    return min(wait_s, MAX_WAIT_S)
