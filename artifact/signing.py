"""Owns what a key says of a build; leaves keys to `artifact.secretkey`, and manifests' files to `artifact.publish`."""

from __future__ import annotations

from artifact.manifest import Manifest
from artifact.secretkey import SecretKey
from artifact.statement import comment, statement


def signature_by(key: SecretKey, manifest: Manifest) -> str:
    """The signature of a manifest, as it stands in there; the same key and build give the same.

    The caller has checked the names of app and build: `key` vouches for whatever stands there.
    """
    return key.sign(statement(manifest.app, manifest), comment(manifest.app, manifest.id)).text()
