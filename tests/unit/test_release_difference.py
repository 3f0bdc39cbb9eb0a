"""Which commits a build brings, takes out and lacks, as the records tell: cuts, hotfixes, gaps, and a model of git."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact import ManifestRef
from checkpoint.release import BuildKey
from checkpoint.release.commits import Commits
from checkpoint.release.difference import Difference, difference
from fleet import Build, Commit


def sha(name: str) -> str:
    return name.encode().hex().ljust(40, "0")


def of(name: str) -> Commit:
    return Commit(sha=sha(name), author="Anna", subject=name)


def made(
    build_id: str, names: str, since: str | None = None, *, picks: str | None = None, not_yet: str = "", count: int = 0
) -> Build:
    """A record; `names` and `not_yet` are commits, the newest first; `picks` in the order of their picking."""
    ref = ManifestRef(id=build_id, urls=("https://x/y",), digest="sha256:" + "1" * 64, size=1, format="tar")
    return Build(
        v=1,
        app="shop",
        build=ref,
        manifest=f"https://builds.example.com/{build_id}.json",
        revision=sha((names.split() or ["?"])[0]),
        branch=f"release/{build_id}",
        tag=build_id,
        by="anna",
        at="2026-11-24T12:00:00+00:00",
        since=since,
        commits=tuple(map(of, names.split())),
        commit_count=count or len(names.split()),
        not_yet=tuple(map(of, not_yet.split())),
        not_yet_count=len(not_yet.split()),
        hotfix_of=None if picks is None else since,
        picks=() if picks is None else tuple(map(sha, picks.split())),
    )


def keys(*builds: Build) -> tuple[BuildKey, ...]:
    """As they are read: the newest first."""
    return tuple(BuildKey(build.build.id, build) for build in reversed(builds))


def names(commits: Commits) -> list[str]:
    return [each.subject for each in commits.shown]


def parts(found: Difference) -> tuple[list[str], list[str], list[str]]:
    return names(found.brings), names(found.takes_out), names(found.lacks)


A = made("a", "m2 m1")
B = made("b", "m5 m4 m3", "a")
FIX = made("a-fix", "p4", "a", picks="m4", not_yet="m5 m3")
"""A hotfix of `a` that was made after `b`; it picks m4, as p4."""
C = made("c", "m6 m5 m3", "a-fix")
"""Cut after the hotfix: counted from it, without m4, which it has."""
ALL = keys(A, B, FIX, C)


@pytest.mark.parametrize(
    ("build", "base", "brings", "takes_out", "lacks"),
    [
        ("b", "a", "m5 m4 m3", "", "m6"),
        ("c", "a", "m6 m5 m3 p4", "", ""),
        ("a", "b", "", "m5 m4 m3", "m6"),
        ("a-fix", "a", "p4", "", "m6 m5 m3"),
        ("a-fix", "b", "", "m5 m3", "m6"),
        ("b", "a-fix", "m5 m3", "", "m6"),
        ("c", "b", "m6", "", ""),
        ("b", "c", "", "m6", ""),
        ("c", "a-fix", "m6 m5 m3", "", ""),
        ("a", "c", "", "m6 m5 m3 p4", ""),
    ],
)
def test_commits_are_told_apart_whatever_they_are_called(
    build: str, base: str, brings: str, takes_out: str, lacks: str
) -> None:
    """A picked commit is the one that it was picked from; what is taken out is not listed twice."""
    found = difference(build, base, ALL)
    assert parts(found) == (brings.split(), takes_out.split(), lacks.split())
    assert found.gaps == ()
    assert found.is_back == (bool(takes_out) and not brings)
    assert (found.brings.count, found.takes_out.count) == (len(brings.split()), len(takes_out.split()))


def test_what_main_had_when_it_was_cut_is_not_in_it() -> None:
    """An older commit was cut: its own record tells what it lacks, and nothing newer is recorded."""
    found = difference("b", "a", keys(A, made("b", "m3", "a", not_yet="m5 m4")))
    assert parts(found) == (["m3"], [], ["m5", "m4"])


def test_what_the_records_do_not_tell_is_said() -> None:
    """No record, none of the base, no base, a broken line, more commits than are named, the same build."""
    assert "was not recorded" in difference("x", "a", ALL).gaps[0]
    assert parts(difference("x", "a", ALL)) == ([], [], [])
    foreign = difference("b", "x", ALL)
    assert (names(foreign.brings), foreign.gaps) == (
        ["m5", "m4", "m3"],
        ("x, which runs there, was not recorded: shown is what came in since a",),
    )
    first = difference("a", None, ALL)
    assert first.gaps == ("nothing runs there yet: shown is what came in",)
    assert names(first.brings) == ["m2", "m1"]
    broken = difference("c", "a", keys(A, made("c", "m9", "lost")))
    assert "no record joins c and a" in broken.gaps[0]
    many = difference("b", "a", keys(A, made("b", "m4 m3", "a", count=70)))
    assert (many.brings.count, len(many.brings.shown), many.gaps) == (70, 2, ())
    both = difference("b", "a-fix", keys(A, made("b", "m4 m3", "a", count=70), FIX))
    assert "more may differ, or less" in both.gaps[0]
    same = difference("b", "b", ALL)
    assert (same.gaps, names(same.lacks)) == (("b runs there already",), ["m6"])


def test_records_that_point_at_each_other_end() -> None:
    """Somebody's hand wrote them: it takes no longer for that."""
    one, two = made("one", "m1", "two"), made("two", "m2", "one")
    assert parts(difference("two", "one", keys(one, two))) == ([], [], [])
    assert names(difference("two", None, keys(one, two)).brings) == ["m2"]


@st.composite
def histories(draw: st.DrawFn) -> tuple[tuple[Build, ...], dict[str, frozenset[str]]]:
    """Releases of a main branch that grows, with hotfixes, and what each build truly has."""
    main: list[str] = []
    truth: dict[str, frozenset[str]] = {}
    order: dict[str, list[str]] = {}
    builds: list[Build] = []
    for number in range(draw(st.integers(1, 7))):
        build_id = f"b{number}"
        main += [f"m{len(main) + each}" for each in range(draw(st.integers(1, 3)))]
        hotfixable = [each for each in builds if set(main) - truth[each.build.id]]
        if hotfixable and draw(st.booleans()):
            base = draw(st.sampled_from(hotfixable))
            open_ = [each for each in main if each not in truth[base.build.id]]
            picked = draw(st.lists(st.sampled_from(open_), min_size=1, max_size=2, unique=True))
            has = truth[base.build.id] | set(picked)
            shown = " ".join(f"p{number}-{each}" for each in reversed(picked))
            left = " ".join(each for each in reversed(main) if each not in has)
            build = made(build_id, shown, base.build.id, picks=" ".join(picked), not_yet=left)
        else:
            since = builds[-1] if builds else None
            has = frozenset(main)
            known = frozenset() if since is None else truth[since.build.id]
            shown = " ".join(each for each in reversed(main) if each not in known)
            build = made(build_id, shown, None if since is None else since.build.id)
        truth[build_id], order[build_id] = frozenset(has), []
        builds.append(build)
    return tuple(builds), truth


def plain(commits: Commits) -> set[str]:
    return {each.subject.rpartition("-")[2] for each in commits.shown}


@given(histories(), st.data())
def test_it_agrees_with_what_the_builds_truly_have(
    history: tuple[Sequence[Build], dict[str, frozenset[str]]], data: st.DataObject
) -> None:
    """Whatever was cut and picked in whatever order: brings, takes out and lacks are differences of sets."""
    builds, truth = history
    ids = [each.build.id for each in builds]
    one, other = data.draw(st.sampled_from(ids)), data.draw(st.sampled_from(ids))
    found = difference(one, other, keys(*builds))
    assert plain(found.brings) == truth[one] - truth[other]
    assert plain(found.takes_out) == truth[other] - truth[one]
    everything = frozenset().union(*truth.values())
    newest_cut = next(each for each in reversed(builds) if each.hotfix_of is None)
    main_known = truth[newest_cut.build.id] | truth[ids[-1]] | {each.subject for each in builds[-1].not_yet}
    own = {each.subject for each in next(each for each in builds if each.build.id == one).not_yet}
    assert plain(found.lacks) == (main_known | own) - truth[one] - plain(found.takes_out)
    assert plain(found.lacks) <= everything | own | {each.subject for each in builds[-1].not_yet}
    assert len(found.brings.shown) == found.brings.count


def test_a_record_of_before_is_still_read() -> None:
    """Records that tell nothing of what they lack."""
    old = msgspec.structs.replace(FIX, not_yet=(), not_yet_count=0)
    assert parts(difference("a-fix", "a", keys(A, B, old))) == (["p4"], [], ["m5", "m3"])
