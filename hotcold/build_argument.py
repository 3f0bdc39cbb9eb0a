"""Owns what BUILD means on a command line: the id of a released build, or the path or URL of a manifest.

What a record or a manifest holds is left to `checkpoint.release` and `artifact.locate`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import click

from artifact import ConfigError, Manifest, ManifestRef
from artifact.locate import load_manifest, reference
from checkpoint.insisting import Insistence
from fleet import ConsulSettings, ConsulStore, StoreUnreachable

METAVAR: Final = "BUILD"
SUFFIX: Final = ".json"
"""Of manifests, as `hotcold pack` writes them."""


@dataclass(frozen=True)
class Chosen:
    """A build that was named; `manifest` None: by its id."""

    build: ManifestRef
    manifest: Manifest | None


def is_location(given: str) -> bool:
    """Whether a word is where a manifest lies: it has a slash, or ends as manifests do. Ids do neither."""
    return "/" in given or given.endswith(SUFFIX)


async def choose(given: str, app: str, settings: ConsulSettings) -> Chosen:
    """The build that a word names.

    Raises:
        ConfigError: it is a build of another app, or no location that can be read.
        TransientError: its manifest, or Consul, cannot be reached.
        Refused: no such build was released, or what lies there is no manifest.
    """
    if not is_location(given):
        from checkpoint.release.finding import find_build  # noqa: PLC0415 - loads what only releases need

        async with ConsulStore(settings) as store:
            insistence = Insistence(asyncio.sleep, _say_retry)
            return Chosen((await find_build(store, app, given, insistence)).build, None)
    described, location = await load_manifest(given)
    if described.app != app:
        raise ConfigError(f"{location} is a build of {described.app!r}, not of {app!r}: nothing was done")
    return Chosen(reference(described, location), described)


def _say_retry(error: StoreUnreachable) -> None:
    click.echo(f"Consul does not answer ({error}); trying again", err=True)
