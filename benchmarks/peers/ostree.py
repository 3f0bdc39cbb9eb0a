"""Owns OSTree: pull into a repository on the host, check out a tree of hard links."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks.corpus import VERSIONS, Exactness
from benchmarks.peers.peer import AFTER, BEFORE, Ground, Peer, Phase, clear, once, run, shell


class OSTree(Peer):
    """Static deltas are made, as its documentation advises; all files of the repository and the tree are one inode.

    Times are not kept.
    """

    name: ClassVar = "OSTree pull; checkout"
    exactness: ClassVar = Exactness.MODES
    is_slow: ClassVar = True

    def stock(self, ground: Ground) -> None:
        with once(self._served(ground)) as repository:
            if repository is None:
                return
            run(["ostree", "init", f"--repo={repository}", "--mode=archive"])
            ostree = ["ostree", f"--repo={repository}"]
            run([*ostree, "config", "set", "core.fsync", "false"])
            for version in VERSIONS:
                owned = ["--owner-uid=0", "--owner-gid=0", "--no-xattrs"]
                run([*ostree, "commit", "-b", version, f"--tree=dir={ground.trees[version]}", *owned])
            for old, new in (("v1", "v2"), ("v2", "v3")):
                run([*ostree, "static-delta", "generate", f"--from={old}", f"--to={new}"])
            run([*ostree, "summary", "-u"])

    def stand(self, ground: Ground, phase: Phase) -> None:
        old = BEFORE[phase]
        if old is None or not self._local(ground).exists():
            clear(ground.target)
            run(["ostree", "init", f"--repo={self._local(ground)}", "--mode=bare"])
            # Everything is made durable at the end, by one call, as with all others.
            run(["ostree", f"--repo={self._local(ground)}", "config", "set", "core.fsync", "false"])
            remote = ["remote", "add", "--no-gpg-verify", "store", f"{ground.url}/{self._served(ground).name}"]
            run(["ostree", f"--repo={self._local(ground)}", *remote])
        if old is not None:
            self._keep_only(ground, old)

    def argv(self, ground: Ground, phase: Phase) -> Sequence[str | Path]:
        new = AFTER[phase]
        script = 'ostree --repo="$1" pull store "$2"; ostree --repo="$1" checkout -H "store:$2" "$3"'
        return shell(script, self._local(ground), new, self.result(ground, phase))

    def _keep_only(self, ground: Ground, old: str) -> None:
        """Let the host have the one version, pulled and checked out, and nothing of others."""
        ostree = ["ostree", f"--repo={self._local(ground)}"]
        run(ground.net.on_client([*ostree, "pull", "store", old]))
        for version in VERSIONS:
            if version != old:
                run(["rm", "-rf", ground.target / version])
                run(shell('"$@" 2>/dev/null || true', *ostree, "refs", "--delete", f"store:{version}"))
        run([*ostree, "prune", "--refs-only"])
        if not (ground.target / old).exists():
            run([*ostree, "checkout", "-H", f"store:{old}", ground.target / old])

    @staticmethod
    def _served(ground: Ground) -> Path:
        return ground.store / "ostree"

    @staticmethod
    def _local(ground: Ground) -> Path:
        return ground.target / "repository"
