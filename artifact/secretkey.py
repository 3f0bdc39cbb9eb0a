"""Owns minisign's secret keys: making them, keeping them behind a password, signing with them.

Public keys and signatures are left to `artifact.minisign`, files to `artifact.keyfiles`. Only who signs imports this
module: it loads the library that does it.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import Final

import nacl.exceptions
from nacl.pwhash import scrypt
from nacl.signing import SigningKey

from artifact.errors import ConfigError
from artifact.minisign import ID_BYTES, LEGACY, UNTRUSTED, PublicKey, Signature, decoded, encoded

_SCRYPT: Final = b"Sc"
_NO_PASSWORD: Final = b"\0\0"
_BLAKE2B: Final = b"B2"
_SALT_BYTES: Final = 32
_SEED_BYTES: Final = 32
_CHECKSUM_BYTES: Final = 32
_LAYOUT: Final = struct.Struct(f"<2s2s2s{_SALT_BYTES}sQQ{ID_BYTES + 2 * _SEED_BYTES + _CHECKSUM_BYTES}s")
_SEALED: Final = struct.Struct(f"{ID_BYTES}s{_SEED_BYTES}s{_SEED_BYTES}s{_CHECKSUM_BYTES}s")


@dataclass(frozen=True)
class Cost:
    """What scrypt spends on a password, in libsodium's terms; a key file carries its own.

    Attributes:
        operations: time.
        memory_bytes: space.
    """

    operations: int = 2**22
    memory_bytes: int = 2**27


MAX_COST: Final = Cost(operations=2**28, memory_bytes=2**32)
"""Beyond it a key file is broken or hostile; minisign's own are at an eighth and a quarter of it."""


@dataclass(frozen=True, repr=False)
class SecretKey:
    """A secret key, ready to sign; its memory is not wiped.

    Attributes:
        key: the eight bytes of its id.
        seed: the secret.
    """

    key: bytes
    seed: bytes

    @classmethod
    def generate(cls) -> SecretKey:
        """A new key, from the system's randomness."""
        return cls(os.urandom(ID_BYTES), os.urandom(_SEED_BYTES))

    @property
    def public(self) -> PublicKey:
        """What verifies its signatures."""
        return PublicKey(self.key, bytes(SigningKey(self.seed).verify_key))

    def sign(self, data: bytes, comment: str) -> Signature:
        """Sign `data` and, with it, `comment`. The same input gives the same signature.

        Raises:
            ValueError: the comment is not one line of printable ASCII, or too long.
        """
        signer = SigningKey(self.seed)
        body = signer.sign(hashlib.blake2b(data).digest()).signature
        unsealed = Signature(self.key, body, comment, b"")
        signature = Signature(self.key, body, comment, signer.sign(unsealed.sealed()).signature)
        signature.text()
        return signature

    def text(self, password: bytes | None, cost: Cost | None = None) -> str:
        """As a secret key file has it, locked by `password`; None: not locked at all.

        Raises:
            ConfigError: kind `out_of_memory`.
        """
        body = self.key + self.seed + self.public.point
        if password is None:
            # minisign leaves the checksum of such keys empty, too.
            sealed = body + bytes(_CHECKSUM_BYTES)
            return _text("secret key", _LAYOUT.pack(LEGACY, _NO_PASSWORD, _BLAKE2B, bytes(_SALT_BYTES), 0, 0, sealed))
        cost = cost or Cost()
        salt = os.urandom(_SALT_BYTES)
        sealed = _masked(body + _checksum(body), password, salt, cost)
        packed = _LAYOUT.pack(LEGACY, _SCRYPT, _BLAKE2B, salt, cost.operations, cost.memory_bytes, sealed)
        return _text("encrypted secret key", packed)


@dataclass(frozen=True, repr=False)
class LockedKey:
    """What a secret key file holds, before its password is known."""

    is_locked: bool
    salt: bytes
    cost: Cost
    sealed: bytes

    @classmethod
    def parse(cls, text: str) -> LockedKey:
        """Read the text of a secret key file.

        Raises:
            ValueError: it is none; the message completes "it is no minisign secret key: ...".
        """
        lines = text.removesuffix("\n").split("\n")
        if len(lines) != 2 or not lines[0].startswith(UNTRUSTED):  # noqa: PLR2004
            raise ValueError("a file has two lines, an untrusted comment and the key")
        fields = _LAYOUT.unpack(decoded(lines[1], _LAYOUT.size))
        algorithm, lock, checksum, salt, operations, memory_bytes, sealed = fields
        if algorithm != LEGACY or lock not in {_SCRYPT, _NO_PASSWORD} or checksum != _BLAKE2B:
            raise ValueError("it is of a kind that this hotcold does not know")
        if operations > MAX_COST.operations or memory_bytes > MAX_COST.memory_bytes:
            raise ValueError(f"unlocking it would take {memory_bytes >> 20} MiB and {operations} operations")
        return cls(lock == _SCRYPT, salt, Cost(operations, memory_bytes), sealed)

    def unlock(self, password: bytes) -> SecretKey:
        """The key itself; `password` does not matter where it is not locked.

        Raises:
            ValueError: wrong password, or the file is damaged.
            ConfigError: kind `out_of_memory`.
        """
        sealed = _masked(self.sealed, password, self.salt, self.cost) if self.is_locked else self.sealed
        key, seed, point, checksum = _SEALED.unpack(sealed)
        if self.is_locked and checksum != _checksum(key + seed + point):
            raise ValueError("wrong password")
        secret = SecretKey(key, seed)
        if secret.public.point != point:
            raise ValueError("its secret and its public part do not belong together: the file is damaged")
        return secret


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(LEGACY + body, digest_size=_CHECKSUM_BYTES).digest()


def _masked(sealed: bytes, password: bytes, salt: bytes, cost: Cost) -> bytes:
    """Lock or unlock: one is the other."""
    try:
        stream = scrypt.kdf(_SEALED.size, password, salt, opslimit=cost.operations, memlimit=cost.memory_bytes)
    except (nacl.exceptions.RuntimeError, MemoryError) as error:
        raise ConfigError(
            f"the password of the key cannot be used: that takes {cost.memory_bytes >> 20} MiB of memory for a moment",
            kind="out_of_memory",
        ) from error
    return bytes(one ^ other for one, other in zip(sealed, stream, strict=True))


def _text(what: str, packed: bytes) -> str:
    return f"{UNTRUSTED}minisign {what}\n{encoded(packed)}\n"
