"""Owns the checks of the agent's user: may it write where it must, does its unit let it, does the socket let others."""

from __future__ import annotations

import grp
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from hotcold.doctor.finding import Finding
from hotcold.doctor.patient import AgentUser, Patient
from hotcold.socket_client import AgentUnreachable, ask

_SYSTEMCTL_S: Final = 5.0
_SHOWN: Final = ("LoadState", "ActiveState", "ReadWritePaths", "User")


def look_at_agent(patient: Patient) -> Sequence[Finding]:
    """Whether it answers, and what it says of its configuration."""
    path = patient.settings.identity.socket
    try:
        status = ask(path, "GET", "/v1/status")
    except AgentUnreachable as error:
        first, _, advice = str(error).partition("\n")
        return [Finding("agent", "warning", first, advice or f"systemctl enable --now {patient.unit}")]
    problem = status.get("config", {}).get("problem")
    if problem:
        return [
            Finding("agent", "warning", f"it has not taken over the configuration: {problem}", "mend it, and reload")
        ]
    agent, state = status.get("agent", {}), status.get("state", {})
    return [
        Finding(
            "agent", "ok", f"it answers: {state.get('name')}, version {agent.get('version')}, pid {agent.get('pid')}"
        )
    ]


def look_at_permissions(patient: Patient) -> Sequence[Finding]:
    """What the agent's user must read and write, and what workers must be able to enter."""
    user, layout = patient.agent_user(), patient.settings.identity.layout
    must_write = [layout.root, layout.state_dir, patient.settings.identity.socket.parent]
    must_write += [layout.releases] if layout.releases.exists() else []
    findings = [
        *(finding for path in must_write for finding in _writable(user, path)),
        *_configuration(user, patient.config_path),
        *_entered_by_workers(layout.root),
    ]
    told = f"user {user.name} ({user.found}) may write where it must"
    return findings or [Finding("permissions", "ok", told)]


def _writable(user: AgentUser, path: Path) -> Iterator[Finding]:
    if not path.exists():
        parent = path.parent
        if user.may("w", parent) is False:
            message = f"{path} is not there, and user {user.name} may not make it"
            yield Finding("permissions", "wrong", message, f"install -d -o {user.name} -g {_group(user)} {path}")
        return
    may = user.may("w", path)
    if may is None:
        yield Finding("permissions", "unknown", f"whether user {user.name} may write in {path}", "try it as root")
    elif not may or not user.may("x", path):
        found = path.stat()
        message = (
            f"user {user.name} may not write in {path} (uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o})"
        )
        yield Finding("permissions", "wrong", message, f"chown {user.name}:{_group(user)} {path}")


def _configuration(user: AgentUser, path: Path) -> Iterator[Finding]:
    if user.may("r", path) is False:
        remedy = f"chown root:{_group(user)} {path}; chmod 0640 {path}"
        yield Finding("permissions", "wrong", f"user {user.name} may not read {path}", remedy)
    if path.stat().st_mode & stat.S_IWOTH:
        yield Finding("permissions", "wrong", f"every user may write {path}", f"chmod 0640 {path}")


def _entered_by_workers(root: Path) -> Iterator[Finding]:
    if root.is_dir() and not root.stat().st_mode & stat.S_IXOTH:
        message = f"only its owner and group may enter {root}: workers of other users cannot serve from it"
        yield Finding("permissions", "warning", message, f"chmod 0755 {root}, unless the workers are in its group")


def _group(user: AgentUser) -> str:
    try:
        return grp.getgrgid(user.gid).gr_name
    except KeyError:
        return str(user.gid)


def look_at_unit(patient: Patient) -> Sequence[Finding]:
    """Whether the unit's sandbox lets the agent write in the root; nothing where no systemd runs it."""
    program = shutil.which("systemctl")
    if program is None or not Path("/run/systemd/system").is_dir():
        return [Finding("unit", "unknown", "no systemd runs here, so nobody starts the agent anew")]
    told = subprocess.run(  # noqa: S603 - found above, and asked without a change
        [program, "show", "--property", ",".join(_SHOWN), patient.unit],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SYSTEMCTL_S,
    ).stdout
    return judge_unit(patient, dict(line.split("=", 1) for line in told.splitlines() if "=" in line))


def judge_unit(patient: Patient, shown: Mapping[str, str]) -> Sequence[Finding]:
    """What systemd's properties of the unit mean."""
    unit, app, root = patient.unit, patient.settings.identity.app, patient.settings.identity.layout.root
    if shown.get("LoadState") != "loaded":
        message = f"systemd knows no {unit}"
        return [Finding("unit", "warning", message, f"hotcold install --app {app} --tier TIER --root {root}")]
    writable = [Path(path.lstrip("+-")) for path in shown.get("ReadWritePaths", "").split()]
    if writable and not any(root.is_relative_to(path) for path in writable):
        return [
            Finding(
                "unit",
                "wrong",
                f"{unit} may write in {', '.join(map(str, writable))}, and not in {root}",
                f"systemctl edit {unit}: under [Service], ReadWritePaths={root}",
            )
        ]
    if shown.get("ActiveState") != "active":
        message = f"{unit} is {shown.get('ActiveState') or 'not known'}"
        return [Finding("unit", "warning", message, f"systemctl enable --now {unit}; journalctl -u {unit} -n 50")]
    return [Finding("unit", "ok", f"{unit} is active, as user {shown.get('User') or 'root'}")]


def look_at_access(patient: Patient) -> Sequence[Finding]:
    """Whether the groups of `[access]` are there."""
    access, write_group = patient.settings.identity.access, patient.settings.write_group
    for key, name in (("group", access.group), ("write_group", write_group)):
        if name is not None and not _is_group(name):
            message = f"access.{key} is {name!r}, and this host knows no such group"
            return [Finding("access", "wrong", message, f"groupadd {name}; or correct the name")]
    whom = "root and the agent's user" + ("" if write_group is None else f" and members of {write_group}")
    return [Finding("access", "ok", f"the socket has mode {access.mode:04o}; orders are taken from {whom}")]


def _is_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True
