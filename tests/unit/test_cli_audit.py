"""The commands about the audit: what they find, write, count and archive."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from checkpoint.audit import Record, read_record
from checkpoint.insisting import Insistence
from checkpoint.writing import Writer
from fleet import Build, encode
from fleet.keys import audit_prefix, build_key
from hotcold.main import cli
from tests.commander_world import World, build, world
from tests.rollout_world import no_pause

Run = Callable[..., Result]
HEADS = ["deploys", "a day", "finished", "aborted", "rolled back", "rate"]
HEADS += ["lead time", "duration", "to detect", "to roll back"]
BEGAN = datetime.now(UTC).replace(hour=10, minute=0, second=0, microsecond=0) - timedelta(days=40)


def told(what: str, message: str, day: float, *, step: int | None = None, rollout: int = 1, by: str = "x@e") -> Record:
    at = BEGAN + timedelta(days=day)
    via = "engine" if by == "x@e" else "cli"
    return Record(
        v=1, number=0, at=at, by=by, via=via, what=what, message=message, rollout=rollout, step=step, phase="baking"
    )


RECORDS = [
    told("started", "rollout 1 of b1 starts: canary -> prod", 0, by="anna@desk"),
    told("ordered", "canary to 100 % is ordered: 1 hosts", 0, step=0),
    told("ordered", "prod to 100 % is ordered: 9 hosts", 0.1, step=1),
    told("arrived", "prod to 100 %: 9 hosts run b1", 0.2, step=1),
    told("finished", "prod to 100 %: passed; rollout 1 of b1 is finished", 0.25, step=1),
    told("started", "rollout 2 of b2 starts: canary -> prod", 30, rollout=2, by="bob@desk"),
    told("ordered", "canary to 100 % is ordered: 1 hosts", 30, step=0, rollout=2),
    told("rolled_back", "b2 is rolled back in canary: bad", 30.5, step=0, rollout=2),
]


@pytest.fixture
def store() -> Iterator[World]:
    with world() as fresh:

        async def fill() -> None:
            assert await Writer(fresh.store, "shop", Insistence(no_pause)).write([], RECORDS)
            cut = Build(
                v=1,
                app="shop",
                build=build("b1", "1"),
                manifest="http://127.0.0.1:1/b1.json",
                revision="0" * 40,
                branch="release",
                tag="b1",
                by="anna",
                at=(BEGAN - timedelta(hours=1)).isoformat(),
            )
            await fresh.store.put(build_key("shop", "b1"), encode(cut))

        fresh.do(fill())
        yield fresh


@pytest.fixture
def run(store: World) -> Run:
    def call(*words: object, exits: int = 0) -> Result:
        result = CliRunner().invoke(cli, ["audit", *map(str, words), "--app", "shop", "--consul", store.address])
        assert result.exit_code == exits, result.output
        assert "Traceback" not in result.output
        return result

    return call


def shown(run: Run, *words: object) -> list[int]:
    return [int(line.split()[0]) for line in run("show", *words).stdout.splitlines()]


def test_records_are_found_by_who_what_tier_build_rollout_and_time(run: Run) -> None:
    assert shown(run, "--last", 3) == [6, 7, 8]
    assert shown(run, "--by", "bob") == [6]
    assert shown(run, "--what", "finished") == [5]
    assert shown(run, "--tier", "canary") == [1, 2, 6, 7, 8]
    assert shown(run, "--tier", "prod", "--rollout", 1, "--last", 2) == [4, 5]
    assert shown(run, "--build", "b2") == [6, 7, 8]
    assert shown(run, "--since", "20d") == [6, 7, 8]
    day = (BEGAN + timedelta(days=1)).date()
    assert shown(run, "--until", day) == [1, 2, 3, 4, 5]
    assert shown(run, "--since", day.isoformat() + "T00:00+00:00", "--tier", "prod") == [6]
    assert "no record of shop is like that" in run("show", "--build", "b", exits=1).output
    assert "is no time" in run("show", "--since", "yesterday", exits=2).output


def test_an_export_is_all_as_it_lies_there_or_what_is_wanted(run: Run, store: World) -> None:
    entries = store.do(store.store.read_prefix(audit_prefix("shop")))
    assert run("export").stdout_bytes == b"".join(entry.value + b"\n" for entry in entries)
    some = [
        json.loads(line)["number"] for line in run("export", "--build", "b2", "--tier", "canary").stdout.splitlines()
    ]
    assert some == [6, 7, 8]
    rows = list(csv.DictReader(io.StringIO(run("export", "--format", "csv", "--rollout", 2).stdout, newline="")))
    assert [row["number"] for row in rows] == ["6", "7", "8"]
    assert [row["hash"] for row in rows] == [read_record(entry.value).hash for entry in entries[5:]]


def test_figures_say_what_they_are_of(run: Run) -> None:
    found = json.loads(run("stats", "--json").stdout)
    assert (found["first_record"], found["covered"], found["cut_off"], found["without_cut"]) == (1, [1, 2], 0, 0)
    overall = found["overall"]
    assert (overall["deploys"], overall["finished"], overall["rolled_back"], overall["rollback_rate"]) == (2, 1, 1, 0.5)
    assert overall["lead"] == {"count": 1, "median_s": 0.2 * 86400 + 3600, "p90_s": 0.2 * 86400 + 3600}
    assert overall["detect"] == {"count": 1, "median_s": 43200.0, "p90_s": 43200.0}
    assert overall["roll_back"]["median_s"] == 0.0
    assert len(found["weeks"]) in {6, 7}
    assert sum(week["deploys"] for week in found["weeks"]) == 2
    assert all(week["lead"] is None for week in found["weeks"] if not week["deploys"])
    lines = run("stats").stdout.splitlines()
    assert re.split(r"  +", lines[0].strip()) == HEADS
    assert lines[1].split()[:1] == ["overall"]
    assert "50 %" in lines[1]
    assert "5.8 h / 5.8 h (1)" in lines[1]
    assert lines[-1].startswith("rollouts 1 to 2, since ")


def test_archiving_leaves_what_can_be_proved(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    newest = run("verify").stdout.split()[-1]
    assert "at least" in run("archive", "--help").stdout
    assert "nothing to do" in run("archive", "--to", file, "--before", "90d").stdout
    said = run("archive", "--to", file, "--before", "20d", "--reason", "quarter").stdout
    assert f"{file}: records 1 to 5; the last one has the hash " in said
    assert "5 records removed from Consul" in said
    hash_of_5 = said.split("hash ")[1].split()[0]
    assert "0 records removed" in run("archive", "--to", file, "--before", "20d").stdout
    assert "4 records behind the 5 that were archived, whole" in run("verify").stdout
    assert "9 records, whole" in run("verify", "--archive", file).stdout
    assert run("verify", "--contains", newest).exit_code == 0
    assert "among the 5 that were archived" in run("verify", "--contains", hash_of_5, exits=1).output
    assert run("verify", "--contains", hash_of_5, "--archive", file).exit_code == 0
    assert shown(run) == [6, 7, 8, 9]
    found = json.loads(run("stats", "--json").stdout)
    assert (found["first_record"], found["covered"], found["overall"]["deploys"]) == (6, [2, 2], 1)
    assert found["overall"]["lead"] is None
    assert "records before 6 are archived" in run("stats").stdout
    file.write_bytes(file.read_bytes().replace(b"anna@desk", b"eve@desk_"))
    assert "record 1 was altered" in run("verify", "--archive", file, exits=1).output


def test_young_records_stay(run: Run, tmp_path: Path) -> None:
    refused = run("archive", "--to", tmp_path / "a", "--before", "2h", exits=2).output
    assert "records of less than 1 day stay in Consul" in refused
    assert list(tmp_path.iterdir()) == []


def test_nothing_was_ever_done() -> None:
    with world() as empty:
        for words in (["show"], ["export"], ["stats"], ["verify"]):
            result = CliRunner().invoke(cli, ["audit", *words, "--app", "shop", "--consul", empty.address])
            assert result.exit_code == 1
            assert "nothing was ever done to shop" in result.output
