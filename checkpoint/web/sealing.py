"""Owns what the server gives to browsers and must know again: sealed with a key, so that nobody else can have made it.

What is sealed is left to the callers. Sealed is not secret: whoever holds it can read it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import zlib
from pathlib import Path
from typing import Final

from artifact import ConfigError

KEY_BYTES: Final = 32
_MAX_BYTES: Final = 16 << 20


class Seal:
    """Seals and opens. `key` has 32 bytes or more."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def close(self, purpose: str, content: bytes, *, until_s: float) -> str:
        """Text fit for a cookie or a form. `until_s`: when it ends, in seconds since the epoch."""
        body = base64.urlsafe_b64encode(int(until_s).to_bytes(8, "big") + zlib.compress(content)).decode()
        return f"{body}.{self._mac(purpose, body)}"

    def open(self, purpose: str, sealed: str, *, now_s: float) -> bytes | None:
        """What was sealed for that purpose; None where it was not, was changed, or has ended."""
        body, _, mac = sealed.rpartition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(purpose, body).encode()):
            return None
        raw = base64.urlsafe_b64decode(body)
        if int.from_bytes(raw[:8], "big") <= now_s:
            return None
        return zlib.decompressobj().decompress(raw[8:], _MAX_BYTES)

    def word(self, purpose: str, about: str) -> str:
        """A word that only this key makes of `about`."""
        return self._mac(purpose, about)

    def is_word(self, purpose: str, about: str, word: str) -> bool:
        """Whether it is that word."""
        return hmac.compare_digest(word.encode(errors="replace"), self._mac(purpose, about).encode())

    def _mac(self, purpose: str, text: str) -> str:
        message = f"{purpose}\0{text}".encode(errors="replace")
        return base64.urlsafe_b64encode(hmac.digest(self._key, message, hashlib.sha256)).decode().rstrip("=")


def read_key(path: Path) -> bytes:
    """The key in a file, which is made where it does not exist.

    Raises:
        ConfigError: it cannot be read or made, is too short, or others may read it.
    """
    try:
        if not path.exists():
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path}: others may read the key that signs sessions: chmod 600 {path}")
        key = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: the key that signs sessions cannot be used: {error.strerror}") from error
    if len(key) < KEY_BYTES:
        raise ConfigError(f"{path}: has {len(key)} bytes; the key that signs sessions needs {KEY_BYTES}: remove it")
    return key
