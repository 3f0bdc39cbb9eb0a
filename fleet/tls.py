"""Owns the TLS context towards Consul; when to make it is left to `fleet.transport`."""

from __future__ import annotations

import ssl
from pathlib import Path

from artifact import ConfigError
from fleet.settings import ConsulSettings


def tls_context(settings: ConsulSettings) -> ssl.SSLContext:
    """Read the certificates that `settings` names. Blocks on the file system.

    A given authority replaces the system's; an unverified server still gets our client certificate.

    Raises:
        ConfigError: a file is missing, unreadable or holds no certificate; the message names it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif settings.ca_cert:
        _trust(context, Path(settings.ca_cert), "ca_cert (CONSUL_CACERT)")
    elif settings.ca_path:
        _trust_directory(context, Path(settings.ca_path))
    else:
        context.load_default_certs()
    if settings.client_cert and settings.client_key:
        try:
            context.load_cert_chain(settings.client_cert, settings.client_key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"cannot use the client certificate {settings.client_cert} with the key {settings.client_key}: "
                f"{error}; check client_cert (CONSUL_CLIENT_CERT) and client_key (CONSUL_CLIENT_KEY)",
                kind="tls_files",
            ) from error
    return context


def _trust(context: ssl.SSLContext, file: Path, what: str) -> None:
    try:
        context.load_verify_locations(cafile=file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"cannot read certificate authorities from {file}: {error}; check {what}", kind="tls_files"
        ) from error


def _trust_directory(context: ssl.SSLContext, directory: Path) -> None:
    # Every file, as Consul's tools do; OpenSSL's own capath wants names made by c_rehash and ignores others silently.
    what = "ca_path (CONSUL_CAPATH)"
    try:
        files = sorted(path for path in directory.iterdir() if path.is_file())
    except OSError as error:
        raise ConfigError(
            f"cannot list certificate authorities in {directory}: {error}; check {what}", kind="tls_files"
        ) from error
    if not files:
        raise ConfigError(f"no certificate authorities in {directory}; check {what}", kind="tls_files")
    for file in files:
        _trust(context, file, what)
