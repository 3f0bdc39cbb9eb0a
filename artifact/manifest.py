"""Owns what a build is called and how its artifact is found: manifests and references to them.

Reading, packing and opening artifacts is left to the other modules of this package.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from artifact.errors import Refused

FORMATS: Final = ("tar", "tar.gz", "tar.zst", "zip")
"""Formats that a host can open, as they stand in `ManifestRef.format`."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_URL = re.compile(r"(https?|file|s3)://[^\s]+")


class PatchRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A patch that turns the files of one earlier build into this build's; see docs/formats.md.

    Nothing rests on it: what it gives is verified against the index, and a host without that build ignores it.

    Attributes:
        base: digest of the earlier build's index.
        size: of the patch, in bytes.
    """

    base: str
    size: int

    def __post_init__(self) -> None:
        """Refuse what no host could use."""
        _check_digest(self.base)
        _check_size(self.size)


class IndexRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The index of an artifact that `hotcold pack` made; it lies at the artifact's url with `.index` appended.

    Attributes:
        digest: `sha256:` and 64 hex digits, of the index's root, which names everything else.
        size: of the root, in bytes: the first ones of the file.
        patches: against earlier builds, the most useful first.
    """

    digest: str
    size: int
    patches: tuple[PatchRef, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no host could use."""
        _check_digest(self.digest)
        _check_size(self.size)


class ManifestRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a host needs to fetch one build and to know that it got it.

    Attributes:
        id: the build's id, `[A-Za-z0-9][A-Za-z0-9._+-]*`, at most 128 characters.
        urls: where the artifact lies, absolute `http://`, `https://`, `s3://` or `file://`; tried in turn.
        digest: `sha256:` and 64 hex digits, of the artifact's bytes.
        size: of the artifact, in bytes.
        format: one of `FORMATS`.
        index: of an artifact of ours, else None: then the artifact is fetched whole.
        signature: minisign signature over the reference, or None.
    """

    id: str
    urls: tuple[str, ...]
    digest: str
    size: int
    format: str
    index: IndexRef | None = None
    signature: str | None = None

    def __post_init__(self) -> None:
        """Refuse references that no host could use, whoever made them."""
        check_build_id(self.id)
        if not self.urls:
            raise ValueError("`urls` is empty: at least one place to fetch the artifact from is needed")
        for url in self.urls:
            if not _URL.fullmatch(url):
                raise ValueError(f"url {url!r} is not an absolute http://, https://, s3:// or file:// address")
        _check_digest(self.digest)
        _check_size(self.size)
        if self.format not in FORMATS:
            raise ValueError(f"format {self.format!r} is not one of {', '.join(FORMATS)}")


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One build as `hotcold pack` describes it; the document beside the artifact.

    `urls` may be relative here: they are resolved against the place where the manifest lies.

    Attributes:
        v: version of this document, 1.
        created: RFC 3339 time in UTC.
        revision: git commit the tree was made from, if known.
        notes: free text for humans.
        index, signature: as in `ManifestRef`.
    """

    v: int
    app: str
    id: str
    urls: tuple[str, ...]
    digest: str
    size: int
    format: str
    created: str
    revision: str | None = None
    notes: str | None = None
    index: IndexRef | None = None
    signature: str | None = None


def check_build_id(build_id: str) -> None:
    """Raise ValueError unless `build_id` can stand in a path, a key and a URL."""
    if not _ID.fullmatch(build_id) or ".." in build_id:
        raise ValueError(
            f"build id {build_id!r} must match [A-Za-z0-9][A-Za-z0-9._+-]*, be at most 128 characters "
            "and contain no '..'"
        )


def _check_digest(digest: str) -> None:
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"digest {digest!r} is not `sha256:` and 64 hex digits")


def _check_size(size: int) -> None:
    if size < 0:
        raise ValueError(f"size {size} is negative")


def decode_manifest(data: bytes) -> Manifest:
    """Decode a manifest document strictly.

    Raises:
        Refused: not JSON, a missing, unknown or mistyped field, or an unknown version.
    """
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"this is not a manifest: {error}", kind="manifest_invalid") from error
    if manifest.v != 1:
        raise Refused(
            f"manifest has version {manifest.v}; this hotcold reads version 1: upgrade it", kind="manifest_version"
        )
    try:
        check_build_id(manifest.id)
    except ValueError as error:
        raise Refused(f"manifest: {error}", kind="manifest_invalid") from error
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """Encode for people and machines: indented JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
