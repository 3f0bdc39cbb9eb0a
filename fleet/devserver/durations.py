"""Owns durations as Go writes them (`10s`, `1m30s`, `1.5h`); leaves which ones are acceptable to the caller."""

from __future__ import annotations

import re

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)")


def parse_duration(text: str) -> float:
    """Seconds of a Go duration.

    Raises:
        ValueError: with the words that Go uses.
    """
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    total_s, position = 0.0, 0
    while position < len(rest):
        part = _PART.match(rest, position)
        if part is None:
            break
        number, unit = part.groups()
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS_S:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        total_s += float(number) * _UNITS_S[unit]
        position = part.end()
    if not rest or position != len(rest):
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * total_s


def nanoseconds(duration_s: float) -> int:
    """How Go puts a duration into JSON."""
    return round(duration_s * 1e9)
