"""Owns making one build: the gate, a fresh work tree, the build command, the artifact; and the directory for all that.

When, and what becomes of it, is left to `checkpoint.release.cutting`.

    <work_dir>/<app>/lock             held while a release is at work on this machine
    <work_dir>/<app>/gate.log         what the gate said last
    <work_dir>/<app>/<build>/build.log
    <work_dir>/<app>/<build>/out/     artifact and manifest, until they are recorded
    <work_dir>/<app>/<build>/tree-*/  work trees, removed at the end, or by the next release after a crash
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from artifact import ConfigError, HotcoldError, Manifest, Refused, decode_manifest
from artifact.diskerrors import disk_error
from artifact.pack import pack
from artifact.previous import Previous, opened_previous
from checkpoint.release.git import Git, clean_environment
from checkpoint.release.naming import Begun
from checkpoint.release.running import run
from checkpoint.release.settings import ReleaseTable

_TREES: Final = "tree-*"
_SOURCE: Final = "source"


class Workshop:
    """Makes builds of one app.

    Args:
        directory: `<work_dir>/<app>`; made where it is missing.
        app: the app.
        table: what to run.
        git: the repository.
        environment: of this process.
        now: RFC 3339 time, for manifests.
        say: tells people what is going on, a line each.
        show: gets what gate and build print, as it comes.
        sign: gives the signature of what was packed; None: it is not signed.
    """

    def __init__(
        self,
        directory: Path,
        *,
        app: str,
        table: ReleaseTable,
        git: Git,
        environment: Mapping[str, str],
        now: Callable[[], str],
        say: Callable[[str], None],
        show: Callable[[bytes], None],
        sign: Callable[[Manifest], str] | None,
    ) -> None:
        self._directory = directory
        self._app = app
        self._table = table
        self._git = git
        secret = {upload.headers_env for upload in table.uploads}
        self._environment = {
            name: value for name, value in clean_environment(environment).items() if name not in secret
        }
        self._now = now
        self._say = say
        self._show = show
        self._sign = sign

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other releases of the app on this machine away, and remove what a crash has left of work trees.

        Raises:
            Refused: kind `release_busy`.
            ConfigError, TransientError: the disk.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise disk_error(error, self._directory, "making the directory for builds") from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Refused(
                    f"another release of {self._app} is at work on this machine: wait for it", kind="release_busy"
                ) from error
            for stale in (*self._directory.glob(_TREES), *self._directory.glob(f"*/{_TREES}")):
                self._git.remove_worktree(stale / _SOURCE)
                # What a dead release's build still writes there is removed by the next one.
                shutil.rmtree(stale, ignore_errors=True)
            yield
        finally:
            os.close(lock)

    def check_gate(self, commit: str, *, hotfix_of: str | None) -> None:
        """Ask the gate about a commit.

        Raises:
            Refused: kind `gate_failed`: it said no, or nothing in time.
        """
        table = self._table
        if not table.gate:
            return
        told = {"HOTCOLD_APP": self._app, "HOTCOLD_COMMIT": commit, "HOTCOLD_HOTFIX_OF": hotfix_of or ""}
        log = self._directory / "gate.log"
        log.unlink(missing_ok=True)
        self._say(f"gate: {' '.join(table.gate)}, of {commit[:12]}")
        ran = run(
            table.gate,
            directory=self._git.repo,
            environment=self._environment | told,
            timeout_s=table.gate_timeout_s,
            log=log,
            show=self._show,
        )
        if not ran.is_good:
            how = f"was not done after {table.gate_timeout_s:g} s" if ran.timed_out else f"ended with {ran.status}"
            raise Refused(
                f"the gate does not let commit {commit[:12]} pass: {table.gate[0]} {how}; {log} has what it said. "
                "Nothing was made",
                kind="gate_failed",
            )

    def is_here(self, build_id: str) -> bool:
        """Whether the build was begun on this machine."""
        return (self._directory / build_id).is_dir()

    def open(self, build_id: str) -> None:
        """Remember that the build is begun here."""
        (self._directory / build_id / "out").mkdir(parents=True, exist_ok=True)

    def close(self, build_id: str) -> None:
        """Remove what is needed no longer; the log of the build stays."""
        shutil.rmtree(self._directory / build_id / "out", ignore_errors=True)

    def forget(self, build_id: str) -> None:
        """Remove all of a build that was not begun after all."""
        shutil.rmtree(self._directory / build_id, ignore_errors=True)

    @contextmanager
    def worktree(self, commit: str, build_id: str | None = None) -> Iterator[Path]:
        """A fresh work tree, in a directory that nothing else ever used."""
        place = self._directory / (build_id or "")
        directory = Path(tempfile.mkdtemp(prefix=_TREES.removesuffix("*"), dir=place))
        try:
            with self._git.worktree(directory / _SOURCE, commit) as path:
                yield path
        finally:
            shutil.rmtree(directory)

    def make(self, begun: Begun, url_base: Sequence[str], against: str | None) -> tuple[Manifest, Path]:
        """Build and pack, unless that was done already.

        Args:
            begun: what to make.
            url_base: addresses under which hosts will find the files.
            against: location of the manifest of the build before, or None.

        Returns:
            The manifest and its file; the other files lie beside it.

        Raises:
            Refused: kind `build_failed`; ArtifactRejected: the tree holds what no host would open.
            ConfigError: the build command, the tree or the key.
            TransientError: the disk.
        """
        out = self._directory / begun.id / "out"
        document = out / f"{begun.app}-{begun.id}.json"
        made = self._made(document, begun, url_base)
        if made is not None:
            self._say(f"{begun.id} is built and packed already")
            return made, document
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        with self.worktree(begun.commit, begun.id) as source:
            tree = self._build(begun, source)
            return self._pack(
                begun, tree, is_source=tree.samefile(source), url_base=url_base, against=against
            ), document

    def _made(self, document: Path, begun: Begun, url_base: Sequence[str]) -> Manifest | None:
        """What an earlier attempt packed, if it is just what would be packed now; `pack` writes its manifest last."""
        try:
            found = decode_manifest(document.read_bytes())
        except (OSError, HotcoldError):
            return None
        urls = {url.rpartition("/")[0] for url in found.urls}
        is_same = found.revision == begun.commit and urls == set(url_base)
        return found if is_same and (found.signature is None) == (self._sign is None) else None

    def _build(self, begun: Begun, source: Path) -> Path:
        table = self._table
        log = self._directory / begun.id / "build.log"
        if table.build:
            self._say(f"build: {' '.join(table.build)}, of {begun.commit[:12]}")
            told = {
                "HOTCOLD_APP": begun.app,
                "HOTCOLD_BUILD": begun.id,
                "HOTCOLD_REVISION": begun.commit,
                "HOTCOLD_BRANCH": begun.branch,
                "SOURCE_DATE_EPOCH": str(self._git.commit_time_s(begun.commit)),
            }
            ran = run(
                table.build,
                directory=source,
                environment=self._environment | told,
                timeout_s=table.build_timeout_s,
                log=log,
                show=self._show,
            )
            if not ran.is_good:
                how = f"was not done after {table.build_timeout_s:g} s" if ran.timed_out else f"ended with {ran.status}"
                raise Refused(f"{table.build[0]} {how}; {log} has what it said", kind="build_failed")
        tree = (source / table.tree).resolve()
        if not tree.is_dir() or not tree.is_relative_to(source.resolve()):
            raise ConfigError(
                f'release.tree = "{table.tree}": after the build there is no such directory in its work tree',
                kind="no_tree",
            )
        return tree

    def _pack(
        self, begun: Begun, tree: Path, *, is_source: bool, url_base: Sequence[str], against: str | None
    ) -> Manifest:
        with ExitStack() as stack:
            previous = None if against is None else self._previous(stack, against)
            if is_source:
                # What makes it a work tree is no part of the build; it is put back so that git can remove it.
                aside = tree.parent / "git"
                (tree / ".git").rename(aside)
                stack.callback(aside.rename, tree / ".git")
            self._say(f"packing {begun.app} {begun.id}")
            return pack(
                tree,
                app=begun.app,
                build_id=begun.id,
                out=self._directory / begun.id / "out",
                created=self._now(),
                on_progress=lambda _: None,
                format=self._table.format,
                url_base=url_base,
                revision=begun.commit,
                notes=begun.notes,
                previous=previous,
                newest_s=self._git.commit_time_s(begun.commit),
                sign=self._sign,
            )

    def _previous(self, stack: ExitStack, against: str) -> Previous | None:
        """The build to make a patch against. A patch saves hosts some bytes: no release fails for the lack of one."""
        try:
            return stack.enter_context(opened_previous(against))
        except HotcoldError as error:
            self._say(f"no patch is made: {error}")
            return None
