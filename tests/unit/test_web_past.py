"""The pages about the past: filters, exports, the chain behind an archive, and figures."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from checkpoint.archiving import Archivist
from checkpoint.insisting import Insistence
from checkpoint.rollout import events as ev
from fleet import Build, encode
from fleet.keys import build_key
from tests.commander_world import build
from tests.rollout_world import MONDAY, no_pause
from tests.web_world import Client, WebWorld, web_world


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[WebWorld]:
    """A rollout of `b2` that finished, a week later one of `b20` that was rolled back after its first step."""
    async with web_world(tmp_path) as made:
        world = made.world
        cut = Build(
            v=1,
            app="shop",
            build=build("b2", "2"),
            manifest="http://127.0.0.1:1/b2.json",
            revision="0" * 40,
            branch="release",
            tag="b2",
            by="anna",
            at=(MONDAY - timedelta(hours=3)).isoformat(),
        )
        await world.store.put(build_key("shop", "b2"), encode(cut))
        await world.start("b2")
        await world.until_ended()
        world.time.pass_(timedelta(days=7).total_seconds())
        await world.start("b20")
        await world.until(lambda now: now.rollout.phase_name == "baking")
        await world.act(ev.RollbackRequested(), "bob@desk", reason="=cmd")
        await made.shown()
        yield made


async def numbers(client: Client, query: str) -> list[int]:
    text = (await client.get(f"/history{query}")).text
    return [int(number) for number in re.findall(r'<td class="num">(\d+)</td>', text)]


async def test_the_audit_is_filtered_and_exported_by_the_same_words(web: WebWorld) -> None:
    client = await web.as_("read")
    records = [json.loads(each) for each in await web.audit()]
    for query, wanted in {
        "?who=BOB": lambda record: record["by"] == "bob@desk",
        "?build=b20": lambda record: record["rollout"] == 2,
        "?build=b2&tier=canary&who=checkpoint": lambda record: (
            record["rollout"] == 1 and "canary" in record["message"] and record["via"] == "engine"
        ),
        "?from=2026-11-25": lambda record: record["rollout"] == 2,
        "?from=2026-11-23&to=2026-11-23&what=ordered": lambda record: (
            record["rollout"] == 1 and ("ordered" in record["what"] or "ordered" in record["message"])
        ),
        "?what=no such thing": lambda _: False,
    }.items():
        expected = [record["number"] for record in records if wanted(record)]
        assert await numbers(client, query) == expected[::-1], query
        lines = (await client.get(f"/history/export{query}")).text.splitlines()
        assert [json.loads(line)["number"] for line in lines] == expected, query
        rows = csv.DictReader(io.StringIO((await client.get(f"/history/export{query}&format=csv")).text, newline=""))
        assert [int(row["number"]) for row in rows] == expected, query


async def test_an_export_as_csv_is_a_file_without_formulas(web: WebWorld) -> None:
    client = await web.as_("read")
    answer = await client.get("/history/export?format=csv")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"].endswith('.csv"')
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert len(rows) == len(await web.audit())
    assert rows[-1]["reason"] == "'=cmd"


@pytest.mark.parametrize("path", ["/history?from=soon", "/history/export?to=31.12.2026", "/history/export?format=xls"])
async def test_what_is_no_date_or_format_is_refused(web: WebWorld, path: str) -> None:
    client = await web.as_("read")
    assert (await client.get(path)).status == 422


async def test_filters_are_kept_and_never_markup(web: WebWorld) -> None:
    client = await web.as_("read")
    page = (await client.get("/history?who=%22%3E%3Cscript%3E&tier=prod")).text
    assert "<script>" not in page.replace('<script src="', "")
    assert 'value="prod"' in page
    assert "/history/export?who=%22%3E%3Cscript%3E&amp;tier=prod" in page


async def test_figures_are_shown_with_what_they_are_of(web: WebWorld) -> None:
    client = await web.as_("read")
    page = (await client.get("/history/statistics")).text
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "Rollouts 1 to 2, since" in text
    assert " All 2 0.3 1 0 1 50 % " in text
    assert "2026-11-30 1 " in text
    assert re.search(r"All 2 0.3 1 0 1 50 % 3\.\d h / 3\.\d h of 1", text), text
    # Only a person saw that the second one was bad: nobody knows when, and that is a dash.
    assert re.search(r"All .*? of 1 7 min / 7 min of 1 — — 2026-11-30", text), text


async def test_behind_an_archive_the_rest_is_shown_and_proved(web: WebWorld, tmp_path: Path) -> None:
    world = web.world
    archivist = Archivist(world.store, "shop", Insistence(no_pause), no_pause)
    done = await archivist.archive(tmp_path / "old.jsonl", world.time.wall - timedelta(days=2), world.origin())
    assert done is not None
    client = await web.as_("read")
    assert f"behind the {done.last} that were archived" in (await client.get("/history/verify")).text
    assert (await numbers(client, ""))[-1] == done.last + 1
    page = (await client.get("/history/statistics")).text
    assert f"the records before {done.last + 1} are archived" in page
    assert "Rollouts 2 to 2" in page


async def test_without_a_past_there_is_a_word_about_it(tmp_path: Path) -> None:
    async with web_world(tmp_path, sizes={}) as empty:
        client = await empty.as_("read")
        assert "figures come with the first rollout" in (await client.get("/history/statistics")).text
        assert (await client.get("/history/export?format=csv")).text.startswith("v,number,at,by,via,what")
