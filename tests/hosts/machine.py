"""Owns one machine in the lab: its disk, its boot by real systemd, commands in it, its sudden end.

What is installed on it is left to its users. The disk is an overlay over this machine's own, changed in memory;
it outlives the machine's end, as a disk does, and ends with the lab.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from tests.consul_process import find_consul, wait_until
from tests.hosts.lab import Lab
from tests.hosts.readme import CHECKOUT

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOOT_S: Final = 90.0
_UP: Final = {"running", "degraded"}
# Nothing of this machine that systemd could change is within its reach: what it may not write to, it leaves alone, as
# in any container; /tmp, /run and /dev are its own. Devices are made, not bound: it changes the mode of a console.
_BOOT_SCRIPT: Final = """
set -eu
disk=$1 group=$2 lower=$3 address=$4 name=$5
shift 5
echo 0 > "/mnt/cgroup/$group/cgroup.procs"
exec unshare --cgroup sh -c '
set -eu
disk=$1 lower=$2 address=$3 name=$4
shift 4
echo ready
read -r _
hostname "$name"
ip link set lo up
ip addr add "$address/24" dev eth0
ip link set eth0 up
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$disk/up,workdir=$disk/work" "$disk/root"
cd "$disk/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=0755 run run
mount -t tmpfs -o mode=1777 tmp tmp
mount -t tmpfs -o mode=0755 dev dev
mknod -m 0666 dev/null c 1 3
mknod -m 0666 dev/zero c 1 5
mknod -m 0666 dev/full c 1 7
mknod -m 0666 dev/random c 1 8
mknod -m 0666 dev/urandom c 1 9
mknod -m 0666 dev/tty c 5 0
mknod -m 0600 dev/console c 1 3
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
for directory in "$@"; do
    mkdir -p ".$directory"
    mount --bind "$directory" ".$directory"
    mount -o remount,bind,ro ".$directory"
done
mkdir -p .outside
pivot_root . .outside
umount -l /.outside
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd </dev/null >/dev/null 2>&1
' boot "$disk" "$lower" "$address" "$name" "$@"
"""


def _on_other_disks() -> list[str]:
    """What machines use of this one and lies on another disk than they share: they see it, and cannot change it."""
    consul = find_consul()
    used = [CHECKOUT, *([] if consul is None else [consul.parent])]
    disk = Path("/").stat().st_dev
    elsewhere = [path for path in used if path.stat().st_dev != disk]
    return [
        str(path) for path in elsewhere if not any(path.is_relative_to(other) for other in elsewhere if other != path)
    ]


class Machine:
    """A machine with a disk, which can be switched on, and off without a warning.

    Args:
        lab: where it stands.
        name: its host name, at most 13 characters, unique in the lab.
        number: of its address, unique in the lab.
        lowers: directories whose content lies over this machine's own disk, uppermost first.
    """

    def __init__(self, lab: Lab, name: str, *, number: int, lowers: Sequence[Path] = ()) -> None:
        self.lab = lab
        self.name = name
        self.address = f"10.77.0.{number}"
        self.pid = 0
        self._lower = ":".join([*map(str, lowers), "/"])
        self._init: psutil.Process | None = None
        self._process: subprocess.Popen[str] | None = None
        for each in ("up", "work", "root"):
            (lab.files / name / each).mkdir(parents=True)
        self._make_bare()

    def _make_bare(self) -> None:
        """Begin with nothing enabled that happens to be installed on this machine, and with an identity of its own."""
        self.write("/etc/machine-id", secrets.token_hex(16) + "\n")
        self.write("/etc/hostname", f"{self.name}\n")
        for directory in Path("/etc/systemd/system").glob("*.wants"):
            for link in directory.iterdir():
                self.remove(str(link))
        for link in Path("/etc").glob("rc?.d/S*"):
            self.remove(str(link))
        (self.disk / "etc/systemd/system/console-getty.service").symlink_to("/dev/null")

    @property
    def disk(self) -> Path:
        """What was changed on its disk, as it is seen from outside."""
        return self.lab.files / self.name / "up"

    @property
    def root(self) -> Path:
        """Its root directory while it runs. Absolute links in it lead astray: name their targets."""
        return Path(f"/proc/{self.pid}/root")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file, whether the machine is on or off."""
        target = (self.root if self._init else self.disk) / path.lstrip("/")
        if self._init:
            target.parent.mkdir(parents=True, exist_ok=True)
        else:
            self._make_parents(Path(path).parent)
        target.write_text(text)
        target.chmod(mode)

    def _make_parents(self, directory: Path) -> None:
        """Directories of the upper layer take modes and owners from below."""
        for each in (*reversed(directory.parents), directory):
            upper = self.disk / str(each).lstrip("/")
            if not upper.exists():
                upper.mkdir()
                with suppress(FileNotFoundError):
                    below = each.stat()
                    upper.chmod(below.st_mode & 0o7777)
                    os.chown(upper, below.st_uid, below.st_gid)

    def remove(self, path: str) -> None:
        """Remove a file of this machine's own disk from the one of a machine that is off: a whiteout covers it."""
        self._make_parents(Path(path).parent)
        os.mknod(self.disk / path.lstrip("/"), 0o020000, os.makedev(0, 0))

    def boot(self, *, is_plugged: bool = True) -> None:
        """Switch it on, and wait until systemd has started all it wants to start."""
        self.switch_on(is_plugged=is_plugged)
        wait_until(self.is_up, f"{self.name} has booted: {self._state()!r}", BOOT_S)

    def switch_on(self, *, is_plugged: bool = True) -> None:
        """Switch it on; systemd has only begun when this returns."""
        group = f"{self.lab.group}/{self.name}"
        (self.lab.files / "cgroup" / group).mkdir(exist_ok=True)
        spaces = ["unshare", "--pid", "--mount", "--uts", "--ipc", "--net", "--fork", "--kill-child"]
        arguments = [f"/mnt/{self.name}", group, self._lower, self.address, self.name, *_on_other_disks()]
        self._process = subprocess.Popen(
            self.lab.enter(*spaces, "sh", "-c", _BOOT_SCRIPT, "boot", *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lab.children.append(self._process)
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        assert self._process.stdout.readline() == "ready\n", f"{self.name} was not switched on; see above"
        self._init = psutil.Process(self._process.pid).children(recursive=True)[-1]
        self.pid = self._init.pid
        self.lab.plug(self.name, self.pid)
        self.lab.set_cable(self.name, is_in=is_plugged)
        self._process.stdin.write("go\n")
        self._process.stdin.close()
        self._process.stdout.close()

    def is_up(self) -> bool:
        """Whether systemd has nothing left to start."""
        return self._state() in _UP

    def _state(self) -> str:
        assert self._init is not None
        if self._init.status() == psutil.STATUS_ZOMBIE:
            message = f"the first process of {self.name} has ended"
            raise AssertionError(message)
        if self._init.cmdline()[:1] != ["/lib/systemd/systemd"]:
            return "not yet systemd"
        return self.try_run("systemctl", "is-system-running").stdout.strip()

    def cut_power(self) -> None:
        """Kill its first process, and so all others, without a warning; the disk stays."""
        if self._init is not None:
            assert self._process is not None
            with suppress(psutil.NoSuchProcess):
                self._init.kill()
            self._process.wait(30)
            self._init = None
            self.lab.wait_until_unplugged(self.name)

    def try_run(self, *argv: str, cwd: str = "/", timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command in it as root, with an environment of its own; both outputs are text."""
        inside = ["nsenter", "-t", str(self.pid), "-a", f"--wd=/proc/{self.pid}/root{cwd}"]
        environment = ["env", "-i", f"PATH={PATH}", "HOME=/root", "LANG=C.UTF-8"]
        return subprocess.run(
            [*inside, *environment, *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def run(self, *argv: str, cwd: str = "/", timeout_s: float = 60) -> str:
        """Run a command that must succeed; its standard output."""
        done = self.try_run(*argv, cwd=cwd, timeout_s=timeout_s)
        assert done.returncode == 0, (
            f"{self.name}: {' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
        return done.stdout

    def journal(self, unit: str) -> str:
        """What a unit has said, for people."""
        return self.try_run("journalctl", "--no-pager", "-o", "cat", "-u", unit).stdout
