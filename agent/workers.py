"""Owns who counts as a worker, and the evidence that a process still works in a tree.

What a process holds is read by `agent.holdings`; waiting until nobody is busy is left to `agent.drain`. Everything here
blocks, for milliseconds per thousand processes: call it through `agent.blocking`.
"""

from __future__ import annotations

import os
import pwd
import re
import signal
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import msgspec
import psutil

from agent.holdings import Connections, birth_of, command_line, effective_user, executable, read_holdings, units_of
from artifact import ConfigError

_CAPABILITIES: Final = "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[drain.workers]]` entry: a process is a worker if every criterion that is given holds.

    Attributes:
        unit: a systemd unit in the process's control group; shell wildcards as in `shop@*.service`.
        user: the name or number of its effective user.
        executable: the path of its executable, or, without a slash, the file name alone.
        command: a regular expression that is searched in the command line, arguments joined by blanks.
        pid_file: holds the number of a process; it and all its descendants match. Where there is no such file, or no
            such process, nobody does.
    """

    unit: str | None = None
    user: str | None = None
    executable: str | None = None
    command: str | None = None
    pid_file: str | None = None

    def __post_init__(self) -> None:
        """Refuse an entry that matches everything or cannot be understood; msgspec adds where it stands."""
        if not (self.unit or self.user or self.executable or self.command or self.pid_file):
            raise ValueError(
                "needs at least one of `unit`, `user`, `executable`, `command`, `pid_file`; empty would match all"
            )
        if self.pid_file and not self.pid_file.startswith("/"):
            raise ValueError(f"`pid_file` is {self.pid_file!r}; it must be an absolute path")
        try:
            re.compile(self.command or "")
        except re.error as error:
            raise ValueError(f"`command` is no regular expression: {error}") from error


@dataclass(frozen=True)
class Busy:
    """A worker that is not proved to be out of the tree, and why. `pid` None: a server that was asked as a whole."""

    pid: int | None
    command: str
    reasons: tuple[str, ...]

    @property
    def who(self) -> str:
        """Of whom the reasons speak."""
        return self.command if self.pid is None else f"pid {self.pid} ({self.command})"


@dataclass(frozen=True)
class Worker:
    """A process, told from a later one of the same number by the clock tick at which it started."""

    pid: int
    started: int


@dataclass(frozen=True)
class Lodging:
    """Where a worker lives.

    Attributes:
        releases: names of the release directories that it holds something in, each with one path as evidence.
        is_seen: whether all could be read; where not, there may be more.
    """

    pid: int
    command: str
    releases: Mapping[str, str]
    is_seen: bool


def lodgings(matches: Iterable[Match], releases: Path, *, agent_pid: int | None = None) -> list[Lodging]:
    """Tell of every worker which release directories it lives in.

    Args:
        matches: who is a worker.
        releases: the directory of the release directories, with no symbolic link in its path.
        agent_pid: of the agent, which is no worker, nor are its descendants; None: this process.

    Raises:
        ConfigError: as `find_workers`.
        OSError: /proc answers neither with data nor with a refusal.
    """
    found = []
    for worker in find_workers(matches, agent_pid=agent_pid):
        holdings = read_holdings(worker.pid)
        lodging = Lodging(worker.pid, command_line(worker.pid), holdings.entries_of(releases), not holdings.unseen)
        if _is_alive(worker):
            found.append(lodging)
    return found


def find_workers(matches: Iterable[Match], *, agent_pid: int | None = None) -> list[Worker]:
    """Find the processes that any of `matches` describes, except the agent with all its descendants.

    Where an executable may not be read, that criterion holds, so that a missing privilege makes too many workers rather
    than too few.

    Raises:
        ConfigError: a user is not known on this host (`unknown_user`), or a pid file is none (`bad_pid_file`).
    """
    tests = [(match, _user_id(match.user), _family_of(match.pid_file)) for match in matches]
    family = {os.getpid() if agent_pid is None else agent_pid: True}
    workers = []
    for pid in psutil.pids() if tests else ():
        if not any(_is_match(pid, match, user_id, among) for match, user_id, among in tests):
            continue
        birth = birth_of(pid)
        if birth is not None and not _is_family(pid, birth.parent, family):
            workers.append(Worker(pid, birth.started))
    return workers


def evidence(workers: Iterable[Worker], tree: Path, doors: Collection[int | str] = ()) -> list[Busy]:
    """Tell which processes hold something inside `tree`, or connections on `doors`.

    A connection counts while it is established, also when idle, and while the client has closed only its own half. What
    may not be read counts as a reason too: nobody is called drained unseen.

    Args:
        workers: as `find_workers` gives them; those that have ended meanwhile are passed over.
        tree: a release directory, with no symbolic link in its path.
        doors: local TCP ports, and paths of Unix sockets.

    Raises:
        OSError: /proc answers neither with data nor with a refusal.
    """
    connections = Connections(doors)
    busy = []
    for worker in workers:
        holdings = read_holdings(worker.pid)
        reasons = [*holdings.inside(tree), *connections.of(worker.pid, holdings)]
        if holdings.unseen:
            reasons.append(f"cannot see: {', '.join(holdings.unseen)}: permission denied; needs {_CAPABILITIES}")
        # Asked last, so that a process that ended, or whose number was given away, takes no blame.
        if reasons and _is_alive(worker):
            busy.append(Busy(worker.pid, command_line(worker.pid), tuple(reasons)))
    return busy


def busy_workers(matches: Iterable[Match], tree: Path, doors: Collection[int | str]) -> list[Busy]:
    """Find the workers and tell which are busy; errors are those of `find_workers` and `evidence`."""
    return evidence(find_workers(matches), tree, doors)


def signal_workers(matches: Iterable[Match], pids: Collection[int], number: signal.Signals) -> None:
    """Send a signal to those of `pids` that `matches` still describes; psutil sees to it that none was given away.

    Raises:
        ConfigError: a user is not known (`unknown_user`), or this agent may not signal them (`may_not_signal`).
    """
    for worker in find_workers(matches):
        if worker.pid not in pids:
            continue
        try:
            process = psutil.Process(worker.pid)
            if _is_alive(worker):
                process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied as error:
            raise ConfigError(
                f"pid {worker.pid} ({command_line(worker.pid)}) may not be signalled by user {os.geteuid()}: give "
                "the unit CAP_KILL (AmbientCapabilities= and CapabilityBoundingSet=), or set another `drain.policy`",
                kind="may_not_signal",
            ) from error


def trees_in_use(trees: Sequence[Path], *, agent_pid: int | None = None) -> dict[Path, str]:
    """Tell which trees any process of the host lives in, and one sentence of evidence for each.

    All processes are looked at but the agent itself, whose own open files are its own affair. Here a process that may
    not be read does not count: it would pin every tree for ever. With the unit file's capabilities nothing is missed.
    """
    own = os.getpid() if agent_pid is None else agent_pid
    used: dict[Path, str] = {}
    for pid in psutil.pids() if trees else ():
        if pid == own:
            continue
        holdings = read_holdings(pid)
        for tree in trees:
            if tree not in used and (reason := next(holdings.inside(tree), None)):
                used[tree] = f"process {pid} ({command_line(pid)}): {reason}"
    return used


def _is_match(pid: int, match: Match, user_id: int | None, among: Collection[int] | None) -> bool:
    """Tell whether every given criterion holds; the cheapest is asked first."""
    return (
        (among is None or pid in among)
        and (user_id is None or effective_user(pid) == user_id)
        and (not match.executable or _runs(pid, match.executable))
        and (not match.command or re.search(match.command, command_line(pid)) is not None)
        and (not match.unit or any(fnmatchcase(unit, match.unit) for unit in units_of(pid)))
    )


def _runs(pid: int, wanted: str) -> bool:
    try:
        path = executable(pid)
    except PermissionError:
        # It may be one: "cannot see" will then be its reason. Threads of the kernel have no command line.
        return command_line(pid) != ""
    return path is not None and (path if "/" in wanted else path.rpartition("/")[2]) == wanted


def _user_id(user: str | None) -> int | None:
    if not user:
        return None
    try:
        return int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise ConfigError(
            f"drain.workers: this host knows no user {user!r}; correct `user`, or create the account",
            kind="unknown_user",
        ) from error


def _family_of(pid_file: str | None) -> Collection[int] | None:
    """The process that a file names, and its descendants; None where no file is given."""
    if not pid_file:
        return None
    try:
        text = Path(pid_file).read_text(encoding="ascii", errors="replace")
        master = psutil.Process(int(text))
        return {master.pid, *(child.pid for child in master.children(recursive=True))}
    except (FileNotFoundError, psutil.NoSuchProcess):
        return ()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"drain.workers: {pid_file} has no process number in it ({error}): correct `pid_file`, or let the agent "
            "read it",
            kind="bad_pid_file",
        ) from error


def _is_family(pid: int, parent: int, known: dict[int, bool]) -> bool:
    """Tell whether a process is the agent or descends from it; `known` remembers the answers of one look."""
    if pid not in known:
        birth = birth_of(parent) if parent else None
        known[pid] = birth is not None and _is_family(parent, birth.parent, known)
    return known[pid]


def _is_alive(worker: Worker) -> bool:
    birth = birth_of(worker.pid)
    return birth is not None and birth.started == worker.started
