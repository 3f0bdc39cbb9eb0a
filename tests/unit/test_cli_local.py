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
