"""Gauges ask real servers: PHP-FPM and nginx from Debian, pages and commands; and the drain ends real workers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import aiohttp
import msgspec
import psutil
import pytest

from agent import fastcgi
from agent.drain import DrainSettings, DrainTimedOut, drain
from agent.gauges import Gauge, read_gauge
from agent.workers import Busy, Match
from tests.listening import listening

PHP_FPM = next(iter(sorted(map(str, Path("/usr/sbin").glob("php-fpm*")))), None)
NGINX = shutil.which("nginx")
READY_WITHIN_S = 10.0


async def ask(gauge: Gauge) -> tuple[str, ...]:
    """The reasons why a server counts as busy."""
    async with aiohttp.ClientSession() as session:
        busy = await read_gauge(gauge, session=session, environment={})
    assert all((each.pid, each.command) == (None, gauge.name) for each in busy)
    return tuple(reason for each in busy for reason in each.reasons)


@contextmanager
def running(argv: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output, subprocess.Popen(argv, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


async def until_answered(gauge: Gauge, log: Path) -> None:
    """Until the server is there, and idle."""
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            while await ask(gauge):  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"{gauge.name}: {await ask(gauge)}: {log.read_text()}")  # noqa: ASYNC240 - the test ends here


# --- PHP-FPM ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["in the pool", "by a listener of its own"])
async def pool(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, Gauge]]:
    """The socket of a pool of three workers, and a gauge of it."""
    if PHP_FPM is None:
        pytest.skip("needs php-fpm (Debian: apt-get install php-fpm)")
    socket = f"{tmp_path}/pool.sock"
    own = f"{tmp_path}/status.sock" if request.param != "in the pool" else None
    user = "user = root\n" if os.geteuid() == 0 else ""
    (tmp_path / "fpm.conf").write_text(
        f"[global]\nerror_log = {tmp_path}/error.log\n[shop]\nlisten = {socket}\n{user}"
        "pm = static\npm.max_children = 3\npm.status_path = /state\n" + (f"pm.status_listen = {own}\n" if own else "")
    )
    (tmp_path / "slow.php").write_text(
        '<?php touch($_SERVER["STARTED"]);'
        ' while (!file_exists($_SERVER["RELEASE"])) { usleep(10000); clearstatcache(); } echo "ok";'
    )
    argv = [PHP_FPM, "-n", "-F", "-y", f"{tmp_path}/fpm.conf", *(["-R"] if os.geteuid() == 0 else [])]
    gauge = Gauge(php_fpm=own or socket, path="/state")
    with running(argv, tmp_path / "log"):
        await until_answered(gauge, tmp_path / "log")
        yield socket, gauge


def slow_request(socket: str, tmp_path: Path, name: str) -> asyncio.Task[tuple[bytes, bytes]]:
    script = f"{tmp_path}/slow.php"
    parameters = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_FILENAME": script,
        "SCRIPT_NAME": f"/{name}.php",
        "REQUEST_URI": f"/{name}.php",
        "STARTED": f"{tmp_path}/{name}",
        "RELEASE": f"{tmp_path}/release",
    }
    return asyncio.create_task(fastcgi.get(socket, parameters))


async def until_made(*paths: Path) -> None:
    async with asyncio.timeout(READY_WITHIN_S):
        while not all(path.exists() for path in paths):  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(0.01)


async def test_php_fpm_tells_each_request_until_it_has_ended(pool: tuple[str, Gauge], tmp_path: Path) -> None:
    """By pid and path; the question itself does not count, whoever answers it."""
    socket, gauge = pool
    assert await ask(gauge) == ()
    requests = [slow_request(socket, tmp_path, name) for name in ("one", "two")]
    await until_made(tmp_path / "one", tmp_path / "two")
    reasons = await ask(gauge)
    assert sorted(reason.split(": ")[1].split(",")[0] for reason in reasons) == ["GET /one.php", "GET /two.php"]
    for reason in reasons:
        assert psutil.Process(int(reason.split()[1].rstrip(":"))).name().startswith("php-fpm")
    assert await ask(msgspec.structs.replace(gauge, at_most=2)) == ()
    (tmp_path / "release").touch()
    for each in requests:
        assert (await each)[1] == b"ok"
    async with asyncio.timeout(READY_WITHIN_S):
        while reasons := await ask(gauge):  # PHP-FPM answers first, and ends the request ("Finishing") a moment later
            assert all(", Finishing, " in reason for reason in reasons), reasons


async def test_a_drain_waits_for_php_fpm(pool: tuple[str, Gauge], tmp_path: Path) -> None:
    """Workers that hold the tree between two requests are no reason to wait; the request is."""
    socket, gauge = pool
    told: list[tuple[str, ...]] = []

    def on_waiting(busy: Sequence[Busy]) -> None:
        told.append(tuple(each.who for each in busy))
        (tmp_path / "release").touch()

    request = slow_request(socket, tmp_path, "one")
    await until_made(tmp_path / "one")
    async with aiohttp.ClientSession() as session:
        drained = await drain(
            DrainSettings(gauges=(gauge,), poll_s=0.02, timeout_s=20),
            tmp_path,
            on_waiting=on_waiting,
            ask=partial(read_gauge, session=session, environment={}),
        )
        assert drained.waited_s > 0
    assert set(told) == {(gauge.name,)}
    assert (await request)[1] == b"ok"


async def test_a_page_that_is_no_status_page_is_told(pool: tuple[str, Gauge]) -> None:
    socket, _ = pool
    [reason] = await ask(Gauge(php_fpm=socket, path="/other"))
    assert "cannot be asked: /other is no status page" in reason
    assert "pm.status_path" in reason


async def test_a_socket_that_is_not_for_the_agent_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel forbids root nothing, so its refusal is given by hand."""

    async def forbidden(*_: object) -> tuple[bytes, bytes]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("agent.gauges.get", forbidden)
    [reason] = await ask(Gauge(php_fpm="/run/fpm.sock", absent_is_idle=True))
    assert reason == "cannot be asked: Permission denied: let the agent's user connect (PHP-FPM: `listen.acl_users`)"


@pytest.mark.parametrize("where", ["/nowhere/fpm.sock", "127.0.0.1:1"])
async def test_nobody_there_is_unknown_unless_that_means_idle(where: str) -> None:
    [reason] = await ask(Gauge(php_fpm=where))
    assert reason.startswith("cannot be asked: ")
    assert await ask(Gauge(php_fpm=where, absent_is_idle=True)) == ()


ANSWERS = {
    "no FastCGI": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak FastCGI"),
    "hangs up": (b"", "hung up"),
    "cut": (b"\x01\x06\x00\x01\x00\x10\x00\x00abc", "hung up"),
    "no header": (
        b"\x01\x06\x00\x01\x00\x02\x00\x00ab\x01\x03\x00\x01\x00\x08\x00\x00" + bytes(8),
        "no end of the header",
    ),
    "endless": ((b"\x01\x06\x00\x01\xff\xff\x00\x00" + bytes(65535)) * 70, "longer than"),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_who_answers_otherwise_is_never_called_idle(case: str) -> None:
    answer, says = ANSWERS[case]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(answer)
        await writer.drain()

    async with listening(handle) as port:
        [reason] = await ask(Gauge(php_fpm=f"127.0.0.1:{port}", absent_is_idle=True))
    assert says in reason


async def test_who_never_answers_is_given_up() -> None:
    async def handle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(handle) as port:
        for gauge in (
            Gauge(php_fpm=f"127.0.0.1:{port}", timeout_s=0.1),
            Gauge(url=f"http://127.0.0.1:{port}", timeout_s=0.1),
        ):
            assert await ask(gauge) == ("cannot be asked: no answer within 0.1 s",)


# --- nginx, pages, commands -------------------------------------------------------------------------------------------


@asynccontextmanager
async def serving_text(status: str, text: str) -> AsyncIterator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())

    async with listening(handle) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.mark.skipif(NGINX is None, reason="needs nginx")
async def test_nginx_tells_requests_and_not_connections_that_are_kept(tmp_path: Path, unused_tcp_port: int) -> None:
    assert NGINX is not None
    answered = asyncio.Event()
    asked = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await answered.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with listening(slow) as port:
        temporary = "".join(
            f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (tmp_path / "nginx.conf").write_text(
            f"daemon off;\npid {tmp_path}/pid;\n{'user root;' if os.geteuid() == 0 else ''}\nevents {{}}\n"
            f"http {{\naccess_log off;\n{temporary}server {{\nlisten 127.0.0.1:{unused_tcp_port};\n"
            f"location /nginx {{ stub_status; }}\nlocation / {{ proxy_pass http://127.0.0.1:{port}; }}\n}}\n}}\n"
        )
        site = f"http://127.0.0.1:{unused_tcp_port}"
        gauge = Gauge(nginx=f"{site}/nginx")
        argv = [NGINX, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"]
        with running(argv, tmp_path / "log"):
            await until_answered(gauge, tmp_path / "log")
            async with aiohttp.ClientSession() as session:
                request = asyncio.create_task(session.get(f"{site}/slow"))
                await asked.wait()
                assert await ask(gauge) == ("1 active connection(s)",)
                answered.set()
                async with await request as response:
                    assert await response.text() == "ok"
                assert await ask(gauge) == ()  # the connection is open still
            [reason] = await ask(Gauge(nginx=f"{site}/elsewhere"))
            assert "no page of stub_status" in reason


@pytest.mark.parametrize(
    ("status", "text", "gauge", "reasons"),
    [
        ("200 OK", "0\n", {}, ()),
        ("200 OK", "jobs_done 7\njobs_running 0\n", {"pattern": r"(?m)^jobs_running (\d+)"}, ()),
        ("200 OK", "jobs_running 3", {"pattern": r"jobs_running (\d+)"}, ("says 3, at most 0 may be left",)),
        ("200 OK", "jobs_running 3", {"pattern": r"jobs_running (\d+)", "at_most": 3}, ()),
        ("200 OK", "none", {}, ("cannot be asked: no number like '(\\\\d+)' in 'none'",)),
        ("503 Busy", "0", {}, ("cannot be asked: status 503: '0'",)),
        ("302 Found", "0", {}, ("cannot be asked: status 302: '0'",)),
    ],
)
async def test_a_page_with_a_number(status: str, text: str, gauge: dict[str, object], reasons: tuple[str, ...]) -> None:
    async with serving_text(status, text) as url:
        assert await ask(msgspec.convert({"url": url, **gauge}, Gauge)) == reasons


async def test_a_command_decides_by_its_status() -> None:
    assert await ask(Gauge(command=("true",))) == ()
    [reason] = await ask(Gauge(command=("sh", "-c", "echo 3 jobs; exit 4")))
    assert reason == "ended with status 4: 3 jobs"
    [reason] = await ask(Gauge(command=("/nowhere/command",), absent_is_idle=True))
    assert "could not be started" in reason


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "exactly one of"),
        ({"url": "http://a", "command": ["true"]}, "exactly one of"),
        ({"url": "ftp://a"}, "no url"),
        ({"nginx": "/nginx"}, "no url"),
        ({"php_fpm": "fpm.sock"}, "an absolute path, or host:port"),
        ({"php_fpm": "/run/fpm.sock", "path": "status"}, "begins with a slash"),
        ({"url": "http://a", "pattern": "jobs"}, "has none"),
        ({"url": "http://a", "pattern": "("}, "no regular expression"),
        ({"command": []}, "length >= 1"),
    ],
)
def test_a_gauge_that_makes_no_sense_is_refused(document: dict[str, object], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(document, Gauge)


# --- ending workers ---------------------------------------------------------------------------------------------------

WORKER = """
import os, signal, sys
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
while True:
    signal.pause()
"""


@contextmanager
def orphan(tree: Path, kind: str) -> Iterator[psutil.Process]:
    """A process that works in the tree and is nobody's child here."""
    argv = ["sh", "-c", 'cd "$1" && "$2" -c "$3" "$4" &', "sh", tree, sys.executable, WORKER, kind]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        process = psutil.Process(int(shell.stdout.readline()))
    try:
        yield process
    finally:
        if process.is_running():
            process.kill()


async def no_server(gauge: Gauge) -> tuple[Busy, ...]:
    raise AssertionError(gauge)


def is_gone(process: psutil.Process) -> bool:
    """Ended; whether its new parent has heard of that is not asked."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def terminating(**more: float) -> DrainSettings:
    return DrainSettings(
        workers=(Match(command=r" (obedient|stubborn)$"), Match(command="nothing runs this")),
        policy="terminate",
        poll_s=0.02,
        **more,
    )


async def test_time_up_ends_workers_that_are_busy_and_nobody_else(tmp_path: Path) -> None:
    """SIGTERM, then SIGKILL for those who do not mind it; a bystander in the same tree lives on."""
    elsewhere = tmp_path / "elsewhere"
    tree = tmp_path / "tree"
    for each in (tree, elsewhere):
        each.mkdir()
    with (
        orphan(tree, "obedient") as obedient,
        orphan(tree, "stubborn") as stubborn,
        orphan(tree, "bystander") as bystander,
        orphan(elsewhere, "obedient") as idle,
    ):
        drained = await drain(terminating(timeout_s=0.1, kill_after_s=0.3), tree, ask=no_server)
        assert {worker.pid for worker in drained.terminated} == {obedient.pid, stubborn.pid}
        assert 0.4 <= drained.waited_s < 8
        assert [is_gone(each) for each in (obedient, stubborn, bystander, idle)] == [True, True, False, False]


async def test_workers_that_leave_in_time_are_not_touched(tmp_path: Path) -> None:
    drained = await drain(terminating(timeout_s=0.1), tmp_path, ask=no_server)
    assert drained.terminated == ()


async def test_who_outlives_even_that_makes_the_deploy_wait(tmp_path: Path) -> None:
    """A process that waits for a dead disk; and what a gauge shows, which is nobody's to end."""
    sent: list[tuple[list[int], signal.Signals]] = []
    worker = Busy(11, "worker", ("open x",))
    page = Busy(None, "http://page", ("says 1",))

    async def ask_page(_: Gauge) -> tuple[Busy, ...]:
        return (page,)

    settings = msgspec.structs.replace(terminating(timeout_s=0, kill_after_s=0), gauges=(Gauge(url="http://page"),))
    now = [0.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(DrainTimedOut) as caught:
        await drain(
            settings,
            tmp_path,
            look=lambda *_: [worker],
            ask=ask_page,
            end=lambda _, pids, number: sent.append((list(pids), number)),
            clock=lambda: now[0],
            sleep=sleep,
        )
    assert sent == [([11], signal.SIGTERM), ([11], signal.SIGKILL)]
    assert caught.value.busy == (worker, page)


def test_ending_workers_without_describing_them_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="ends nobody"):
        msgspec.convert({"policy": "terminate", "gauges": [{"url": "http://a"}]}, DrainSettings)
