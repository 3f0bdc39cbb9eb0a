"""Owns how sub-commands get at secret keys: which file, and its password from a file or a terminal.

What a key is and does is left to `artifact`. The library behind it is loaded when a key is opened, not before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from artifact import ConfigError

if TYPE_CHECKING:
    from artifact.secretkey import SecretKey

_Function = TypeVar("_Function", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)

password_option = click.option(
    "--password-file",
    type=_FILE,
    metavar="FILE",
    help="File whose first line is the key's password.  [default: asked for on the terminal]",
)


def key_options(*, is_required: bool) -> Callable[[_Function], _Function]:
    """Add `--key` and `--password-file`: parameters `key` and `password_file`, for `open_key`."""
    key = click.option(
        "--key", type=_FILE, required=is_required, metavar="FILE", help="Secret key to sign with; minisign's, too."
    )
    return lambda function: key(password_option(function))


def open_key(path: Path, password_file: Path | None) -> SecretKey:
    """The secret key in a file, unlocked.

    Raises:
        ConfigError: the file, its contents or the password; the message names the file.
    """
    from artifact.keyfiles import read_secret_key  # noqa: PLC0415 - only who signs pays for it

    def password() -> bytes:
        if password_file is not None:
            return password_in(password_file)
        return _asked(f"Password of {path}", is_new=False)

    return read_secret_key(path, password)


def new_password(path: Path, password_file: Path | None) -> bytes:
    """The password for a key that is about to be made; on a terminal it is asked for twice."""
    return _asked(f"Password for {path}", is_new=True) if password_file is None else password_in(password_file)


def password_in(file: Path) -> bytes:
    """The first line of a file.

    Raises:
        ConfigError: it cannot be read, or the line is empty.
    """
    try:
        with file.open("rb") as lines:
            password = lines.readline().rstrip(b"\r\n")
    except OSError as error:
        raise ConfigError(f"{file}: the password cannot be read: {error.strerror}", kind="password_file") from error
    if not password:
        raise ConfigError(f"{file}: the first line is empty, but should be the password", kind="password_file")
    return password


def _asked(text: str, *, is_new: bool) -> bytes:
    if not sys.stdin.isatty():
        alternative = ", or --no-password" if is_new else ""
        raise ConfigError(
            f"{text}: there is no terminal to ask on; give --password-file{alternative}", kind="no_terminal"
        )
    answer: str = click.prompt(text, hide_input=True, confirmation_prompt=is_new, err=True)
    return answer.encode()
