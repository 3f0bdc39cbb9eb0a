"""Workers are found by what they are, and are busy as long as anything of theirs is in the tree."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest

from agent.holdings import birth_of, unit_names, units_of
from agent.workers import Busy, Lodging, Match, Worker, busy_workers, evidence, find_workers, lodgings, trees_in_use
from artifact import ConfigError
from tests.processes import orphan as in_tree

Start = Callable[..., psutil.Process]
READY = "print(flush=True); sys.stdin.read()"
NOBODY = pwd.getpwnam("nobody")
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "releases" / "3~1"
    (tree / "lib").mkdir(parents=True)
    (tree / "lib" / "app.so").write_bytes(bytes(8192))
    neighbour = tmp_path / "releases" / "3~12"
    neighbour.mkdir()
    (neighbour / "app.py").write_text("")
    return tree


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a Python process that runs a statement, says that it has, and stays until the test ends."""
    children: list[subprocess.Popen[bytes]] = []

    def start(statement: str = "pass", *arguments: str, cwd: Path = Path("/"), **options: object) -> psutil.Process:
        child = subprocess.Popen(
            [sys.executable, "-c", f"import mmap, os, socket, sys\n{statement}\n{READY}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=cwd,
            **options,
        )
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"\n"
        return psutil.Process(child.pid)

    yield start
    for child in children:
        child.kill()
        child.communicate()


def as_worker(process: psutil.Process) -> Worker:
    birth = birth_of(process.pid)
    assert birth is not None
    return Worker(process.pid, birth.started)


def _reasons(process: psutil.Process, tree: Path, *ports: int) -> list[str]:
    return [reason for busy in evidence([as_worker(process)], tree, ports) for reason in busy.reasons]


def test_a_process_elsewhere_is_not_busy(tree: Path, start: Start) -> None:
    """A neighbouring release whose name begins alike is another tree."""
    process = start("f = open('app.py'); d = os.open('.', 0)", cwd=tree.parent / "3~12")
    assert evidence([as_worker(process)], tree) == []


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("os.chdir(sys.argv[1])", "working directory {tree}"),
        ("os.chdir(sys.argv[1] + '/lib')", "working directory {tree}/lib"),
        ("f = open(sys.argv[1] + '/lib/app.so')", "open {tree}/lib/app.so"),
        ("d = os.open(sys.argv[1], os.O_DIRECTORY)", "open {tree}"),
        ("d = os.open(sys.argv[1] + '/lib', os.O_PATH)", "open {tree}/lib"),
        ("f = [open(sys.argv[1] + '/lib/app.so') for _ in range(3)]", "open {tree}/lib/app.so and 2 more"),
        ("f = open(sys.argv[1] + '/lib/app.so', 'r+'); os.unlink(f.name)", "open {tree}/lib/app.so (deleted)"),
        (
            "f = open(sys.argv[1] + '/lib/app.so', 'r+'); m = mmap.mmap(f.fileno(), 0); os.closerange(3, 99)",
            "mapping of {tree}/lib/app.so",
        ),
    ],
)
def test_whatever_is_held_inside_the_tree_is_evidence(tree: Path, start: Start, statement: str, reason: str) -> None:
    """Working directory, files, directories, deleted files and mappings each say what and where."""
    process = start(statement, str(tree))
    assert _reasons(process, tree) == [reason.format(tree=tree)]


def test_an_executable_inside_the_tree_is_evidence(tree: Path) -> None:
    """A program that was shipped with the build keeps its tree, also after it was deleted there."""
    program = tree / "lib" / "program"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "60"], cwd="/") as child:
        process = psutil.Process(child.pid)
        assert f"executable {program}" in _reasons(process, tree)
        program.unlink()
        assert f"executable {program} (deleted)" in _reasons(process, tree)
        child.kill()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_a_root_directory_inside_the_tree_is_evidence(tree: Path, start: Start) -> None:
    """A worker that is shut up in the tree works in the tree."""
    process = start("os.chroot(sys.argv[1]); os.chdir('/')", str(tree))
    assert f"root directory {tree}" in _reasons(process, tree)


LISTEN = """
def listen(family, host):
    server = socket.socket(family)
    server.bind((host, 0))
    server.listen()
    client = socket.create_connection(server.getsockname()[:2])
    accepted, _ = server.accept()
    open(sys.argv[1], "w").write(str(server.getsockname()[1]))
    return server, client, accepted
"""


@pytest.mark.parametrize("family", ["AF_INET, '127.0.0.1'", "AF_INET6, '::1'"])
def test_a_connection_on_a_port_is_evidence(tree: Path, start: Start, tmp_path: Path, family: str) -> None:
    """The server's end counts, in both families; another port, or a mere listener, does not."""
    note = tmp_path / "port"
    process = start(f"{LISTEN}\nheld = listen(socket.{family})", str(note))
    port = int(note.read_text())
    assert _reasons(process, tree, port, 1) == [f"1 connection on port {port}"]
    assert _reasons(process, tree, 1) == []
    assert _reasons(process, tree) == []


def test_a_connection_on_a_unix_socket_is_evidence(tree: Path, start: Start, tmp_path: Path) -> None:
    """The end that was accepted counts; a mere listener, and the other end, do not."""
    path = str(tmp_path / "shop [1].sock")
    code = "held = socket.socket(socket.AF_UNIX); held.bind(sys.argv[1]); held.listen()"
    process = start(f"import socket\n{code}\nother = socket.socket(socket.AF_UNIX)", path)
    busy = start(
        f"import socket, os\nos.unlink(sys.argv[1])\n{code}\nother = socket.socket(socket.AF_UNIX); "
        "other.connect(sys.argv[1]); kept = held.accept()[0]; other.detach()",
        path,
    )
    assert [each.reasons for each in evidence([as_worker(process), as_worker(busy)], tree, [path, 80])] == [
        (f"1 connection on {path}",)
    ]
    assert evidence([as_worker(busy)], tree, [80, str(tmp_path / "shop")]) == []


def test_a_pid_file_describes_a_process_and_its_descendants(start: Start, tmp_path: Path, agent_pid: int) -> None:
    note, code = tmp_path / "pid", "import subprocess; child = subprocess.Popen(['sleep', '60'])"
    master = start(code)
    other = start("pass")
    note.write_text(f"{master.pid}\n")
    [child] = master.children()
    try:
        match = Match(pid_file=str(note))
        assert {process.pid for process in find_workers([match], agent_pid=agent_pid)} == {master.pid, child.pid}
        both = Match(pid_file=str(note), command="^sleep 60$")
        assert [process.pid for process in find_workers([both], agent_pid=agent_pid)] == [child.pid]
        assert other.pid not in {process.pid for process in find_workers([match], agent_pid=agent_pid)}
    finally:
        child.kill()
    note.write_text("999999999")
    assert find_workers([match], agent_pid=agent_pid) == []
    note.unlink()
    assert find_workers([match], agent_pid=agent_pid) == []
    note.write_text("nobody")
    with pytest.raises(ConfigError, match="has no process number") as caught:
        find_workers([match], agent_pid=agent_pid)
    assert caught.value.kind == "bad_pid_file"


def test_a_client_that_has_finished_sending_still_waits_for_its_answer(
    tree: Path, start: Start, tmp_path: Path
) -> None:
    """A half-closed connection counts; one that the worker has closed does not."""
    note = tmp_path / "port"
    half = start(f"{LISTEN}\nheld = listen(socket.AF_INET, '127.0.0.1'); held[1].shutdown(socket.SHUT_WR)", str(note))
    port = int(note.read_text())
    assert _reasons(half, tree, port) == [f"1 connection on port {port}"]
    closed = start(f"{LISTEN}\nheld = listen(socket.AF_INET, '127.0.0.1'); held[2].close()", str(note))
    assert _reasons(closed, tree, int(note.read_text())) == []


def test_a_process_that_ended_takes_no_blame(tree: Path, start: Start) -> None:
    """Ended between the search and the look: no reason, no error."""
    process = start("os.chdir(sys.argv[1])", str(tree))
    worker = as_worker(process)
    process.kill()
    process.wait()
    assert evidence([worker], tree, [80]) == []


def test_a_later_process_of_the_same_number_takes_no_blame(tree: Path, start: Start) -> None:
    worker = as_worker(start("os.chdir(sys.argv[1])", str(tree)))
    assert evidence([worker], tree) != []
    assert evidence([replace(worker, started=worker.started - 1)], tree) == []


def test_an_unreaped_process_takes_no_blame(tree: Path) -> None:
    """A zombie works nowhere."""
    with subprocess.Popen(["sleep", "inf"], cwd=tree) as child:
        worker = as_worker(psutil.Process(child.pid))
        assert evidence([worker], tree) != []
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
        assert evidence([worker], tree, [80]) == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs a process of another user")
def test_what_may_not_be_read_is_never_called_drained(tree: Path, start: Start) -> None:
    """Without privilege a stranger's process may be a worker, unless another criterion rules it out, and is busy."""
    stranger = start("os.chdir(sys.argv[1])", str(tree))
    script = f"""
import os, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from agent.holdings import birth_of
from agent.workers import Match, Worker, evidence, find_workers, trees_in_use
os.setgroups([]); os.setgid({NOBODY.pw_gid}); os.setuid({NOBODY.pw_uid})
stranger = Worker({stranger.pid}, birth_of({stranger.pid}).started)
busy, = evidence([stranger], Path({str(tree)!r}), [80])
print(*busy.reasons)
print(stranger in find_workers([Match(executable={stranger.exe()!r})]))
print(stranger in find_workers([Match(executable={stranger.exe()!r}, command="something else")]))
kernel = {{2}} if Path("/proc/2/comm").read_text() == "kthreadd\\n" else set()
print(kernel & {{worker.pid for worker in find_workers([Match(executable="kthreadd")])}})
print(trees_in_use([Path({str(tree)!r})]))
"""
    seen = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd="/")
    everything = "working directory, executable, root directory, open files, mappings"
    assert seen.stdout.splitlines() == [
        f"cannot see: {everything}: permission denied; needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
        "True",
        "False",
        "set()",
        "{}",
    ]


@pytest.fixture
def agent_pid() -> int:
    """Play an agent that is not an ancestor of the processes that a test starts."""
    return 2**22 + 1


def test_criteria_of_one_entry_all_hold_and_any_entry_is_enough(start: Start, agent_pid: int) -> None:
    """User, executable and command line are joined by "and"; entries by "or"."""
    one, two = start("pass", "--role=one"), start("pass", "--role=two")
    python, user = one.exe(), pwd.getpwuid(os.getuid()).pw_name

    def found(*matches: Match) -> set[int]:
        return {process.pid for process in find_workers(matches, agent_pid=agent_pid)} & {one.pid, two.pid}

    assert found(Match(command=r"--role=(one|two)$")) == {one.pid, two.pid}
    assert found(Match(command="role=one", user=user, executable=python)) == {one.pid}
    assert found(Match(command="role=one", user=str(os.getuid()), executable=Path(python).name)) == {one.pid}
    assert found(Match(command="role=one", user="nobody")) == set()
    assert found(Match(command="role=one", executable="/usr/bin/false")) == set()
    assert found(Match(command="role=one"), Match(command="role=two")) == {one.pid, two.pid}
    assert found() == set()


def test_the_agent_and_its_descendants_are_never_workers(start: Start, agent_pid: int) -> None:
    """A pattern that matches a hook of the agent, or the agent, waits for neither."""
    child = start("pass", "--role=hook")
    assert as_worker(child) in find_workers([Match(command="role=hook")], agent_pid=agent_pid)
    assert find_workers([Match(command="role=hook")]) == []
    assert as_worker(psutil.Process()) not in find_workers([Match(user=str(os.getuid()))])


@pytest.mark.parametrize("text", ["0::{path}\n", "12:pids:{path}\n1:name=systemd:{path}\n0::/\n"])
def test_units_are_components_of_the_control_group(text: str) -> None:
    """Both kinds of hierarchy are read."""
    path = "/system.slice/system-shop.slice/shop@2.service/php"
    assert set(unit_names(text.format(path=path))) == {"system.slice", "system-shop.slice", "shop@2.service", "php"}


def test_a_worker_is_found_by_its_unit(start: Start, agent_pid: int) -> None:
    """The whole name or wildcards are compared; a part of a name is no unit."""
    process = start()
    names = set(units_of(process.pid))
    if not names:
        pytest.skip("this host puts its processes into the root control group")
    name = min(names, key=len)
    assert as_worker(process) in find_workers([Match(unit=name)], agent_pid=agent_pid)
    assert as_worker(process) in find_workers([Match(unit=f"{name[:-1]}*")], agent_pid=agent_pid)
    assert as_worker(process) not in find_workers([Match(unit=name[:-1])], agent_pid=agent_pid)


def test_a_user_that_the_host_does_not_know_is_the_operators_affair() -> None:
    """A spelling mistake in the configuration does not read as "nobody works here"."""
    with pytest.raises(ConfigError, match="knows no user 'wwwdata'") as caught:
        find_workers([Match(user="wwwdata")])
    assert caught.value.kind == "unknown_user"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "at least one of `unit`"),
        ({"unit": ""}, "at least one of `unit`"),
        ({"command": "("}, "no regular expression"),
        ({"comand": "x"}, "unknown field `comand`"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(document: dict[str, str], message: str) -> None:
    """An empty entry would wait for every process of the host."""
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(document, Match)


def test_a_worker_lives_in_every_release_that_it_holds_something_of(tree: Path, start: Start, agent_pid: int) -> None:
    """By working directory, open files and mappings; deleted ones count; names that begin alike are not mixed."""
    neighbour = tree.parent / "3~12"
    both = start("f = open(sys.argv[1])", str(neighbour / "app.py"), "--lodger", cwd=tree)
    mapped = (
        "f = open(sys.argv[1]); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); os.unlink(sys.argv[1]); f.close()"
    )
    gone = start(mapped, str(tree / "lib" / "app.so"), "--lodger")
    nowhere = start("pass", "--lodger")
    seen = {each.pid: each for each in lodgings_of("--lodger$", tree.parent, agent_pid)}
    assert seen[both.pid].releases == {"3~1": str(tree), "3~12": str(neighbour / "app.py")}
    assert seen[gone.pid].releases == {"3~1": str(tree / "lib" / "app.so")}
    assert seen[nowhere.pid].releases == {}
    assert all(each.is_seen for each in seen.values())


def lodgings_of(command: str, releases: Path, agent_pid: int) -> list[Lodging]:
    return lodgings([Match(command=command)], releases, agent_pid=agent_pid)


@pytest.fixture
def a_worker(tree: Path) -> Iterator[psutil.Process]:
    with in_tree(tree) as process:
        yield process


def test_busy_workers_says_who_and_why(tree: Path, start: Start, a_worker: psutil.Process) -> None:
    """Search and look together: a descendant in the tree is left out, the worker in the tree is described."""
    start("os.chdir(sys.argv[1])", str(tree), "--role=orphan")
    found = busy_workers([Match(command=r"--role=orphan$")], tree, [80])
    assert found == [Busy(a_worker.pid, " ".join(a_worker.cmdline()), (f"working directory {tree}",))]
    assert busy_workers([Match(command=r"--role=orphan$")], tree.parent / "3~12", [80]) == []


def test_trees_in_use_are_those_that_any_process_lives_in(tree: Path, start: Start) -> None:
    """Whoever it is, worker or not, child or not; the agent's own open files are its own affair."""
    other = tree.parent / "3~12"
    process = start("f = open(sys.argv[1] + '/lib/app.so')", str(tree))
    with (other / "app.py").open():
        used = trees_in_use([other, tree])
        assert other in trees_in_use([other], agent_pid=process.pid)
    assert used == {tree: f"process {process.pid} ({' '.join(process.cmdline())}): open {tree}/lib/app.so"}
    assert trees_in_use([]) == {}


def test_strangers_are_passed_over_quickly(start: Start, agent_pid: int) -> None:
    """The search costs no more than some microseconds for each process that is nobody's worker."""
    start()
    match = Match(executable="none-such", command="nothing like it", unit="shop.service")
    costs_s = []
    for _ in range(20):
        before_s = time.process_time()
        find_workers([match], agent_pid=agent_pid)
        costs_s.append(time.process_time() - before_s)
    assert min(costs_s) / len(psutil.pids()) < 50e-6
