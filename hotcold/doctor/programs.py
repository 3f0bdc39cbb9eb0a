"""Owns the checks of what the configuration names: keys, probe, hooks, workers and gauges."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
from collections.abc import Iterator, Sequence
from typing import Final

import aiohttp

from agent.gauges import Gauge, read_gauge
from agent.hooks import SEARCHED
from hotcold.doctor.finding import Finding
from hotcold.doctor.patient import Patient

_UNASKED: Final = "cannot be asked"


def look_at_settings(patient: Patient) -> Sequence[Finding]:
    """What was parsed, and what is missing that makes deploys safe."""
    settings = patient.settings
    findings = [Finding("config", "ok", f"{patient.config_path} is what an agent takes")]
    if settings.trusted_keys is None:
        findings.append(Finding("keys", "ok", "none are trusted: signatures are not looked at"))
    else:
        findings.append(Finding("keys", "ok", f"builds are taken that {settings.trusted_keys} signed"))
    probe = settings.probe
    if all(each is None for each in (probe.url, probe.command, probe.tcp, probe.unit)):
        remedy = "set [probe] url, command, tcp or unit: it is what brings a host back by itself"
        findings.append(Finding("probe", "warning", "none: every build counts as proved", remedy))
    return findings


def look_at_programs(patient: Patient) -> Sequence[Finding]:
    """Whether hooks, probe and gauges name programs that are there, and workers name users that are."""
    return list(_missing(patient)) or [Finding("programs", "ok", _told(patient))]


def _told(patient: Patient) -> str:
    count = len(patient.settings.hooks)
    return "no hooks are configured" if not count else f"the programs of {count} hooks are there"


def _missing(patient: Patient) -> Iterator[Finding]:
    settings = patient.settings
    named = [(f"hooks.{point}", hook.argv[0]) for point, hook in settings.hooks.items()]
    if settings.probe.command is not None:
        named.append(("probe", settings.probe.command[0]))
    named += [("drain.gauges", gauge.command[0]) for gauge in settings.drain.gauges if gauge.command is not None]
    for key, program in named:
        if shutil.which(program, os.X_OK, SEARCHED) is None:
            message = f"{key}: {program} is not there, or cannot be executed (searched in {SEARCHED})"
            yield Finding("programs", "wrong", message, "install it, or correct the configuration")
    for match in settings.drain.workers:
        if match.user is not None and not match.user.isdecimal() and not _is_user(match.user):
            message = f"drain.workers: this host knows no user {match.user!r}"
            yield Finding("programs", "wrong", message, "correct `user`, or create the account")


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def look_at_gauges(patient: Patient) -> Sequence[Finding]:
    """Whether each server that a drain would ask gives an answer; commands are not run."""
    gauges = [gauge for gauge in patient.settings.drain.gauges if gauge.command is None]
    if not gauges:
        return []
    return asyncio.run(_ask(gauges))


async def _ask(gauges: Sequence[Gauge]) -> Sequence[Finding]:
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        answers = await asyncio.gather(*(read_gauge(gauge, session=session, environment={}) for gauge in gauges))
    findings = []
    for gauge, busy in zip(gauges, answers, strict=True):
        reasons = [reason for worker in busy for reason in worker.reasons]
        if any(_UNASKED in reason for reason in reasons):
            message = f"{gauge.name} {'; '.join(reasons)}"
            findings.append(Finding("gauges", "wrong", message, "a drain would wait for it until its time is up"))
        else:
            findings.append(Finding("gauges", "ok", f"{gauge.name} answers: {'; '.join(reasons) or 'idle'}"))
    return findings
