"""Owns the generated part of docs/rollouts.md: what leads a rollout from phase to phase, as the machine itself answers.

`python docs/rollout_diagram.py` writes the page; what the page says around it is left to its authors.
"""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, only docs/ would be on the path

from artifact import IllegalTransition, ManifestRef  # noqa: E402 - after the path is set
from checkpoint.pipeline import parse_settings  # noqa: E402
from checkpoint.reading import HostKey  # noqa: E402
from checkpoint.rollout import events as ev  # noqa: E402
from checkpoint.rollout import states as st  # noqa: E402
from checkpoint.rollout.machine import advance, begin  # noqa: E402
from checkpoint.rollout.plan import Plan, make_plan  # noqa: E402

PAGE: Final = ROOT / "docs" / "rollouts.md"
NOW: Final = datetime(2026, 11, 23, 10, tzinfo=UTC)
WHO: Final = ev.Origin("anna", "cli", "sample", NOW)
PIPELINE: Final = """
app = "shop"
[[tiers]]
name = "staging"
approval = true
smoke_test = { command = ["true"] }
[[tiers]]
name = "prod"
steps = [50, 100]
"""
EVENTS: Final[tuple[ev.Event, ...]] = (
    ev.StepAllowed(),
    ev.HostsArrived(1, {}),
    ev.BakeElapsed(),
    ev.SmokeTestPassed(""),
    ev.VerdictGiven(""),
    ev.ApproveRequested(),
    ev.TroubleSeen("budget", "sample"),
    ev.BuildCondemned("sample"),
    ev.PauseRequested(),
    ev.ResumeRequested({}),
    ev.AdvanceRequested(),
    ev.AbortRequested(),
    ev.RollbackRequested(),
)


def _plan() -> Plan:
    build = ManifestRef(id="b", urls=("http://localhost/b",), digest=f"sha256:{0:064x}", size=1, format="tar")
    hosts = [HostKey(tier, f"{tier}-{number}", None) for tier in ("staging", "prod") for number in range(2)]
    return make_plan(
        parse_settings(PIPELINE).pipeline,
        build,
        keys=[],
        hosts=hosts,
        zones={},
        salts=["s"],
        number=1,
        now=NOW,
        by="anna",
        reason="sample",
    )


def explore() -> Mapping[tuple[str, str], set[str]]:
    """(from, to) -> names of the events that lead there, for every rollout that can be reached."""
    plan = _plan()
    edges: dict[tuple[str, str], set[str]] = defaultdict(set)
    first, _ = begin(plan, WHO)
    ahead, seen = deque([first]), {repr(first)}
    while ahead:
        rollout = ahead.popleft()
        for event in EVENTS:
            try:
                following, effects = advance(rollout, plan, event, WHO)
            except IllegalTransition:
                continue
            if effects and following.phase_name != rollout.phase_name:
                edges[rollout.phase_name, following.phase_name].add(type(event).__name__)
            if repr(following) not in seen:
                seen.add(repr(following))
                ahead.append(following)
    return edges


def diagram(edges: Mapping[tuple[str, str], set[str]]) -> str:
    """The transitions as Mermaid; those that many phases share are in the table below it."""
    order = list(st.NAMES.values())
    sources: dict[tuple[str, str], set[str]] = defaultdict(set)
    for (source, target), names in edges.items():
        for name in names:
            sources[name, target].add(source)
    shared = {key for key, found in sources.items() if len(found) > 3}  # noqa: PLR2004 - more would hide the rest
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> ready"]
    for source, target in sorted(edges, key=lambda edge: [order.index(name) for name in edge]):
        names = sorted(name for name in edges[source, target] if (name, target) not in shared)
        if names:
            lines.append(f"    {source} --> {target} : {', '.join(names)}")
    lines += ["```", "", "| from | event | to |", "| --- | --- | --- |"]
    for name, target in sorted(shared, key=lambda key: (order.index(key[1]), key[0])):
        found = ", ".join(f"`{source}`" for source in sorted(sources[name, target], key=order.index))
        lines.append(f"| {found} | {name} | `{target}` |")
    return "\n".join(lines)


def refreshed(page: str) -> str:
    """The page with its generated part made anew.

    Raises:
        ValueError: a marker is missing.
    """
    before, begins, rest = page.partition("<!-- generated: rollout diagram -->")
    _, end, after = rest.partition("<!-- end -->")
    if not begins or not end:
        raise ValueError(f"{PAGE} lacks the markers of its generated part")
    return f"{before}{begins}\n\n{diagram(explore())}\n\n{end}{after}"


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
