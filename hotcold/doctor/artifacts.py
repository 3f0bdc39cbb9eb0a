"""Owns the check of the artifact store: can this host fetch what is ordered, also in parts.

How artifacts are fetched is left to `artifact`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

from artifact import ConfigError, ManifestRef, Refused, TransientError
from artifact.indexed import WITHOUT_INDEX
from artifact.ranges import NoPlaceGave, Places
from artifact.urls import index_url, shown
from fleet import Order
from hotcold.doctor.finding import Finding
from hotcold.doctor.patient import Patient

_CHECK = "artifacts"


class _OneByte:
    """Takes a range of one byte."""

    def __init__(self) -> None:
        self.accepted_bytes = 0

    async def consume(self, chunks: AsyncIterator[bytes]) -> None:
        """Take it."""
        async for chunk in chunks:
            self.accepted_bytes += len(chunk)


def look_at_artifacts(patient: Patient) -> Sequence[Finding]:
    """One byte of each place of each build that is ordered, and of its index."""
    return asyncio.run(_look(patient))


async def _look(patient: Patient) -> Sequence[Finding]:
    try:
        order = await patient.order()
    except Refused as error:
        return [Finding(_CHECK, "unknown", f"what stands in the tier's key is no order: {error}")]
    if order is None:
        return [Finding(_CHECK, "unknown", "no order is known, so nobody says where artifacts lie")]
    asked = [(ref, url) for ref in _builds(order) for url in ref.urls]
    return await asyncio.gather(*(_ask(patient, ref, url) for ref, url in asked))


def _builds(order: Order) -> list[ManifestRef]:
    return [order.build, *([order.previous] if order.previous is not None else [])]


async def _ask(patient: Patient, ref: ManifestRef, url: str) -> Finding:
    name = f"{shown(url)} (build {ref.id})"
    try:
        async with asyncio.timeout(patient.patience_s):
            await _read(patient, url)
            without_index = None if ref.index is None else await _failure(patient, index_url(url))
    except NoPlaceGave as error:
        if error.kinds == {"no_ranges"}:
            return Finding(
                _CHECK,
                "warning",
                f"{name} can be fetched, but only whole: requests for ranges are answered by everything",
                "let the server, and proxies before it, answer requests for ranges by 206",
            )
        return Finding(_CHECK, "wrong", f"build {ref.id} cannot be fetched: {error}", _remedy(error))
    except TimeoutError:
        message = f"{name} gave no answer within {patient.patience_s:g} s"
        return Finding(_CHECK, "wrong", message, "look at that server and the network")
    except (TransientError, ConfigError) as error:
        return Finding(_CHECK, "wrong", f"build {ref.id} cannot be fetched: {error}")
    if without_index is None:
        return Finding(_CHECK, "ok", f"{name} can be fetched, also in parts")
    is_fetched_whole = not without_index.kinds.isdisjoint(WITHOUT_INDEX)
    return Finding(
        _CHECK,
        "warning" if is_fetched_whole else "wrong",
        f"{name} can be fetched, but {'only whole' if is_fetched_whole else 'its index cannot'}: {without_index}",
        "upload the .index beside it",
    )


async def _failure(patient: Patient, url: str) -> NoPlaceGave | None:
    try:
        await _read(patient, url)
    except NoPlaceGave as error:
        return error
    return None


async def _read(patient: Patient, url: str) -> None:
    chance = random.Random()  # noqa: S311 - never used: there is one attempt
    async with Places((url,), patient.settings.pull, chance=chance, attempts=1) as places:
        # Not the first byte: a server that knows no ranges would be taken for one that does if the file had one byte.
        await places.read(lambda place: place, 1, 1, _OneByte())


def _remedy(error: NoPlaceGave) -> str:
    if "http_404" in error.kinds:
        return "upload it there, or order a build that is there; what is on this host's disk is not affected"
    return "" if error.kinds & {"http_401", "http_403"} else "look at that server, the network and [fetch].ca_cert"
