"""Owns how pages become text: templates, read once, with everything escaped; what they show is left to the pages."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup, escape

from checkpoint.web.grid import MEANINGS
from checkpoint.web.steps import BUTTONS

HERE: Final = Path(__file__).parent
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Statics:
    """The files that pages load, kept in memory: path, type, content, and a word that changes with the content.

    Attributes:
        packed: the contents by gzip, for whoever takes that.
    """

    def __init__(self) -> None:
        self.files: dict[str, tuple[str, bytes]] = {}
        self.packed: dict[str, bytes] = {}
        self.words: dict[str, str] = {}
        base = HERE / "static"
        for path in sorted(base.rglob("*")):
            if path.suffix in _TYPES:
                name, content = path.relative_to(base).as_posix(), path.read_bytes()
                self.files[name] = (_TYPES[path.suffix], content)
                self.packed[name] = gzip.compress(content, mtime=0)
                self.words[name] = hashlib.sha256(content).hexdigest()[:12]

    def url(self, name: str) -> str:
        """Where browsers find a file; another one for another content."""
        return f"/static/{name}?{self.words[name]}"


class Renderer:
    """Renders templates; reads all files when it is made, and none later."""

    def __init__(self, statics: Statics) -> None:
        base = HERE / "templates"
        texts = {path.relative_to(base).as_posix(): path.read_text() for path in base.rglob("*.html")}
        self._env = Environment(
            loader=DictLoader(texts), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._env.filters |= {
            "clock": clock,
            "iso": iso,
            "many": many,
            "span": span,
            "about": about,
            "words": lambda text: str(text).replace("_", " "),
            "ticks": ticks,
            "part": lambda text: quote(str(text), safe=""),
        }
        self._env.globals |= {"static": statics.url, "BUTTONS": BUTTONS, "MEANINGS": MEANINGS}
        for name in texts:
            self._env.get_template(name)

    def __call__(self, template: str, facts: Mapping[str, Any]) -> str:
        """The text of a template."""
        return self._env.get_template(template).render(facts)


def clock(at: datetime | None) -> str:
    """A time for people, in UTC; browsers show it in their own zone."""
    return "—" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(at: datetime | None) -> str:
    """A time for machines."""
    return "" if at is None else at.astimezone(UTC).isoformat(timespec="seconds")


def ticks(text: str) -> Markup:
    """A sentence, escaped, with what stands between backticks as code."""
    parts = text.split("`")
    escaped = (
        escape(part) if number % 2 == 0 else Markup("<code>{}</code>").format(part) for number, part in enumerate(parts)
    )
    return Markup("").join(escaped)


def many(count: int, noun: str) -> str:
    """`1 host`, `2 hosts`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def span(value: timedelta | float) -> str:
    """A length of time for people: `90 s`, `10 min`, `2 h`."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"


def about(seconds: float) -> str:
    """A measured length of time, to about two digits: `40 s`, `12 min`, `3.5 h`, `2.1 d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            digits = 0 if seconds >= 10 * length else 1
            return f"{round(seconds / length, digits):g} {unit}"
    return f"{seconds:.0f} s"
