"""What confines a process, layer by layer: each version of Landlock, the filter of system calls, old kernels."""

import errno
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from artifact import landlock, seccomp
from artifact.errors import IllegalTransition
from artifact.kernel import LINUX
from artifact.sandbox import Confinement, enter

NEWEST_KNOWN = 6


def in_a_process_of_its_own(code: str, *arguments: object) -> dict[str, object]:
    """Run code that confines itself; what it prints as JSON."""
    program = textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], check=True, stdout=subprocess.PIPE, cwd="/"
    )
    return json.loads(done.stdout)


def landlock_version() -> int:
    try:
        return LINUX.landlock_version()
    except OSError:
        return 0


# --- Landlock ---------------------------------------------------------------------------------------------------------

ATTEMPTS = """
    import ctypes, errno, fcntl, json, os, socket, sys
    from artifact import landlock
    from artifact.kernel import LINUX

    version, place = int(sys.argv[1]), sys.argv[2]
    os.chdir(place)
    devices = os.open("/dev", os.O_PATH)
    inside = os.open("inside", os.O_PATH)
    socket.socket()
    address = "\\0hotcold-test-" + str(os.getpid())
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    parent = os.getppid()

    LINUX.prctl(38, 1)
    landlock.restrict(LINUX, version, [(inside, landlock.FILL), (devices, landlock.READ)])

    def device():
        try:
            fcntl.ioctl(os.open("/dev/zero", os.O_RDONLY), 0x5401)
        except OSError as error:
            if error.errno != errno.ENOTTY:
                raise

    def abstract_socket():
        socket.socket(socket.AF_UNIX).connect(address)

    found = {}
    for name, attempt in {
        "create inside": lambda: os.mkdir("inside/new"),
        "link inside": lambda: os.link("inside/a/f", "inside/b/f"),
        "link in one directory": lambda: os.link("inside/a/f", "inside/a/g"),
        "create outside": lambda: os.mkdir("outside"),
        "read outside": lambda: os.open("f", os.O_RDONLY),
        "truncate outside": lambda: os.truncate("f", 0),
        "bind": lambda: socket.socket().bind(("127.0.0.1", 0)),
        "ioctl on a device": device,
        "signal the parent": lambda: os.kill(parent, 0),
        "abstract socket from before": abstract_socket,
    }.items():
        try:
            attempt()
        except OSError as error:
            found[name] = errno.errorcode[error.errno]
        else:
            found[name] = "done"
    print(json.dumps(found))
"""

DENIED_SINCE = {
    "create outside": 1,
    "read outside": 1,
    "truncate outside": 3,
    "bind": 4,
    "ioctl on a device": 5,
    "signal the parent": 6,
    "abstract socket from before": 6,
}


@pytest.mark.parametrize("version", range(1, NEWEST_KNOWN + 1))
def test_each_version_of_landlock_denies_what_it_knows(open_path: Path, version: int) -> None:
    """A newer kernel takes the rules of an older one, and enforces exactly those.

    What may be read is /dev, so this must not take place in /dev/shm, where pytest may have been told to work.
    """
    if landlock_version() < version:
        pytest.skip(f"this kernel's Landlock is of version {landlock_version()}")
    for name in ("inside/a", "inside/b"):
        (open_path / name).mkdir(parents=True)
    (open_path / "inside/a/f").touch()
    (open_path / "f").write_text("kept")
    found = in_a_process_of_its_own(ATTEMPTS, version, open_path)
    assert found.pop("link inside") == ("EXDEV" if version == 1 else "done")
    assert {name for name, outcome in found.items() if outcome != "done"} == {
        name for name, since in DENIED_SINCE.items() if since <= version
    }


def test_a_version_of_the_future_is_asked_for_what_is_known() -> None:
    assert landlock.denied(NEWEST_KNOWN + 93) == landlock.denied(NEWEST_KNOWN)
    assert landlock.denied(1) == (0x1FFF, 0, 0)
    assert landlock.denied(NEWEST_KNOWN) == (0xFFFF, 0b11, 0b11)


OPEN_ON_VERSION_1 = """
    import io, json, sys
    from pathlib import Path
    from artifact.errors import HotcoldError
    from artifact.extract import extract
    from artifact.kernel import LinuxKernel
    from artifact.limits import Limits
    from artifact.sandbox import Confinement, enter

    class Linux513(LinuxKernel):
        def landlock_version(self):
            return 1

    data, into, gaps = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), []
    confinement = Confinement(
        fill=[into], memory_bytes=1 << 30, cpu_s=60, file_bytes=1 << 30
    )
    error = None
    try:
        extract(
            io.BytesIO(data), "tar", into, archive_bytes=len(data), limits=Limits(max_bytes=int(sys.argv[3])),
            on_entry=lambda _: None, confine=lambda: gaps.extend(enter(confinement, kernel=Linux513())),
        )
    except HotcoldError as raised:
        error = [raised.kind, str(raised)]
    print(json.dumps({"gaps": gaps, "error": error}))
"""


@pytest.fixture
def linked_tar(tmp_path: Path) -> Path:
    """A tar with hard links, within a directory and between two, made by GNU tar."""
    tree = tmp_path / "tree"
    for name in ("a", "b"):
        (tree / name).mkdir(parents=True)
    (tree / "a" / "f").write_bytes(b"x" * 300_000)
    (tree / "a" / "f").chmod(0o640)
    os.link(tree / "a" / "f", tree / "a" / "same")
    os.link(tree / "a" / "f", tree / "b" / "far")
    subprocess.run(["tar", "-C", tree, "--sort=name", "-cf", tmp_path / "linked.tar", "."], check=True)
    return tmp_path / "linked.tar"


@pytest.mark.skipif(landlock_version() == 0, reason="this kernel has no Landlock")
def test_the_first_landlock_turns_links_between_directories_into_copies(tmp_path: Path, linked_tar: Path) -> None:
    """Linux 5.13 to 5.18 forbids such links to whoever confines himself; the build opens all the same."""
    into = tmp_path / "into"
    into.mkdir()
    assert in_a_process_of_its_own(OPEN_ON_VERSION_1, linked_tar, into, 1 << 30) == {"gaps": [], "error": None}
    first, same, far = ((into / name).stat() for name in ("a/f", "a/same", "b/far"))
    assert (same.st_ino, first.st_nlink) == (first.st_ino, 2)
    assert far.st_ino != first.st_ino
    assert (far.st_mode, far.st_mtime_ns) == (first.st_mode, first.st_mtime_ns)
    assert (into / "b/far").read_bytes() == (into / "a/f").read_bytes()


@pytest.mark.skipif(landlock_version() == 0, reason="this kernel has no Landlock")
def test_copies_instead_of_links_count_as_bytes(tmp_path: Path, linked_tar: Path) -> None:
    """Else a few links would be a bomb on such a kernel."""
    into = tmp_path / "into"
    into.mkdir()
    told = in_a_process_of_its_own(OPEN_ON_VERSION_1, linked_tar, into, 400_000)
    assert told["error"][0] == "archive_too_big"
    assert "'./b/far'" in told["error"][1]


# --- the filter of system calls ---------------------------------------------------------------------------------------

HEADERS = {
    0: "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    1: "/usr/include/asm-generic/unistd.h",
}


@pytest.mark.parametrize("column", HEADERS)
def test_numbers_of_system_calls_are_those_of_the_kernels_headers(column: int) -> None:
    """A wrong number would deny something else, and let through what it meant."""
    path = Path(HEADERS[column])
    if not path.exists():
        pytest.skip(f"{path} is not installed")
    defined = dict(re.findall(r"^#define\s+__NR(?:3264)?_(\w+)\s+(\d+)$", path.read_text(), re.MULTILINE))
    meant = {name: numbers[column] for name, numbers in seccomp.DENIED.items()}
    assert {name: int(defined[name]) if name in defined else None for name in meant} == meant


def test_machines_whose_calls_are_not_known_have_no_filter() -> None:
    assert seccomp.program("sparc64") is None
    for machine in ("x86_64", "aarch64", "riscv64"):
        program = seccomp.program(machine)
        assert program is not None
        assert len(program) % 8 == 0
        assert len(program) // 8 < 4096  # what a kernel takes


FILTERED = """
    import ctypes, errno, json, os, subprocess, threading
    from artifact import seccomp
    from artifact.kernel import LINUX

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long

    def call(number):
        result = libc.syscall(ctypes.c_long(number), 0, 0, 0, 0, 0)
        return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]

    LINUX.prctl(38, 1)
    LINUX.filter_system_calls(seccomp.program())
    ran = []
    thread = threading.Thread(target=ran.append, args=[1])
    thread.start()
    thread.join()
    try:
        os.fork()
    except OSError as error:
        ran.append(errno.errorcode[error.errno])
    print(json.dumps({"ran": ran, "future": call(452), "x32": call(0x40000000 | 39), "clone3": call(435)}))
"""


def test_threads_may_be_started_processes_not_and_unknown_calls_are_not_there() -> None:
    assert in_a_process_of_its_own(FILTERED) == {
        "ran": [1, "EPERM"],
        "future": "ENOSYS",
        "x32": "ENOSYS",
        "clone3": "ENOSYS",
    }


# --- entering ---------------------------------------------------------------------------------------------------------

ENTER = """
    import json, os, resource, sys, threading
    from pathlib import Path
    from artifact.sandbox import Confinement, enter

    resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
    status, limits = (os.open(f"/proc/self/{name}", os.O_RDONLY) for name in ("status", "limits"))
    enter(Confinement(
        fill=[], read=[Path(sys.argv[1])], memory_bytes=1 << 30, cpu_s=60, file_bytes=1, threads=json.loads(sys.argv[2])
    ))
    after = dict(line.split(":", 1) for line in os.pread(status, 65536, 0).decode().splitlines())
    found = {name: int(after[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    lines = os.pread(limits, 65536, 0).decode().splitlines()
    found["limits"] = {line[:26].strip(): line[26:].split()[:2] for line in lines}
    found["read"] = Path(sys.argv[1], "f").read_text()
    found["NoNewPrivs"], found["Seccomp"] = after["NoNewPrivs"].strip(), after["Seccomp"].strip()
    try:
        Path(sys.argv[1], "g").touch()
        found["wrote"] = True
    except OSError:
        found["wrote"] = False
    print(json.dumps(found))
"""


LIMITS = {
    "Max open files": ["20", "20"],
    "Max core file size": ["0", "0"],
    "Max file size": ["1", "1"],
    "Max cpu time": ["60", "65"],
    "Max address space": [str(1 << 30), str(1 << 30)],
}


@pytest.mark.parametrize("threads", [True, False])
def test_all_rights_are_gone_and_what_was_granted_is_left(tmp_path: Path, threads: bool) -> None:  # noqa: FBT001
    """Read-only directories are read; a limit that is lower already stays."""
    (tmp_path / "f").write_text("readable")
    found = in_a_process_of_its_own(ENTER, tmp_path, json.dumps(threads))
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert [found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0, 0, 0, 0, 0]
    assert (found["read"], found["wrote"]) == ("readable", False)
    assert {name: values for name, values in found["limits"].items() if name in LIMITS} == LIMITS
    assert (found["limits"]["Max processes"] == ["0", "0"]) is not threads


def test_a_process_with_several_threads_cannot_be_confined() -> None:
    """Only the calling thread would be, and this one has what pytest starts."""
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        with pytest.raises(IllegalTransition, match="threads"):
            enter(Confinement(fill=[], memory_bytes=1, cpu_s=1, file_bytes=1))
    finally:
        release.set()
        thread.join()
    assert Path("/etc/passwd").read_text()


MISSING = """
    import json
    from pathlib import Path
    from artifact.errors import ConfigError
    from artifact.sandbox import Confinement, enter
    try:
        enter(Confinement(fill=[Path("/nowhere")], memory_bytes=1 << 30, cpu_s=1, file_bytes=1))
    except ConfigError as error:
        print(json.dumps([error.kind, str(error)]))
"""


def test_a_directory_that_is_not_there_is_told() -> None:
    kind, message = in_a_process_of_its_own(MISSING)
    assert kind == "sandbox_failed"
    assert "/nowhere" in message
    assert os.strerror(errno.ENOENT) in message
