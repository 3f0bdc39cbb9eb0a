"""Owns minisign's public keys and signatures: reading them strictly, writing them, verifying.

Secret keys are left to `artifact.secretkey`, and whose key counts to `artifact.trust`. Only a public key loads the
library that verifies, so that importing this module, or an agent that trusts no keys, costs next to nothing.
"""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from artifact.errors import ConfigError

PREHASHED: Final = b"ED"
"""The form of a signature: over BLAKE2b of the data. Every minisign of our day makes it."""
LEGACY: Final = b"Ed"
"""In a signature: over the data itself. In a key: the only kind there is."""
ID_BYTES: Final = 8
_POINT_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_MAX_CHARACTERS: Final = 4096
"""A signature is a few hundred characters; minisign itself takes comments that long at most."""
_MAX_FILE_BYTES: Final = 64 * 1024
UNTRUSTED: Final = "untrusted comment: "
TRUSTED: Final = "trusted comment: "


@dataclass(frozen=True)
class Signature:
    """A prehashed signature.

    Attributes:
        key: id of the key that made it, as it claims.
        body: over the data.
        comment: for people and programs; signed together with `body`.
        seal: the signature over `body` and `comment`.
    """

    key: bytes
    body: bytes
    comment: str
    seal: bytes

    @classmethod
    def parse(cls, text: str) -> Signature:
        """Read the text of a `.minisig` file; the last line may lack its newline.

        Raises:
            ValueError: it is no signature, or a legacy one; the message completes "the signature ...".
        """
        if len(text) > _MAX_CHARACTERS:
            raise ValueError(f"is no minisign signature: it has {len(text)} characters")
        lines = text.removesuffix("\n").split("\n")
        if len(lines) != 4 or not lines[0].startswith(UNTRUSTED) or not lines[2].startswith(TRUSTED):  # noqa: PLR2004
            raise ValueError("is no minisign signature: that has four lines, an untrusted comment first")
        try:
            head = decoded(lines[1], len(PREHASHED) + ID_BYTES + _SIGNATURE_BYTES)
            seal = decoded(lines[3], _SIGNATURE_BYTES)
        except ValueError as error:
            raise ValueError(f"is no minisign signature: {error}") from error
        form, key, body = head[:2], head[2 : 2 + ID_BYTES], head[2 + ID_BYTES :]
        if form == LEGACY:
            # The two bytes that name the form are not signed: with one form, there is none to choose for a forger.
            raise ValueError("is in minisign's legacy form, which is not accepted: sign again, without -l")
        if form != PREHASHED:
            raise ValueError(f"is of an unknown form, {form!r}")
        return cls(key, body, lines[2].removeprefix(TRUSTED), seal)

    def text(self) -> str:
        """As a `.minisig` file has it.

        Raises:
            ValueError: the comment is not one line of printable ASCII, or too long.
        """
        if not (self.comment.isascii() and self.comment.isprintable()):
            raise ValueError(f"comment {self.comment!r} is not one line of printable ASCII")
        lines = (
            f"{UNTRUSTED}signature of a build, made by hotcold",
            encoded(PREHASHED + self.key + self.body),
            f"{TRUSTED}{self.comment}",
            encoded(self.seal),
        )
        text = "".join(f"{line}\n" for line in lines)
        if len(text) > _MAX_CHARACTERS:
            raise ValueError(f"comment of {len(self.comment)} characters is too long")
        return text

    @property
    def key_id(self) -> str:
        """As minisign shows it."""
        return shown_id(self.key)

    def sealed(self) -> bytes:
        """What `seal` is made over."""
        return self.body + self.comment.encode()


@dataclass(frozen=True)
class PublicKey:
    """A public key."""

    key: bytes
    point: bytes

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read a key as `minisign -P` takes it, or the text of a public key file. Loads the verifying library.

        Raises:
            ValueError: it is no public key; the message completes "it is no minisign public key: ...".
        """
        from nacl.bindings import crypto_core_ed25519_is_valid_point  # noqa: PLC0415 - only who trusts keys pays for it

        lines = text.removesuffix("\n").split("\n")
        if lines[0].startswith(UNTRUSTED):
            del lines[0]
        if len(lines) != 1:
            raise ValueError("a file has two lines, an untrusted comment and the key")
        data = decoded(lines[0].strip(), len(LEGACY) + ID_BYTES + _POINT_BYTES)
        if data[:2] != LEGACY:
            raise ValueError("it does not begin with RW")
        key, point = data[2 : 2 + ID_BYTES], data[2 + ID_BYTES :]
        # There is no checksum: this finds nearly every key that was mistyped.
        if not crypto_core_ed25519_is_valid_point(point):
            raise ValueError("its last part is no point of the curve; was it mistyped?")
        return cls(key, point)

    @property
    def key_id(self) -> str:
        """As minisign shows it."""
        return shown_id(self.key)

    def line(self) -> str:
        """As `minisign -P` takes it."""
        return encoded(LEGACY + self.key + self.point)

    def text(self) -> str:
        """As a public key file has it."""
        return f"{UNTRUSTED}minisign public key {self.key_id}\n{self.line()}\n"

    def has_sealed(self, signature: Signature) -> bool:
        """Whether this key made the signature, its comment included, whatever it is a signature of."""
        return self._has_signed(signature.sealed(), signature.seal)

    def has_signed(self, data: bytes, signature: Signature) -> bool:
        """Whether this key signed `data`. `has_sealed` must be asked too."""
        return self._has_signed(hashlib.blake2b(data).digest(), signature.body)

    def _has_signed(self, message: bytes, signature: bytes) -> bool:
        from nacl.exceptions import BadSignatureError  # noqa: PLC0415 - loaded by `parse` already
        from nacl.signing import VerifyKey  # noqa: PLC0415 - the same

        try:
            VerifyKey(self.point).verify(message, signature)
        except BadSignatureError:
            return False
        return True


def read_key_text(path: Path) -> str:
    """The text of a key file, public or secret.

    Raises:
        ConfigError: kind `key_unreadable`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{path}: cannot be read as a key: {why}", kind="key_unreadable") from error
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(f"{path}: cannot be read as a key: it is too large for one", kind="key_unreadable")
    return text


def shown_id(key: bytes) -> str:
    """A key's id as minisign shows it: the eight bytes are a little-endian number, without leading zeros."""
    return f"{int.from_bytes(key, 'little'):X}"


def encoded(data: bytes) -> str:
    """One line of a minisign file."""
    return b64encode(data).decode("ascii")


def decoded(line: str, length: int) -> bytes:
    """The bytes of one line of a minisign file.

    Raises:
        ValueError: not Base64, not in its one canonical form, or of another length.
    """
    try:
        data = b64decode(line, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ValueError("a line is not Base64") from error
    if len(data) != length or encoded(data) != line:
        raise ValueError(f"a line has {len(data)} bytes instead of {length}, or is not proper Base64")
    return data
