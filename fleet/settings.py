"""Owns how Consul is reached: one frozen value made from the environment and the config file.

Connecting is left to `fleet.transport`; nothing here opens a file or a socket.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from artifact import ConfigError

DEFAULT_ADDRESS: Final = "http://127.0.0.1:8500"
MAX_WAIT_S: Final = 600.0
"""Longest wait that Consul grants; it shortens longer ones without a word."""

# What strconv.ParseBool of Go, and so every Consul tool, understands.
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})

_VARIABLES: Final[Mapping[str, str]] = {
    "address": "CONSUL_HTTP_ADDR",
    "token": "CONSUL_HTTP_TOKEN",
    "token_file": "CONSUL_HTTP_TOKEN_FILE",
    "ca_cert": "CONSUL_CACERT",
    "ca_path": "CONSUL_CAPATH",
    "client_cert": "CONSUL_CLIENT_CERT",
    "client_key": "CONSUL_CLIENT_KEY",
    "tls_server_name": "CONSUL_TLS_SERVER_NAME",
    "verify": "CONSUL_HTTP_SSL_VERIFY",
    "http_auth": "CONSUL_HTTP_AUTH",
}
_SSL_VARIABLE: Final = "CONSUL_HTTP_SSL"

# Fields that answer one question together: a config file that gives one of them does not inherit the others, or a
# token in the file would lose against a token file that the shell happens to name.
_TOGETHER: Final = (("token", "token_file"), ("ca_cert", "ca_path"), ("client_cert", "client_key"))


@dataclass(frozen=True)
class ConsulSettings:
    """Where Consul is and how to speak with it.

    Attributes:
        address: `http(s)://host[:port][/prefix]` or `unix:///path`, without credentials: fit for logs.
        token: ACL token; used where there is no `token_file`.
        token_file: file with the ACL token; read at the first request and again when Consul refuses the token.
        ca_cert: file with the only certificate authorities to trust; None: see `ca_path`.
        ca_path: directory of such files; None: the system's authorities.
        client_cert: file with our certificate (chain), for mTLS.
        client_key: file with its key.
        tls_server_name: name that the server's certificate must have, where it is not the address.
        verify: False trusts any server certificate.
        http_auth: `user:password` for HTTP basic authentication in front of Consul.
        wait_s: longest time that one blocking query stays open. Short waits bound how late a restored snapshot is
            noticed and how long an abandoned query burdens the server; long ones save requests.
        datacenter: Consul datacenter to speak to; None: the agent's own.
    """

    address: str = DEFAULT_ADDRESS
    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    ca_cert: str | None = None
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    tls_server_name: str | None = None
    verify: bool = True
    http_auth: str | None = field(default=None, repr=False)
    wait_s: float = 60.0
    datacenter: str | None = None


def consul_settings(env: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> ConsulSettings:
    """Read Consul's usual variables from `env` and lay the config file's values over them.

    Args:
        env: usually `os.environ`. An empty variable counts as one that is not set, as for Consul's tools.
        overrides: values from the config file by the names of `ConsulSettings`; None: not given.

    Raises:
        ConfigError: a value that cannot be used, or an unknown key; the message names the variable or key, what was
            found and what is allowed.
    """
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    _check_keys(given)
    sources = {name: variable for name, variable in _VARIABLES.items() if env.get(variable)}
    for group in _TOGETHER:
        if any(name in given for name in group):
            for name in group:
                sources.pop(name, None)

    values: dict[str, Any] = {name: env[variable] for name, variable in sources.items()} | given
    labels = sources | dict.fromkeys(given)
    label = {name: variable or f"consul.{name}" for name, variable in labels.items()}

    if isinstance(values.get("verify"), str):
        values["verify"] = _parse_bool(label["verify"], values["verify"])
    use_tls = "address" not in given and _parse_bool(_SSL_VARIABLE, env.get(_SSL_VARIABLE) or "false")
    address, credentials = _parse_address(
        label.get("address", _SSL_VARIABLE), values.get("address") or "127.0.0.1:8500", use_tls=use_tls
    )
    values["address"] = address
    if credentials is not None and "http_auth" not in given:
        values["http_auth"] = credentials
    _check_types(values, label)
    _check_pair(values, label)
    return ConsulSettings(**values)


def _check_keys(given: Mapping[str, Any]) -> None:
    known = [each.name for each in fields(ConsulSettings)]
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(
                f"consul.{key} is no setting; {hint}known are {', '.join(known)}", kind="config_unknown_key"
            )


def _check_types(values: Mapping[str, Any], label: Mapping[str, str]) -> None:
    for name, value in values.items():
        what = label.get(name, f"consul.{name}")
        if name == "wait_s":
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_WAIT_S:
                raise ConfigError(
                    f"{what} is {value!r}; a number of seconds above 0 and up to {MAX_WAIT_S:g} is allowed",
                    kind="config_value",
                )
        elif name == "verify":
            if not isinstance(value, bool):
                raise ConfigError(f"{what} is {value!r}; true or false is allowed", kind="config_value")
        elif not isinstance(value, str):
            raise ConfigError(f"{what} is {value!r}; a text is allowed", kind="config_value")
        elif not value.isprintable():
            # Without the value: it may be a token, and a stray newline in one is the usual cause.
            raise ConfigError(f"{what} contains a line break or another control character", kind="config_value")


def _check_pair(values: Mapping[str, Any], label: Mapping[str, str]) -> None:
    for have, lack in (("client_cert", "client_key"), ("client_key", "client_cert")):
        if values.get(have) and not values.get(lack):
            raise ConfigError(
                f"{label[have]} is given without {_VARIABLES[lack]} (consul.{lack}); TLS needs both or neither",
                kind="config_value",
            )


def _parse_bool(what: str, text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ConfigError(f"{what} is {text!r}; true or false (1, t, T, TRUE, 0, f, ...) is allowed", kind="config_value")


def _parse_address(what: str, text: str, *, use_tls: bool) -> tuple[str, str | None]:
    """Return the address in its full form, and the credentials that stood in it."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    allowed = "host:port, [IPv6]:port, http://..., https://... or unix:///path is allowed"
    if scheme == "unix":
        if use_tls:
            raise ConfigError(
                f"{what} is {text!r} while {_SSL_VARIABLE} asks for TLS; a Unix socket has none: unset it"
            )
        if not rest.startswith("/"):
            raise ConfigError(f"{what} is {text!r}: the socket's path is not absolute; {allowed}", kind="config_value")
        return text, None
    if scheme not in {"http", "https"}:
        raise ConfigError(f"{what} is {text!r}: unknown scheme {scheme!r}; {allowed}", kind="config_value")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{what} is {text!r}: {error}; {allowed}", kind="config_value") from error
    if not host or parts.query or parts.fragment or not text.isprintable() or " " in text:
        raise ConfigError(f"{what} is {text!r}; {allowed}", kind="config_value")
    credentials = None
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    # Consul's tools never fall back to plain HTTP once TLS was asked for, whatever the scheme says.
    scheme = "https" if use_tls else scheme
    bracketed = f"[{host}]" if ":" in host else host
    where = bracketed if port is None else f"{bracketed}:{port}"
    return f"{scheme}://{where}{parts.path.rstrip('/')}", credentials
