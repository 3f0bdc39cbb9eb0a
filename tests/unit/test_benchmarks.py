"""What the benchmarks rest on: trees that are what they should be, comparison that sees everything, honest verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.corpus import Exactness, change, compare, synthetic_tree
from benchmarks.report.page import refreshed
from benchmarks.report.plot import growth_svg
from benchmarks.report.results import OURS, Case, Growth, Machine, Point, Run, Table, keep, kept
from benchmarks.report.targets import targets

MACHINE = Machine(processor="sample", core_count=2, memory_bytes=1 << 30, kernel="6.1", python="3.11")
PAGE = "before\n<!-- generated: results -->\nstale\n<!-- end -->\nafter\n"


def table(**seconds: float) -> Table:
    """One round of a small change, by peer."""
    names = {"ours": OURS, "rsync": "rsync, in place", "git": "git fetch; git reset --hard"}
    cases = tuple(
        Case(phase="small", name=names[key], runs=(Run(durable_s=value, received_bytes=1000),))
        for key, value in seconds.items()
    )
    return Table(file_system="ext4", link="loopback", rounds=1, cases=cases, machine=MACHINE, at="2026-11-24")


def sample_tree(directory: Path) -> Path:
    (directory / "empty").mkdir(parents=True)
    (directory / "file").write_text("content")
    (directory / "link").symlink_to("file")
    return directory


@pytest.mark.parametrize(
    ("meddle", "found"),
    [
        (lambda tree: (tree / "file").write_text("CONTENT"), ((), (), ("file",))),
        (lambda tree: (tree / "file").chmod(0o600), ((), (), ("file",))),
        (lambda tree: (tree / "empty").rmdir(), ((), ("empty",), ())),
        (lambda tree: (tree / "more").touch(), (("more",), (), ())),
        (lambda tree: ((tree / "link").unlink(), (tree / "link").symlink_to("empty")), ((), (), ("link",))),
        (lambda tree: ((tree / "link").unlink(), (tree / "link").write_text("content")), ((), (), ("link",))),
    ],
    ids=["content", "mode", "empty directory", "added", "target of a link", "file for a link"],
)
def test_comparison_sees_every_difference(tmp_path: Path, meddle: object, found: tuple[tuple[str, ...], ...]) -> None:
    """Two trees are the same, until one is meddled with; then exactly that is found."""
    one, other = sample_tree(tmp_path / "one"), sample_tree(tmp_path / "other")
    assert compare(one, other).is_none

    assert callable(meddle)
    meddle(other)
    differences = compare(one, other)
    assert (differences.added, differences.removed, differences.changed) == found


def test_comparison_excuses_what_a_tool_does_not_keep(tmp_path: Path) -> None:
    """A tool that carries the executable bit alone is not blamed for other modes and empty directories."""
    one, other = sample_tree(tmp_path / "one"), sample_tree(tmp_path / "other")
    (other / "empty").rmdir()
    (other / "file").chmod(0o600)
    assert compare(one, other, Exactness.EXECUTABLE).is_none

    (other / "file").chmod(0o700)
    assert compare(one, other, Exactness.EXECUTABLE).changed == ("file",)


def test_a_change_touches_exactly_so_many_files(tmp_path: Path) -> None:
    """The same arguments make the same tree; a change with another number is one of other files."""
    one, other = (synthetic_tree(tmp_path / name, 200) for name in ("one", "other"))
    assert compare(one, other).is_none

    change(other, file_count=200, changed_count=7, number=1)
    first = compare(one, other)
    assert (len(first.changed), first.added, first.removed) == (7, (), ())
    change(one, file_count=200, changed_count=7, number=1)
    assert compare(one, other).is_none
    change(other, file_count=200, changed_count=7, number=2)
    assert compare(one, other).changed not in ((), first.changed)


def test_page_tells_what_was_reached_and_what_was_not(tmp_path: Path) -> None:
    """Of rsync 0.18 is asked and 0.25 measured, git is beaten; what was not measured is called so."""
    keep(table(ours=1.0, rsync=4.0, git=2.0), tmp_path)
    page = refreshed(PAGE, {each.key: each for each in kept(tmp_path)})

    assert page.startswith("before\n<!-- generated: results -->\n")
    assert page.endswith("<!-- end -->\nafter\n")
    assert "stale" not in page
    assert "| small: time, of rsync, in place | 0.18 times | 0.25 times | **not reached** |" in page
    assert "| small: time, of git fetch; git reset --hard | 1 times | 0.5 times | reached |" in page
    assert "| full: event loop blocked | 50 ms |  | not measured |" in page
    assert "| rsync, in place | 4.000 | 4.000 to 4.000 | 4.00 | 0.00 | 0.001 | 0 |" in page
    assert refreshed(page, {each.key: each for each in kept(tmp_path)}) == page


def test_targets_are_all_told_without_any_result() -> None:
    """None of them disappears because nobody measured it."""
    names = [target.what for target in targets({})]
    assert len(names) == len(set(names)) == 17
    assert {target.verdict for target in targets({})} == {"not measured"}


def test_plot_has_a_line_for_each_size_and_side() -> None:
    """Two sizes of trees: two lines of ours, two of rsync's, and the same again in the legend."""
    points = tuple(
        Point(file_count=files, changed_count=changed, ours_s=(0.1,), ours_bytes=(1,), rsync_s=(0.5,))
        for files in (1000, 10_000)
        for changed in (10, 100)
    )
    svg = growth_svg(Growth(rounds=1, points=points, machine=MACHINE, at="2026-11-24"))
    assert svg.count("<polyline") == 8
    assert svg.count("<circle") == 4
    assert "10,000 files, rsync" in svg
