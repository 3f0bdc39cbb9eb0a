"""The commands for the agent on this host: status, hold, unhold, repull."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from artifact import ConfigError
from hotcold.main import cli
from hotcold.socket_client import find_socket
from tests.commander_world import RecordedAgent, agent_at


def document(name: str, detail: str = "", **facts: Any) -> dict[str, Any]:
    """A status document as an agent gives it."""
    hot = {"name": "b1~1", "build": "b1", "path": "/srv/shop/releases/b1~1", "proved": True}
    standby = {"name": "b0~1", "build": "b0", "path": "/srv/shop/releases/b0~1", "proved": True}
    order = {"serial": 7, "build": "b2", "reason": "try", "by": "anna", "at": "2026-11-23T10:00:00Z", "percent": 25.0}
    return {
        "v": 1,
        "app": "shop",
        "tier": "prod",
        "host": "web-1",
        "state": {"name": name, "since": "2026-11-23T10:00:00+00:00", "for_s": 12.3, "detail": detail},
        "order": order,
        "highest_serial": 7,
        "hot": hot,
        "cold": standby,
        "standby": standby,
        "progress": None,
        "waiting_for": [],
        "problem": None,
        "order_problem": None,
        "disk_problems": [],
        "retry_in_s": None,
        "hooks": {},
        "store": {
            "address": "http://127.0.0.1:8500",
            "is_connected": True,
            "last_answer_s_ago": 3.2,
            "failing_for_s": None,
            "error": None,
        },
        "config": {"path": "/etc/hotcold/shop.toml", "problem": None},
        "agent": {"version": "0.1.0", "pid": 123, "up_for_s": 1234.5, "rss_bytes": 51_000_000},
        "disk": {"free_bytes": 2**30, "total_bytes": 2**32, "free_inodes": 1000},
        "a field of a later version": [],
    } | facts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.sock"


@pytest.fixture
def agent(path: Path) -> Iterator[RecordedAgent]:
    with agent_at(str(path), document("steady")) as recorded:
        yield recorded


@pytest.fixture
def run(path: Path) -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(cli, [*arguments[:1], "--socket", str(path), *arguments[1:]])


Run = Callable[..., Result]
BAD_ORDER = {"kind": "order_serial", "message": "serial 3 is lower"}
NO_ORDER = {"kind": "order_absent", "message": "no key"}


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (document("steady"), 0),
        (document("steady", order_problem=NO_ORDER, order=None), 0),
        (document("steady", order_problem=BAD_ORDER), 4),
        *((document(state), 3) for state in ("fetching", "staged", "waiting_for_slot", "draining", "swapping")),
        *((document(state), 3) for state in ("proving", "going_back", "a state of a later version")),
        *((document(state), 4) for state in ("backing_off", "rolled_back", "build_refused", "held")),
    ],
)
def test_the_exit_code_tells_scripts(agent: RecordedAgent, run: Run, said: dict[str, Any], code: int) -> None:
    """0 as wanted, 3 on the way, 4 not as wanted; the same with --json, which is the agent's own document."""
    agent.document = said
    assert run("status").exit_code == code
    result = run("status", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (code, said)


@pytest.mark.usefixtures("agent")
def test_status_is_plain_text_in_a_pipe(run: Run) -> None:
    """What is wanted, hot and on standby, and the contact to Consul, without escapes or trailing blanks."""
    lines = run("status").stdout.splitlines()
    assert lines[:2] == ["shop/prod on web-1", "● steady for 12 s"]
    assert [line.split()[:2] for line in lines[2:]] == [
        ["wanted", "b2"],
        ["hot", "b1"],
        ["standby", "b0"],
        ["Consul", "connected"],
        ["disk", "1.0"],
    ]
    assert lines == [line.rstrip() for line in lines]
    assert "\x1b" not in "".join(lines)


def test_every_state_has_a_picture_on_a_terminal(
    agent: RecordedAgent, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Framed and coloured, the host in the frame; text from outside is never taken for markup."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    for name in ("steady", "fetching", "draining", "rolled_back"):
        agent.document = document(
            name,
            host="web[/]1",
            progress={"bytes_done": 0, "bytes_total": 0, "files_done": 0, "url": "http://x/[red]"},
            problem={"kind": "x", "message": "[/] is no tag"},
        )
        shown = re.sub(r"\x1b\[[0-9;]*m", "", run("status").stdout)
        assert "╭─ shop / prod on web[/]1 ─" in shown
        assert "[/] is no tag" in shown
        assert name.replace("_", " ") in shown


def test_fetching_shows_how_far(agent: RecordedAgent, run: Run) -> None:
    """Share, amount and source; a password in the address stays off the screen."""
    url = "https://user:secret@builds.example.com/b2.tar?sig=secret"
    agent.document = document(
        "fetching", progress={"bytes_done": 2**20, "bytes_total": 2**22, "files_done": 7, "url": url}
    )
    shown = run("status").stdout
    assert "25%  1.0 MiB of 4.0 MiB  7 files  https://builds.example.com/b2.tar" in shown
    assert "secret" not in shown


def test_draining_names_who_is_waited_for(agent: RecordedAgent, run: Run) -> None:
    """By pid, with the reason; of many, the first and a count."""
    busy = [
        {"pid": 4000 + number, "command": "php-fpm: pool www", "reasons": ["cwd", "open file a", "open file b"]}
        for number in range(10)
    ]
    agent.document = document("draining", waiting_for=busy)
    shown = run("status").stdout
    assert "waiting for 10 workers to leave hot" in shown
    assert "pid 4000  php-fpm: pool www  cwd, open file a and 1 more" in shown
    assert "pid 4008" not in shown
    assert "and 2 more" in shown


def test_every_trouble_is_told_once(agent: RecordedAgent, run: Run) -> None:
    """Problem, order, disk, configuration, hooks and the lost contact each have their line."""
    agent.document = document(
        "rolled_back",
        detail="answered 500",
        problem={"kind": "proof_failed", "message": "answered 500"},
        order_problem=BAD_ORDER,
        disk_problems=["releases/x is unknown"],
        retry_in_s=4.2,
        hooks={
            "staged": {"exit": 3, "duration_s": 0.2, "timed_out": False, "output": "first\nlast words\n", "at": ""},
            "proved": {"exit": None, "duration_s": 60.0, "timed_out": True, "output": "", "at": ""},
            "before_drain": {"exit": 0, "duration_s": 0.1, "timed_out": False, "output": "fine", "at": ""},
        },
        store={"address": "http://c", "is_connected": False, "failing_for_s": 132.0, "error": "refused"},
        config={"path": "x", "problem": "unknown key `hots`"},
        hot=None,
    )
    shown = run("status").stdout
    for line in (
        "problem: answered 500  [proof_failed]",
        "order not obeyed: serial 3 is lower  [order_serial]",
        "disk: releases/x is unknown",
        "configuration not taken over: unknown key `hots`",
        "hook staged exited with 3 after 200 ms: last words",
        "hook proved did not finish in time after 60 s",
        "next attempt in 4 s",
    ):
        assert shown.count(line) == 1, line
    assert shown.count("answered 500") == 1
    assert "cut off for 2 min" in shown
    assert "before_drain" not in shown


def test_an_agent_that_is_not_there_is_exit_5(run: Run, path: Path) -> None:
    """The message says where it was looked for and what to look at."""
    result = run("status")
    assert result.exit_code == 5
    assert f"no agent answers at {path}: there is no such socket" in result.stderr
    assert "systemctl status hotcold-agent@shop" in result.stderr


def test_a_dead_agent_is_told_from_a_missing_one(run: Run, path: Path) -> None:
    """After kill -9 the socket is still there."""
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(path))
    result = run("status")
    assert result.exit_code == 5
    assert "the socket is there, but no process listens" in result.stderr


@pytest.mark.parametrize("said", [[], "text", {}, {"app": "shop"}, document("steady", state=7)])
def test_what_is_no_agent_is_said(agent: RecordedAgent, run: Run, said: Any) -> None:
    """Any other server behind the socket is not believed."""
    agent.document = said
    for arguments in (["status"], ["status", "--json"]):
        result = run(*arguments)
        assert result.exit_code == 5
        assert "agent" in result.stderr
        assert result.stdout == ""


def test_hold_unhold_and_repull_ask_the_agent(agent: RecordedAgent, run: Run) -> None:
    """One request each, and what to type next."""
    assert "hotcold unhold --socket" in run("hold", "--reason", "anna debugs").stdout
    assert run("unhold").exit_code == 0
    assert run("repull").exit_code == 0
    assert agent.asked == [("/v1/hold", {"reason": "anna debugs"}), ("/v1/unhold", None), ("/v1/repull", None)]


def test_forget_says_what_had_been_refused_and_why(agent: RecordedAgent, run: Run, path: Path) -> None:
    agent.answer = (
        202,
        {"accepted": True, "build": "b2", "problem": {"kind": "proof_failed", "message": "status 500"}},
    )
    assert run("forget").stdout.splitlines() == [
        "build b2 is no longer refused; it was for: status 500",
        f"follow it with: hotcold status --watch --socket {path}",
    ]
    assert run("forget", "b2").exit_code == 0
    assert agent.asked == [("/v1/forget", {}), ("/v1/forget", {"build": "b2"})]


def test_who_may_not_give_orders_is_told(agent: RecordedAgent, run: Run) -> None:
    agent.answer = (403, {"error": {"kind": "not_allowed", "message": "user anna (uid 1001) may look"}})
    for command in (["unhold"], ["forget"], ["repull"], ["hold", "--reason", "x"]):
        result = run(*command)
        assert (result.exit_code, result.stderr) == (2, "error: user anna (uid 1001) may look\n")


def test_what_the_agent_refuses_is_told_in_its_words(agent: RecordedAgent, run: Run) -> None:
    """Nothing ordered: nothing to pull."""
    agent.answer = (409, {"error": {"kind": "nothing_ordered", "message": "no order asks this host for a build"}})
    result = run("repull")
    assert result.exit_code == 1
    assert result.stderr == "error: no order asks this host for a build\n"


def test_the_only_socket_is_found(tmp_path: Path) -> None:
    """Without --app and --socket the choice must be clear."""
    with pytest.raises(ConfigError, match="no agent's socket is in"):
        find_socket(None, None, sockets=tmp_path)
    (tmp_path / "shop.sock").touch()
    assert find_socket(None, None, sockets=tmp_path) == tmp_path / "shop.sock"
    (tmp_path / "cart.sock").touch()
    with pytest.raises(ConfigError, match="--app cart or --app shop"):
        find_socket(None, None, sockets=tmp_path)
    assert find_socket("cart", None, sockets=tmp_path) == tmp_path / "cart.sock"
    with pytest.raises(ConfigError, match="not both"):
        find_socket("cart", tmp_path / "x.sock", sockets=tmp_path)


def test_watching_tells_changes_until_interrupted(agent: RecordedAgent, path: Path) -> None:
    """In a pipe: a line per change, also when the agent cannot be understood; Ctrl-C ends it well."""
    command = [sys.executable, "-m", "hotcold", "status", "--watch", "--socket", str(path)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert "steady: hot b1, wanted b2" in process.stdout.readline()
        agent.document = document("rolled_back", problem={"kind": "x", "message": "answered 500"})
        assert "rolled back: hot b1, wanted b2; answered 500" in process.stdout.readline()
        agent.document = {}
        assert "not an agent" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0


# --- why --------------------------------------------------------------------------------------------------------------

ORDER = document("steady")["order"]
HOT_IS_WANTED = {"hot": {"name": "b2~1", "build": "b2", "path": "/x", "proved": True}}
CUT_OFF = {
    "store": {"address": "http://127.0.0.1:8500", "is_connected": False, "failing_for_s": 7200.0, "error": "no leader"}
}
FAILED = {"problem": {"kind": "proof_failed", "message": "http://127.0.0.1/ did not succeed: status 500"}}
BUSY = {
    "waiting_for": [
        {"pid": 17, "command": "php-fpm: pool www", "reasons": ["open /srv/x.php"]},
        {"pid": None, "command": "nginx at http://a/", "reasons": ["1 active connection(s)"]},
    ]
}
FETCHED = {
    "progress": {"bytes_done": 2**20, "bytes_total": 2**22, "rate_bytes": 2**20, "left_s": 3.0, "url": "http://a/x"}
}
WHY: dict[str, tuple[dict[str, Any], str, str, str, int]] = {
    # what the agent says, then the kind, a part of the message, a part of the next step, the exit code
    "as it should be": (
        document("steady", **HOT_IS_WANTED),
        "as_wanted",
        "it does: build b2 serves, as order 7",
        "",
        0,
    ),
    "cut off, and as it was": (
        document("steady", **HOT_IS_WANTED, **CUT_OFF),
        "as_wanted",
        "the last order seen; http://127.0.0.1:8500 does not answer for 2.0 h: no leader",
        "curl http://127.0.0.1:8500",
        0,
    ),
    "held": (document("held", "anna debugs"), "held", "held: anna debugs", "hotcold unhold --app shop", 4),
    "no order": (
        document("steady", order=None, order_problem=NO_ORDER),
        "order_absent",
        "nothing was ordered",
        "deploy",
        0,
    ),
    "no order, for nobody answers": (
        document("steady", order=None, **CUT_OFF),
        "store_unreachable",
        "no order has been seen, and http",
        "curl",
        0,
    ),
    "a bad order": (document("steady", order_problem=BAD_ORDER), "order_serial", "serial 3 is lower", "right one", 4),
    "not among the chosen": (
        document("steady", order={**ORDER, "build": None}),
        "not_chosen",
        "25 % of the tier",
        "--percent 100",
        0,
    ),
    "backing off": (
        document("backing_off", problem={"kind": "http_404", "message": "http://a/x: 404"}, retry_in_s=8.0),
        "http_404",
        "build b2 could not be deployed yet: http://a/x: 404; next attempt in 8 s",
        "",
        4,
    ),
    "rolled back": (
        document("rolled_back", **FAILED),
        "proof_failed",
        "build b1 serves again: http",
        "hotcold forget --app shop",
        4,
    ),
    "refused": (document("build_refused", **FAILED), "proof_failed", "build b2 cannot be deployed here", "mend", 4),
    "refused, unknown why": (document("build_refused"), "build_refused", "it is not known why", "mend", 4),
    "fetching": (document("fetching", **FETCHED), "fetching", "1.0 MiB of 4.0 MiB, 1.0 MiB/s, 3 s left", "", 3),
    "fetching, just begun": (document("fetching"), "fetching", "build b2 is being fetched, for 12 s", "", 3),
    "staged": (document("staged"), "staged", "the `staged` hook", "", 3),
    "no slot": (document("waiting_for_slot"), "waiting_for_slot", "out of service", "hotcold fleet --app shop", 3),
    "draining": (
        document("draining", **BUSY),
        "draining",
        "pid 17 (php-fpm: pool www): open /srv/x.php; and 1 other",
        "",
        3,
    ),
    "a server is busy": (
        document("draining", waiting_for=BUSY["waiting_for"][1:]),
        "draining",
        "nginx at http://a/: 1 active",
        "",
        3,
    ),
    "a hook drains": (document("draining"), "draining", "waits for its hooks", "", 3),
    "swapping": (document("swapping"), "swapping", "takes over this moment", "", 3),
    "proving": (document("proving"), "proving", "is being proved", "", 3),
    "going back": (document("going_back"), "going_back", "goes back", "", 3),
    "a state of a later version": (document("dreaming"), "dreaming", "build b1 serves, state dreaming", "", 3),
    "a bare host": (document("dreaming", hot=None), "dreaming", "nothing serves", "", 3),
}


@pytest.mark.parametrize("case", WHY)
def test_why_gives_one_reason_and_the_next_step(agent: RecordedAgent, run: Run, case: str) -> None:
    agent.document, kind, message, step, code = WHY[case]
    shown = run("why")
    said = json.loads(run("why", "--json").stdout)
    assert (shown.exit_code, said["kind"]) == (code, kind)
    assert message in said["message"]
    assert "\n" not in said["message"]
    assert (step in said["step"]) if step else said["step"] == ""
    assert shown.stdout == said["message"] + "\n" + (f"next: {said['step']}\n" if step else "")


def test_why_says_that_no_agent_answers(run: Run) -> None:
    result = run("why")
    assert result.exit_code == 5
    assert result.stdout == ""
    assert "systemctl status" in result.stderr or "agent" in result.stderr


# --- history ----------------------------------------------------------------------------------------------------------

EVENTS = [
    {"id": 1, "at": "2026-11-23T10:00:00.1Z", "event": "state", "level": "info", "facts": {"was": "steady", "x": None}},
    {
        "id": 2,
        "at": "2026-11-23T10:00:01Z",
        "event": "drain failed",
        "level": "warning",
        "facts": {"error": "pid 7\nis busy", "build": "b2", "workers": 2},
    },
]


def test_history_is_one_line_for_each_event(agent: RecordedAgent, run: Run) -> None:
    agent.events = list(EVENTS)
    assert run("history").stdout.splitlines() == [
        "2026-11-23T10:00:00Z  state  was=steady",
        '2026-11-23T10:00:01Z  warning: drain failed  build=b2  error="pid 7 is busy"  workers=2',
    ]
    assert json.loads(run("history", "--json", "--limit", "7").stdout) == EVENTS
    assert agent.limits == ["50", "7"]
