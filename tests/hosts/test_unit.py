"""The agent as its systemd unit: signals, watchdog, journal, and everything a drain and a hook need, in the sandbox."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from artifact.kernel import LINUX
from tests.consul_process import wait_until
from tests.faults.sizes import IS_FULL
from tests.hosts.fleet import Fleet, page
from tests.hosts.host import AGENT, Host
from tests.hosts.readme import CHECKOUT
from tests.hosts.site import GATE, PARTS, PHP_FPM, PHP_UNIT, POOL, STARTED

EXPOSURE_LIMIT = 2.0
PROBE = '\n[probe]\nurl = "http://127.0.0.1/index.php"\n'
ASK = "hotcold-ask"
RELOADED = '"event": "configuration '


@pytest.fixture(scope="module")
def one_host(fleet: Fleet) -> Host:
    host = fleet.new_host("web-1")
    host.configure(PROBE)
    host.boot()
    return host


class Deploys:
    """Builds with rising numbers for one host."""

    def __init__(self, fleet: Fleet, host: Host) -> None:
        self.fleet, self.host, self.count = fleet, host, 0

    def order(self) -> str:
        self.count += 1
        build = f"b{self.count:04}"
        self.fleet.pack(build)
        self.fleet.deploy(build)
        return build

    def make(self) -> str:
        build = self.order()
        self.host.until_steady(build)
        assert page(self.host) == (200, f"{build}\n" * (PARTS + 1))
        return build


@pytest.fixture(scope="module")
def deploys(fleet: Fleet, one_host: Host) -> Deploys:
    deploys = Deploys(fleet, one_host)
    deploys.make()
    return deploys


@pytest.fixture
def host(one_host: Host, deploys: Deploys) -> Iterator[Host]:
    """The host, steady; afterwards as it was, and steady again."""
    yield one_host
    one_host.configure(PROBE)
    one_host.machine.run("rm", "-f", GATE)
    one_host.machine.run("systemctl", "restart", PHP_UNIT, AGENT)
    one_host.until_steady(deploys.make())


def reconfigure(host: Host, text: str) -> None:
    """`systemctl reload` only sends the signal; the agent says when it has looked."""
    before = host.machine.journal(AGENT).count(RELOADED)
    host.configure(text)
    host.machine.run("systemctl", "reload", AGENT)
    wait_until(lambda: host.machine.journal(AGENT).count(RELOADED) > before, "the configuration was read again")


@contextmanager
def a_long_request(host: Host) -> Iterator[list[tuple[int, str]]]:
    """A request that PHP works on until the block ends, or the test opens the gate; then what became of it."""
    answers: list[tuple[int, str]] = []
    host.machine.run("sh", "-c", f"rm -f {STARTED}; touch {GATE}")
    asking = threading.Thread(target=lambda: answers.append(page(host, "/slow.php")))
    asking.start()
    try:
        wait_until((host.machine.root / STARTED[1:]).exists, "PHP works on the request")
        yield answers
    finally:
        open_gate(host)
        asking.join(60)


def open_gate(host: Host) -> None:
    host.machine.run("rm", "-f", GATE)


def test_it_is_as_closed_as_promised(host: Host) -> None:
    """By systemd's own measure of the running unit."""
    told = host.machine.run("systemd-analyze", "security", "--no-pager", AGENT)
    exposure = re.search(r"Overall exposure level for .*: ([\d.]+)", told)
    assert exposure is not None, told
    assert float(exposure[1]) <= EXPOSURE_LIMIT, told


def test_archives_are_opened_in_a_whole_sandbox(host: Host, deploys: Deploys) -> None:
    """The unit's filter lets the process that opens archives confine itself wholly, where the kernel can."""
    try:
        LINUX.landlock_version()
    except OSError as error:
        pytest.skip(f"this kernel has no landlock in force: {error}")
    reconfigure(host, f"{PROBE}\n[fetch]\nrequire_sandbox = true\nretry_initial_s = 0.2\n")
    deploys.make()


# --- signals, watchdog, journal ---------------------------------------------------------------------------------------


def test_a_reload_reads_the_configuration_again_and_refuses_a_bad_one(host: Host, deploys: Deploys) -> None:
    """The process stays; what cannot be used is told, and changes nothing."""
    pid = host.agent_pid()
    reconfigure(host, '\n[probe]\ncommand = ["false"]\ndeadline_s = 1\n')
    build = deploys.order()
    host.until_state("rolled_back")
    assert page(host)[1] != f"{build}\n" * (PARTS + 1)

    reconfigure(host, "\n[probe]\nurll = 1\n")
    status = host.until("refused", lambda s: s["config"]["problem"])
    assert "urll" in status["config"]["problem"]
    reconfigure(host, PROBE)
    host.until("taken", lambda s: s["config"]["problem"] is None)
    deploys.make()
    assert host.agent_pid() == pid


def test_a_restart_changes_nothing_that_serves(host: Host) -> None:
    serving = host.hot
    before = host.agent_pid()
    host.machine.run("systemctl", "restart", AGENT)
    status = host.until_state("steady")
    assert status["agent"]["pid"] == host.agent_pid() != before
    assert host.hot == serving


def test_an_agent_that_hangs_is_restarted(host: Host) -> None:
    """No beat reaches systemd any more; a host of which nobody thinks anything is wrong would be lost otherwise."""
    host.drop_in(AGENT, "quick", "[Service]\nWatchdogSec=6s\nRestartSec=100ms\n")
    try:
        host.machine.run("systemctl", "restart", AGENT)
        host.until_state("steady")
        pid = host.agent_pid()
        host.agent().suspend()
        wait_until(lambda: host.agent_pid() not in {0, pid}, "systemd has started another agent", 60)
        host.until_state("steady")
        assert "watchdog" in host.machine.journal(AGENT) + host.machine.run("journalctl", "-u", AGENT, "--no-pager")
    finally:
        host.undo_drop_in(AGENT, "quick")


def test_a_signal_to_the_unit_forces_a_repull(host: Host) -> None:
    """`systemctl kill` sends it to every process of the unit; that is no reason for any of them to end."""
    serving, pid = host.hot, host.agent_pid()
    build = host.until_state("steady")["hot"]["build"]
    host.machine.run("systemctl", "kill", "-s", "USR1", AGENT)
    wait_until(lambda: host.hot != serving, "another tree serves", 60)
    host.until_steady(build)
    assert page(host) == (200, f"{build}\n" * (PARTS + 1))
    assert host.agent_pid() == pid


def journal_of(host: Host, *arguments: str) -> list[dict[str, str]]:
    told = host.machine.run("journalctl", "-u", AGENT, "-o", "json", "--no-pager", *arguments)
    return [json.loads(line) for line in told.splitlines()]


def test_the_journal_has_fields_and_levels(host: Host, deploys: Deploys) -> None:
    """Each line is one JSON object with the event and its facts; `journalctl -p warning` shows what needs somebody."""
    build = deploys.make()
    wait_until(lambda: ("swapped", build, None) in told_in(journal_of(host)), "the journal has the swap")
    wait_until(
        lambda: told_in(journal_of(host))[-1] == ("state", None, "steady"), "the journal has the end of the deploy"
    )
    assert {entry["_SYSTEMD_UNIT"] for entry in journal_of(host) if "{" in entry["MESSAGE"]} == {AGENT}

    reconfigure(host, "\n[probe]\nurll = 1\n")
    warned = [json.loads(entry["MESSAGE"]) for entry in journal_of(host, "-p", "warning") if "{" in entry["MESSAGE"]]
    assert "urll" in json.dumps(warned)
    assert {line["level"] for line in warned} <= {"warning", "error", "critical"}


def told_in(entries: list[dict[str, str]]) -> list[tuple[str, str | None, str | None]]:
    """Event, build and state of each of the agent's lines."""
    lines = [json.loads(entry["MESSAGE"]) for entry in entries if entry["MESSAGE"].startswith("{")]
    return [(line["event"], line.get("build"), line.get("state")) for line in lines]


# --- drains under the sandbox -----------------------------------------------------------------------------------------


def test_a_drain_sees_workers_of_another_user(host: Host, deploys: Deploys) -> None:
    """By pid and by what they hold, although the agent is not root."""
    reconfigure(host, f'{PROBE}\n[drain]\nworkers = [{{ user = "www-data", executable = "{PHP_FPM}" }}]\n')
    with a_long_request(host) as answers:
        build = deploys.order()
        status = host.until("waits", lambda s: s["waiting_for"])
        assert {each["pid"] for each in status["waiting_for"]} <= set(host.php_workers())
        for each in status["waiting_for"]:
            assert "/srv/shop/releases/" in " ".join(each["reasons"])
            assert "cannot see" not in " ".join(each["reasons"])
        # A worker that is idle keeps its last directory, so it has to be started anew.
        open_gate(host)
        wait_until(lambda: answers != [], "PHP has answered")
        host.machine.run("systemctl", "restart", PHP_UNIT)
        host.until_steady(build)
    assert answers == [(200, "done\n")]


@pytest.mark.parametrize("gauge", [f'php_fpm = "{POOL}"', 'nginx = "http://127.0.0.1/nginx"'], ids=["PHP-FPM", "nginx"])
def test_a_drain_asks_the_servers(host: Host, deploys: Deploys, gauge: str) -> None:
    """The pool's socket and nginx's page can be reached from within the unit."""
    reconfigure(host, f"{PROBE}\n[[drain.gauges]]\n{gauge}\n")
    with a_long_request(host) as answers:
        build = deploys.order()
        status = host.until("waits", lambda s: s["waiting_for"])
        [waited] = status["waiting_for"]
        assert re.search(r"GET /slow.php|1 active connection", " ".join(waited["reasons"])), waited
        open_gate(host)
        host.until_steady(build)
    assert answers == [(200, "done\n")]


def documented_drop_in(after: str) -> str:
    """The unit's drop-in that docs/operating.md shows below a heading."""
    text = (CHECKOUT / "docs" / "operating.md").read_text().partition(after)[2]
    found = re.search(r"```ini\n# systemctl edit hotcold-agent@shop\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_time_up_ends_workers_with_the_right_that_is_documented(host: Host, deploys: Deploys) -> None:
    """Without it the agent says what is missing, and the host stays in service."""
    reconfigure(
        host,
        f'{PROBE}\n[drain]\nworkers = [{{ user = "www-data", executable = "{PHP_FPM}" }}]\n'
        'policy = "terminate"\ntimeout_s = 0.2\nkill_after_s = 0.5\n',
    )
    with a_long_request(host) as answers:
        build = deploys.order()
        status = host.until("may not", lambda s: s["problem"] is not None and s["problem"]["kind"] == "may_not_signal")
        assert "CAP_KILL" in status["problem"]["message"]
        host.drop_in(AGENT, "kill", documented_drop_in("### Ending workers"))
        try:
            host.machine.run("systemctl", "restart", AGENT)
            host.until_steady(build)
        finally:
            host.undo_drop_in(AGENT, "kill")
    assert answers[0][0] == 502
    assert page(host) == (200, f"{build}\n" * (PARTS + 1))


# --- hooks that reach other units -------------------------------------------------------------------------------------


def test_a_hook_has_php_reloaded_without_privileges(host: Host, deploys: Deploys) -> None:
    """A path unit does what the hook asks for; the deploy goes on when that is done."""
    unit = PHP_UNIT.removesuffix(".service")
    host.machine.run("systemctl", "enable", "--now", f"hotcold-reload@{unit}.path")
    reconfigure(host, f'{PROBE}\n[hooks.after_swap]\nargv = ["{ASK}", "reload", "{unit}"]\n')
    before = host.php_workers()
    deploys.make()
    wait_until(lambda: not set(before) & set(host.php_workers()), "PHP has new workers")
    again = host.php_workers()
    deploys.make()
    wait_until(lambda: not set(again) & set(host.php_workers()), "PHP has new workers again")
    assert host.until_state("steady")["hooks"]["after_swap"]["exit"] == 0


PYTHON_APP = """[Service]
User=www-data
WorkingDirectory=/srv/shop/hot
ExecStart=/usr/bin/python3 -m http.server 8080
"""


def serves(host: Host, build: str) -> bool:
    try:
        return build in page(host, "/part-0.php", 8080)[1]
    except ConnectionRefusedError:  # it is being started
        return False


def test_a_hook_has_a_service_restarted_in_the_new_build(host: Host, deploys: Deploys) -> None:
    """A process that lives in its build is restarted by a path unit; where it does not start, the host goes back."""
    host.machine.write("/etc/systemd/system/app.service", PYTHON_APP)
    host.machine.run("systemctl", "daemon-reload")
    host.machine.run("systemctl", "enable", "--now", "hotcold-restart@app.path", "app.service")
    probe = '\n[probe]\nurl = "http://127.0.0.1:8080/part-0.php"\n'
    reconfigure(host, f'{probe}\n[hooks.after_swap]\nargv = ["{ASK}", "restart", "app"]\n')
    build = deploys.make()
    assert serves(host, build)

    # A build on which the service does not start: systemd says so, the hook too.
    host.drop_in("app.service", "only", f"[Service]\nExecStartPre=/bin/grep -q {build} part-0.php\n")
    deploys.order()
    status = host.until_state("rolled_back")
    assert "journalctl -u hotcold-restart@app" in status["problem"]["message"]
    wait_until(lambda: serves(host, build), "the build before serves again")
    host.machine.run("systemctl", "disable", "--now", "hotcold-restart@app.path", "app.service")


@pytest.mark.skipif(not IS_FULL, reason="waits for a service to crash three times: `make faults` has it")
def test_a_unit_that_crashes_again_and_again_fails_the_proof_at_once(host: Host, deploys: Deploys) -> None:
    """systemd starts it each time, so that it is active in between; the agent may ask about it inside its sandbox."""
    always = "Restart=always\nRestartSec=0.1\n\n[Unit]\nStartLimitIntervalSec=0\n"
    host.machine.write("/etc/systemd/system/app.service", PYTHON_APP + always)
    host.machine.run("systemctl", "daemon-reload")
    host.machine.run("systemctl", "enable", "--now", "hotcold-restart@app.path", "app.service")
    probe = '\n[probe]\nunit = "app.service"\nsuccesses = 1000\ninterval_s = 0.2\ndeadline_s = 120\n'
    reconfigure(host, f'{probe}\n[hooks.after_swap]\nargv = ["{ASK}", "restart", "app"]\n'.replace("1000", "2"))
    build = deploys.make()
    reconfigure(host, f'{probe}\n[hooks.after_swap]\nargv = ["{ASK}", "restart", "app"]\n')
    crash = f"/bin/sh -c 'grep -q {build} part-0.php || exit 1; exec /usr/bin/python3 -m http.server 8080'"
    host.drop_in("app.service", "only", f"[Service]\nExecStart=\nExecStart={crash}\n")
    deploys.order()
    status = host.until_state("rolled_back")
    assert re.search(r"unit app\.service has restarted by itself \d+ times: a crash loop", status["problem"]["message"])
    wait_until(lambda: serves(host, build), "the build before serves again")
    host.machine.run("systemctl", "disable", "--now", "hotcold-restart@app.path", "app.service")


def test_a_hook_that_nobody_answers_says_what_to_enable(host: Host, deploys: Deploys) -> None:
    reconfigure(host, f'{PROBE}\n[hooks.after_swap]\nargv = ["{ASK}", "reload", "nobody"]\ntimeout_s = 5\n')
    deploys.order()
    status = host.until_state("rolled_back")
    assert "systemctl enable --now hotcold-reload@nobody.path" in status["problem"]["message"]
    assert not (host.machine.root / "run/hotcold/reload-nobody").exists()
