"""Owns the order in which a build's files go to every place, trying again, and reading them back.

One place, and one file, are left to `checkpoint.release.places`.

What is promised: a manifest lies nowhere before every file that it names lies everywhere and was read back whole; a
manifest of another artifact is never replaced; what lies there already is not sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from artifact import ConfigError, TransientError
from checkpoint.release.places import Content, Place, content_at, content_of

RETRY_PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)

_Answer = TypeVar("_Answer")


class Uploader:
    """Puts builds to all places.

    Args:
        places: where to.
        pause: waits that many seconds.
        say: tells people what is going on, a line each.
    """

    def __init__(self, places: Sequence[Place], *, pause: Callable[[float], None], say: Callable[[str], None]) -> None:
        self._places = places
        self._pause = pause
        self._say = say

    def upload(self, files: Sequence[Path], manifest: Path) -> None:
        """Put a build's files everywhere, and then its manifest.

        Called again, it goes on where it was.

        Raises:
            ConfigError: kind `build_exists`: a manifest of that name is there and is not this one; `not_readable`: what
                was put there does not come back as it was; or what `Place.put` raises.
            TransientError: a place does not answer, however often it was asked.
        """
        wanted = content_of(manifest)
        for place in self._places:
            found = self._insist(place.find, manifest.name)
            if found is not None and found != wanted:
                raise ConfigError(
                    f"{place.table.to} has another {manifest.name}: its id is in use there; nothing was replaced. Cut "
                    "the next build with --new, and find out who wrote that one",
                    kind="build_exists",
                )
        for path in (*files, manifest):
            content = content_of(path)
            for place in self._places:
                self._bring(place, path, content)

    def _bring(self, place: Place, path: Path, content: Content) -> None:
        where = place.table.to.rstrip("/")
        if self._insist(place.find, path.name) == content:
            self._say(f"{where}/{path.name} is there already")
        else:
            self._insist(lambda name: place.put(name, path), path.name)
            self._say(f"{where}/{path.name} uploaded, {content.size} bytes")
        if place.table.read_back == "url":
            url = f"{place.table.seen_at}/{quote(path.name)}"
            found = self._insist(content_at, url)
        else:
            url = f"{where}/{path.name}"
            found = self._insist(place.find, path.name)
        if found != content:
            what = "nothing is there" if found is None else f"{found.size} bytes, {found.digest}, are there"
            raise ConfigError(
                f"{url} was uploaded to {where} and does not come back: {what} instead of {content.size} bytes, "
                f"{content.digest}; is `url` the address under which hosts see {where}?",
                kind="not_readable",
            )

    def _insist(self, ask: Callable[[str], _Answer], what: str) -> _Answer:
        for pause_s in RETRY_PAUSES_S:
            try:
                return ask(what)
            except TransientError as error:
                self._say(f"{error}; trying again")
                self._pause(pause_s)
        return ask(what)
