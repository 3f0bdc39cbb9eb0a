"""Owns how sub-commands are told where Consul is; leaves what the values mean to `fleet`.

Apart from the other options, because whoever asks only the local agent must not wait for Consul's client to load.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fleet import ConsulSettings, consul_settings

_Function = TypeVar("_Function", bound=Callable[..., Any])


def consul_options(function: _Function) -> _Function:
    """Add `--consul` and `--token-file`: parameters `consul` and `token_file`, for `settings_of`."""
    function = click.option(
        "--token-file",
        metavar="FILE",
        help="File with the ACL token.  [default: $CONSUL_HTTP_TOKEN_FILE, else $CONSUL_HTTP_TOKEN]",
    )(function)
    return click.option(
        "--consul", metavar="ADDRESS", help="Consul's address.  [default: $CONSUL_HTTP_ADDR, else 127.0.0.1:8500]"
    )(function)


def settings_of(consul: str | None, token_file: str | None) -> ConsulSettings:
    """The environment's settings with the options over them.

    Raises:
        ConfigError: a value that cannot be used; the message names where it came from.
    """
    given = {"address": consul, "token_file": token_file}
    return consul_settings(os.environ, {key: value for key, value in given.items() if value is not None})
