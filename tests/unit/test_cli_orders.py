"""The commands of a commander, against a real store: deploy, rollback, fleet."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from artifact import Manifest, decode_manifest, encode_manifest
from artifact.secretkey import SecretKey
from artifact.signing import signature_by
from fleet.keys import tier_key
from hotcold.main import cli
from tests.commander_world import World, problem, report, world, write_reports

KEY = tier_key("shop", "prod")
Run = Callable[..., Result]


@pytest.fixture
def store() -> Iterator[World]:
    with world() as fresh:
        yield fresh


@pytest.fixture
def run(store: World, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in ("CONSUL_HTTP_TOKEN", "CONSUL_HTTP_TOKEN_FILE", "CONSUL_HTTP_SSL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CONSUL_HTTP_ADDR", store.address)
    return lambda *arguments: CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[[str], Path]:
    def write(build_id: str, app: str = "shop", url: str | None = None) -> Path:
        document = Manifest(
            v=1,
            app=app,
            id=build_id,
            urls=(url or f"shop-{build_id}.tar",),
            digest="sha256:" + "0" * 64,
            size=10,
            format="tar",
            created="2026-11-23T10:00:00+00:00",
        )
        path = tmp_path / f"{app}-{build_id}.json"
        path.write_bytes(encode_manifest(document))
        return path

    return write


def prod(*rest: object) -> list[object]:
    return ["--app", "shop", "--tier", "prod", *rest]


def test_deploy_says_what_it_wrote(run: Run, store: World, manifest: Callable[[str], Path]) -> None:
    """Serial, old and new build, how many hosts, what happens to the rest, and what to type next."""
    assert run("deploy", manifest("b1"), *prod()).exit_code == 0
    store.do(write_reports(store.store, [report(f"web-{number}", serial=1, hot="b1") for number in range(4)]))
    result = run("deploy", manifest("b2"), *prod("--percent", 30, "--max-unavailable", "34%", "--reason", "try"))
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "order 2 for shop/prod: b1 (100 %) -> b2 (30 %)",
        "  2 of 4 hosts shall run b2",
        "  2 hosts shall run b1",
        "  at most 1 host out of service at once",
        "watch it with: hotcold fleet --app shop --tier prod --watch",
    ]
    order = store.order(KEY)
    assert order is not None
    assert (order.serial, order.percent, order.reason, order.max_unavailable) == (2, 30.0, "try", 1)
    assert "@" in order.by


def test_a_local_artifact_is_pointed_out(run: Run, manifest: Callable[..., Path], store: World) -> None:
    """A path becomes a file:// address, which only some hosts can see; an address of a server is no news."""
    result = run("deploy", manifest("b1"), *prod())
    assert "only hosts that see this path can fetch it" in result.stderr
    order = store.order(KEY)
    assert order is not None
    assert order.build.urls[0] == manifest("b1").with_suffix(".tar").as_uri()
    served = run("deploy", manifest("b2", url="https://builds.example.com/b2.tar"), *prod())
    assert "only hosts" not in served.stderr


KEY_PAIR = SecretKey(b"\x01key-one", bytes(range(32)))
REFUSED = "hosts with `trusted_keys` will refuse it. Sign the manifest with `hotcold sign`"


def signed(path: Path) -> Path:
    described = decode_manifest(path.read_bytes())
    path.write_bytes(encode_manifest(msgspec.structs.replace(described, signature=signature_by(KEY_PAIR, described))))
    return path


def test_a_build_without_a_good_signature_is_pointed_out(run: Run, manifest: Callable[..., Path], store: World) -> None:
    """As far as that can be seen without the hosts' keys; it is ordered all the same, for hosts that trust none."""
    url = "https://builds.example.com/x.tar"
    assert run("deploy", signed(manifest("b1", url=url)), *prod()).stderr == ""
    plain = run("deploy", manifest("b2", url=url), *prod())
    assert plain.stderr == f"warning: build b2 is not signed; {REFUSED}\n"
    borrowed = manifest("b3", url=url)
    other = decode_manifest(signed(manifest("b1", url=url)).read_bytes()).signature
    borrowed.write_bytes(
        encode_manifest(msgspec.structs.replace(decode_manifest(borrowed.read_bytes()), signature=other))
    )
    assert run("deploy", borrowed, *prod()).stderr == (
        f"warning: the signature of build b3 was made for something else: 'hotcold app:shop build:b1'; {REFUSED}\n"
    )
    borrowed.write_bytes(
        encode_manifest(msgspec.structs.replace(decode_manifest(borrowed.read_bytes()), signature="junk"))
    )
    assert "warning: the signature of build b3 is no minisign signature" in run("deploy", borrowed, *prod()).stderr
    order = store.order(KEY)
    assert order is not None
    assert order.serial == 4


def test_the_build_for_the_rest_is_looked_at_too(run: Run, manifest: Callable[..., Path]) -> None:
    """Once nobody runs it, it does not matter."""
    url = "https://builds.example.com/x.tar"
    run("deploy", manifest("b1", url=url), *prod())
    part = run("deploy", signed(manifest("b2", url=url)), *prod("--percent", 10))
    assert part.stderr == f"warning: build b1 is not signed; {REFUSED}\n"
    assert run("deploy", signed(manifest("b2", url=url)), *prod()).stderr == ""


def test_a_rollback_carries_the_signature_and_points_out_where_there_is_none(
    run: Run, store: World, manifest: Callable[..., Path]
) -> None:
    """The order's reference is that of the first deploy, unchanged."""
    url = "https://builds.example.com/x.tar"
    run("deploy", signed(manifest("b1", url=url)), *prod())
    first = store.order(KEY)
    run("deploy", signed(manifest("b2", url=url)), *prod())
    result = run("rollback", *prod("--reason", "back"))
    order = store.order(KEY)
    assert first is not None
    assert order is not None
    assert (order.build, result.stderr) == (first.build, "")
    assert order.build.signature is not None

    run("deploy", manifest("b3", url=url), *prod())
    run("deploy", signed(manifest("b4", url=url)), *prod())
    assert f"warning: build b3 is not signed; {REFUSED}\n" in run("rollback", *prod("--reason", "back")).stderr


WRONG_DEPLOYS = [
    (["--app", "other", "--tier", "prod"], "is a build of 'shop', not of 'other'"),
    (["--app", "shop", "--tier", "../x"], "tier '../x' cannot be used"),
    ([*prod("--percent", 0)], "percent 0 is out of range"),
    ([*prod("--percent", 101)], "percent 101 is out of range"),
    ([*prod("--not-after", "yesterday")], "'yesterday' is no time"),
    ([*prod("--not-after", "2020-01-01T00:00Z")], "has passed"),
    ([*prod("--max-unavailable", -1)], "must be a count from 0"),
    ([*prod("--wait", "soon")], "not a valid float"),
    ([*prod("--consul", "ftp://x")], "address"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_DEPLOYS)
def test_a_wrong_deploy_writes_nothing(
    run: Run, store: World, manifest: Callable[[str], Path], arguments: list[object], message: str
) -> None:
    """One clear message, exit code 2, no traceback, and the key as it was."""
    result = run("deploy", manifest("b1"), *arguments)
    assert (result.exit_code, store.order(KEY)) == (2, None)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_deadline_is_written_in_utc(run: Run, store: World, manifest: Callable[[str], Path]) -> None:
    """Whatever zone it was given in."""
    assert run("deploy", manifest("b1"), *prod("--not-after", "2999-01-01T02:00+02:00")).exit_code == 0
    order = store.order(KEY)
    assert order is not None
    assert order.not_after == "2999-01-01T00:00:00+00:00"


def test_garbage_in_the_key_is_replaced_only_on_demand(run: Run, store: World, manifest: Callable[[str], Path]) -> None:
    """The message names the key, what is wrong, and the way out."""
    store.do(store.store.put(KEY, b"{"))
    result = run("deploy", manifest("b1"), *prod())
    assert result.exit_code == 1
    assert KEY in result.stderr
    assert "--replace-malformed" in result.stderr
    assert run("deploy", manifest("b1"), *prod("--replace-malformed")).exit_code == 0
    assert store.order(KEY) is not None


def test_rollback_goes_back_once(run: Run, store: World, manifest: Callable[[str], Path]) -> None:
    """The first goes to the build before; the second says that there is nothing, and changes nothing."""
    run("deploy", manifest("b1"), *prod())
    run("deploy", manifest("b2"), *prod())
    first = run("rollback", *prod("--reason", "errors"))
    assert first.exit_code == 0
    assert "order 3 for shop/prod: b2 (100 %) -> b1 (100 %)" in first.stdout
    written = store.order(KEY)
    second = run("rollback", *prod("--reason", "errors"))
    assert second.exit_code == 1
    assert "nothing to go back to" in second.stderr
    assert store.order(KEY) == written


def test_rollback_wants_a_reason(run: Run) -> None:
    """Whoever comes after will ask."""
    result = run("rollback", *prod())
    assert result.exit_code == 2
    assert "--reason" in result.stderr


def test_waiting_ends_well(run: Run, store: World, manifest: Callable[[str], Path]) -> None:
    """With --wait, success is that every host runs what is wanted."""
    store.do(write_reports(store.store, [report("web-1", serial=1, highest=0, hot="b1")]))
    result = run("deploy", manifest("b1"), *prod("--wait", 20))
    assert result.exit_code == 0
    assert "web-1: done" in result.stdout
    assert "order 1 is carried out on 1 host, after" in result.stdout


def test_waiting_names_the_hosts_that_failed(run: Run, store: World, manifest: Callable[[str], Path]) -> None:
    """With --wait, a host that rolled back is an error that names it and its reason."""
    bad = problem("proof_failed", "answered 500")
    reports = [
        report("web-1", serial=1, highest=0, hot="b1"),
        report("web-2", serial=1, highest=0, state="rolled_back", problem=bad),
    ]
    store.do(write_reports(store.store, reports))
    result = run("deploy", manifest("b1"), *prod("--wait", 20))
    assert result.exit_code == 1
    assert "1 of 2 hosts did not take it:\n  web-2: rolled back: answered 500" in result.stderr


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        ([], "no host of shop/prod has reported within"),
        ([report("web-1", hot="b0")], "1 of 1 host not there after"),
        ([report("web-1", serial=5, highest=0)], "superseded by order 5"),
    ],
)
def test_waiting_in_vain_fails(
    run: Run, store: World, manifest: Callable[[str], Path], reports: list[object], message: str
) -> None:
    """Silence, delay and another order are told apart."""
    store.do(write_reports(store.store, reports))  # type: ignore[arg-type]
    result = run("deploy", manifest("b1"), *prod("--wait", 0.3))
    assert result.exit_code == 1
    assert message in result.stderr


def test_who_stops_waiting_learns_that_the_order_stands(store: World, manifest: Callable[[str], Path]) -> None:
    """Ctrl-C ends the wait, not the deploy."""
    store.do(write_reports(store.store, [report("web-1", hot="b0", state="fetching")]))
    words = [sys.executable, "-m", "hotcold", "deploy", str(manifest("b1")), "--consul", store.address]
    words += [str(word) for word in prod("--wait")]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=environment, **pipes) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any("web-1: " in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        assert "no longer waiting; order 1 stands" in process.stderr.read()
        assert process.wait(timeout=20) == 1
    assert store.order(KEY) is not None


@pytest.mark.parametrize("state", ["steady", "rolled_back", "[/] of a later version"])
def test_waiting_draws_a_bar_on_a_terminal(
    run: Run, store: World, manifest: Callable[[str], Path], state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while no host has reported; the outcome is said below it as elsewhere."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    said = report("web-1", serial=1, highest=0, hot="b1", state=state)
    later = threading.Timer(0.3, lambda: store.do(write_reports(store.store, [said])))
    later.start()
    result = run("deploy", manifest("b1"), *prod("--wait", 20 if state in {"steady", "rolled_back"} else 1))
    later.join()
    assert "waiting for reports" in result.stdout
    assert result.exit_code == (0 if state == "steady" else 1)
    assert ("carried out on 1 host" in result.stdout) == (state == "steady")


@pytest.fixture
def fleet_of_three(run: Run, store: World, manifest: Callable[[str], Path]) -> World:
    run("deploy", manifest("b1"), *prod("--reason", "first"))
    store.do(
        write_reports(
            store.store,
            [
                report("web-1", serial=1, hot="b1", since="2026-11-23T10:00:00+00:00"),
                report("web-2", serial=1, state="fetching"),
                report("web-3", serial=1, state="rolled_back", problem=problem("proof_failed", "answered 500")),
            ],
        )
    )
    return store


@pytest.mark.usefixtures("fleet_of_three")
def test_fleet_is_plain_text_in_a_pipe(run: Run) -> None:
    """No escape codes, no trailing blanks; agents that are not registered count as silent."""
    result = run("fleet", "--app", "shop")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    lines = result.stdout.splitlines()
    assert lines == [line.rstrip() for line in lines]
    assert lines[0].startswith("shop / prod  b1 on all hosts  order 1, by ")
    assert lines[0].endswith(": first")
    assert "0 of 3 hosts as wanted  3 silent" in lines[1]
    assert re.search(r"web-3 +\? rolled back .*no agent is registered; answered 500", result.stdout)


@pytest.mark.usefixtures("fleet_of_three")
def test_fleet_is_coloured_on_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bar of the hosts' standings, every line within the window."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    shown = run("fleet", "--app", "shop").stdout
    assert "\x1b[" in shown
    assert "━" in shown
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in shown.splitlines()) <= 100


@pytest.mark.usefixtures("fleet_of_three")
def test_fleet_as_json_is_one_object(run: Run) -> None:
    """Exactly one, with counts and every host."""
    result = run("fleet", "--app", "shop", "--tier", "prod", "--json")
    assert result.exit_code == 0
    (tier,) = json.loads(result.stdout)["tiers"]
    assert tier["order"]["build"]["id"] == "b1"
    assert tier["counts"]["silent"] == 3
    assert [host["host"] for host in tier["hosts"]] == ["web-1", "web-2", "web-3"]


def test_fleet_of_an_unknown_app_is_an_error(run: Run, store: World) -> None:
    """A typo must not look like an empty fleet; as JSON it is an empty list."""
    result = run("fleet", "--app", "shopp")
    assert result.exit_code == 1
    assert f"nothing is known of shopp at {store.address}" in result.stderr
    assert json.loads(run("fleet", "--app", "shopp", "--json").stdout) == {"app": "shopp", "tiers": []}


def test_json_and_watch_exclude_each_other(run: Run) -> None:
    """One object cannot be kept current."""
    assert run("fleet", "--app", "shop", "--json", "--watch").exit_code == 2


def test_an_unreachable_store_is_one_message(run: Run) -> None:
    """It says where Consul was looked for and what to check."""
    result = run("fleet", "--app", "shop", "--consul", "127.0.0.1:9")
    assert result.exit_code == 1
    assert "127.0.0.1:9" in result.stderr
    assert "Traceback" not in result.stderr


def test_large_tiers_show_what_needs_an_eye(run: Run, store: World, manifest: Callable[[str], Path]) -> None:
    """Of 60 hosts the silent ones fill the list and the rest is counted; --all lists every one."""
    run("deploy", manifest("b1"), *prod())
    store.do(write_reports(store.store, [report(f"web-{number:02}", serial=1, hot="b1") for number in range(60)]))
    shown = run("fleet", "--app", "shop").stdout
    assert "10 more hosts not shown; --all lists every one" in shown
    assert shown.count("web-") == 50
    assert run("fleet", "--app", "shop", "--all").stdout.count("web-") == 60


def test_watching_the_fleet_tells_changes_until_interrupted(
    store: World, run: Run, manifest: Callable[[str], Path]
) -> None:
    """In a pipe: a line per host and change; Ctrl-C ends it well."""
    run("deploy", manifest("b1"), *prod())
    words = [sys.executable, "-m", "hotcold", "fleet", "--app", "shop", "--watch", "--consul", store.address]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for state in ("fetching", "steady"):
            store.do(write_reports(store.store, [report("web-1", serial=1, hot="b1", state=state)]))
            # A line may come twice: once before, and once after health is known.
            assert any(f"prod/web-1: {state}, hot b1, wanted b1" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(timeout=20) == 0
