"""Owns `hotcold sign`: signatures for manifests that were packed elsewhere, or under a key that is being replaced."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from artifact import ConfigError, Manifest, Refused, decode_manifest, encode_manifest
from artifact.locate import reference
from artifact.publish import publish_data
from fleet.keys import check_name
from hotcold.command import Command
from hotcold.key_options import key_options, open_key


@click.command(
    cls=Command,
    examples=[
        "hotcold sign /srv/artifacts/shop-2026-11-23.1.json --key ci.key",
        "hotcold sign /srv/artifacts/shop-*.json --key ci.key --password-file /run/secrets/ci",
    ],
    exits={1: "a file is no manifest that can be signed, or the disk failed; those not named are as they were"},
)
@click.argument("manifests", type=click.Path(path_type=Path), metavar="MANIFEST...", nargs=-1, required=True)
@key_options(is_required=True)
def sign(*, manifests: tuple[Path, ...], key: Path, password_file: Path | None) -> None:
    """Put a signature by the key into each MANIFEST, a file, instead of the one that it may have.

    The key vouches for what stands there, above all for the digest: sign only what you trust to come from your build.
    Urls are not covered. Nothing is written before all manifests have been read and found in order.
    """
    from artifact.signing import signature_by  # noqa: PLC0415 - only who signs pays for it

    read = [(path, _read(path)) for path in manifests]
    secret = open_key(key, password_file)
    for path, manifest in read:
        signature = signature_by(secret, manifest)
        publish_data(encode_manifest(msgspec.structs.replace(manifest, signature=signature)), path)
        click.echo(f"{path}: build {manifest.id} of {manifest.app}, signed by key {secret.public.key_id}")


def _read(path: Path) -> Manifest:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; give the file of a manifest") from error
    try:
        manifest = decode_manifest(data)
        reference(manifest, str(path))  # refuses what no host could use
        check_name("app", manifest.app)
    except (Refused, ConfigError) as error:
        raise Refused(f"{path}: not signed: {error}", kind=error.kind) from error
    return manifest
