"""Owns the agent's configuration: one TOML file, parsed once into frozen settings.

What the settings mean is left to the modules that use them. `hotcold check-config` runs exactly this parse.
"""

from __future__ import annotations

import re
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import msgspec

from agent.drain import DrainSettings
from agent.hooks import Hook
from agent.probes import ProbeSettings
from agent.scrub import ScrubTable
from artifact import ConfigError
from artifact.limits import Limits
from artifact.minisign import PublicKey, read_key_text
from artifact.pull import PullSettings
from artifact.trust import TrustedKeys
from fleet import ConsulSettings, consul_settings
from fleet.keys import check_name
from fleet.strict_toml import parse_toml, read_text
from swapper import Durability, Layout

_LEAST_MEMORY_BYTES = 64 << 20
_MODE = re.compile(r"0?[0-7]{3}")


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: every key known, every type strict."""


class ConsulTable(_Table, frozen=True):
    """`[consul]`: laid over the environment; see `fleet.consul_settings`."""

    address: str | None = None
    token: str | None = None
    token_file: str | None = None
    ca_cert: str | None = None
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    tls_server_name: str | None = None
    verify: bool | None = None
    datacenter: str | None = None
    wait_s: float | None = None


class FetchTable(_Table, frozen=True):
    """`[fetch]`: patience with artifact servers, and what a build may contain."""

    connect_timeout_s: float = 10.0
    stall_timeout_s: float = 30.0
    min_rate_bytes: int = 16 * 1024
    rate_window_s: float = 30.0
    max_rate_bytes: int = 0
    splay_s: float = 0.0
    retry_initial_s: float = 1.0
    retry_max_s: float = 60.0
    max_bytes: int = 20 * 1024**3
    max_files: int = 2_000_000
    max_ratio: int = 200
    max_memory_bytes: int = 1024**3
    max_cpu_s: int = 600
    allow_case_collisions: bool = False
    require_sandbox: bool = False
    ca_cert: str | None = None
    keep_puller_ready: bool = False
    trees_are_read_only: bool = False


class AccessTable(_Table, frozen=True):
    """`[access]`: who may open the status socket, and who may also give orders through it."""

    mode: str = "0660"
    group: str | None = None
    write_group: str | None = None


class ReleasesTable(_Table, frozen=True):
    """`[releases]`: which trees stay on disk, and how a new one is made durable."""

    keep: int = 3
    pinned: tuple[str, ...] = ()
    durability: Durability = "syncfs"


class ReportTable(_Table, frozen=True):
    """`[report]`: how the host shows itself in Consul."""

    ttl_s: float = 30.0


class LogTable(_Table, frozen=True):
    """`[log]`: `auto` writes JSON lines under systemd and readable lines on a terminal."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


HookPoint = Literal[
    "before_fetch", "staged", "before_drain", "after_drain", "after_swap", "proved", "reverted", "failed"
]
HOOK_POINTS: tuple[HookPoint, ...] = get_args(HookPoint)


class Document(_Table, frozen=True):
    """The whole file as it is written."""

    app: str
    tier: str
    root: str
    host: str | None = None
    zone: str | None = None
    state_dir: str | None = None
    socket: str | None = None
    stop_timeout_s: float = 20.0
    trusted_keys: tuple[str, ...] = ()
    access: AccessTable = AccessTable()
    consul: ConsulTable = ConsulTable()
    fetch: FetchTable = FetchTable()
    drain: DrainSettings = DrainSettings()
    probe: ProbeSettings = ProbeSettings()
    releases: ReleasesTable = ReleasesTable()
    report: ReportTable = ReportTable()
    scrub: ScrubTable = ScrubTable()
    log: LogTable = LogTable()
    hooks: dict[HookPoint, Hook] = {}


@dataclass(frozen=True)
class SocketAccess:
    """Who may open the status socket. `group` None: the one that it is created with."""

    mode: int = 0o660
    group: str | None = None


@dataclass(frozen=True)
class Identity:
    """Who this agent is and where it works; fixed while it runs."""

    app: str
    tier: str
    host: str
    layout: Layout
    socket: Path
    consul: ConsulSettings
    zone: str | None = None
    access: SocketAccess = SocketAccess()


@dataclass(frozen=True)
class Settings:
    """Everything the agent was told. `identity` needs a restart to change, the rest a SIGHUP.

    `trusted_keys` None: signatures are not looked at. `write_group` None: root and the agent's own user give orders.
    """

    identity: Identity
    fetch: FetchTable
    pull: PullSettings
    drain: DrainSettings
    probe: ProbeSettings
    releases: ReleasesTable
    report: ReportTable
    scrub: ScrubTable
    log: LogTable
    hooks: Mapping[HookPoint, Hook]
    stop_timeout_s: float
    trusted_keys: TrustedKeys | None
    write_group: str | None


def load_settings(path: Path, environment: Mapping[str, str]) -> Settings:
    """Read and check the file.

    Raises:
        ConfigError: names the file, the key, what was found and what is allowed.
    """
    text = read_text(path)
    try:
        return parse_settings(text, environment)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", kind=error.kind) from error


def parse_settings(text: str, environment: Mapping[str, str]) -> Settings:
    """As `load_settings`, from the file's text."""
    return _settle(parse_toml(text, Document), environment)


def _settle(document: Document, environment: Mapping[str, str]) -> Settings:
    app = check_name("app", document.app)
    fetch = document.fetch
    limits = {
        "fetch.connect_timeout_s": fetch.connect_timeout_s,
        "fetch.stall_timeout_s": fetch.stall_timeout_s,
        "fetch.rate_window_s": fetch.rate_window_s,
        "fetch.retry_initial_s": fetch.retry_initial_s,
        "fetch.max_bytes": fetch.max_bytes,
        "fetch.max_files": fetch.max_files,
        "fetch.max_ratio": fetch.max_ratio,
        "fetch.max_cpu_s": fetch.max_cpu_s,
        "report.ttl_s": document.report.ttl_s,
        "stop_timeout_s": document.stop_timeout_s,
    }
    for key, value in limits.items():
        if value <= 0:
            raise ConfigError(f"{key} = {value}: must be greater than 0")
    for key, allowance in (("fetch.max_rate_bytes", fetch.max_rate_bytes), ("fetch.splay_s", fetch.splay_s)):
        if allowance < 0:
            raise ConfigError(f"{key} = {allowance}: must not be negative")
    if fetch.retry_max_s < fetch.retry_initial_s:
        raise ConfigError(f"fetch.retry_max_s = {fetch.retry_max_s}: must not be below fetch.retry_initial_s")
    if fetch.max_memory_bytes < _LEAST_MEMORY_BYTES:
        raise ConfigError(
            f"fetch.max_memory_bytes = {fetch.max_memory_bytes}: must be at least {_LEAST_MEMORY_BYTES}, of which the "
            "interpreter takes a third"
        )
    if document.releases.keep < 2:  # noqa: PLR2004 - the one that serves and the one to go back to
        raise ConfigError(f"releases.keep = {document.releases.keep}: at least 2 are needed: hot and its standby")
    host = check_name("host", document.host or socket.gethostname())
    consul = consul_settings(
        environment, {k: v for k, v in msgspec.structs.asdict(document.consul).items() if v is not None}
    )
    identity = Identity(
        app=app,
        tier=check_name("tier", document.tier),
        host=host,
        layout=Layout(
            # /proc shows resolved paths, and workers are looked for by them.
            root=_absolute("root", document.root).resolve(),
            state_dir=_absolute("state_dir", document.state_dir or f"/var/lib/hotcold/{app}"),
        ),
        socket=_absolute("socket", document.socket or f"/run/hotcold/{app}.sock"),
        consul=consul,
        zone=None if document.zone is None else check_name("zone", document.zone),
        access=SocketAccess(_mode(document.access.mode), document.access.group),
    )
    pull = PullSettings(
        limits=Limits(
            max_bytes=fetch.max_bytes,
            max_files=fetch.max_files,
            max_ratio=fetch.max_ratio,
            max_memory_bytes=fetch.max_memory_bytes,
            max_cpu_s=fetch.max_cpu_s,
            allow_case_collisions=fetch.allow_case_collisions,
        ),
        connect_timeout_s=fetch.connect_timeout_s,
        stall_timeout_s=fetch.stall_timeout_s,
        min_rate_bytes=fetch.min_rate_bytes,
        rate_window_s=fetch.rate_window_s,
        max_rate_bytes=fetch.max_rate_bytes,
        ca_cert=fetch.ca_cert,
        require_sandbox=fetch.require_sandbox,
    )
    return Settings(
        identity=identity,
        fetch=fetch,
        pull=pull,
        drain=document.drain,
        probe=document.probe,
        releases=document.releases,
        report=document.report,
        scrub=document.scrub,
        log=document.log,
        hooks=document.hooks,
        stop_timeout_s=document.stop_timeout_s,
        trusted_keys=_trusted(document.trusted_keys),
        write_group=document.access.write_group,
    )


def _trusted(texts: tuple[str, ...]) -> TrustedKeys | None:
    # Files are read now: a key that is missing when an order comes would stop deploys at the worst moment.
    keys = [_public_key(f'trusted_keys[{number}] = "{text}"', text) for number, text in enumerate(texts)]
    return TrustedKeys(keys) if keys else None


def _public_key(found: str, text: str) -> PublicKey:
    is_path = text.startswith("/")
    try:
        return PublicKey.parse(read_key_text(Path(text)) if is_path else text)
    except ConfigError as error:
        raise ConfigError(f"{found}: {error}", kind=error.kind) from error
    except ValueError as error:
        allowed = (
            "what `minisign` and `hotcold key new` write into a public key file"
            if is_path
            else "a minisign public key (RW and 54 more characters), or the absolute path of a file with one"
        )
        raise ConfigError(f"{found}: no minisign public key ({error}); allowed: {allowed}") from error


def _mode(text: str) -> int:
    mode = int(text, 8) if _MODE.fullmatch(text) else 0
    if mode & stat.S_IRWXU != stat.S_IRUSR | stat.S_IWUSR or mode & (stat.S_IXGRP | stat.S_IXOTH):
        raise ConfigError(
            f'access.mode = "{text}": must be an octal mode in which the owner reads and writes and nobody executes, '
            'such as "0600", "0660" or "0666"'
        )
    return mode


def _absolute(key: str, text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise ConfigError(f'{key} = "{text}": must be an absolute path')
    return path
