"""Owns giving up, for good, what a process that reads foreign data does not need; leaves the reading to others.

`enter` is for a process of one thread that has opened and imported all it will use. It is built of layers, so that a
hole in one is not a way out: limits, no privileges, Landlock for files, seccomp for everything else. Where the kernel
lacks a layer, the others are in force and `enter` says what is open; whether that will do is left to the caller.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import msgspec

from artifact import landlock, seccomp
from artifact.errors import ConfigError, IllegalTransition
from artifact.kernel import LINUX, Kernel

CPU_GRACE_S: Final = 5
"""From SIGXCPU, which a handler may turn into an error, to SIGKILL."""

_PR_SET_DUMPABLE: Final = 4
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_CAPABILITIES_COUNT: Final = 64
_TCP_SINCE: Final = 4


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """What a process may still do.

    Attributes:
        fill: directories below which it may create files, directories and links, and read them; nothing that is there
            may be removed or truncated.
        read: directories below which it may read.
        memory_bytes: address space, the interpreter included; more is a MemoryError.
        cpu_s: of one core; then SIGXCPU, and SIGKILL `CPU_GRACE_S` later.
        file_bytes: of one file; more is EFBIG.
        open_files: descriptors at one time.
        threads: whether it may start threads; processes it may not.
    """

    fill: Sequence[Path]
    read: Sequence[Path] = ()
    memory_bytes: int
    cpu_s: int
    file_bytes: int
    open_files: int = 32
    threads: bool = False


def enter(confinement: Confinement, *, kernel: Kernel = LINUX) -> tuple[str, ...]:
    """Confine this process for the rest of its life.

    What stands open stays usable, so open what lies elsewhere before; import before what will be needed, the codecs
    of file names included. The process dies with its parent only if it has asked for that before.

    Returns:
        What this kernel cannot close, a sentence each with what would help; none: everything is in force.

    Raises:
        ConfigError: kind `sandbox_failed`, a directory or a limit; the process may be confined in part.
        IllegalTransition: there are several threads; only one of them would be confined.
    """
    try:
        _check_alone()
        with ExitStack() as opened:
            allowed = [
                (_opened(path, opened), rights)
                for paths, rights in ((confinement.fill, landlock.FILL), (confinement.read, landlock.READ))
                for path in paths
            ]
            kernel.prctl(_PR_SET_DUMPABLE, 0)
            kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1)
            version, landlock_gaps = _restrict_files(kernel, allowed)
        capability_gaps = tuple(_drop_capabilities(kernel))
        _limit(confinement)
        return (*landlock_gaps, *capability_gaps, *_filter_calls(kernel, version))
    except OSError as error:
        raise ConfigError(
            f"this process cannot be confined: {error}; look at the limits and filters that it was started under",
            kind="sandbox_failed",
        ) from error


def _check_alone() -> None:
    count = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names are counted, not used
    if count != 1:
        raise IllegalTransition(f"a process with {count} threads cannot be confined: only one of them would be")


def _opened(path: Path, opened: ExitStack) -> int:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    opened.callback(os.close, fd)
    return fd


def _restrict_files(kernel: Kernel, allowed: Sequence[tuple[int, int]]) -> tuple[int, tuple[str, ...]]:
    """Put Landlock in force; its version, or 0 and what that means."""
    try:
        version = kernel.landlock_version()
        landlock.restrict(kernel, version, allowed)
    except OSError as error:
        match error.errno:
            case errno.ENOSYS:
                reason = "this kernel has none: it came with Linux 5.13"
            case errno.EOPNOTSUPP:
                reason = "it is not switched on: add `landlock` to `lsm=` of the kernel's command line"
            case errno.EPERM:
                reason = "a filter around this process forbids it: allow the calls landlock_*, as the unit file does"
            case _:
                reason = error.strerror or str(error)
        return 0, (f"files are open to it as to its user, for lack of Landlock ({reason})",)
    return version, ()


def _drop_capabilities(kernel: Kernel) -> Iterator[str]:
    for number in range(_CAPABILITIES_COUNT):
        # EINVAL: past the last one. EPERM: not ours to drop; without new privileges nothing of the set can be gained.
        with suppress(OSError):
            kernel.prctl(_PR_CAPBSET_DROP, number)
    try:
        kernel.drop_capabilities()
    except OSError as error:
        # A filter may forbid capset where there is nothing to give up. What is only inheritable is nothing: it would
        # become real by an execve of a file with capabilities of its own, and without new privileges that gives none.
        if kernel.capabilities() == 0:
            return
        yield f"it keeps its capabilities ({error.strerror}): allow the call capset, or run as another user than root"


def _limit(confinement: Confinement) -> None:
    wanted = {
        resource.RLIMIT_AS: (confinement.memory_bytes, confinement.memory_bytes),
        resource.RLIMIT_CPU: (confinement.cpu_s, confinement.cpu_s + CPU_GRACE_S),
        resource.RLIMIT_FSIZE: (confinement.file_bytes, confinement.file_bytes),
        resource.RLIMIT_NOFILE: (confinement.open_files, confinement.open_files),
        resource.RLIMIT_CORE: (0, 0),
    }
    if not confinement.threads:
        wanted[resource.RLIMIT_NPROC] = (0, 0)  # root is exempt; the filter of system calls makes no exception
    for which, (soft, hard) in wanted.items():
        ceiling = resource.getrlimit(which)[1]
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)  # noqa: PLW2901 - below what we may not raise
        resource.setrlimit(which, (soft, hard))


def _filter_calls(kernel: Kernel, landlock_version: int) -> Iterator[str]:
    program = seccomp.program()
    if program is None:
        reason = f"none is known for {os.uname().machine}"
    else:
        try:
            kernel.filter_system_calls(program)
        except OSError as error:
            reason = "this kernel has no seccomp" if error.errno == errno.EINVAL else error.strerror or str(error)
        else:
            return
    network = "UDP and Unix sockets are" if landlock_version >= _TCP_SINCE else "the network is"
    yield f"{network} open to it, and other processes of its user, for lack of a filter of system calls ({reason})"
