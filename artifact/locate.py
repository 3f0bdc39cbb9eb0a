"""Owns finding a build's manifest, and from it the absolute urls of the artifact; leaves fetching that to `pull`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from artifact.errors import ConfigError, Refused
from artifact.fetch import opened
from artifact.manifest import Manifest, ManifestRef, decode_manifest
from artifact.pullwire import PullSettings
from artifact.urls import shown

MAX_MANIFEST_BYTES: Final = 1 << 20
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SCHEMES: Final = ("http://", "https://", "s3://", "file://")


async def load_manifest(location: str, *, settings: PullSettings | None = None) -> tuple[Manifest, str]:
    """Read the manifest at a path, or at an `http`, `https`, `s3` or `file` url.

    Returns:
        The manifest, and its location as an absolute url, for `reference`.

    Raises:
        TransientError: it cannot be fetched; kinds as in `artifact.pull.pull`.
        ConfigError: not a location that can be read.
        Refused: what lies there is no manifest.
    """
    url = absolute(location)
    data = bytearray()
    async with opened(url, settings or PullSettings()) as source:
        while chunk := await source.chunk():
            data += chunk
            if len(data) > MAX_MANIFEST_BYTES:
                raise Refused(
                    f"{shown(url)} is larger than {MAX_MANIFEST_BYTES} bytes: give the manifest's address (.json), "
                    "not the artifact's",
                    kind="manifest_invalid",
                )
    try:
        return decode_manifest(bytes(data)), url
    except Refused as error:
        raise Refused(f"{shown(url)}: {error}", kind=error.kind) from error


def reference(manifest: Manifest, location: str) -> ManifestRef:
    """What a host needs to fetch the build whose manifest lies at `location`, a path or url.

    Raises:
        Refused: kind `manifest_invalid`: a url, digest, size or format that no host could use.
        ConfigError: not a location that can be read.
    """
    base = absolute(location)
    try:
        return ManifestRef(
            id=manifest.id,
            urls=tuple(_joined(base, _quoted(url)) for url in manifest.urls),
            digest=manifest.digest,
            size=manifest.size,
            format=manifest.format,
            index=manifest.index,
            signature=manifest.signature,
        )
    except ValueError as error:
        raise Refused(f"manifest {shown(base)}: {error}", kind="manifest_invalid") from error


def absolute(location: str) -> str:
    """`location` as an absolute url; paths are taken from the working directory.

    Raises:
        ConfigError: kind `bad_location`: another scheme than `http`, `https`, `s3` and `file`, or no sound url.
    """
    if location.startswith(_SCHEMES):
        try:
            urlsplit(location)
        except ValueError as error:
            raise ConfigError(f"the address is none: {error}; look for a stray bracket", kind="bad_location") from error
        return location
    if _URL.match(location):
        raise ConfigError(
            f"{shown(location)} cannot be read: give a path or an http://, https://, s3:// or file:// address",
            kind="bad_location",
        )
    return Path(location).absolute().as_uri()


def _joined(base: str, url: str) -> str:
    """The standard's function knows the schemes for which relative urls are defined; `s3` is meant just like them."""
    if not base.startswith("s3://") or _URL.match(url):
        return urljoin(base, url)
    return "s3" + urljoin(f"http{base.removeprefix('s3')}", url).removeprefix("http")


def _quoted(url: str) -> str:
    """A relative url is a file name to people: a space or `#` in it is part of the name."""
    return url if _URL.match(url) else quote(url, safe="/:@!$&'()*+,;=~")
