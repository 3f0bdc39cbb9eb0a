"""Owns git as a way to deploy: a clone on the host, fetched from git's own daemon and reset hard."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.corpus import VERSIONS, Exactness, Version
from benchmarks.peers.peer import AFTER, BEFORE, Ground, Peer, Phase, clear, once, remove, run, shell

PORT: Final = 18740
_AUTHOR: Final = ["-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0"]
_BASE: Final = "bench-base-packs"


class Git(Peer):
    """It keeps no modes but the executable bit, no empty directories and no times, and is not atomic either."""

    name: ClassVar = "git fetch; git reset --hard"
    phases = ("small", "tiny")
    exactness: ClassVar = Exactness.EXECUTABLE

    def stock(self, ground: Ground) -> None:
        with once(self._repository(ground)) as repository:
            if repository is None:
                return
            run(["git", "init", "-q", "--bare", repository])
            _take_bytes_as_they_are(repository)
            for version in VERSIONS:
                git = ["git", *_AUTHOR, f"--git-dir={repository}", f"--work-tree={ground.trees[version]}"]
                run([*git, "add", "--all", "--force", "."])
                run([*git, "commit", "-q", "-m", version])
                run([*git, "branch", version])
            run(["git", "-C", repository, "repack", "-q", "-a", "-d"])
            (repository / "git-daemon-export-ok").touch()

    @contextmanager
    def serving(self, ground: Ground) -> Iterator[None]:
        argv: list[str | Path] = [
            "git",
            "daemon",
            "--reuseaddr",
            f"--port={PORT}",
            f"--base-path={ground.store}",
            ground.store,
        ]
        with subprocess.Popen(ground.net.on_server(argv), stdin=subprocess.DEVNULL) as process:
            try:
                time.sleep(0.5)
                run(ground.net.on_client(["git", "ls-remote", self._url(ground)]))
                yield
            finally:
                process.terminate()

    def stand(self, ground: Ground, phase: Phase) -> None:
        old, git = BEFORE[phase], self._git(ground)
        assert old is not None
        if self._local(ground).exists():
            self._forget_all_but_v1(ground)
        else:
            self._clone(ground)
        if old != "v1":
            run(ground.net.on_client([*git, "fetch", "-q", "--no-auto-gc", "origin", _refspec(old)]))
        run([*git, "reset", "-q", "--hard", f"origin/{old}"])
        run([*git, "status", "--porcelain"])  # leaves the index fresh, as time does

    def argv(self, ground: Ground, phase: Phase) -> Sequence[str | Path]:
        new = AFTER[phase]
        script = 'git --git-dir="$1" fetch -q --no-auto-gc origin "$2"; git --git-dir="$1" reset -q --hard "$3"'
        return shell(script, self._local(ground), _refspec(new), f"origin/{new}")

    def leave(self, ground: Ground) -> None:
        """Keep the clone: making it again takes longer than all else."""

    def result(self, ground: Ground, phase: Phase) -> Path:
        del phase
        return ground.target / "tree"

    def _clone(self, ground: Ground) -> None:
        """Make a clone that has v1 alone, with its directory beside the tree and not in it."""
        clear(ground.target)
        tree, local, git = self.result(ground, "small"), self._local(ground), self._git(ground)
        tree.mkdir()
        run(["git", "init", "-q", "--bare", local])
        _take_bytes_as_they_are(local)
        for key, value in (
            ("core.bare", "false"),
            ("core.worktree", str(tree)),
            ("remote.origin.url", self._url(ground)),
        ):
            run([*git, "config", key, value])
        run(ground.net.on_client([*git, "fetch", "-q", "--no-auto-gc", "origin", _refspec("v1")]))
        (local / _BASE).write_text("\n".join(each.name for each in _packs(local)))

    def _forget_all_but_v1(self, ground: Ground) -> None:
        """Make the clone what it was before it fetched anything more, without the work of a `git gc`."""
        local, git = self._local(ground), self._git(ground)
        run([*git, "reset", "-q", "--hard", "origin/v1"])
        for version in ("v2", "v3"):
            run([*git, "update-ref", "-d", f"refs/remotes/origin/{version}"])
        for name in ("ORIG_HEAD", "FETCH_HEAD", "logs"):
            remove(local / name)
        base = set((local / _BASE).read_text().splitlines())
        for pack in _packs(local):
            if pack.name not in base:
                pack.unlink()
        for loose in (local / "objects").glob("??"):
            remove(loose)

    @staticmethod
    def _local(ground: Ground) -> Path:
        return ground.target / "clone"

    def _git(self, ground: Ground) -> list[str | Path]:
        return ["git", f"--git-dir={self._local(ground)}"]

    @staticmethod
    def _repository(ground: Ground) -> Path:
        return ground.store / "app.git"

    def _url(self, ground: Ground) -> str:
        return f"git://{ground.net.address}:{PORT}/{self._repository(ground).name}"


def _refspec(version: Version) -> str:
    return f"+refs/heads/{version}:refs/remotes/origin/{version}"


def _take_bytes_as_they_are(repository: Path) -> None:
    """Packages bring `.gitattributes` of their own, by which git would change line ends."""
    attributes = repository / "info" / "attributes"
    attributes.parent.mkdir(exist_ok=True)
    attributes.write_text("* -text -filter -ident -working-tree-encoding\n")


def _packs(local: Path) -> list[Path]:
    return sorted((local / "objects" / "pack").iterdir())
