"""Owns the check of this host's clock against those of Consul and of the artifact servers."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from artifact import ConfigError, Refused
from artifact.fetch import http_session
from fleet import StoreUnreachable
from fleet.rights import Examination
from hotcold.doctor.finding import Finding, Level
from hotcold.doctor.patient import Patient

TOLERANCE_S: Final = 5.0
"""Beyond it, logs of several hosts cannot be read side by side; the header itself has whole seconds."""
FAR_S: Final = 60.0
"""Beyond it, `--not-after` of orders and the validity of certificates mean something else here."""
_LOCAL: Final = frozenset({"127.0.0.1", "localhost", "::1", ""})
_TIMEDATECTL_S: Final = 3.0


def look_at_clock(patient: Patient) -> Sequence[Finding]:
    """Compare with every server that tells its time."""
    return [judge_clock(asyncio.run(_offsets(patient)), is_synchronised=_is_synchronised())]


def judge_clock(offsets_s: Sequence[tuple[str, float]], *, is_synchronised: bool | None) -> Finding:
    """What the differences mean.

    Args:
        offsets_s: who was asked, by url, and how many seconds this host is ahead of him.
        is_synchronised: what this host says of its own clock; None: nothing.
    """
    remedy = "synchronise it: timedatectl set-ntp true, or chrony"
    if offsets_s:
        where, offset_s = max(offsets_s, key=lambda each: abs(each[1]))
        direction = "ahead of" if offset_s > 0 else "behind"
        if abs(offset_s) > TOLERANCE_S:
            level: Level = "wrong" if abs(offset_s) > FAR_S else "warning"
            return Finding("clock", level, f"this host's clock is {abs(offset_s):.0f} s {direction} {where}", remedy)
    if is_synchronised is False:
        return Finding("clock", "warning", "this host says that its clock is not synchronised", remedy)
    others = [where for where, _ in offsets_s if urlsplit(where).hostname not in _LOCAL]
    if others:
        return Finding("clock", "ok", f"within {TOLERANCE_S:g} s of {', '.join(others)}")
    if is_synchronised:
        return Finding(
            "clock", "ok", "this host says that its clock is synchronised; no other host was there to compare"
        )
    return Finding(
        "clock", "unknown", "no other host tells its time, and this one does not say whether it is synchronised"
    )


async def _offsets(patient: Patient) -> list[tuple[str, float]]:
    offsets = await asyncio.gather(
        _offset_of_consul(patient), *(_offset_of(patient, url) for url in await _urls(patient))
    )
    return [offset for offset in offsets if offset is not None]


async def _urls(patient: Patient) -> list[str]:
    """One url for each artifact server of the order."""
    with suppress(Refused):
        order = await patient.order()
        if order is not None:
            urls = [url for url in order.build.urls if urlsplit(url).scheme in {"http", "https"}]
            return list({urlsplit(url).netloc: url for url in urls}.values())
    return []


async def _offset_of_consul(patient: Patient) -> tuple[str, float] | None:
    settings = patient.settings.identity.consul
    try:
        async with Examination(settings, grace_s=patient.patience_s) as examination:
            return _offset(settings.address, (await examination.health()).date)
    except (StoreUnreachable, ConfigError):
        return None


async def _offset_of(patient: Patient, url: str) -> tuple[str, float] | None:
    parts = urlsplit(url)
    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    try:
        async with (
            asyncio.timeout(patient.patience_s),
            http_session(patient.settings.pull) as session,
            session.head(url, allow_redirects=False) as response,
        ):
            return _offset(where, response.headers.get("Date", ""))
    except (TimeoutError, aiohttp.ClientError, OSError, ConfigError):
        return None


def _offset(where: str, date: str) -> tuple[str, float] | None:
    try:
        theirs = parsedate_to_datetime(date)
    except ValueError:
        return None
    return where, (datetime.now(UTC) - theirs).total_seconds()


def _is_synchronised() -> bool | None:
    program = shutil.which("timedatectl")
    if program is None:
        return None
    try:
        said = subprocess.run(  # noqa: S603 - found above, and asked without a change
            [program, "show", "--property", "NTPSynchronized", "--value"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEDATECTL_S,
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(said)
