"""Owns whose word counts for a build: the keys that a host trusts, and whether one of them signed just this build.

What a signature says is left to `artifact.statement`, its format to `artifact.minisign`. Doubt refuses: a build without
a signature that holds in every respect is not obeyed where keys are trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from artifact.errors import Refused
from artifact.manifest import ManifestRef
from artifact.minisign import PublicKey, Signature
from artifact.statement import comment, statement

_SHOWN_CHARACTERS: Final = 200


class TrustedKeys:
    """The keys of a host, at least one; several while one takes over from another.

    `str` of it names their ids.
    """

    def __init__(self, keys: Sequence[PublicKey]) -> None:
        self._keys = tuple(keys)

    def __str__(self) -> str:
        return ", ".join(dict.fromkeys(key.key_id for key in self._keys))

    def signer(self, app: str, build: ManifestRef) -> str:
        """Id of the trusted key that signed `build` as a build of `app`.

        Raises:
            Refused: nobody who is trusted did. Kind `build_unsigned`: there is no signature; `signature_malformed`:
                it cannot be read; `signature_untrusted`: another key made it; `signature_mismatch`: a trusted key
                made it for something else, or it was altered.
        """
        signature = self._readable(build)
        candidates = [key for key in self._keys if key.key == signature.key]
        if not candidates:
            raise Refused(
                f"build {build.id} is signed by key {signature.key_id}, which is not trusted here; trusted: {self}. "
                "Sign it with one of those, or add the key to `trusted_keys`",
                kind="signature_untrusted",
            )
        for key in candidates:
            if key.has_sealed(signature):
                self._check_subject(key, signature, app, build)
                return key.key_id
        raise Refused(
            f"the signature of build {build.id} was altered, or key {signature.key_id} never made it; sign it again",
            kind="signature_mismatch",
        )

    def _readable(self, build: ManifestRef) -> Signature:
        if build.signature is None:
            raise Refused(
                f"build {build.id} is not signed, and this host runs only what one of these keys signed: {self}. "
                "Sign its manifest with `hotcold sign`, and deploy it again",
                kind="build_unsigned",
            )
        return read_signature(build)

    @staticmethod
    def _check_subject(key: PublicKey, signature: Signature, app: str, build: ManifestRef) -> None:
        expected = comment(app, build.id)
        if signature.comment != expected:
            raise Refused(
                f"the signature of build {build.id} was made for something else: key {key.key_id} signed "
                f"{signature.comment[:_SHOWN_CHARACTERS]!r}, not {expected!r}",
                kind="signature_mismatch",
            )
        if not key.has_signed(statement(app, build), signature):
            raise Refused(
                f"the signature of build {build.id} does not fit: digest, size, format or index are not what key "
                f"{key.key_id} signed under this id. Deploy the manifest as it was signed, or sign it again",
                kind="signature_mismatch",
            )


def read_signature(build: ManifestRef) -> Signature:
    """The signature of a build that has one; whose it is, and whether it fits, is not judged.

    Raises:
        Refused: kind `signature_malformed`.
    """
    try:
        return Signature.parse(build.signature or "")
    except ValueError as error:
        raise Refused(f"the signature of build {build.id} {error}", kind="signature_malformed") from error
