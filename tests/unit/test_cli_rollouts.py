"""The commands about rollouts: what they say, what they refuse, and what they write."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from artifact import decode_manifest
from artifact.locate import reference
from artifact.pack import pack
from checkpoint.audit import read_record
from checkpoint.rollout.summary import Summary
from fleet import Build, Commit, ConsulStore, Order, encode
from fleet.keys import audit_key, audit_prefix, build_key, rollout_state_key, tier_key
from hotcold.main import cli
from tests.commander_world import World, build, world
from tests.rollout_world import SIZES, Fleet

Run = Callable[..., Result]
PIPELINE = 'app = "shop"\n[[tiers]]\nname = "staging"\n[[tiers]]\nname = "prod"\nsteps = [10, 100]\n'


@pytest.fixture
def store() -> Iterator[World]:
    """A store with hosts that run `b1`."""
    with world() as fresh:

        async def fill(connected: ConsulStore) -> None:
            for tier in SIZES:
                order = Order(v=1, app="shop", tier=tier, serial=1, build=build("b1", "1"))
                await connected.put(tier_key("shop", tier), encode(order))
            await Fleet(connected).start()

        fresh.do(fill(fresh.store))
        yield fresh


@pytest.fixture
def run(store: World) -> Run:
    def call(*words: object, exits: int = 0) -> Result:
        result = CliRunner().invoke(cli, [*map(str, words), "--consul", store.address])
        assert result.exit_code == exits, result.output
        assert "Traceback" not in result.output
        return result

    return call


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "page").write_text("b2")
    facts: dict[str, Any] = {"created": "2026-11-23T00:00:00+00:00", "on_progress": lambda _: None}
    pack(tree, app="shop", build_id="b2", out=tmp_path, **facts)
    return tmp_path / "shop-b2.json"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.toml"
    path.write_text(PIPELINE)
    return path


@pytest.fixture
def started(run: Run, manifest: Path, config: Path) -> Run:
    run("rollout", "start", manifest, "--app", "shop", "--config", config, "--reason", "checkout fix")
    return run


APP = ("--app", "shop", "--reason", "because")


def test_a_plan_shows_hosts_and_times_and_writes_nothing(run: Run, manifest: Path, config: Path, store: World) -> None:
    shown = run("rollout", "plan", manifest, "--app", "shop", "--config", config).stdout
    assert "prod: 20 hosts, now b1" in shown
    assert "prod to 10 %        2 hosts" in shown
    assert store.do(store.store.read_prefix("hotcold/shop/checkpoint/")) == ()


def test_a_plan_tells_commits_and_the_checklist(run: Run, manifest: Path, store: World, tmp_path: Path) -> None:
    """As the page does: what it brings, what is in its way and what to do, what is confirmed; a hotfix, its path."""
    config = tmp_path / "checkpoint.toml"
    asked = '[[checklist]]\nname = "support"\ntext = "Support knows"\n'
    config.write_text(f'hotfix_from = "prod"\n{PIPELINE}{asked}')
    plan = ("rollout", "plan", manifest, "--app", "shop", "--config", config)
    shown = run(*plan).stdout
    assert "commits: b2 was not recorded by a release" in shown
    assert "  ‖ waits: no engine leads, so no step is taken" in shown
    assert "  ! warns: it is the first rollout of shop" in shown
    assert "  --confirm support  Support knows" in shown
    assert "commander: By starting you take the command" in shown
    found = decode_manifest(manifest.read_bytes())
    commits = (Commit(sha="4" * 40, author="Carol", subject="Search: rank by stock"),)
    fix = Build(
        v=1,
        app="shop",
        build=reference(found, str(manifest)),
        manifest=manifest.as_uri(),
        revision="2" * 40,
        branch="release/b1",
        tag="b2",
        by="anna",
        at="2026-11-24T12:00:00+00:00",
        since="b1",
        commits=commits,
        commit_count=1,
        hotfix_of="b1",
    )
    store.do(store.store.put(build_key("shop", "b2"), encode(fix)))
    shown = run(*plan).stdout
    assert "brings 1 commit that b1 on prod has not:" not in shown  # b1 has no record
    assert "commits: b1, which runs there, was not recorded: shown is what came in since b1" in shown
    assert "  444444444444 Search: rank by stock (Carol)" in shown
    assert "it is a hotfix of b1: `--from-tier prod` takes the hotfix path" in shown
    assert "passes by staging: no verdict" in run(*plan, "--from-tier", "prod").stdout
    run("rollout", "lock", *APP)
    assert "  ✗ blocks: shop is locked by " in run(*plan).stdout
    run("rollout", "unlock", *APP)
    start = ("rollout", "start", manifest, "--config", config, *APP)
    refused = run(*start, exits=1).stderr
    assert "not confirmed, so nothing was started" in refused
    assert "support: Support knows" in refused
    assert "no confirmation 'data': support" in run(*start, "--confirm", "data", exits=1).stderr
    assert store.do(store.store.read("hotcold/shop/checkpoint/rollout")) is None
    assert "  ! warns: no metrics are configured" in run(*start, "--confirm", "support").stdout
    assert "confirmed: Support knows" in run("audit", "show", "--app", "shop").stdout


def test_a_saved_plan_runs_exactly(run: Run, manifest: Path, config: Path, tmp_path: Path) -> None:
    saved = tmp_path / "plan.json"
    first = run("rollout", "plan", manifest, "--app", "shop", "--config", config, "--save", saved).stdout
    started = run("rollout", "start", "--plan", saved, *APP).stdout
    step = next(line for line in first.splitlines() if "prod to 10 %" in line).split("  ")[-1]
    assert step in started
    assert "passes by" not in started  # the plan's own pipeline counts, not the built-in one
    run("rollout", "abort", *APP)
    assert (
        "plan of rollout 1 is stale: the next rollout is 2"
        in run("rollout", "start", "--plan", saved, *APP, exits=1).stderr
    )
    elsewhere = tmp_path / "other.toml"
    elsewhere.write_text(PIPELINE.replace("shop", "blog"))
    told = run("rollout", "start", "--plan", saved, "--config", elsewhere, *APP, exits=2).stderr
    assert "the configuration is for 'blog', not for 'shop'" in told
    saved.write_text("{")
    assert "is no plan" in run("rollout", "start", "--plan", saved, *APP, exits=2).stderr
    run("rollout", "start", *APP, exits=2)


def test_a_command_that_does_not_apply_says_so_and_exits_well(started: Run) -> None:
    assert "nothing to do: rollout 1 of b2 is ready; it is not paused" in started("rollout", "resume", *APP).stdout
    assert "rollout 1 of b2: paused: because" in started("rollout", "pause", *APP).stdout
    assert "nothing to do" in started("rollout", "pause", *APP).stdout
    assert "resumed" in started("rollout", "resume", *APP).stdout
    assert "it waits for no approval" in started("rollout", "approve", *APP).stdout
    assert "no step of it is under way" in started("rollout", "advance", *APP).stdout
    assert "no closing window" in started("rollout", "decide", "hold", *APP).stdout
    assert "there is nothing to override" in started("rollout", "override", "--end", *APP).stdout
    assert "windows, locks and slots do not count" in started("rollout", "override", "--for", "30m", *APP).stdout


def test_status_for_people_and_for_machines(started: Run) -> None:
    shown = started("rollout", "status", "--app", "shop").stdout
    assert "rollout 1 of b2 for shop, by " in shown
    assert "▸ staging to 100 %" in shown
    found = json.loads(started("rollout", "status", "--app", "shop", "--json").stdout)
    assert (found["phase"], found["step"], found["rollout"]) == ("ready", 0, 1)
    assert f"index: {found['index']}" in shown
    assert found["engine"] is None
    assert "engine: NONE, so no step is taken: hotcold checkpoint run --app shop" in shown
    assert [step["host_count"] for step in found["steps"]] == [2, 2, 20]
    refused = started("rollout", "pause", *APP, "--index", 1, exits=1)
    assert "the rollout changed since index 1" in refused.stderr
    started("rollout", "pause", *APP, "--index", found["index"])


def test_no_rollout_is_an_error_that_says_so(run: Run) -> None:
    assert "no rollout of shop was ever started" in run("rollout", "status", "--app", "shop", exits=1).stderr
    assert "no rollout of shop was ever started" in run("rollout", "pause", *APP, exits=1).stderr
    assert run("rollout", "status", "--app", "shop", "--json").stdout == "null\n"
    assert "nothing was ever done to shop" in run("audit", "show", "--app", "shop", exits=1).stderr


def test_unknown_hosts_are_not_set_aside(started: Run) -> None:
    assert "no host web-9 is known in tier staging" in started("rollout", "set-aside", "web-9", *APP, exits=1).stderr
    done = started("rollout", "set-aside", "prod-03", *APP, "--tier", "prod").stdout
    assert "prod/prod-03 is not waited for" in done
    assert "is not waited for" in started("rollout", "set-aside", "prod-03", *APP, "--tier", "prod").stdout
    assert "is waited for again" in started("rollout", "take-back", "prod-03", *APP, "--tier", "prod").stdout
    assert "prod-03 is not set aside" in started("rollout", "take-back", "prod-03", *APP, "--tier", "prod").stdout


def test_a_rollback_locks_and_denies_until_it_is_lifted(started: Run, manifest: Path, config: Path) -> None:
    deploy = ("deploy", manifest, "--app", "shop", "--tier", "prod")
    assert "b2 is rolled back, before any host had it" in started("rollout", "rollback", *APP).stdout
    assert "build b2 is denied by" in started(*deploy, exits=1).stderr
    started(*deploy, "--override", exits=2)  # without a reason
    start = ("rollout", "start", manifest, "--config", config, *APP)
    assert "b2 is denied" in started(*start, exits=1).stderr
    assert "shop is unlocked" in started("rollout", "unlock", *APP).stdout
    assert "nothing to do" in started("rollout", "unlock", *APP).stdout
    assert "b2 is denied" in started(*start, exits=1).stderr
    assert "order 2 for shop/prod" in started(*deploy, "--override", "--reason", "I know").stdout
    assert "build b2 is allowed again" in started("rollout", "unlock", "--build", "b2", *APP).stdout
    assert "is not denied" in started("rollout", "unlock", "--build", "b2", *APP).stdout
    started(*start)
    told = started("audit", "show", "--app", "shop").stdout
    assert "whatever is locked or denied (I know)" in told


def test_a_lock_stops_deploys_and_rollouts(run: Run, manifest: Path, config: Path) -> None:
    run("rollout", "lock", *APP)
    assert "nothing to do" in run("rollout", "lock", *APP).stdout
    refused = run("deploy", manifest, "--app", "shop", "--tier", "prod", exits=1).stderr
    assert "locked by" in refused
    assert "or deploy with --override" in refused
    start = ("rollout", "start", manifest, "--config", config, *APP)
    assert "or start with --override" in run(*start, exits=1).stderr
    run(*start, "--override", "1h")
    assert "windows, locks and slots do not count until" in run("audit", "show", "--app", "shop").stdout


def test_the_commander_is_shown_handed_over_and_taken(run: Run) -> None:
    at = ("--app", "shop")
    assert "nobody is the commander of shop" in run("commander", "show", *at, exits=1).stderr
    assert "is the commander until" in run("commander", "take", *at).stdout
    assert "bob is the commander until" in run("commander", "hand-over", "bob", *at, "--note", "canary is slow").stdout
    assert "canary is slow" in run("commander", "show", *at).stdout
    assert "bob is the commander until" in run("commander", "take", *at, exits=1).stderr
    assert "bob is the commander" in run("commander", "release", *at, exits=1).stderr
    run("commander", "take", *at, "--force")
    assert "released" in run("commander", "release", *at).stdout
    assert "nothing to do" in run("commander", "release", *at).stdout


def test_the_schedule_is_kept_by_time(run: Run) -> None:
    at = ("--app", "shop")
    assert "nothing is scheduled" in run("schedule", "list", *at).stdout
    late, early = "2999-11-24T16:00+00:00", "2999-11-24T14:00+01:00"
    run("schedule", "add", late, *at, "--commander", "bob", "--note", "with the new search")
    run("schedule", "add", early, *at, "--commander", "anna")
    assert "nothing to do" in run("schedule", "add", early, *at, "--commander", "anna").stdout
    lines = run("schedule", "list", *at).stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["anna", "bob:"]
    run("schedule", "remove", "2999-11-24T13:00+00:00", *at)  # the same moment
    assert "bob" in run("schedule", "list", *at).stdout
    assert "nothing to do" in run("schedule", "remove", early, *at).stdout


def test_the_audit_is_shown_exported_and_checked(started: Run, store: World) -> None:
    started("rollout", "pause", *APP)
    exported = started("audit", "export", "--app", "shop").stdout.splitlines()
    records = [read_record(line.encode()) for line in exported]
    assert [record.what for record in records] == ["started", "paused"]
    whole = started("audit", "verify", "--app", "shop", "--contains", records[0].hash[:12]).stdout
    assert f"2 records, whole; the latest is {records[1].hash}" in whole
    assert (
        "no record has the hash 1234"
        in started("audit", "verify", "--app", "shop", "--contains", "1234", exits=1).stderr
    )
    altered = msgspec.structs.replace(records[0], by="mallory")
    store.do(store.store.put(audit_key("shop", 1), msgspec.json.encode(altered)))
    assert "record 1 was altered" in started("audit", "verify", "--app", "shop", exits=1).stderr
    store.do(store.store.delete(audit_key("shop", 2)))
    assert len(store.do(store.store.read_prefix(audit_prefix("shop")))) == 1


def test_watching_tells_how_it_ends(started: Run) -> None:
    started("rollout", "abort", *APP)
    result = started("rollout", "watch", "--app", "shop", exits=1)
    assert "staging to 100 %: aborted" in result.stdout
    assert "rollout 1 is aborted" in result.stderr


def test_watching_gives_up_when_told(started: Run) -> None:
    assert "not there after 1s" in started("rollout", "watch", "--app", "shop", "--timeout", "1s", exits=1).stderr


def test_a_pipeline_is_checked_as_the_engine_reads_it(config: Path) -> None:
    shown = CliRunner().invoke(cli, ["checkpoint", "check-config", str(config)])
    assert shown.exit_code == 0
    assert "prod to 10 %: hosts have 15 min, bakes 5 min, then verdict" in shown.stdout
    config.write_text("tires = 1")
    wrong = CliRunner().invoke(cli, ["checkpoint", "check-config", str(config)])
    assert wrong.exit_code == 2
    assert "did you mean `tiers`" in wrong.stderr


def test_spans_are_read_strictly(started: Run) -> None:
    for wrong in ("30", "m", "1w", "-1h", "9999999h"):
        assert "is no span" in started("rollout", "override", "--for", wrong, *APP, exits=2).stderr


def test_everything_above_is_done_by_one_person(started: Run, store: World) -> None:
    """Each record names who, and that it came by the command."""
    started("rollout", "pause", *APP)

    async def records() -> list[Any]:
        return [read_record(entry.value) for entry in await store.store.read_prefix(audit_prefix("shop"))]

    found = store.do(records())
    assert {record.via for record in found} == {"cli"}
    assert all("@" in record.by for record in found)


def released(store: World, build_id: str, digit: str = "2") -> None:
    """Record a build, as `hotcold release` does."""
    record = Build(
        v=1,
        app="shop",
        build=build(build_id, digit),
        manifest=f"file:///srv/builds/shop-{build_id}.json",
        revision="0" * 40,
        branch="main",
        tag=build_id,
        by="anna",
        at="2026-11-23T12:00:00+00:00",
    )
    store.do(store.store.put(build_key("shop", build_id), encode(record)))


def test_a_released_build_is_named_by_its_id(run: Run, store: World, config: Path) -> None:
    """Its record says all that hosts need; a manifest that only others can reach is not asked for."""
    released(store, "2026-11-24.1")
    at = ("--app", "shop", "--config", config)
    assert "rollout 1 of 2026-11-24.1 for shop" in run("rollout", "plan", "2026-11-24.1", *at).stdout
    assert "started" in run("rollout", "start", "2026-11-24.1", *at, "--reason", "checkout fix").stdout
    deploy = run("deploy", "2026-11-24.1", "--app", "shop", "--tier", "prod")
    assert "order 2 for shop/prod" in deploy.stdout
    order = store.order(tier_key("shop", "prod"))
    assert order is not None
    assert order.build == build("2026-11-24.1", "2")


def test_a_build_that_was_never_released_names_those_near_it(run: Run, store: World, config: Path) -> None:
    words = (
        ("rollout", "plan", "2026-11-24.9", "--app", "shop", "--config", config),
        ("rollout", "start", "2026-11-24.9", *APP, "--config", config),
        ("deploy", "2026-11-24.9", "--app", "shop", "--tier", "prod"),
    )
    for each in words:
        said = run(*each, exits=1).stderr
        assert "no build of shop was released yet: `hotcold release cut --app shop` makes one" in said
        assert "or give the path or URL of its manifest, which ends in .json" in said
    for build_id in ("2026-11-24.1", "2026-11-24.2", "2026-10-01.1"):
        released(store, build_id)
    for each in words:
        said = run(*each, exits=1).stderr
        assert "build 2026-11-24.9 of shop was never released; near it are 2026-11-24.2, 2026-11-24.1" in said
        assert "`hotcold release list --app shop` shows all" in said
    assert "near it are 2026-11-24.2" in run("rollout", "plan", "nothing", *words[0][3:], exits=1).stderr
    store.do(store.store.put(build_key("shop", "2026-11-24.2"), b"{}"))
    said = run("rollout", "plan", "2026-11-24.2", *words[0][3:], exits=1).stderr
    assert "the record of build 2026-11-24.2 cannot be read" in said
    assert store.order(tier_key("shop", "prod")).build.id == "b1"  # type: ignore[union-attr]


@pytest.mark.parametrize("location", ["./2026-11-24.1", "2026-11-24.1.json", "/nonexistent/2026-11-24.1"])
def test_a_slash_or_the_ending_of_manifests_means_a_path(run: Run, store: World, location: str) -> None:
    released(store, "2026-11-24.1")
    said = run("deploy", location, "--app", "shop", "--tier", "prod", exits=1).stderr
    assert "No such file" in said
    assert "released" not in said


def test_rollouts_are_listed_with_how_they_ended(run: Run, store: World, config: Path) -> None:
    at = ("--app", "shop")
    assert "no rollout of shop was ever started" in run("rollout", "list", *at, exits=1).stderr
    assert json.loads(run("rollout", "list", *at, "--json").stdout) == {"app": "shop", "rollouts": []}
    for number in range(1, 4):
        released(store, f"2026-11-24.{number}", str(number + 1))
        start = ("rollout", "start", f"2026-11-24.{number}", *at, "--config", config, "--reason", f"change {number}")
        run(*start)
        if number < 3:
            run("rollout", "abort", *at, "--reason", "postponed")
    lines = run("rollout", "list", *at).stdout.splitlines()
    assert lines[0].split() == ["rollout", "build", "phase", "step", "by", "planned", "took"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["3", "2026-11-24.3", "ready"],
        ["2", "2026-11-24.2", "aborted"],
        ["1", "2026-11-24.1", "aborted"],
    ]
    assert "so far" in lines[1]
    assert re.search(r"change 2; aborted by \S+@\S+: postponed$", lines[2])
    found = json.loads(run("rollout", "list", *at, "--json").stdout)["rollouts"]
    assert [each["rollout"] for each in found] == [3, 2, 1]
    assert (found[0]["ended"], found[1]["because"], found[1]["step_count"]) == (None, "postponed", 3)
    assert found[1]["lasted_s"] >= 0
    store.do(store.store.put(rollout_state_key("shop", 2), b"{"))
    assert "2" in run("rollout", "list", *at).stdout.splitlines()[2]
    assert "cannot be read: hotcold/shop/checkpoint/rollouts/2/state" in run("rollout", "list", *at).stdout


def test_the_keys_of_the_list_are_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "rollouts.md").read_text()
    table = page.partition("<!-- keys of rollout list -->\n")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \| \S.* \|$", table, re.MULTILINE) == list(Summary.__struct_fields__)


def test_a_long_list_is_cut_and_says_so(run: Run, store: World, config: Path) -> None:
    released(store, "2026-11-24.1")
    at = ("--app", "shop")
    for _ in range(22):
        run("rollout", "start", "2026-11-24.1", *at, "--config", config, "--reason", "x")
        run("rollout", "abort", *at, "--reason", "x")
    lines = run("rollout", "list", *at).stdout.splitlines()
    assert len(lines) == 1 + 20 + 1
    assert lines[-1] == "there are older ones: --all shows them"
    assert len(run("rollout", "list", *at, "--all").stdout.splitlines()) == 1 + 22
