"""Owns what a run needs from the operating system: looked for by command, installed from Debian where root may.

Debian starts the servers that it installs. The lab does not use those: it runs its own, on its own network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_PACKAGES: Final = {
    "bsdtar": "libarchive-tools",
    "casync": "casync",
    "curl": "curl",
    "gcc": "gcc",
    "git": "git",
    "ip": "iproute2",
    "losetup": "mount",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "mksquashfs": "squashfs-tools",
    "nginx": "nginx-light",
    "npm": "npm",
    "nsenter": "util-linux",
    "ostree": "ostree",
    "rsync": "rsync",
    "zstd": "zstd",
}
_FILES: Final = {
    "/usr/include/zstd.h": "libzstd-dev",
    "/usr/include/stdio.h": "libc6-dev",
}
_SEARCHED: Final = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


def ensure_packages() -> None:
    """Install what is missing, or exit with the command that would."""
    packages = sorted(set(_missing()))
    if not packages:
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"lab: installing {' '.join(packages)}", file=sys.stderr, flush=True)
        # apt's own user cannot verify signatures where only root may write to the temporary directory.
        apt = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root"]
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        install = [*apt, "install", "--yes", "--no-install-recommends", *packages]
        for command in ([*apt, "update"], install):
            subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    if missing := sorted(set(_missing())):
        sys.exit(f"missing: {', '.join(missing)}; as root on Debian: apt-get install {' '.join(missing)}")


def _missing() -> Iterable[str]:
    yield from (package for command, package in _PACKAGES.items() if not shutil.which(command, path=_SEARCHED))
    yield from (package for path, package in _FILES.items() if not Path(path).exists())
