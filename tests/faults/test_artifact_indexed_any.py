"""Pulling any build over any tree, whatever somebody did to that, gives exactly the build."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builds import Depot, Directory, Entry, File, Link, Packed, Releases, shape_of
from tests.faults.pull_many import ManyPulls, many_pulls

Nested = File | Link | dict[str, "Nested"]

NAMES = ["a", "b", "c", "é", os.fsdecode(b"\xff"), ".hotcold-moving", "x y\n"]
CONTENTS = [b"", b"1", b"2", b"3" * 600, bytes(range(256)) * 300]
TIMES = [-86_400, 0, 1_700_000_000, (1 << 34) - 1]


def common(number: int) -> bytes:
    """A content that many files have."""
    return CONTENTS[number]


files = st.builds(
    File,
    content=st.integers(0, len(CONTENTS) - 1).map(common) | st.binary(max_size=30),
    mode=st.sampled_from([0o644, 0o755, 0o400, 0o000]),
    mtime_s=st.sampled_from(TIMES),
)
links = st.builds(Link, target=st.sampled_from(["nothing", "nothing/deeper"]), mtime_s=st.sampled_from(TIMES))
nested: st.SearchStrategy[Nested] = st.recursive(
    files | links, lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=4), max_leaves=12
)
trees = st.dictionaries(st.sampled_from(NAMES), nested, min_size=1, max_size=5)


def flat(tree: dict[str, Nested], prefix: str = "") -> dict[str, Entry]:
    """By path; directories first."""
    found: dict[str, Entry] = {}
    for name, inner in tree.items():
        if isinstance(inner, dict):
            found[prefix + name] = Directory(0o755 if len(inner) % 2 else 0o500)
            found |= flat(inner, f"{prefix}{name}/")
        else:
            found[prefix + name] = inner
    return found


def removed(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def scribbled(path: Path) -> None:
    """Other content of the same size, the time put back."""
    if path.is_file() and not path.is_symlink():
        before = path.stat()
        path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        removed(path)
        make(path)

    return damage


def into_directory(path: Path) -> None:
    (path / "a").mkdir(parents=True)
    (path / "b").write_bytes(b"?")


def behind_a_link(path: Path) -> None:
    """Moved out of the tree, and linked to."""
    aside = path.parent
    while aside.parent.name != "releases":
        aside = aside.parent
    aside = aside.parent / f"aside-{len(list(aside.parent.iterdir()))}"
    path.rename(aside)
    path.symlink_to(aside)


def added_to(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        (path / "added").write_bytes(b"?")
        (path / "c").mkdir(exist_ok=True) if not (path / "c").is_symlink() and not (path / "c").exists() else None


def given_mode(path: Path) -> None:
    if not path.is_symlink():
        path.chmod(0o7777)


def dated(path: Path) -> None:
    os.utime(path, (-5, -5), follow_symlinks=False)


DAMAGES: list[Callable[[Path], object]] = [
    removed,
    scribbled,
    replaced(into_directory),
    replaced(lambda path: path.write_bytes(b"1")),
    replaced(lambda path: path.symlink_to("/etc")),
    replaced(os.mkfifo),
    behind_a_link,
    added_to,
    given_mode,
    dated,
]
damages = st.lists(st.tuples(st.integers(0, 50), st.sampled_from(DAMAGES)), max_size=6)


def damaged(tree: Path, what: list[tuple[int, Callable[[Path], object]]]) -> None:
    for at, damage in what:
        paths = [path for path in sorted(tree.rglob("*")) if path.parent.resolve().is_relative_to(tree)]
        if paths:
            damage(paths[at % len(paths)])


@pytest.fixture(scope="module")
def pulls() -> Iterator[ManyPulls]:
    with many_pulls() as started:
        yield started


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    first=trees,
    second=trees,
    spoilt=damages,
    spoilt_base=damages,
    with_base=st.booleans(),
    with_patch=st.booleans(),
    is_resumed=st.booleans(),
    is_known=st.booleans(),
    is_settled=st.booleans(),
)
def test_any_tree_becomes_any_build(
    tmp_path: Path,
    pulls: ManyPulls,
    *,
    first: dict[str, Nested],
    second: dict[str, Nested],
    spoilt: list[tuple[int, Callable[[Path], object]]],
    spoilt_base: list[tuple[int, Callable[[Path], object]]],
    with_base: bool,
    with_patch: bool,
    is_resumed: bool,
    is_known: bool,
    is_settled: bool,
) -> None:
    """With and without another release, a patch, a table, an interruption; the other release keeps what it has."""
    for name in ("depot", "releases"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    depot, host = Depot(tmp_path / "depot"), Releases(tmp_path / "releases")

    def pulled(name: str, build: Packed, **arguments: object) -> None:
        host.tree(name).mkdir(exist_ok=True)
        kind, told = pulls.pull(build.ref, host.tree(name), host.local(name, **arguments))
        assert kind == "done", told

    old = depot.pack("1", flat(first))
    new = depot.pack("2", flat(second), against=old if with_patch else None)
    pulled("r1", old)
    if with_base:
        pulled("hot", old)
        damaged(host.tree("hot"), spoilt_base)
    if is_settled:
        host.settle("r1")
    damaged(host.tree("r1"), spoilt)
    before = {path.name: shape_of(path) for path in host.path.iterdir() if path.name not in ("r1", "tables")}
    host.take_over("r1", "r2")
    # Without a table nothing is known of what is there: the caller says that with `is_resumed`.
    pulled(
        "r2",
        new,
        own="r1" if is_known else None,
        bases=["hot"] if with_base else [],
        is_resumed=is_resumed or not is_known,
    )
    assert shape_of(host.tree("r2")) == new.shape()
    assert {path.name: shape_of(path) for path in host.path.iterdir() if path.name not in ("r2", "tables")} == before
    host.settle("r2")
    pulled("r2", new, own="r2")
    assert shape_of(host.tree("r2")) == new.shape()
