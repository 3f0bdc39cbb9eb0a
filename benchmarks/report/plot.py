"""Owns the growth plot: an SVG of our own, both axes logarithmic, so that a straight rise means cost follows change.

It carries its colours for light and dark pages itself. One line for each size of tree; rsync's are dashed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.report.results import Growth, Point

_WIDTH, _HEIGHT = 760, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 170, 48, 56
_COLOURS: Final = ("#3d6fb4", "#2f8f5b", "#c2772a", "#a23b72", "#6b6b6b")
_STYLE: Final = """\
<style>
text { font: 12px system-ui, sans-serif; fill: #333 }
.title { font-size: 14px; font-weight: 600 }
.grid { stroke: #ccc; stroke-width: 0.6 }
polyline { fill: none; stroke-width: 2 }
.rsync { stroke-dasharray: 5 4; stroke-width: 1.2; opacity: 0.8 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .grid { stroke: #555 } }
</style>"""


def growth_svg(growth: Growth) -> str:
    """The plot, whole."""
    return "\n".join(_Plot(growth).elements()) + "\n"


class _Plot:
    def __init__(self, growth: Growth) -> None:
        self._growth = growth
        points = growth.points
        times = [statistics.median(each) for point in points for each in (point.ours_s, point.rsync_s)]
        self._x_decades = _decades([point.changed_count for point in points])
        self._y_decades = _decades(times)

    def elements(self) -> Iterator[str]:
        yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
        yield "<title>Seconds from order seen to durable, by number of changed files and size of the tree</title>"
        yield _STYLE
        yield f'<text class="title" x="{_LEFT}" y="24">Cost of a deploy by files changed; s, durable, verified</text>'
        yield from self._axes()
        for rank, file_count in enumerate(sorted({point.file_count for point in self._growth.points})):
            yield from self._lines(rank, [each for each in self._growth.points if each.file_count == file_count])
        yield "</svg>"

    def _axes(self) -> Iterator[str]:
        right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        for exponent in range(self._x_decades[0], self._x_decades[1] + 1):
            x = self._x(10.0**exponent)
            yield f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>'
            yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{10**exponent:,}</text>'
        for exponent in range(self._y_decades[0], self._y_decades[1] + 1):
            y = self._y(10.0**exponent)
            yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
            yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**exponent:g}</text>'
        yield f'<text x="{(_LEFT + right) / 2}" y="{bottom + 40}" text-anchor="middle">files changed</text>'

    def _lines(self, rank: int, points: Sequence[Point]) -> Iterator[str]:
        colour = _COLOURS[rank % len(_COLOURS)]
        ours = [(point.changed_count, statistics.median(point.ours_s)) for point in points]
        rsync = [(point.changed_count, statistics.median(point.rsync_s)) for point in points]
        yield f'<polyline class="rsync" stroke="{colour}" points="{self._path(rsync)}"/>'
        yield f'<polyline stroke="{colour}" points="{self._path(ours)}"/>'
        for x, y in ours:
            yield f'<circle cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="3" fill="{colour}"/>'
        x, y = _WIDTH - _RIGHT + 16, _TOP + 14 + rank * 40
        for offset, name, kind in ((0, "", ""), (16, ", rsync", ' class="rsync"')):
            yield f'<polyline{kind} stroke="{colour}" points="{x},{y + offset - 4} {x + 22},{y + offset - 4}"/>'
            yield f'<text x="{x + 28}" y="{y + offset}">{points[0].file_count:,} files{name}</text>'

    def _path(self, points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)

    def _x(self, value: float) -> float:
        return _LEFT + _share(value, self._x_decades) * (_WIDTH - _LEFT - _RIGHT)

    def _y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - _share(value, self._y_decades) * (_HEIGHT - _TOP - _BOTTOM)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _share(value: float, decades: tuple[int, int]) -> float:
    return (math.log10(value) - decades[0]) / (decades[1] - decades[0])
