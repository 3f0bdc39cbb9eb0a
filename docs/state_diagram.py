"""Owns the generated parts of docs/architecture.md: what the agent's machine does, as the machine itself answers.

Every reachable model is explored from sample starts, with sample events; nothing about the transitions is written here.
`python docs/state_diagram.py` writes the page; what the page says around them is left to its authors.
"""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, only docs/ would be on the path

from agent import events as ev  # noqa: E402 - after the path is set
from agent import states as st  # noqa: E402
from agent.machine import AWAITED, advance, wake  # noqa: E402
from artifact import ManifestRef  # noqa: E402
from fleet import Problem  # noqa: E402

PAGE: Final = ROOT / "docs" / "architecture.md"
MAX_STEPS: Final = 14
"""From a start; one more finds no transition that is not known by then, only more ways to them."""

PROBLEM: Final = Problem(kind="sample", message="sample")

Edges = Mapping[tuple[str, str], set[str]]
"""(from, to) -> names of the events that lead there."""


def _build(name: str) -> ManifestRef:
    digest = f"sha256:{ord(name):064x}"
    return ManifestRef(id=name, urls=(f"http://localhost/{name}",), digest=digest, size=1, format="tar")


def _tree(name: str, *, proved: bool = True, number: int = 1) -> st.Tree:
    return st.Tree(f"{name}~{number}", name, _build(name).digest, proved)


A, B = _tree("a"), _tree("b")
NEW_B = replace(B, proved=False)
REFUSAL: Final = st.Refusal(2, "b", B.digest, PROBLEM, swapped=True)
GOALS: Final = (
    st.Goal(1, _build("a")),
    st.Goal(2, _build("b"), 1),
    st.Goal(3, _build("b")),
    st.Goal(4, None),
)
STARTS: Final = (
    st.Facts(),
    st.Facts(goal=GOALS[0], hot=A),
    st.Facts(goal=GOALS[1], hot=A, refusal=REFUSAL),
    st.Facts(goal=GOALS[1], hot=NEW_B, standby=A, ready=(A,)),
    st.Facts(goal=GOALS[1], hot=NEW_B),
    st.Facts(goal=GOALS[1], hot=A, hold="sample"),
    st.Facts(goal=GOALS[1], hot=A, halt="sample"),
)
COMMANDS: Final = (
    *(ev.OrderSeen(goal) for goal in GOALS),
    ev.RepullRequested(),
    ev.RefusalLifted(),
    ev.HoldPlaced("sample"),
    ev.HoldLifted(),
    ev.SlotLost(),
)


def _disk(facts: st.Facts, hot: st.Tree | None = None) -> st.Trees:
    """The disk that belongs to the facts, with another tree made hot where one is given."""
    trees = {tree.name: tree for tree in (*facts.ready, *((facts.hot,) if facts.hot else ()))}
    hot = hot or facts.hot
    ready = tuple(tree for name, tree in sorted(trees.items()) if hot is None or name != hot.name)
    return st.Trees(hot, next((tree for tree in ready if tree.proved), None), ready)


def _outcomes(model: st.Model) -> Iterator[ev.Outcome]:
    """Everything that the work under way can end in."""
    for kind in AWAITED[type(model.state)]:
        yield from _samples(kind, model)


def _samples(  # noqa: PLR0911 - a row for each kind of outcome
    kind: type[ev.Outcome], model: st.Model
) -> tuple[ev.Outcome, ...]:
    facts, state = model.facts, model.state
    if kind is ev.FetchFinished and isinstance(state, st.Fetching):
        names = {tree.name for tree in (*facts.ready, facts.hot) if tree is not None}
        number = next(number for number in count(1) if f"{state.build.id}~{number}" not in names)
        return (ev.FetchFinished(_tree(state.build.id, proved=False, number=number)),)
    if kind is ev.SwapFinished and isinstance(state, st.Swapping):
        return (ev.SwapFinished(_disk(facts, replace(state.tree, proved=False))),)
    if kind is ev.SwapBackFinished and isinstance(state, st.GoingBack):
        return (ev.SwapBackFinished(_disk(facts, state.fallback)),)
    if kind is ev.ProofFinished and isinstance(state, st.Proving):
        proved = replace(state.tree, proved=True)
        return tuple(ev.ProofFinished(proved, is_watched=is_watched) for is_watched in (False, True))
    if kind is ev.RetryDue:
        return (ev.RetryDue(_disk(facts)),)
    if kind in {ev.FetchFailed, ev.StagedFailed}:
        return (kind(PROBLEM, is_final=False), kind(PROBLEM, is_final=True))
    if kind in {ev.DrainFailed, ev.SwapFailed, ev.ProofFailed, ev.WatchFailed, ev.SwapBackFailed}:
        return (kind(PROBLEM),)
    return (kind(),)


def _bounded(model: st.Model) -> st.Model:
    """Without what would make the exploration endless and decides nothing: counters, and trees that are not needed."""
    facts = model.facts
    needed = {facts.standby, facts.repulled, *facts.ready[-1:]}
    facts = replace(facts, failure_count=0, ready=tuple(tree for tree in facts.ready if tree in needed))
    state = replace(model.state, attempt=1) if isinstance(model.state, st.BackingOff) else model.state
    return st.Model(facts, state)


def explore() -> tuple[Edges, Edges]:
    """All transitions between states that outcomes make, and all that commands make."""
    by_outcome: dict[tuple[str, str], set[str]] = defaultdict(set)
    by_command: dict[tuple[str, str], set[str]] = defaultdict(set)
    ahead = deque((_bounded(wake(facts, is_out_of_service=False)[0]), 0) for facts in STARTS)
    seen = {model for model, _ in ahead}
    while ahead:
        model, step_count = ahead.popleft()
        for event in (*_outcomes(model), *COMMANDS):
            following = _bounded(advance(model, event)[0])
            edges = by_command if isinstance(event, ev.Command) else by_outcome
            edges[_name(model), _name(following)].add(type(event).__name__)
            if following not in seen and step_count < MAX_STEPS:
                seen.add(following)
                ahead.append((following, step_count + 1))
    return by_outcome, by_command


def _name(model: st.Model) -> str:
    return st.STATE_NAMES[type(model.state)]


def diagram(by_outcome: Edges) -> str:
    """What outcomes lead to, as Mermaid."""
    order = list(st.STATE_NAMES.values())
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> steady"]
    for (source, target), events in sorted(
        by_outcome.items(), key=lambda edge: [order.index(name) for name in edge[0]]
    ):
        lines.append(f"    {source} --> {target} : {', '.join(sorted(events))}")
    return "\n".join([*lines, "```"])


def commands(by_command: Edges) -> str:
    """What commands lead to, as a table; a state in which a command changes nothing has a dash."""
    kinds = list(dict.fromkeys(type(command).__name__ for command in COMMANDS))
    lines = [f"| in | {' | '.join(kinds)} |", f"| --- |{' --- |' * len(kinds)}"]
    for source in st.STATE_NAMES.values():
        cells = []
        for kind in kinds:
            targets = [name for name in st.STATE_NAMES.values() if kind in by_command.get((source, name), ())]
            cells.append(", ".join(name for name in targets if name != source) or "-")
        lines.append(f"| `{source}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def refreshed(page: str) -> str:
    """The page with its generated parts made anew.

    Raises:
        ValueError: a marker is missing.
    """
    by_outcome, by_command = explore()
    for name, text in (("diagram", diagram(by_outcome)), ("commands", commands(by_command))):
        before, begin, rest = page.partition(f"<!-- generated: {name} -->")
        _, end, after = rest.partition("<!-- end -->")
        if not begin or not end:
            raise ValueError(f"{PAGE} lacks the markers of the generated part {name!r}")
        page = f"{before}{begin}\n\n{text}\n\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
