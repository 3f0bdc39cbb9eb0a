"""Owns what the urls of an artifact and of the files beside it are, and how urls are shown to people."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit, urlunsplit

from artifact.manifest import PatchRef

INDEX_SUFFIX: Final = ".index"


def shown(url: str) -> str:
    """The url for people: without password and query, where access tokens stand."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "..." if parts.query else "", ""))


def index_url(url: str) -> str:
    """Where the index of the artifact at `url` lies."""
    return _appended(url, INDEX_SUFFIX)


def patch_url(url: str, patch: PatchRef) -> str:
    """Where a patch of the artifact at `url` lies."""
    return _appended(url, patch_suffix(patch.base))


def patch_suffix(base: str) -> str:
    """What the name of a patch against the build with this index digest ends with."""
    return f".from-{base.removeprefix('sha256:')[:16]}"


def _appended(url: str, suffix: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path + suffix))
