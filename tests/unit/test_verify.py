"""Verifying: what differs from the build is told by name, and nothing else is."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.scrub import Pace, Scrubber, ScrubTable
from artifact.locate import load_manifest, reference
from artifact.pack import pack
from artifact.pull import Local, PullSettings, pull
from artifact.verify import Difference, NothingKnown, verify_tree
from swapper import Layout, Swapper


def change_content(tree: Path) -> None:
    """As a disk that rots, or somebody who dates back."""
    state = (tree / "lib/code").stat()
    (tree / "lib/code").write_bytes(b"x" * state.st_size)
    os.utime(tree / "lib/code", ns=(state.st_atime_ns, state.st_mtime_ns))


CHANGES: list[tuple[Callable[[Path], object], Difference]] = [
    (change_content, Difference("lib/code", "has another content")),
    (
        lambda tree: (tree / "lib/code").write_bytes(b"short"),
        Difference("lib/code", "has 5 bytes and should have 9000"),
    ),
    (lambda tree: (tree / "lib/code").unlink(), Difference("lib/code", "is missing")),
    (lambda tree: (tree / "lib/code").chmod(0o600), Difference("lib/code", "has mode 0600 and should have 0644")),
    (lambda tree: (tree / "lib/a\nb").touch(), Difference("lib/a\\nb", "is not part of the build")),
    (
        lambda tree: ((tree / "empty").rmdir(), (tree / "empty").touch()),
        Difference("empty", "is a file and should be a directory"),
    ),
    (
        lambda tree: ((tree / "now").unlink(), (tree / "now").symlink_to("empty")),
        Difference("now", "points elsewhere"),
    ),
]


def make_tree(root: Path) -> Path:
    (root / "lib").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "lib/code").write_bytes(b"c" * 9000)
    (root / "lib/code").chmod(0o644)
    (root / "now").symlink_to("lib/code")
    return root


async def pulled(base: Path, into: Path, table: Path) -> None:
    out = base / "out"
    out.mkdir()
    pack(
        make_tree(base / "source"),
        app="shop",
        build_id="1",
        out=out,
        created="2026-11-23T12:00:00Z",
        on_progress=lambda _: None,
    )
    manifest, location = await load_manifest(str(out / "shop-1.json"))
    into.mkdir(exist_ok=True)  # noqa: ASYNC240 - a test, on its own
    await pull(
        reference(manifest, location),
        into,
        settings=PullSettings(),
        on_progress=lambda _: None,
        local=Local(table=str(table)),
    )


@pytest.mark.parametrize(("change", "difference"), CHANGES, ids=[each.problem for _, each in CHANGES])
async def test_each_difference_is_named(
    tmp_path: Path, change: Callable[[Path], object], difference: Difference
) -> None:
    """A tree as it was pulled has no difference; each change is the only one that is told."""
    tree, table = tmp_path / "tree", tmp_path / "table"
    await pulled(tmp_path, tree, table)
    sizes: list[int] = []
    assert list(verify_tree(tree, table, read=sizes.append)) == []
    assert sum(sizes) == 9000
    change(tree)
    assert list(verify_tree(tree, table)) == [difference]


async def test_without_an_index_nothing_is_claimed(tmp_path: Path) -> None:
    """No table, or a damaged one: that is said, and not that all is right."""
    tree, table = tmp_path / "tree", tmp_path / "table"
    await pulled(tmp_path, tree, table)
    data = table.read_bytes()
    for damaged in (b"", data[:40], data[:200], data[:150] + b"\0" * (len(data) - 150)):
        table.write_bytes(damaged)
        with pytest.raises(NothingKnown, match="index of tree"):
            list(verify_tree(tree, table))
    table.unlink()
    with pytest.raises(NothingKnown, match="no index of tree is known"):
        list(verify_tree(tree, table))


async def test_a_scrub_tells_what_it_found_and_changes_nothing(tmp_path: Path) -> None:
    """Of hot: the count, the first names, when; a deploy that cannot be compared says why."""
    layout = Layout(root=tmp_path / "root", state_dir=tmp_path / "state")
    at = datetime(2026, 11, 23, tzinfo=UTC)

    async def sleep(_: float) -> None:
        raise AssertionError("`scrub` waits for nothing")

    swapper = Swapper.open(layout, now=lambda: at)
    try:
        release = swapper.prepare("1", f"sha256:{'0' * 64}")
        await pulled(tmp_path, release.path, layout.table(release.name))
        swapper.swap_in(swapper.complete(release))
        scrubber = Scrubber(settings=ScrubTable, layout=layout, swapper=swapper, now=lambda: at, sleep=sleep)
        await scrubber.scrub()
        [found] = scrubber.found
        assert (found.build, found.at, found.difference_count, found.problem) == ("1", at, 0, None)

        change_content(release.path)
        changed = (release.path / "lib/code").read_bytes()
        await scrubber.scrub()
        [found] = scrubber.found
        assert (found.difference_count, found.differences) == (1, ("lib/code has another content",))
        assert (release.path / "lib/code").read_bytes() == changed

        layout.table(release.name).unlink()
        await scrubber.scrub()
        [found] = scrubber.found
        assert found.problem == "no index of 1~1 is known"
    finally:
        swapper.close()


def test_a_pace_lets_no_more_pass_than_its_rate() -> None:
    """Sleeping makes up for every byte; time in which nothing was read is not saved up."""
    clock = [100.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    pace = Pace(1000, clock=lambda: clock[0], sleep=sleep)
    pace.spend(500)
    pace.spend(1500)
    assert slept == [0.5, 1.5]
    clock[0] += 60
    pace.spend(1000)
    assert slept == [0.5, 1.5, 1.0]
