"""Owns what is installed for one app on a host: which files, with which contents and owners. Pure but for reading ours.

Writing them is left to `hotcold.installing`, choosing to `hotcold.install_command`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from artifact import ConfigError
from fleet.keys import check_name

SYSUSERS: Final = Path("/usr/lib/sysusers.d/hotcold.conf")
TMPFILES: Final = Path("/usr/lib/tmpfiles.d/hotcold.conf")
UNITS: Final = Path("/etc/systemd/system")
GROUP: Final = "hotcold"
BACKOFF_SINCE: Final = 254
"""The first version of systemd that knows `RestartSteps`."""

ASK: Final = Path("/usr/local/bin/hotcold-ask")
_ASKED: Final = tuple(f"hotcold-{verb}@.{kind}" for verb in ("reload", "restart") for kind in ("path", "service"))
"""What hooks have services reloaded and restarted by; each service needs its path unit enabled."""
_UNIT: Final = "hotcold-agent@.service"
_SHIPPED_PROGRAM: Final = "/opt/hotcold/bin/hotcold"
_PLAIN: Final = re.compile(r"/[A-Za-z0-9/._+-]*")
_SEAL: Final = "# hotcold install: sha256:"
_HIDDEN: Final = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108 - what the unit's sandbox hides


@dataclass(frozen=True)
class Wanted:
    """What to install.

    Attributes:
        program: the `hotcold` that the unit runs.
        unit: systemd unit of the workers; None: nobody is waited for.
        systemd_version: of the host; None: not known.
    """

    app: str
    tier: str
    root: Path
    program: Path
    host: str | None = None
    consul: str | None = None
    token_file: str | None = None
    unit: str | None = None
    probe_url: str | None = None
    systemd_version: int | None = None

    @property
    def config_path(self) -> Path:
        """The agent's configuration."""
        return Path(f"/etc/hotcold/{self.app}.toml")

    @property
    def tmpfiles(self) -> Path:
        """What makes the root."""
        return Path(f"/etc/tmpfiles.d/hotcold-{self.app}.conf")


@dataclass(frozen=True)
class File:
    """One file to be there. `group` None: root's."""

    path: Path
    content: str
    mode: int = 0o644
    group: str | None = None


def files_for(wanted: Wanted) -> tuple[File, ...]:
    """All files, sealed.

    Raises:
        ConfigError: a name, root or program that cannot be used.
    """
    check_name("app", wanted.app)
    check_name("tier", wanted.tier)
    for what, path in (("--root", wanted.root), ("--program", wanted.program)):
        if not _PLAIN.fullmatch(str(path)):
            raise ConfigError(f"{what} {path}: must be an absolute path of letters, digits and . _ + - alone")
    check_visible(wanted.root, "--root")
    files = [
        File(SYSUSERS, _shipped("hotcold.sysusers.conf")),
        File(TMPFILES, _shipped("hotcold.tmpfiles.conf")),
        File(wanted.tmpfiles, _root_directory(wanted.root)),
        File(UNITS / _UNIT, _shipped(_UNIT).replace(_SHIPPED_PROGRAM, str(wanted.program))),
        File(ASK, _shipped(ASK.name), 0o755),
        *(File(UNITS / name, _shipped(name)) for name in _ASKED),
    ]
    if wanted.systemd_version is not None and wanted.systemd_version >= BACKOFF_SINCE:
        files.append(File(UNITS / f"{_UNIT}.d" / "backoff.conf", _shipped(f"{_UNIT}.d/backoff.conf")))
    if wanted.root != Path(f"/srv/{wanted.app}"):
        path = UNITS / f"hotcold-agent@{wanted.app}.service.d" / "root.conf"
        files.append(File(path, _other_root(wanted.root)))
    files.append(File(wanted.config_path, _configuration(wanted), 0o640, GROUP))
    return tuple(File(file.path, sealed(file.content), file.mode, file.group) for file in files)


def check_visible(path: Path, what: str) -> None:
    """Refuse a path that the unit's sandbox hides.

    Raises:
        ConfigError: it says where to put it.
    """
    if f"{path}/".startswith(_HIDDEN):
        raise ConfigError(
            f"{what} {path}: the unit's sandbox hides {', '.join(_HIDDEN)} (ProtectHome=, PrivateTmp=): use a place "
            "such as /opt for programs and /srv for roots, and an interpreter that every user may run: /usr/bin/python3"
        )


def sealed(text: str) -> str:
    """The text with a last line that tells whether somebody has changed it since."""
    return f"{text}{_SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n"


def is_untouched(text: str) -> bool:
    """Whether the text is as `sealed` made it, of whatever version."""
    before, seal, digest = text.rpartition(_SEAL)
    return bool(seal) and digest.strip() == hashlib.sha256(before.encode()).hexdigest()


def unsealed(text: str) -> str:
    """The text without its seal, where it has one."""
    before, seal, _ = text.rpartition(_SEAL)
    return before if seal else text


def _shipped(name: str) -> str:
    """One of our files for systemd: in the installed package, or beside it in a checkout."""
    here = Path(__file__).parent
    for directory in (here / "systemd", here.parent / "systemd"):
        if (directory / name).is_file():
            return (directory / name).read_text(encoding="utf-8")
    raise ConfigError(f"{here / 'systemd' / name} is missing: install hotcold again")


def _root_directory(root: Path) -> str:
    return f"# The root belongs to the agent; workers only read it.\nd {root} 0755 hotcold hotcold -\n"


def _other_root(root: Path) -> str:
    # An empty assertion takes back all of them, so the one about the configuration comes again.
    return (
        "# The root of this app is not where the unit looks.\n"
        f"[Unit]\nRequiresMountsFor={root}\nAssertPathIsDirectory=\nAssertPathIsDirectory={root}\n"
        f"AssertPathExists=/etc/hotcold/%i.toml\n\n[Service]\nReadWritePaths=\nReadWritePaths={root}\n"
    )


def _configuration(wanted: Wanted) -> str:
    lines = [
        f"# {wanted.config_path}: the agent of {wanted.app} on one host of the tier {wanted.tier}.",
        f"# `hotcold check-config {wanted.config_path}` says what is wrong with it; `systemctl reload` makes the agent",
        "# read it again.",
        "",
        f"app = {_quoted(wanted.app)}",
        f"tier = {_quoted(wanted.tier)}",
        f"root = {_quoted(str(wanted.root))}",
        *([f"host = {_quoted(wanted.host)}"] if wanted.host is not None else []),
        "",
        "[consul]",
        f"address = {_quoted(wanted.consul or 'http://127.0.0.1:8500')}",
        *([f"token_file = {_quoted(wanted.token_file)}"] if wanted.token_file is not None else []),
        "",
        "# Who must have left the build that serves before the swap. Without workers nobody is waited for.",
    ]
    is_drained = wanted.unit is not None
    drain = ["[drain]", f"workers = [{{ unit = {_quoted(wanted.unit or f'{wanted.app}.service')} }}]", "timeout_s = 60"]
    drain.append('policy = "abort" # or "proceed": swap under those that are still busy')
    lines += drain if is_drained else [f"# {line}" for line in drain]
    lines += ["", "# Three answers in a row within a minute, or the host goes back to the build before."]
    probe = ["[probe]", f"url = {_quoted(wanted.probe_url or 'http://127.0.0.1/healthz')}", "successes = 3"]
    lines += probe if wanted.probe_url is not None else [f"# {line}" for line in probe]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A TOML string: its escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)
