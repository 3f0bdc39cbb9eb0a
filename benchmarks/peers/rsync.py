"""Owns rsync against a daemon: into the tree itself, and into a new one that shares unchanged files.

In place it is not atomic: while it runs, and where it is killed, readers see a mixture.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.peers.peer import AFTER, BEFORE, Ground, Peer, Phase, clear, run, warm

PORT: Final = 18730
_CONFIG: Final = """\
use chroot = no
[trees]
path = {trees}
read only = yes
uid = 0
gid = 0
"""


class _Rsync(Peer):
    def stock(self, ground: Ground) -> None:
        """Nothing: it serves the trees themselves."""

    @contextmanager
    def serving(self, ground: Ground) -> Iterator[None]:
        config = ground.scratch / "rsyncd.conf"
        config.write_text(_CONFIG.format(trees=ground.trees["v1"].parent))
        argv = ["rsync", "--daemon", "--no-detach", f"--config={config}", f"--port={PORT}"]
        with subprocess.Popen(ground.net.on_server(argv), stdin=subprocess.DEVNULL) as process:
            try:
                time.sleep(0.5)
                run(ground.net.on_client(["rsync", _url(ground, "")]))
                yield
            finally:
                process.terminate()

    def _copy_old(self, ground: Ground, phase: Phase, tree: Path) -> None:
        """Make `tree` what the host has before."""
        if (old := BEFORE[phase]) is not None:
            run(["rsync", "-a", "--delete", f"{ground.trees[old]}/", f"{tree}/"])


class RsyncInPlace(_Rsync):
    name: ClassVar = "rsync, in place"

    def stand(self, ground: Ground, phase: Phase) -> None:
        if phase == "full":
            clear(ground.target)
        ground.target.mkdir(exist_ok=True)
        self._copy_old(ground, phase, self.result(ground, phase))
        warm(ground.trees[AFTER[phase]])

    def argv(self, ground: Ground, phase: Phase) -> Sequence[str | Path]:
        return ["rsync", "-a", "--delete", _url(ground, f"{AFTER[phase]}/"), self.result(ground, phase)]

    def result(self, ground: Ground, phase: Phase) -> Path:
        del phase
        return ground.target / "tree"


class RsyncLinkDest(_Rsync):
    """What does it atomically with rsync alone. Old and new share inodes: who writes into one, writes into both."""

    name: ClassVar = "rsync --link-dest"
    phases = ("small", "tiny")

    def stand(self, ground: Ground, phase: Phase) -> None:
        ground.target.mkdir(exist_ok=True)
        run(["rm", "-rf", self.result(ground, phase)])
        self._copy_old(ground, phase, ground.target / "old")
        warm(ground.trees[AFTER[phase]])

    def argv(self, ground: Ground, phase: Phase) -> Sequence[str | Path]:
        link = f"--link-dest={ground.target / 'old'}"
        return ["rsync", "-a", link, _url(ground, f"{AFTER[phase]}/"), self.result(ground, phase)]


def _url(ground: Ground, path: str) -> str:
    return f"rsync://{ground.net.address}:{PORT}/trees/{path}"
