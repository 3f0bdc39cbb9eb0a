"""A build is proved by successes in a row within a deadline; a failure says what the last attempts saw."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from agent.probes import Probe, ProbeSettings, Unproved
from agent.prove import ProofFailed, Proved, prove, watch

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class App:
    """An app that gives its answers in turn, the last one for ever, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[web.Request] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now_s = 500.0

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def says(status: int, text: str = "", **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers=headers)

    return answer


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def url(app: App) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_get("/{path:.*}", app.handle)
    async with TestServer(application) as server:
        yield str(server.make_url("/healthz"))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def proving(session: aiohttp.ClientSession, clock: Clock) -> Callable[[ProbeSettings], Awaitable[Proved]]:
    return lambda settings: prove(
        settings, session=session, environment={"HOTCOLD_BUILD": "3"}, clock=clock, sleep=clock.sleep
    )


Proving = Callable[[ProbeSettings], Awaitable[Proved]]


async def test_without_a_probe_a_build_counts_as_proved(proving: Proving) -> None:
    """Nobody asked for a proof."""
    assert await proving(ProbeSettings()) == Proved(took_s=0, attempt_count=0)


async def test_one_success_proves(proving: Proving, app: App, url: str) -> None:
    """The app is asked once, with the headers that were given, over a connection of its own."""
    app.answers = [says(200)]
    proved = await proving(ProbeSettings(url=url, headers={"Host": "shop.example"}))
    assert proved == Proved(took_s=0, attempt_count=1)
    (request,) = app.requests
    assert request.headers["Host"] == "shop.example"
    assert request.headers["Connection"] == "close"


async def test_only_successes_in_a_row_count(proving: Proving, app: App, url: str) -> None:
    """A failure in between begins the count anew."""
    app.answers = [says(503), says(200), says(200), says(500), says(200)]
    proved = await proving(ProbeSettings(url=url, successes=3, interval_s=2, deadline_s=60))
    assert proved == Proved(took_s=12, attempt_count=7)


async def test_a_failure_tells_what_the_last_attempts_saw(proving: Proving, app: App, url: str) -> None:
    """Status, what was wanted and the beginning of the body, for the last few attempts only."""
    app.answers = [says(500, "warming up"), says(500, "no database\nat all " + 999 * "x")]
    with pytest.raises(ProofFailed) as caught:
        await proving(ProbeSettings(url=url, status=(200, 204), interval_s=1, deadline_s=8))
    assert caught.value.kind == "proof_failed"
    assert [attempt.number for attempt in caught.value.attempts] == [4, 5, 6, 7, 8]
    assert not any(attempt.is_success for attempt in caught.value.attempts)
    message = str(caught.value)
    assert message.startswith(
        f"{url} did not succeed 1 time(s) in a row within 8 s; attempts 4 to 8, the last at 7.0 s: "
        "status 500, wanted 200, 204: 'no database at all xxx"
    )
    assert "warming up" not in message
    assert len(message) < 600


async def test_attempts_that_saw_different_things_are_told_one_by_one(proving: Proving, app: App, url: str) -> None:
    """In their order: how the answers changed is often what explains them."""
    app.answers = [says(503, "starting"), says(503, "starting"), says(500, "no database")]
    with pytest.raises(
        ProofFailed,
        match=r"; attempts 1 to 2, the last at 1\.0 s: status 503, wanted 200: 'starting' "
        r"\| attempt 3 at 2\.0 s: status 500, wanted 200: 'no database'; look at",
    ):
        await proving(ProbeSettings(url=url, deadline_s=3))


async def test_too_few_successes_are_told_too(proving: Proving, app: App, url: str) -> None:
    """An app that answers now and then has not proved itself."""
    app.answers = [says(200), says(500), says(200), says(500), says(200)]
    with pytest.raises(ProofFailed, match=r"2 time\(s\) in a row") as caught:
        await proving(ProbeSettings(url=url, successes=2, deadline_s=3))
    assert [attempt.is_success for attempt in caught.value.attempts] == [True, False, True]


async def test_a_redirect_is_an_answer(proving: Proving, app: App, url: str) -> None:
    """It is not followed: where it leads to may be another host."""
    app.answers = [says(302, Location="/elsewhere")]
    with pytest.raises(ProofFailed, match="status 302, wanted 200"):
        await proving(ProbeSettings(url=url, deadline_s=1))
    assert [request.path for request in app.requests] == ["/healthz"]
    assert await proving(ProbeSettings(url=url, status=(302,)))


async def test_the_body_must_match_too(proving: Proving, app: App, url: str) -> None:
    """The right status with a page of the old build is no success."""
    app.answers = [says(200, "build 2"), says(200, "build 3")]
    assert (await proving(ProbeSettings(url=url, body=r"build 3$"))).attempt_count == 2
    with pytest.raises(ProofFailed, match="status 200, but nothing like 'build 4' in the body: 'build 3'"):
        await proving(ProbeSettings(url=url, body="build 4", deadline_s=1))


async def test_an_endless_body_is_read_in_part(proving: Proving, app: App, url: str) -> None:
    """Neither memory nor time is spent on what follows the first 64 KiB."""

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(4096 * b"hot ")

    app.answers = [endless]
    assert (await proving(ProbeSettings(url=url, body="^hot hot"))).attempt_count == 1


async def test_an_app_that_does_not_answer_is_given_up_in_time(proving: Proving, app: App, url: str) -> None:
    """A hanging attempt ends at its own timeout and counts as a failure."""

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    app.answers = [hang, says(200)]
    assert (await proving(ProbeSettings(url=url, timeout_s=0.05))).attempt_count == 2


async def test_an_app_that_is_not_there(proving: Proving, unused_tcp_port: int) -> None:
    """A refused connection is a failed attempt, and its message names the address."""
    with pytest.raises(ProofFailed, match=f"no answer: .*127.0.0.1:{unused_tcp_port}"):
        await proving(ProbeSettings(url=f"http://127.0.0.1:{unused_tcp_port}/", deadline_s=1))


async def test_an_answer_that_breaks_off(proving: Proving, app: App, url: str) -> None:
    """A worker that dies in the middle of its answer has not proved anything."""

    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    app.answers = [break_off]
    with pytest.raises(ProofFailed, match="no answer: "):
        await proving(ProbeSettings(url=url, deadline_s=1))


async def test_no_attempt_begins_after_the_deadline(proving: Proving, app: App, url: str, clock: Clock) -> None:
    """When the next attempt would come too late, the answer is given at once."""
    app.answers = [says(500)]
    with pytest.raises(ProofFailed):
        await proving(ProbeSettings(url=url, interval_s=10, deadline_s=15))
    assert len(app.requests) == 2
    assert clock.now_s == 510


async def test_a_command_proves_by_its_status(proving: Proving, tmp_path: Path) -> None:
    """It is run like a hook, with the environment that was given, until it succeeds."""
    script = 'echo "build $HOTCOLD_BUILD is cold" >&2; test -e "$1" && exit 0; touch "$1"; exit 7'
    command = ("sh", "-c", script, "sh", str(tmp_path / "warm"))
    assert (await proving(ProbeSettings(command=command))).attempt_count == 2
    with pytest.raises(ProofFailed, match=r"the command ended with status 7: .build 3 is cold"):
        await proving(ProbeSettings(command=(*command[:4], str(tmp_path / "no" / "where")), deadline_s=1))


async def test_a_command_that_hangs_or_is_missing_is_a_failed_attempt(proving: Proving) -> None:
    """Both are told as what they are."""
    with pytest.raises(ProofFailed, match="without an end of its own"):
        await proving(ProbeSettings(command=("sleep", "60"), timeout_s=0.05, deadline_s=1))
    with pytest.raises(
        ProofFailed, match="could not be started: 'cannot run no-such-program: No such file or directory'"
    ):
        await proving(ProbeSettings(command=("no-such-program",), deadline_s=1))


# --- TCP and units ----------------------------------------------------------------------------------------------------


async def test_a_port_or_socket_proves_by_accepting(proving: Proving, url: str, tmp_path: Path) -> None:
    """Both ways of naming one; refused and absent ones are told."""
    port = URL(url).port
    assert await proving(ProbeSettings(tcp=f"127.0.0.1:{port}")) == Proved(took_s=0, attempt_count=1)
    path = str(tmp_path / "app.sock")
    with pytest.raises(ProofFailed, match=f"connecting to {path} .*No such file"):
        await proving(ProbeSettings(tcp=path, deadline_s=0.5))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert await proving(ProbeSettings(tcp=path)) == Proved(took_s=0, attempt_count=1)


async def test_all_that_is_given_must_succeed(proving: Proving, app: App, url: str, unused_tcp_port: int) -> None:
    app.answers = [says(200)]
    with pytest.raises(ProofFailed, match=f"connecting to 127.0.0.1:{unused_tcp_port} and {url} and false"):
        await proving(ProbeSettings(url=url, tcp=f"127.0.0.1:{unused_tcp_port}", command=("false",), deadline_s=0.5))
    assert not app.requests, "what does not even accept connections is not asked"
    with pytest.raises(ProofFailed, match="the command ended with status 1"):
        await proving(ProbeSettings(url=url, command=("false",), deadline_s=0.5))


@pytest.fixture
def systemctl(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Makes a `systemctl` that answers with a text, and the environment in which it is found first."""

    def answering(text: str) -> dict[str, str]:
        program = tmp_path / "systemctl"
        program.write_text(f"#!/bin/sh\ncat <<'E'\n{text}\nE\n")
        program.chmod(0o755)
        return {"PATH": f"{tmp_path}:/usr/bin:/bin"}

    return answering


def unit(active: str, sub: str, restarts: int) -> str:
    return f"NRestarts={restarts}\nActiveState={active}\nSubState={sub}"


async def test_a_unit_must_be_active(
    session: aiohttp.ClientSession, systemctl: Callable[[str], dict[str, str]]
) -> None:
    """What systemd says of it is what is told."""
    environment = systemctl(unit("activating", "auto-restart", 0))
    probe = Probe(ProbeSettings(unit="shop.service"), session=session, environment=environment)
    with pytest.raises(Unproved, match=r"unit shop\.service is activating \(auto-restart\)"):
        await probe.look(20)
    systemctl(unit("active", "running", 0))
    assert await probe.look(20) == "ok: unit shop.service is active"


async def test_restarts_are_counted_from_the_first_look(
    session: aiohttp.ClientSession, systemctl: Callable[[str], dict[str, str]]
) -> None:
    """An operator's restart sets systemd's counter to 0; what comes after that counts."""
    probe = Probe(
        ProbeSettings(unit="shop.service", max_restarts=1),
        session=session,
        environment=systemctl(unit("active", "running", 7)),
    )
    for restarts in (7, 8, 0, 1):
        systemctl(unit("active", "running", restarts))
        await probe.look(20)
    systemctl(unit("active", "running", 2))
    with pytest.raises(Unproved, match="restarted by itself 2 times: a crash loop") as caught:
        await probe.look(20)
    assert caught.value.is_final


# --- watching ---------------------------------------------------------------------------------------------------------


async def test_a_watch_ends_well_after_its_time(
    session: aiohttp.ClientSession, app: App, url: str, clock: Clock
) -> None:
    """Failures that are not in a row are borne."""
    app.answers = [says(200), says(500), says(500), says(200)]
    await watch(
        ProbeSettings(url=url, interval_s=10, watch_s=60),
        session=session,
        environment={},
        clock=clock,
        sleep=clock.sleep,
    )
    assert len(app.requests) == 6
    assert clock.now_s == 560


async def test_a_watch_ends_badly_after_failures_in_a_row(
    session: aiohttp.ClientSession, app: App, url: str, clock: Clock
) -> None:
    """Says when, and what was seen."""
    app.answers = [says(500), says(200), says(503, "out of memory")]
    with pytest.raises(
        ProofFailed, match=r"30\.0 s later .* failed 2 time\(s\) in a row; .*503.*out of memory"
    ) as caught:
        await watch(
            ProbeSettings(url=url, interval_s=10, watch_s=600, watch_failures=2),
            session=session,
            environment={},
            clock=clock,
            sleep=clock.sleep,
        )
    assert caught.value.kind == "watch_failed"
    assert len(app.requests) == 4


async def test_a_crash_loop_ends_a_proof_and_a_watch_at_once(
    session: aiohttp.ClientSession, systemctl: Callable[[str], dict[str, str]], clock: Clock
) -> None:
    environment = systemctl(unit("active", "running", 0))

    async def crash(seconds: float) -> None:
        systemctl(unit("activating", "auto-restart", 3))
        await clock.sleep(seconds)

    settings = ProbeSettings(unit="shop.service", successes=5, watch_s=600, deadline_s=600)
    with pytest.raises(ProofFailed, match="a crash loop") as caught:
        await prove(settings, session=session, environment=environment, clock=clock, sleep=crash)
    assert len(caught.value.attempts) == 2
    systemctl(unit("active", "running", 0))
    with pytest.raises(ProofFailed, match="a crash loop") as caught:
        await watch(settings, session=session, environment=environment, clock=clock, sleep=crash)
    assert len(caught.value.attempts) == 2


async def test_it_can_be_cancelled_in_an_attempt(session: aiohttp.ClientSession, app: App, url: str) -> None:
    """A newer order does not wait for an app that hangs, and the cancellation is not taken for a failed attempt."""
    asked = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    app.answers = [hang]
    task = asyncio.create_task(prove(ProbeSettings(url=url), session=session, environment={}))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(app.requests) == 1


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"watch_s": 5}, "needs something to look at"),
        ({"tcp": "8080"}, "needs HOST:PORT"),
        ({"tcp": "localhost:0"}, "needs HOST:PORT"),
        ({"unit": "--all"}, "names no systemd unit"),
        ({"unit": "a b"}, "names no systemd unit"),
        ({"url": "http://a/", "watch_s": 1, "watch_failures": 0}, r"at `\$.watch_failures`"),
        ({"url": "shop.example/healthz"}, "a probe needs http://host"),
        ({"url": "ftp://shop.example/"}, "a probe needs http://host"),
        ({"url": "http://shop.example:port/"}, "`url` is 'http://shop.example:port/': .*port"),
        ({"body": "ok"}, "belong to a `url`"),
        ({"command": ["true"], "headers": {"Host": "a"}}, "belong to a `url`"),
        ({"url": "http://a/", "body": "("}, "no regular expression"),
        ({"command": []}, r"at `\$.command`"),
        ({"command": [""]}, "needs a program first"),
        ({"url": "http://a/", "status": [99]}, r"at `\$.status\[0\]`"),
        ({"url": "http://a/", "status": []}, r"at `\$.status`"),
        ({"successes": 0}, r"at `\$.successes`"),
        ({"deadline": 5}, "unknown field `deadline`"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(document: dict[str, object], message: str) -> None:
    """A probe that could never succeed, or never fail, is not accepted."""
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(document, ProbeSettings)
