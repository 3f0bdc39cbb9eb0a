"""What was measured: kept as JSON beside the code, printed as tables, written into docs/performance.md."""

from benchmarks.report.page import write_page
from benchmarks.report.results import OURS, Case, Growth, Manners, Pack, Point, Run, Table, keep
from benchmarks.report.tables import print_grids

__all__ = [
    "OURS",
    "Case",
    "Growth",
    "Manners",
    "Pack",
    "Point",
    "Run",
    "Table",
    "keep",
    "print_grids",
    "write_page",
]
