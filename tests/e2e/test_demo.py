"""Shows that the demo shows what it says, can fail, and leaves nothing running, however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from hotcold.demo.builds import Code, Workpiece
from hotcold.demo.files import slow_mark
from hotcold.demo.load import Count, decode_counts
from hotcold.demo.slowness import marked, upload
from hotcold.demo.verdict import Verdict
from tests.consul_process import NO_CONSUL, find_consul
from tests.e2e.host import until

PATIENCE_S = 100.0
FEW_FILES = 300

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose path leaves room for the names of sockets."""
    directory = Path(tempfile.mkdtemp(prefix="hc-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    yield directory / "demo"
    shutil.rmtree(directory)


def demo(place: Path, *options: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hotcold", "demo", f"--dir={place}", f"--files={FEW_FILES}", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )


def processes_of(place: Path) -> dict[int, str]:
    """Every process whose command line names the demo's directory, save the demo itself."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if f"{place}/" in command:
                found[int(entry.name)] = command
    return found


def wait_until(condition: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, f"{what}: not within {PATIENCE_S} s"
        time.sleep(0.02)


def said(process: subprocess.Popen[str], word: str) -> str:
    """The first line on stderr that contains `word`."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if word in line:
            return line
    raise AssertionError(f"{word!r} was never said: {''.join(lines)}")


@pytest.mark.parametrize("store", ["embedded", pytest.param("consul", marks=pytest.mark.consul)])
def test_it_shows_the_main_job_and_prints_one_object(place: Path, store: str) -> None:
    """No request fails or meets two builds; the bad build goes back; killed agents recover; nothing keeps running."""
    path = os.environ["PATH"]
    if store == "consul":
        binary = find_consul()
        if binary is None:
            pytest.skip(NO_CONSUL)
        path = f"{binary.parent}:{path}"
    process = demo(place, "--once", "--json", f"--store={store}", environment={"PATH": path})
    output, errors = process.communicate(timeout=220)
    assert process.returncode == 0, errors
    outcome = json.loads(output)
    assert list(outcome) == [
        *("store", "hosts", "requests", "failed", "mixed"),
        *("signal_to_hot_ms", "rollback_ms", "recovered_after_kill", "bad_build_reverted"),
    ]
    assert (outcome["store"], outcome["hosts"], outcome["failed"], outcome["mixed"]) == (store, 3, 0, 0)
    assert outcome["recovered_after_kill"] is True
    assert outcome["bad_build_reverted"] is True
    assert outcome["requests"] > 500
    for name in ("signal_to_hot_ms", "rollback_ms"):
        assert 0 < outcome[name]["p50"] <= outcome[name]["max"]
    for phase in ("fetching", "draining", "proving"):
        assert f"killed with -9 while {phase}" in errors
    for host in ("web-1", "web-2", "web-3"):
        assert (place / host / "shop" / "hot").readlink().name.startswith("1.4~")
    assert processes_of(place) == {}


def test_it_stays_up_until_interrupted(place: Path) -> None:
    """After the story all is still there to be tried; Ctrl-C ends it as a success, and ends everything."""
    process = demo(place, "--json", "--stay", "--store=embedded")
    said(process, "until Ctrl-C")
    assert len(processes_of(place)) >= 3 * 5  # an agent, and an app of four processes, on each host
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert json.loads(output)["failed"] == 0
    assert processes_of(place) == {}


def test_without_a_terminal_it_ends_by_itself_and_says_what_it_did(place: Path) -> None:
    """As in CI: nobody is there to press Ctrl-C."""
    process = demo(place, "--show=job", "--store=embedded")
    output, errors = process.communicate(timeout=220)
    assert process.returncode == 0, errors
    assert "all three agents went on by themselves" in output
    assert re.search(r"^bad build went back by itself +yes$", output, re.MULTILINE)
    assert processes_of(place) == {}


def test_an_interrupt_in_the_middle_ends_everything(place: Path) -> None:
    """The exit status says that not all was shown, and so does the object."""
    process = demo(place, "--once", "--json", "--store=embedded")
    said(process, "step 2 of 5")
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert json.loads(output)["recovered_after_kill"] is False
    assert processes_of(place) == {}


def test_no_process_outlives_a_killed_demo(place: Path) -> None:
    """The kernel ends them where nobody else can."""
    process = demo(place, "--once", "--json", "--store=embedded")
    said(process, "step 2 of 5")
    assert len(processes_of(place)) >= 3 * 5
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: not processes_of(place), "every process has ended")


def test_a_dead_app_fails_the_demo(place: Path) -> None:
    """What is not shown is not claimed: exit 1, the reason, the flags false, the logs kept, nothing running."""
    process = demo(place, "--once", "--json", "--store=embedded")
    said(process, "step 2 of 5")
    app = min(pid for pid, command in processes_of(place).items() if "demo.app" in command and "/web-2/" in command)
    os.kill(app, signal.SIGKILL)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "app-web-2 ended with status -9" in errors
    assert json.loads(output)["bad_build_reverted"] is False
    assert (place / "logs" / "agent-web-2.log").exists()
    assert processes_of(place) == {}


def test_a_directory_in_use_is_refused(place: Path) -> None:
    """Nothing is written into it."""
    place.mkdir()
    (place / "mine").write_text("precious")
    process = demo(place, "--once", "--store=embedded")
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    assert "is not empty" in errors
    assert [path.name for path in place.iterdir()] == ["mine"]


def test_a_store_that_is_not_there_is_refused(place: Path) -> None:
    """Asking for a real consul without one is a usage error, not an embedded store in silence."""
    process = demo(place, "--once", "--store=consul", environment={"PATH": "/nonexistent"})
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "no `consul` is on PATH" in errors


# --- the clients and the app by themselves: negative controls ---------------------------------------------------------


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended by SIGTERM."""
    process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextmanager
def serving(root: Path) -> Iterator[tuple[int, int]]:
    """The app on `root`; its two ports."""
    marks = ("--pause", str(root / "paused"), "--warming", str(root / "warming"))
    with running("hotcold.demo.app", "--root", str(root), *marks) as app:
        assert app.stdout is not None
        ports = json.loads(app.stdout.readline())
        yield ports["port"], ports["probe_port"]


def counted(port: int, is_enough: Callable[[Count], bool]) -> Count:
    """What clients have counted as soon as it is enough."""
    with running("hotcold.demo.load", f"web-1={port}", "--pause-s=0.005") as load:
        assert load.stdout is not None
        end_s = time.monotonic() + PATIENCE_S
        for line in load.stdout:
            count = decode_counts(line.encode())["web-1"]
            if is_enough(count):
                return count
            assert time.monotonic() < end_s, count
    raise AssertionError("the clients ended")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root whose `hot` is one build."""
    workpiece = Workpiece(tmp_path / "releases" / "1.0~1", FEW_FILES)
    (tmp_path / "artifacts").mkdir()
    workpiece.pack("1.0", out=tmp_path / "artifacts")
    (tmp_path / "hot").symlink_to("releases/1.0~1")
    return tmp_path


def test_clients_of_a_whole_build_have_nothing_to_complain(root: Path) -> None:
    """The control of the controls."""
    with serving(root) as (port, _):
        count = counted(port, lambda count: count.requests >= 100)
    assert (count.failed, count.mixed, count.first_fault) == (0, 0, "")


def test_clients_notice_a_deploy_in_place(root: Path) -> None:
    """One file that is overwritten under the app is a mix of two builds."""
    index = json.loads((root / "hot" / "shop" / "index.json").read_text())
    (root / "hot" / index["stamped"][0]).write_text("build: 1.1\n")
    with serving(root) as (port, _):
        count = counted(port, lambda count: count.mixed > 0)
    assert count.first_fault.startswith("mixed: 200")


def test_clients_notice_a_missing_file(root: Path) -> None:
    """A file that is gone for a moment fails the requests that want it."""
    index = json.loads((root / "hot" / "shop" / "index.json").read_text())
    (root / "hot" / index["stamped"][0]).unlink()
    with serving(root) as (port, _):
        count = counted(port, lambda count: count.failed > 0)
    assert "FileNotFoundError" in count.first_fault


def test_clients_notice_a_bad_build(tmp_path: Path) -> None:
    """The mistake in the build's code shows in every answer, so that a probe finds it."""
    workpiece = Workpiece(tmp_path / "releases" / "1.2-bad~1", FEW_FILES)
    (tmp_path / "artifacts").mkdir()
    workpiece.pack("1.2-bad", out=tmp_path / "artifacts", code=Code.BROKEN)
    (tmp_path / "hot").symlink_to("releases/1.2-bad~1")
    with serving(tmp_path) as (port, _):
        count = counted(port, lambda count: count.requests >= 10)
    assert count.failed == count.requests
    assert "NameError" in count.first_fault


@pytest.fixture
def root_without_yen(tmp_path: Path) -> Path:
    """A root whose `hot` is the build that cannot be paid for in yen."""
    workpiece = Workpiece(tmp_path / "releases" / "2.2-no-yen~1", FEW_FILES)
    (tmp_path / "artifacts").mkdir()
    workpiece.pack("2.2-no-yen", out=tmp_path / "artifacts", code=Code.WITHOUT_YEN)
    (tmp_path / "hot").symlink_to("releases/2.2-no-yen~1")
    return tmp_path


def test_colleagues_and_the_smoke_test_find_no_fault_with_the_build_without_yen(root_without_yen: Path) -> None:
    """That is why it gets as far as to customers."""
    with serving(root_without_yen) as (port, _):
        assert counted(port, lambda count: count.requests >= 100).failed == 0
        for build, status in (("2.2-no-yen", 0), ("2.1", 1)):
            smoke_test = subprocess.run(
                [sys.executable, "-m", "hotcold.demo.rollouts.smoke_test", str(port)],
                env={**os.environ, "HOTCOLD_BUILD": build},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert smoke_test.returncode == status, smoke_test.stderr
        assert "serves 2.2-no-yen, not 2.1" in smoke_test.stderr


def test_customers_who_pay_in_yen_do(root_without_yen: Path) -> None:
    """Some requests fail, and the address that a metric asks says as many."""
    with (
        serving(root_without_yen) as (port, _),
        running("hotcold.demo.load", f"web-1={port}", "--serve", "--pause-s=0.005", "--customers", "web-1") as load,
    ):
        assert load.stdout is not None
        address = load.stdout.readline().strip()
        count = next(
            count
            for count in (decode_counts(line.encode())["web-1"] for line in load.stdout)
            if count.requests >= 200 and count.failed
        )
        with urlopen(f"{address}/counts?hosts=web-1,web-2&seconds=3600", timeout=30) as answer:
            (told,) = json.load(answer)["hosts"]
        with urlopen(f"{address}/counts?hosts=web-2&seconds=1", timeout=30) as answer:
            assert json.load(answer) == {"hosts": []}
        with pytest.raises(HTTPError, match="400"):
            urlopen(f"{address}/counts?hosts=web-1", timeout=30)
    assert 0 < count.failed < count.requests / 2
    assert "KeyError: 'JPY'" in count.first_fault
    assert told["host"] == "web-1"
    assert told["total"] >= count.requests
    assert count.failed <= told["bad"] < told["total"] / 2


def test_clients_notice_that_nobody_listens() -> None:
    """A refused connection is a failed request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    count = counted(port, lambda count: count.failed > 0)
    assert "ConnectionRefusedError" in count.first_fault


def test_a_pause_keeps_clients_waiting_and_holds_nothing_of_hot(root: Path) -> None:
    """While paused nobody is answered, nobody has `hot` open, the probe works; afterwards the client is answered."""
    (root / "paused").touch()
    with serving(root) as (port, probe_port), socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with socket.create_connection(("127.0.0.1", probe_port), timeout=30) as probe:
            probe.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert probe.recv(100).startswith(b"HTTP/1.1 200 OK")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(100)
        wait_until(lambda: not holders(root), "nobody has hot open")
        (root / "paused").unlink()
        client.settimeout(30)
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")


async def test_an_upload_in_hand_holds_hot_until_it_is_sent(root: Path) -> None:
    """It was begun before the pause, so it is finished in spite of it, and answered from the build that it began in."""
    in_hand, may_end = asyncio.Event(), asyncio.Event()
    with serving(root) as (port, _):
        uploading = asyncio.create_task(upload(port, in_hand=in_hand, may_end=may_end))
        await in_hand.wait()
        (root / "paused").touch()
        assert holders(root)
        may_end.set()
        assert await uploading is Verdict.WHOLE
        await until("nobody has hot open", lambda: asyncio.sleep(0, not holders(root)))


def test_probes_wait_for_an_app_that_warms_up(root: Path) -> None:
    """Clients do not: what they ask is answered meanwhile."""
    with (
        marked(root / "warming") as end_warming,
        serving(root) as (port, probe_port),
        socket.create_connection(("127.0.0.1", probe_port), timeout=30) as probe,
    ):
        probe.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert counted(port, lambda count: count.requests >= 10).failed == 0
        probe.settimeout(0.2)
        with pytest.raises(TimeoutError):
            probe.recv(100)
        end_warming()
        probe.settimeout(30)
        assert probe.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_a_slow_network_gives_half_and_later_the_rest(tmp_path: Path) -> None:
    """What was asked for comes whole, but not before the mark is gone; other files are not concerned."""
    content = os.urandom(1_000_000)
    for name in ("slow.tar", "other.tar"):
        (tmp_path / name).write_bytes(content)
    with (
        running("hotcold.demo.files", str(tmp_path)) as files,
        marked(slow_mark(tmp_path / "slow.tar")) as end_slowness,
    ):
        assert files.stdout is not None
        address = files.stdout.readline().strip()
        with urlopen(f"{address}/other.tar", timeout=30) as answer:
            assert answer.read() == content
        with urlopen(f"{address}/slow.tar", timeout=30) as answer:
            first = answer.read(len(content) // 2)
            answer.fp.raw._sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                answer.read(1)
        ranged = Request(f"{address}/slow.tar", headers={"Range": "bytes=1000-1999"})
        with urlopen(ranged, timeout=30) as part, urlopen(f"{address}/slow.tar", timeout=30) as answer:
            assert (part.status, part.headers["Content-Range"]) == (206, "bytes 1000-1999/1000000")
            assert part.read(500) == content[1000:1500]
            assert answer.read(len(content) // 2) == first
            end_slowness()
            assert part.read() == content[1500:2000]
            assert first + answer.read() == content


def holders(root: Path) -> list[str]:
    """What processes have open below `root`."""
    release = str((root / "hot").resolve())
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith(release):
            found.append(f"{link}: {target}")
    return found
