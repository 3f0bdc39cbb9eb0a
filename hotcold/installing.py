"""Owns putting files in place and running what goes with them, again and again without harm.

Which files is left to `install_files`. A file that somebody changed is kept. Below a prefix it
is done for a host that is not running.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from artifact import ConfigError, TransientError
from hotcold.install_files import GROUP, SYSUSERS, TMPFILES, File, Wanted, is_untouched, unsealed

Action = Literal["write", "replace", "keep", "same"]
_COMMAND_S: Final = 60.0


@dataclass(frozen=True)
class Step:
    """What becomes of one file. `before`: what is there, None: nothing."""

    file: File
    action: Action
    before: str | None

    @property
    def difference(self) -> str:
        """What would change, for people."""
        if self.before is None:
            return self.file.content
        lines = difflib.unified_diff(
            self.before.splitlines(), self.file.content.splitlines(), "as it is", "as it would be", lineterm="", n=1
        )
        return "\n".join(lines) + "\n"


def steps_for(files: Sequence[File], prefix: Path, *, is_forced: bool) -> tuple[Step, ...]:
    """What there is to do.

    Raises:
        ConfigError: what is there cannot be read.
    """
    return tuple(_step(file, placed(prefix, file.path), is_forced=is_forced) for file in files)


def placed(prefix: Path, path: Path) -> Path:
    """Where a path of the host is below the prefix."""
    return prefix / path.relative_to("/")


def _step(file: File, path: Path, *, is_forced: bool) -> Step:
    try:
        before = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return Step(file, "write", None)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; become root") from error
    if unsealed(before) == unsealed(file.content):
        return Step(file, "same", before)
    return Step(file, "replace" if is_forced or is_untouched(before) else "keep", before)


def write(step: Step, prefix: Path) -> None:
    """Carry a step out, in one rename; what is replaced although somebody changed it stays as `<name>.old`.

    Raises:
        ConfigError: it cannot be written; what was there is as before.
    """
    if step.action in {"keep", "same"}:
        return
    path = placed(prefix, step.file.path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if step.before is not None and not is_untouched(step.before):
            shutil.copy2(path, path.with_name(f"{path.name}.old"))
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(step.file.content)
            os.fchmod(fd, step.file.mode)
            file.flush()
            os.fsync(fd)
        Path(temporary).replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; become root, or give --prefix DIR") from error


def commands_for(wanted: Wanted, prefix: Path) -> tuple[tuple[str, ...], ...]:
    """What is to be run after the files are there."""
    below = () if prefix == Path("/") else (f"--root={prefix}",)
    commands: list[tuple[str, ...]] = [
        ("systemd-sysusers", *below, SYSUSERS.name),
        ("systemd-tmpfiles", *below, "--create", TMPFILES.name, wanted.tmpfiles.name),
        ("chgrp", GROUP, str(placed(prefix, wanted.config_path))),
    ]
    if not below:
        commands.append(("systemctl", "daemon-reload"))
    return tuple(commands)


def run(command: Sequence[str], prefix: Path) -> str | None:
    """Run one of `commands_for`.

    Returns:
        Why it was not run, where that is no mistake: there is no systemd that could read anything again.

    Raises:
        ConfigError: the program is not there.
        TransientError: it failed; its words are in the message.
    """
    if command[0] == "systemctl" and not Path("/run/systemd/system").is_dir():
        return "no systemd runs here"
    if command[0] == "chgrp":
        os.chown(command[2], -1, _group(prefix))
        return None
    if shutil.which(command[0]) is None:
        raise ConfigError(f"{command[0]} is not installed: hotcold install is for hosts with systemd")
    done = subprocess.run(  # noqa: S603 - one of ours, without a shell
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_COMMAND_S
    )
    if done.returncode:
        raise TransientError(f"{shlex.join(command)} ended with {done.returncode}: {done.stdout.strip()}")
    return None


def _group(prefix: Path) -> int:
    """The group's number, in the files of the host that is installed: this one may know another, or none."""
    path = placed(prefix, Path("/etc/group"))
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(f"{GROUP}:"):
            return int(line.split(":")[2])
    raise ConfigError(f"the group {GROUP} is not in {path}: systemd-sysusers did not make it")


def systemd_version() -> int | None:
    """Of this host; None where there is none."""
    program = shutil.which("systemctl")
    if program is None:
        return None
    said = subprocess.run(  # noqa: S603 - found above
        [program, "--version"], check=False, capture_output=True, text=True, timeout=_COMMAND_S
    ).stdout
    found = re.match(r"systemd (\d+)", said)
    return None if found is None else int(found[1])
