"""Owns the `[web]` table of `checkpoint.toml`: where the pages are served, and how people are told apart; strict.

Checking tokens and headers is left to `checkpoint.web.identity`. Nothing here imports a server: the engine's own
configuration is read without one.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import msgspec

from artifact import ConfigError
from checkpoint.web.oidc.settings import OidcTable, check_oidc
from checkpoint.web.rights import RoleName


class ProxyTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[web.proxy]`: a reverse proxy that has signed people in, and names them in a header.

    Attributes:
        trusted: addresses or networks that the proxy connects from; from others the header means nothing.
        user_header: holds the name; the proxy must remove it from what clients send.
        roles: role of each name.
        default_role: of names that `roles` does not have.
    """

    trusted: tuple[str, ...]
    user_header: str = "X-Forwarded-User"
    roles: dict[str, RoleName] = {}
    default_role: RoleName = "read"


class WebTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[web]`.

    Attributes:
        listen: address and port; beyond this machine only with a way to sign in.
        public_url: how browsers reach it, where a proxy or another name stands in between.
        tokens_file: of `hotcold checkpoint token new`; empty: none.
        key_file: signs sessions; instances behind one address share it. Empty: sessions end with the process.
        session_s: how long a session lasts.
        proxy: none: no proxy is believed.
        oidc: none: no provider is asked.
    """

    listen: str = "127.0.0.1:8090"
    public_url: str = ""
    tokens_file: str = ""
    key_file: str = ""
    session_s: float = 43_200.0
    proxy: ProxyTable | None = None
    oidc: OidcTable | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `listen`."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def has_sign_in(self) -> bool:
        """Whether people can be told apart; without it, whoever starts the server gets a link that signs them in."""
        return bool(self.tokens_file) or self.proxy is not None or self.oidc is not None

    @property
    def is_secure(self) -> bool:
        """Whether browsers come by https, so that cookies may be kept to it."""
        return self.public_url.startswith("https://")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_web(web: WebTable) -> None:
    """Refuse what cannot be meant.

    Raises:
        ConfigError: names the key, what was found and what is allowed.
    """
    host, _, port = web.listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - ports end there
        raise ConfigError(f'web.listen = "{web.listen}": give an address and a port, as in 127.0.0.1:8090')
    if not is_loopback(host.strip("[]")) and not web.has_sign_in:
        raise ConfigError(
            f'web.listen = "{web.listen}" is open to other machines: give web.tokens_file, [web.oidc] or [web.proxy], '
            "so that people sign in, or listen on 127.0.0.1"
        )
    parts = urlsplit(web.public_url)
    if web.public_url and (parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/")):
        raise ConfigError(
            f'web.public_url = "{web.public_url}": give scheme and host, as in https://deploy.example.com'
        )
    if web.session_s <= 0:
        raise ConfigError(f"web.session_s = {web.session_s:g}: must be greater than 0")
    if web.proxy is not None:
        if not web.proxy.trusted:
            raise ConfigError("web.proxy.trusted is empty: name the proxy's address, as in 10.0.0.7 or 10.0.0.0/24")
        networks(web.proxy)
    if web.oidc is not None:
        if web.proxy is not None:
            raise ConfigError(
                "[web.oidc] and [web.proxy]: whom the proxy has signed in never gets to the provider: give one"
            )
        check_oidc(web.oidc, web.public_url)


def networks(proxy: ProxyTable) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Where a trusted proxy connects from.

    Raises:
        ConfigError: something there is no address.
    """
    try:
        return tuple(ipaddress.ip_network(each) for each in proxy.trusted)
    except ValueError as error:
        raise ConfigError(f"web.proxy.trusted: {error}") from error
