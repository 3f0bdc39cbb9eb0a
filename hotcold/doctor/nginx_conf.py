"""Owns reading nginx's configuration as nginx does: directives, blocks, includes; what they mean is left to `nginx`.

Files are read, nothing is run: also `nginx -T` would open log files.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_TOKEN: Final = re.compile(
    r"""(?P<blank>\s+) | (?P<comment>\#[^\n]*) | (?P<mark>[{};])
      | "(?P<double>(?:\\.|[^"\\])*)" | '(?P<single>(?:\\.|[^'\\])*)' | (?P<plain>(?:\\.|\$\{[^}]*\}|[^\s;{}"'\\])+)""",
    re.VERBOSE | re.DOTALL,
)
_DEEPEST: Final = 16
"""Of includes within includes: a file that includes itself ends there."""


@dataclass(frozen=True)
class Directive:
    """One directive, with its block where it has one. `place`: file and line, for people."""

    name: str
    arguments: tuple[str, ...]
    place: str
    block: tuple[Directive, ...] | None = None


@dataclass
class _Reader:
    """Reads one file after the other. `base`: what relative includes are relative to."""

    base: Path
    unread: list[str] = field(default_factory=list)

    def read(self, path: Path, depth: int = 0) -> tuple[Directive, ...]:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            self.unread.append(f"{path}: {error.strerror}")
            return ()
        return self._block(_tokens(text, path), depth)

    def _block(self, tokens: Iterator[tuple[str, str, bool]], depth: int) -> tuple[Directive, ...]:
        found: list[Directive] = []
        words: list[str] = []
        place = ""
        for word, where, is_mark in tokens:
            if not is_mark:
                place = place if words else where
                words.append(word)
                continue
            if word == "}":
                break
            block = self._block(tokens, depth) if word == "{" else None
            if words and words[0] == "include" and block is None and depth < _DEEPEST:
                for path in self._included(words[1:]):
                    found += self.read(path, depth + 1)
            elif words:
                found.append(Directive(words[0], tuple(words[1:]), place, block))
            words = []
        return tuple(found)

    def _included(self, patterns: Sequence[str]) -> Iterator[Path]:
        for pattern in patterns:
            absolute = str(self.base / pattern)
            paths = sorted(glob.glob(absolute)) if glob.has_magic(absolute) else [absolute]  # noqa: PTH207 - absolute ones
            yield from map(Path, paths)


def read_configuration(path: Path) -> tuple[tuple[Directive, ...], tuple[str, ...]]:
    """The directives of a configuration, included files in their places; and the files that could not be read."""
    reader = _Reader(path.parent)
    return reader.read(path), tuple(reader.unread)


def _tokens(text: str, path: Path) -> Iterator[tuple[str, str, bool]]:
    """Words and marks, each with its place, and whether it is a mark."""
    line, at = 1, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:  # a quotation mark without its other half: nginx would not start with that
            at += 1
            continue
        where = f"{path}:{line}"
        line += match[0].count("\n")
        at = match.end()
        kind = match.lastgroup or ""
        if kind in {"blank", "comment"}:
            continue
        yield match[kind], where, kind == "mark"
