"""Owns files of secret keys: made once, with the public key beside them, and readable by their owner alone.

What stands in them is left to `artifact.secretkey`; asking for a password, to the command.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from artifact.diskerrors import disk_error
from artifact.errors import ConfigError, HotcoldError
from artifact.minisign import read_key_text
from artifact.secretkey import LockedKey, SecretKey

_SECRET_MODE: Final = 0o600
_PUBLIC_MODE: Final = 0o644


def write_key_pair(key: SecretKey, *, secret: Path, public: Path, password: bytes | None) -> None:
    """Write both files; neither may exist. After an error neither does.

    Args:
        key: the pair.
        secret: mode 0600.
        public: mode 0644.
        password: locks the secret file; None: not locked.

    Raises:
        ConfigError: kind `key_exists`, `disk_not_writable` or `out_of_memory`.
        TransientError: the disk.
    """
    # Looked at before the password costs its time; what counts is how the files are opened.
    for path in (secret, public):
        if path.exists():
            raise _exists(path)
    text = key.text(password)
    _create(secret, text, _SECRET_MODE)
    try:
        _create(public, key.public.text(), _PUBLIC_MODE)
    except HotcoldError:
        secret.unlink()
        raise


def read_secret_key(path: Path, password: Callable[[], bytes]) -> SecretKey:
    """The key in a secret key file, of ours or minisign's; `password` is called if the file is locked.

    Raises:
        ConfigError: kind `key_unreadable`, `key_invalid`, `key_password` or `out_of_memory`.
    """
    try:
        locked = LockedKey.parse(read_key_text(path))
    except ValueError as error:
        raise ConfigError(f"{path}: it is no minisign secret key: {error}", kind="key_invalid") from error
    given = password() if locked.is_locked else b""
    try:
        return locked.unlock(given)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}", kind="key_password" if locked.is_locked else "key_invalid") from error


def _create(path: Path, text: str, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise disk_error(error, path.parent, f"creating {path.name}") from error
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            os.fchmod(descriptor, mode)  # whatever the umask
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise disk_error(error, path.parent, f"writing {path.name}") from error


def _exists(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} exists: a key that was lost cannot be made again, so none is overwritten; choose another name",
        kind="key_exists",
    )
