"""Owns the tokens file: who may sign in by a token, with which role; it holds hashes only.

Sessions are left to `checkpoint.web.identity`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from artifact import ConfigError
from checkpoint.web.rights import Role
from fleet.strict_toml import parse_toml, read_text

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,62}")
"""What a person may be called: it stands in the audit, and in what commands print."""

_TOKEN: Final = re.compile(r"hc_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_COST: Final = {"n": 1 << 14, "r": 8, "p": 1}
_SALT_BYTES: Final = 16


class TokenLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[tokens]]`: `id` is the part of the token that is no secret, `hash` is scrypt's, with its salt."""

    id: str
    name: str
    role: Literal["read", "deploy", "admin"]
    hash: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    tokens: tuple[TokenLine, ...] = ()


@dataclass(frozen=True)
class Known:
    """A token that may be used."""

    id: str
    name: str
    role: Role
    salt: bytes
    digest: bytes


def read_tokens(path: Path) -> Mapping[str, Known]:
    """The tokens by their ids.

    Raises:
        ConfigError: the file cannot be read, or something in it is wrong.
    """
    known: dict[str, Known] = {}
    try:
        lines = parse_toml(read_text(path), _File).tokens
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", kind=error.kind) from error
    for line in lines:
        if not NAME.fullmatch(line.name):
            raise ConfigError(f"{path}: tokens.name {line.name!r}: letters, digits and . _ + @ - are allowed")
        try:
            raw = base64.b64decode(line.hash, validate=True)
        except ValueError as error:
            raise ConfigError(f"{path}: the hash of token {line.id} is damaged: make another token") from error
        known[line.id] = Known(line.id, line.name, Role[line.role.upper()], raw[:_SALT_BYTES], raw[_SALT_BYTES:])
    return known


def new_token(path: Path, name: str, role: Literal["read", "deploy", "admin"]) -> str:
    """Add a token to the file, which is made where it does not exist, and return it; it is kept nowhere.

    Raises:
        ConfigError: the name is not fit, or the file is wrong or cannot be written; it is as it was.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot be a person's name here: letters, digits and . _ + @ - are allowed")
    token_id, secret, salt = secrets.token_hex(4), secrets.token_urlsafe(32), secrets.token_bytes(_SALT_BYTES)
    encoded = base64.b64encode(salt + _digest(secret, salt)).decode()
    line = f'[[tokens]]\nid = "{token_id}"\nname = "{name}"\nrole = "{role}"\nhash = "{encoded}"\n'
    with _told(path):
        before = read_text(path) if path.exists() else ""
        if before:
            read_tokens(path)
        # Somebody reads the file at any time: it is replaced, whole.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(f"{before}\n{line}" if before else line)
            file.flush()
            os.fsync(file.fileno())
        if before:
            status = path.stat()
            os.chmod(file.name, status.st_mode & 0o777)  # noqa: PTH101 - a name that the library gave
            if os.geteuid() == 0:
                os.chown(file.name, status.st_uid, status.st_gid)
        Path(file.name).replace(path)
    return f"hc_{token_id}_{secret}"


def checked(token: str, known: Mapping[str, Known]) -> Known | None:
    """Whose token it is; None: nobody's. Takes tens of milliseconds, on purpose: keep it off the loop."""
    match = _TOKEN.fullmatch(token)
    found = None if match is None else known.get(match[1])
    if match is None or found is None:
        return None
    return found if hmac.compare_digest(_digest(match[2], found.salt), found.digest) else None


def _digest(secret: str, salt: bytes) -> bytes:
    return hashlib.scrypt(secret.encode(), salt=salt, n=_COST["n"], r=_COST["r"], p=_COST["p"], dklen=32)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path}: the token cannot be added: {error.strerror}") from error
