"""The corpus of `tests.hostile`, opened by the real process in its sandbox, each archive with its verdict."""

import asyncio
import hashlib
import os
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from artifact import HotcoldError, Limits, ManifestRef, PullSettings
from artifact.opening import Opening
from artifact.pull import pull
from tests.hostile import FAMILIES, Case, Family
from tests.hostile.streams import SAMPLES, cut, flipped

CASES = [pytest.param(case, id=f"{family.name}: {case.name}") for family in FAMILIES for case in family.cases]
AT_ONCE = 2


@pytest.fixture
def into(tmp_path: Path) -> Iterator[Path]:
    """The directory to fill, amid things that an archive might want to change; deep trees are removed again."""
    site = tmp_path / "site"
    into = site / "releases" / "new"
    into.mkdir(parents=True)
    (site / "canary").write_text("alive")
    (site / "other").mkdir()
    (site / "other" / "f").write_text("theirs")
    before = outside(into)
    yield into
    assert outside(into) == before
    subprocess.run(["rm", "-rf", "--", site], check=True)


def outside(into: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything beside and above the directory to fill."""
    site = into.parents[1]
    found = {}
    for directory, names, files in os.walk(site):
        if Path(directory) == into:
            names.clear()
            continue
        for name in (*names, *files):
            path = Path(directory, name)
            state = path.lstat()
            found[str(path.relative_to(site))] = (
                state.st_mode,
                state.st_nlink if path.is_file() else 0,
                path.read_bytes() if path.is_file() else b"",
            )
    return found


def tree(into: Path) -> dict[str, tuple[str, int, int, str]]:
    """Type, mode, size and link target of everything inside; by `find`, for a path may be too long to be opened."""
    told = subprocess.run(
        ["find", ".", "-mindepth", "1", "-printf", r"%P\0%y\0%m\0%s\0%l\0"],
        cwd=into,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    fields = [os.fsdecode(field) for field in told.split(b"\0")[:-1]]
    return {
        path: (kind, int(mode, 8), int(size), target)
        for path, kind, mode, size, target in zip(*(iter(fields),) * 5, strict=True)
    }


async def opened(data: bytes, archive_format: str, into: Path, limits: Limits) -> HotcoldError | None:
    """Have the archive opened by a process of its own; its refusal, if it has one. The process is gone."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    ref = ManifestRef(id="b1", urls=("file:///unused",), digest=digest, size=len(data), format=archive_format)
    gaps: list[str] = []
    opening = Opening.start(ref, into, PullSettings(limits=limits), on_gaps=gaps.extend)
    try:
        await opening.archive.put(data)
        await opening.archive.finish()
        opening.archive.close()
        await opening.ended
    except HotcoldError as error:
        return error
    finally:
        opening.kill()
        await asyncio.wait([opening.ended])
        assert gaps == []
    return None


def assert_harmless(into: Path, limits: Limits) -> None:
    """What is in the directory is of the kinds that a build has, has no rights, and leads nowhere else."""
    found = tree(into)
    assert {kind for kind, _, _, _ in found.values()} <= {"f", "d", "l"}
    assert not any(mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX) for _, mode, _, _ in found.values())
    assert sum(size for kind, _, size, _ in found.values() if kind == "f") <= limits.max_bytes
    here = into.resolve()
    for path, (kind, _, _, target) in found.items():
        if kind == "l":
            assert not target.startswith("/")
            assert Path(os.path.realpath(into / path)).is_relative_to(here)


@pytest.mark.parametrize("case", CASES)
async def test_each_archive_of_the_corpus_gets_its_verdict(into: Path, case: Case) -> None:
    """The kind and the name of the entry; a crash has a kind of its own, which none expects."""
    error = await opened(case.make(), case.archive_format, into, case.limits)
    outcome = "opened" if error is None else error.kind
    assert outcome in case.outcomes, error
    if error is None:
        assert set(tree(into)) == case.tree
    else:
        assert case.says in str(error)
        assert not any(kind == "l" for kind, *_ in tree(into).values())
    assert_harmless(into, case.limits)


async def in_turn(archives: Iterable[tuple[int, bytes]], archive_format: str, into: Path) -> dict[int, str]:
    """Open many archives, two at a time, each in a directory of its own; the outcomes."""
    limits = Limits(max_bytes=1 << 20, max_files=1000)
    may_start = asyncio.Semaphore(AT_ONCE)
    outcomes: dict[int, str] = {}

    async def one(number: int, data: bytes) -> None:
        async with may_start:
            place = into / str(number)
            place.mkdir()
            error = await opened(data, archive_format, place, limits)
            outcomes[number] = "opened" if error is None else error.kind
            assert_harmless(place, limits)

    async with asyncio.TaskGroup() as group:
        for number, data in archives:
            group.create_task(one(number, data))
    return outcomes


@pytest.mark.parametrize("archive_format", SAMPLES)
async def test_an_archive_that_is_cut_anywhere_is_broken(into: Path, archive_format: str) -> None:
    """Half a build never passes for a whole one; nothing but zeros at the end may be missing."""
    outcomes = await in_turn(cut(archive_format, len(SAMPLES[archive_format]) // 23), archive_format, into)
    assert len(outcomes) >= 23
    whole = SAMPLES[archive_format]
    assert {at: outcomes[at] for at in outcomes if outcomes[at] != "archive_broken" and whole[at:].strip(b"\0")} == {}


@pytest.mark.parametrize("archive_format", SAMPLES)
async def test_a_flipped_bit_is_found_or_does_no_harm(into: Path, archive_format: str) -> None:
    """No crash, nothing outside; that the bytes are the build's is the digest's to say."""
    outcomes = await in_turn(flipped(archive_format, 24), archive_format, into)
    assert len(outcomes) == 24
    assert set(outcomes.values()) <= {"archive_broken", "archive_hostile", "archive_too_big", "opened"}
    assert "archive_broken" in outcomes.values()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
async def test_a_whole_pull_says_what_the_opener_says(into: Path, tmp_path: Path, family: Family) -> None:
    """One of each family over the whole way: url, digest, two processes, the error in the agent."""
    case = max(family.cases, key=lambda case: case.outcomes != ("opened",))
    data = case.make()
    path = tmp_path / "artifact"
    path.write_bytes(data)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    ref = ManifestRef(id="b1", urls=(path.as_uri(),), digest=digest, size=len(data), format=case.archive_format)
    outcome, message = "opened", ""
    try:
        await pull(ref, into, settings=PullSettings(limits=case.limits), on_progress=lambda _: None)
    except HotcoldError as error:
        outcome, message = error.kind, str(error)
    assert outcome in case.outcomes
    assert case.says in message


def test_the_table_of_the_docs_counts_the_corpus() -> None:
    """A row for each family, in its order, with the number of its archives and of those that are opened."""
    page = (Path(__file__).parents[2] / "docs" / "hostile-input.md").read_text()
    lines = page.partition("<!-- corpus -->\n")[2].partition("\n\n")[0].splitlines()[2:]
    assert [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines] == [
        (
            family.name,
            str(len(family.cases)),
            str(sum(case.outcomes == ("opened",) for case in family.cases)),
            family.known,
        )
        for family in FAMILIES
    ]


def test_the_corpus_is_large_and_the_same_at_each_run() -> None:
    """Names are unique, so that a verdict belongs to one archive; bytes do not depend on clock or chance."""
    names = [(family.name, case.name) for family in FAMILIES for case in family.cases]
    assert len(names) == len(set(names)) >= 350
    assert all(family.known and family.cases for family in FAMILIES)
    small = [case for family in FAMILIES for case in family.cases if not family.name.startswith("bombs")]
    assert [case.make() for case in small] == [case.make() for case in small]
