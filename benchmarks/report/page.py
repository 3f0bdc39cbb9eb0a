"""Owns the generated part of docs/performance.md, and its plot; the prose around it is left to its authors.

    python -m benchmarks.report

writes both anew from the kept results, without measuring anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from benchmarks.options import ROOT
from benchmarks.report.plot import growth_svg
from benchmarks.report.results import Growth, Machine, Results, Table, kept
from benchmarks.report.tables import grids
from benchmarks.report.targets import Target, targets

PAGE: Final = ROOT / "docs" / "performance.md"
PLOT: Final = ROOT / "docs" / "growth.svg"
_PART: Final = re.compile(r"(<!-- generated: results -->\n).*?(<!-- end -->\n)", re.DOTALL)


def write_page() -> None:
    """Bring page and plot up to the kept results."""
    results = {each.key: each for each in kept()}
    PAGE.write_text(refreshed(PAGE.read_text(), results))
    growth = results.get("growth")
    if isinstance(growth, Growth):
        PLOT.write_text(growth_svg(growth))


def refreshed(page: str, results: Mapping[str, Results]) -> str:
    """The page's text with the generated part made of `results`.

    Raises:
        ValueError: the page has no such part.
    """
    text, count = _PART.subn(lambda match: f"{match[1]}\n{_generated(results)}\n{match[2]}", page)
    if count != 1:
        raise ValueError("the page needs exactly one part between `<!-- generated: results -->` and `<!-- end -->`")
    return text


def _generated(results: Mapping[str, Results]) -> str:
    if not results:
        return "Nothing is kept yet: `make bench` measures, and writes this part."
    return "\n".join((*_aims(targets(results)), *_tables(results))).rstrip() + "\n"


def _aims(aims: Iterator[Target]) -> Iterator[str]:
    yield "### Our targets\n"
    yield "| target | at most | measured | |"
    yield "| --- | ---: | ---: | --- |"
    for aim in aims:
        value = "" if aim.value is None else _number(aim.value, aim.unit)
        what = aim.what.replace("|", "\\|")
        yield f"| {what} | {_number(aim.limit, aim.unit)} | {value} | {aim.verdict} |"
    yield ""


def _number(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}".strip()


def _tables(results: Mapping[str, Results]) -> Iterator[str]:
    # The main table first, then by name.
    for result in sorted(results.values(), key=lambda each: (each.key != "deploy-ext4-loopback", each.key)):
        yield f"### {_title(result)}\n"
        yield f"{result.at}, {_machine(result.machine)}.\n"
        if isinstance(result, Growth):
            yield "![Cost of a deploy by files changed, for four sizes of trees](growth.svg)\n"
        for grid in grids(result):
            yield from grid.markdown()


def _title(result: Results) -> str:
    if isinstance(result, Table):
        return f"Deploys on {result.file_system}, {result.link}"
    return {"pack": "Packing", "manners": "What the agent takes", "growth": "Growth"}[result.key]


def _machine(machine: Machine) -> str:
    memory = f"{machine.memory_bytes / (1 << 30):.0f} GiB"
    software = f"Linux {machine.kernel}, Python {machine.python}"
    return f"{machine.core_count} cores of {machine.processor}, {memory}, {software}"
