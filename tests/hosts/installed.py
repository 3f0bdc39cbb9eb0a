"""Owns the disk of a machine on which hotcold was installed by README's first three steps, once for all tests of a run.

What those machines run is left to `tests.hosts.site`.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.hosts.lab import Lab
from tests.hosts.machine import Machine
from tests.hosts.readme import CHECKOUT, ten_steps

SYSTEM_PYTHON: Final = "/usr/bin/python3"
_INSTALL_S: Final = 300.0


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Wait until no other process holds the lock; it is free again when this one ends, however it does."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def wheels() -> Path:
    """What `pip install` of the checkout needs, for hosts that reach no package index; kept until that changes."""
    stamp = hashlib.sha256((CHECKOUT / "pyproject.toml").read_bytes()).hexdigest()[:16]
    directory = CHECKOUT / ".cache" / "host-wheels" / stamp
    if not directory.exists():
        work = directory.with_suffix(".part")
        shutil.rmtree(work, ignore_errors=True)
        subprocess.run([SYSTEM_PYTHON, "-m", "venv", work / "venv"], check=True, timeout=_INSTALL_S)
        pip: list[str | Path] = [work / "venv/bin/pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "download", "--dest", work / "wheels", CHECKOUT, "hatchling"], check=True, timeout=_INSTALL_S
        )
        (work / "wheels").rename(directory)
        shutil.rmtree(work)
    return directory


def give_wheels(machine: Machine) -> None:
    """Let pip on a machine that is off find packages as it would in a company's own index, and nowhere else."""
    for path in (Path("/etc/xdg/pip/pip.conf"), Path("/root/.config/pip/pip.conf"), Path("/root/.pip/pip.conf")):
        if path.exists():
            machine.remove(str(path))
    machine.write("/etc/pip.conf", f"[global]\nno-index = true\nfind-links = {wheels()}\n")


def installed_disk(lab: Lab, directory: Path) -> Path:
    """The disk's place in the lab; it is kept below `directory`, and made where it is not there.

    Whoever asks holds the lock. The copy is for the kernel, which lays no directory over one that contains it.
    """
    disk = directory / "installed-disk"
    if not disk.exists():
        machine = Machine(lab, "installer", number=9)
        give_wheels(machine)
        machine.boot()
        steps = ten_steps()
        script = "\n".join(steps[number] for number in (1, 2, 3))
        machine.run("bash", "-ec", script, cwd=str(CHECKOUT), timeout_s=_INSTALL_S)
        machine.cut_power()
        shutil.rmtree(machine.disk / "var/log/journal", ignore_errors=True)
        work = directory / "installed-disk.part"
        shutil.rmtree(work, ignore_errors=True)
        subprocess.run(["cp", "-a", machine.disk, work], check=True)
        work.rename(disk)
    subprocess.run(["cp", "-a", disk, lab.files / "installed"], check=True)
    return Path("/mnt/installed")
