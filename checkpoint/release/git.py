"""Owns what releases ask of git: commits, tags, release branches, work trees, cherry-picks; by the real program.

What is asked, and when, is left to `checkpoint.release.cutting`. Nothing here touches the checkout of the repository
that is named: files are written in work trees of our own, and a branch that somebody has checked out is not moved. The
repository's hooks are not run.

Where releases are kept in a remote, it is asked first and changed first, in one atomic push; our own references follow.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from artifact import ConfigError, Refused, TransientError
from checkpoint.release.commits import LOG_FORMAT, Commits, read_log
from checkpoint.release.naming import Begun, is_id, message_of, read_message
from checkpoint.release.settings import ReleaseTable

_TIMEOUT_S: Final = 120.0
_NETWORK_TIMEOUT_S: Final = 900.0
_NOWHERE: Final = "0" * 40
_LOCATING: Final = frozenset(
    {
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_NAMESPACE",
        "GIT_PREFIX",
        "GIT_SHALLOW_FILE",
        "GIT_GRAFT_FILE",
    }
)
"""Variables that a hook of some other repository may have set, and that would lead git there."""
_QUIET: Final = ("-c", "core.hooksPath=/dev/null", "-c", "rerere.enabled=false", "-c", "advice.detachedHead=false")


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for git and for what is run in its work trees: nothing in it names another repository."""
    return {name: value for name, value in environment.items() if name not in _LOCATING}


class Git:
    """One repository.

    Args:
        repo: where it is, bare or not.
        table: what remote and names to use.
        by: who releases, as `anna@deploy-1`: the committer where git knows none.

    Raises:
        ConfigError: kind `bad_repository`: none is there, its history is not whole, or there is no git.
    """

    def __init__(self, repo: Path, table: ReleaseTable, *, by: str) -> None:
        program = shutil.which("git")
        if program is None:
            raise ConfigError("there is no program `git`: install it where releases are cut", kind="bad_repository")
        self.repo = repo
        self._git = program
        self._table = table
        name = by.partition("@")[0]
        self._environment = clean_environment(os.environ) | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        answer = self._call("rev-parse", "--is-shallow-repository")
        if answer.returncode != 0:
            raise ConfigError(f"{repo} is no git repository that can be used: {_said(answer)}", kind="bad_repository")
        if answer.stdout.strip() == b"true":
            raise ConfigError(
                f"{repo} is a shallow clone: which commits a build brings cannot be told from it; complete it with "
                f"`git -C {repo} fetch --unshallow`, or clone without --depth",
                kind="bad_repository",
            )
        if self._call("config", "user.email").returncode != 0:
            self._environment |= {"GIT_COMMITTER_NAME": name, "GIT_COMMITTER_EMAIL": by}

    # --- reading ------------------------------------------------------------------------------------------------------

    def fetch(self) -> None:
        """Learn what the remote has; nothing where none is configured. Only remote-tracking branches and tags change.

        Raises:
            TransientError: kind `git_remote`.
        """
        table = self._table
        if table.remote is None:
            return
        there = f"refs/remotes/{table.remote}"
        answer = self._call(
            "fetch",
            "--quiet",
            "--no-tags",
            table.remote,
            f"+refs/heads/{table.main}:{there}/{table.main}",
            f"+refs/heads/{table.branch_prefix}*:{there}/{table.branch_prefix}*",
            f"refs/tags/{table.tag_prefix}2*:refs/tags/{table.tag_prefix}2*",
            timeout_s=_NETWORK_TIMEOUT_S,
        )
        if answer.returncode != 0:
            raise TransientError(f"{table.remote} of {self.repo} cannot be fetched: {_said(answer)}", kind="git_remote")

    def main_commit(self) -> str:
        """Where the main branch is."""
        return self.resolve(self._branch_ref(self._table.main))

    def branch_commit(self, branch: str) -> str | None:
        """Where a branch is; None: there is none."""
        return self._resolved(self._branch_ref(branch))

    def resolve(self, revision: str) -> str:
        """The commit that `revision` names.

        Raises:
            ConfigError: kind `bad_revision`: there is none.
        """
        commit = self._resolved(revision)
        if commit is None:
            raise ConfigError(f"{revision} names no commit in {self.repo}", kind="bad_revision")
        return commit

    def is_known(self, commit: str) -> bool:
        """Whether the commit is here."""
        return self._resolved(commit) is not None

    def is_ancestor(self, commit: str, descendant: str) -> bool:
        """Whether `descendant` contains `commit`."""
        return self._call("merge-base", "--is-ancestor", commit, descendant).returncode == 0

    def is_merge(self, commit: str) -> bool:
        """Whether the commit has several parents."""
        return len(self._run("rev-list", "--parents", "-n1", commit).split()) > 2  # noqa: PLR2004 - itself and one

    def commit_time_s(self, commit: str) -> int:
        """When it was committed, since 1970."""
        return int(self._run("show", "--no-patch", "--format=%ct", commit))

    def log(self, commit: str, since: str | None = None) -> Commits:
        """What `commit` has and `since` has not; changes that `since` has under another name are left out."""
        span = [commit] if since is None else ["--cherry-pick", "--right-only", f"{since}...{commit}"]
        return read_log(self._run("log", f"--format={LOG_FORMAT}", *span, "--"))

    def taken_ids(self) -> set[str]:
        """Ids that tags or release branches have, whoever made them."""
        table = self._table
        found = set()
        for name in self._run("for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags", "refs/remotes").split():
            branch = name.removeprefix("refs/heads/").removeprefix(f"refs/remotes/{table.remote}/")
            for start, text in (("refs/tags/" + table.tag_prefix, name), (table.branch_prefix, branch)):
                if text.startswith(start):
                    found.add(text.removeprefix(start))
        return {each for each in found if is_id(each)}

    def begun(self, app: str) -> tuple[Begun, ...]:
        """Every release of the app that was ever begun, in no order."""
        shown = self._run(
            "for-each-ref",
            "--format=%(refname)%00%(*objectname)%00%(contents)%00%01",
            f"refs/tags/{self._table.tag_prefix}*",
        )
        found = []
        for entry in shown.split("\0\1")[:-1]:
            name, commit, message = entry.lstrip("\n").split("\0", 2)
            told = read_message(name.removeprefix(f"refs/tags/{self._table.tag_prefix}"), commit, message)
            if told is not None and told.app == app:
                found.append(told)
        return tuple(found)

    # --- writing ------------------------------------------------------------------------------------------------------

    def reserve(self, begun: Begun, *, before: str | None = None) -> bool:
        """Make the tag, and make the release branch or move it on from `before`.

        Returns:
            False where somebody else took the id meanwhile; nothing was made then.

        Raises:
            TransientError: kind `git_remote`: the push failed; nothing was made, as far as can be known.
            Refused: kind `branch_in_use` or `branch_moved`.
        """
        tag = f"refs/tags/{self._table.tag_prefix}{begun.id}"
        made = self._run("mktag", given=self._tag_text(begun)).strip()
        if self._table.remote is None:
            self._check_free(begun.branch)
            if self._call("update-ref", tag, made, _NOWHERE).returncode != 0:
                return False
            # A crash here leaves a tag without its branch: the id is taken, and `ensure_branch` goes on.
            self.ensure_branch(begun, before=before)
            return True
        pushed = self._push(begun, tag, made, before)
        if pushed.returncode != 0:
            self.fetch()
            there = self._call("rev-parse", "--verify", "--quiet", tag).stdout.decode().strip()
            if there and there != made:
                return False
            if not there:
                raise TransientError(
                    f"tag {begun.id} and branch {begun.branch} cannot be pushed to {self._table.remote}: "
                    f"{_said(pushed)}",
                    kind="git_remote",
                )
        self._call("update-ref", tag, made)
        return True

    def ensure_branch(self, begun: Begun, *, before: str | None = None) -> None:
        """Let the release branch be at the release's commit, where it is not there or beyond already.

        Raises:
            Refused: kind `branch_moved`: it is somewhere else; `branch_in_use`: somebody has it checked out.
        """
        if self._table.remote is not None:
            return  # pushed together with the tag, or not at all
        now = self.branch_commit(begun.branch)
        if now is not None and self.is_ancestor(begun.commit, now):
            return
        if now is not None and before is None and self.is_ancestor(now, begun.commit):
            before = now
        self._check_free(begun.branch)
        answer = self._call("update-ref", f"refs/heads/{begun.branch}", begun.commit, before or _NOWHERE)
        if answer.returncode != 0:
            raise Refused(
                f"branch {begun.branch} was changed by somebody else meanwhile: {_said(answer)}; nothing was built",
                kind="branch_moved",
            )

    @contextmanager
    def worktree(self, path: Path, commit: str) -> Iterator[Path]:
        """A fresh work tree of a commit; it is gone at the end, whatever happened in it.

        Raises:
            ConfigError, OSError: it cannot be made.
        """
        self._run("worktree", "add", "--quiet", "--force", "--detach", str(path), commit, timeout_s=_NETWORK_TIMEOUT_S)
        try:
            yield path
        finally:
            self.remove_worktree(path)

    def remove_worktree(self, path: Path) -> None:
        """Remove a work tree of ours, as far as it is there."""
        for directory, _, _ in os.walk(path):
            with suppress(FileNotFoundError):
                Path(directory).chmod(0o700)  # build tools write-protect what they unpack
        self._call("worktree", "remove", "--force", "--force", str(path))
        shutil.rmtree(path, ignore_errors=True)

    def pick(self, worktree: Path, commits: Sequence[str]) -> str:
        """Apply commits in a work tree, one after the other; each names its origin.

        Returns:
            The new commit.

        Raises:
            Refused: kind `pick_conflict`, with the files, `pick_empty` or `pick_failed`.
        """
        for commit in commits:
            answer = self._call("-C", str(worktree), "cherry-pick", "-x", "--no-gpg-sign", commit)
            if answer.returncode == 0:
                continue
            unmerged = self._run("-C", str(worktree), "diff", "--name-only", "--diff-filter=U", "-z").split("\0")[:-1]
            if unmerged:
                raise Refused(
                    f"{commit[:12]} conflicts in {', '.join(ascii(each)[1:-1] for each in unmerged)}: nothing was "
                    "changed; pick also what it builds on, or commit an adapted change to pick",
                    kind="pick_conflict",
                )
            if not self._run("-C", str(worktree), "status", "--porcelain").strip():
                raise Refused(f"{commit[:12]} changes nothing here: the build has it already", kind="pick_empty")
            raise Refused(f"{commit[:12]} cannot be picked: {_said(answer)}", kind="pick_failed")
        return self._run("-C", str(worktree), "rev-parse", "HEAD").strip()

    # --- how ----------------------------------------------------------------------------------------------------------

    def _branch_ref(self, branch: str) -> str:
        remote = self._table.remote
        return f"refs/heads/{branch}" if remote is None else f"refs/remotes/{remote}/{branch}"

    def _resolved(self, revision: str) -> str | None:
        answer = self._call("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        return answer.stdout.decode("ascii").strip() if answer.returncode == 0 else None

    def _tag_text(self, begun: Begun) -> str:
        identity = self._call("var", "GIT_COMMITTER_IDENT")
        if identity.returncode != 0:
            raise ConfigError(f"git does not know who tags: {_said(identity)}", kind="bad_repository")
        who = identity.stdout.decode(errors="replace").strip().rsplit(" ", 2)[0]
        return (
            f"object {begun.commit}\ntype commit\ntag {self._table.tag_prefix}{begun.id}\n"
            f"tagger {who} {int(time.time())} +0000\n\n{message_of(begun)}"
        )

    def _push(self, begun: Begun, tag: str, made: str, before: str | None) -> subprocess.CompletedProcess[bytes]:
        assert self._table.remote is not None  # noqa: S101 - asked by the caller
        return self._call(
            "push",
            "--quiet",
            "--atomic",
            f"--force-with-lease={tag}:",
            f"--force-with-lease=refs/heads/{begun.branch}:{before or ''}",
            self._table.remote,
            f"{made}:{tag}",
            f"{begun.commit}:refs/heads/{begun.branch}",
            timeout_s=_NETWORK_TIMEOUT_S,
        )

    def _check_free(self, branch: str) -> None:
        """Moving a branch under a checkout would make all of its files look changed."""
        place = ""
        for line in self._run("worktree", "list", "--porcelain").splitlines():
            place = line.removeprefix("worktree ") if line.startswith("worktree ") else place
            if line == f"branch refs/heads/{branch}":
                raise Refused(
                    f"branch {branch} is checked out in {place}: switch to another branch there, then try again",
                    kind="branch_in_use",
                )

    def _run(self, *arguments: str, given: str = "", timeout_s: float = _TIMEOUT_S) -> str:
        answer = self._call(*arguments, given=given, timeout_s=timeout_s)
        if answer.returncode != 0:
            raise ConfigError(f"git {arguments[0]} failed in {self.repo}: {_said(answer)}", kind="git_failed")
        return answer.stdout.decode(errors="replace")

    def _call(
        self, *arguments: str, given: str = "", timeout_s: float = _TIMEOUT_S
    ) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(  # noqa: S603 - git, without a shell
                [self._git, "-C", str(self.repo), *_QUIET, *arguments],
                capture_output=True,
                check=False,
                env=self._environment,
                input=given.encode(),
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise TransientError(
                f"git {arguments[0]} was not done after {timeout_s:g} s in {self.repo}", kind="git_remote"
            ) from error
        except OSError as error:
            raise ConfigError(f"git cannot be run in {self.repo}: {error.strerror}", kind="bad_repository") from error


def _said(answer: subprocess.CompletedProcess[bytes]) -> str:
    text = " ".join((answer.stderr or answer.stdout).decode(errors="replace").split())
    return text.removeprefix("fatal: ").removeprefix("error: ")[:500] or f"exit status {answer.returncode}"
