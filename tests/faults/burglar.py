"""What somebody would try who has taken over the process that opens an archive, each attempt with its outcome.

As `sitecustomize` of an interpreter it waits until a file of a certain name is created, as an archive's first entry is:
then the process is at its work, and all that confines it is in force. It imports nothing later, and writes the outcomes
into the directory that the process fills.

Run as a program it does the same at once, unconfined: the proof that the attempts would succeed.
"""

import contextlib
import ctypes
import errno
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

TRIGGER = "burgle"
LOOT = "loot"
PLAN = "PYTHON_BURGLAR_PLAN"

_libc = ctypes.CDLL(None, use_errno=True)
_ADDRESS_BYTES = (1 << 30) + (256 << 20)


def attempts(site: Path, into: Path, port: int, victim: int) -> dict[str, Callable[[], object]]:
    """By name; all fail by an OSError, or succeed.

    Args:
        site: a directory around `into`, with a file `canary`, a `tool` that is executable and a directory `other`.
        into: the directory that is filled.
        port: of a TCP server on 127.0.0.1.
        victim: pid of another process of the same user.
    """
    canary = site / "canary"
    return {
        "read a file outside": canary.read_bytes,
        "read a file of the system": lambda: Path("/etc/passwd").read_bytes(),
        "read the environment of another process": lambda: Path(f"/proc/{victim}/environ").read_bytes(),
        "list a directory outside": lambda: list(site.iterdir()),
        "create a file outside": lambda: (site / "new").write_bytes(b""),
        "create a file beside": lambda: (into.parent / "newer").write_bytes(b""),
        "create a directory outside": (site / "new-directory").mkdir,
        "create a link outside": lambda: (site / "new-link").symlink_to("canary"),
        "create a fifo inside": lambda: os.mkfifo(into / "fifo"),
        "change a file outside": lambda: os.close(os.open(canary, os.O_WRONLY | os.O_APPEND)),
        "truncate a file outside": lambda: os.truncate(canary, 0),
        "rename a file outside": lambda: (site / "first").rename(site / "second"),
        "take a file in by a hard link": lambda: os.link(canary, into / "taken"),
        "take a file out by a hard link": lambda: os.link(into / "victim", site / "taken"),
        "remove a file outside": (site / "other" / "f").unlink,
        "remove a file inside": (into / "victim").unlink,
        "change the mode of a file outside": lambda: canary.chmod(0o666),
        "change the owner of a file outside": lambda: os.chown(canary, os.getuid(), os.getgid()),
        "open a TCP connection": lambda: socket.socket().connect(("127.0.0.1", port)),
        "listen on a port": lambda: socket.create_server(("127.0.0.1", 0)).close(),
        "send a datagram": lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port)),
        "open a Unix socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "use io_uring": lambda: _call(425, 1, ctypes.create_string_buffer(128)),
        "fork": lambda: os.waitpid(os.fork() or os._exit(0), 0),
        "execute a program": lambda: subprocess.run(["/bin/true"], check=True),
        "execute a file inside": lambda: subprocess.run([into / "tool"], check=True),
        "signal another process": lambda: os.kill(victim, 0),
        "read the memory of another process": lambda: _call(310 if _is_x86 else 270, victim, None, 0, None, 0, 0),
        "read the limits of another process": lambda: resource.prlimit(victim, resource.RLIMIT_CORE),
        "change the priority of another process": lambda: os.setpriority(os.PRIO_PROCESS, victim, 1),
        "outlive its parent": lambda: _checked(_libc.prctl(1, 0, 0, 0, 0)),
        "raise its limits": _raise_limits,
        "use the kernel's keys": lambda: _call(250 if _is_x86 else 219, 0, -3, 0),
        "open many files": _open_many,
        "write a file without end": lambda: _write_at(into / "endless", 21 << 30),
        "take much memory": _take_memory,
        "put itself into a name space of its own": lambda: _checked(_libc.unshare(0x10000000)),
    }


_is_x86 = os.uname().machine == "x86_64"


def _call(number: int, *arguments: object) -> int:
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *wide))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _raise_limits() -> None:
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (9999, 9999))
    except ValueError as error:  # Python's word for EPERM
        raise OSError(errno.EPERM, str(error)) from error


def _open_many() -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(64):
            opened.callback(os.close, os.dup(1))


def _write_at(path: Path, offset: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        os.pwrite(fd, b"x", offset)
    finally:
        os.close(fd)


def _take_memory() -> None:
    try:
        bytearray(_ADDRESS_BYTES)
    except MemoryError:
        raise OSError(errno.ENOMEM, "MemoryError") from None


def outcomes(all_attempts: dict[str, Callable[[], object]]) -> dict[str, str]:
    """The name of the errno, or "done"."""
    found = {}
    for name, attempt in all_attempts.items():
        try:
            attempt()
        except OSError as error:
            found[name] = errno.errorcode.get(error.errno or 0, str(error))
        else:
            found[name] = "done"
    return found


def _burgle(plan: dict[str, object]) -> None:
    if "mutter" in plan:
        os.write(2, str(plan["mutter"]).encode())
    if plan.get("crash"):
        ctypes.string_at(0)
    if "say" in plan:
        os.write(1, str(plan["say"]).encode() * int(str(plan.get("times", 1))) + b"\n")
        while True:
            time.sleep(1)
    into = Path(str(plan["into"]))
    (into / "victim").touch()
    tool = os.open(into / "tool", os.O_WRONLY | os.O_CREAT, 0o755)
    os.write(tool, b"#!/bin/sh\n")
    os.close(tool)
    found = outcomes(attempts(Path(str(plan["site"])), into, int(str(plan["port"])), int(str(plan["victim"]))))
    (into / LOOT).write_text(json.dumps(found))


def _wait_for_trigger(plan: dict[str, object]) -> None:
    is_waiting = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal is_waiting
        if is_waiting and event == "open" and arguments[0] == TRIGGER:
            is_waiting = False
            _burgle(plan)

    sys.addaudithook(hook)


if PLAN in os.environ:
    if __name__ == "__main__":
        _burgle(json.loads(os.environ[PLAN]))
    else:
        _wait_for_trigger(json.loads(os.environ[PLAN]))
