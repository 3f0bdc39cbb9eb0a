"""The page about releases says what the code does: tables are compared, its configuration parsed."""

from __future__ import annotations

import re

import pytest

from checkpoint import release
from checkpoint.release import parse_release
from checkpoint.release.settings import ReleaseTable
from fleet.keys import build_key
from tests.unit.test_docs import FORMATS, ROOT, defaults, tables

RELEASES = (ROOT / "docs" / "releases.md").read_text()


@pytest.mark.parametrize("name", ["ReleaseTable", "UploadTable"])
def test_field_tables_have_the_fields_and_defaults_of_their_types(name: str) -> None:
    """A row for each key, in any order, with its default."""
    [rows] = [rows for found, rows in tables(RELEASES, "fields") if found == f"checkpoint.release:{name}"]
    assert {row[0].strip("`"): row[1] for row in rows} == defaults(getattr(release, name))
    assert all(row[2] for row in rows)


def test_the_configuration_of_the_page_is_taken() -> None:
    """As the command reads it. (An agent's configuration is what blocks without a remark are.)"""
    [shown] = re.findall(r"^```toml release\n(.*?)^```", RELEASES, re.MULTILINE | re.DOTALL)
    table = parse_release(shown, "shop")
    assert table != ReleaseTable()
    assert len(table.uploads) == 2


def test_the_key_of_records_is_that_of_the_code() -> None:
    assert f"`{build_key('APP', 'ID')}`".replace("APP", "<app>").replace("ID", "<id>") in FORMATS


def test_what_commands_are_told_is_that_of_the_code() -> None:
    """The table of variables has those that the code sets."""
    code = (ROOT / "checkpoint/release/workshop.py").read_text()
    section = RELEASES.partition("## The gate\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(
        re.findall(r'"(HOTCOLD_\w+|SOURCE_DATE_EPOCH)":', code)
    )
