"""Owns where things lie on a host and what release directories are called; leaves using them to others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from artifact.errors import Refused
from artifact.manifest import check_build_id

HOT: Final = "hot"
COLD: Final = "cold"
RELEASES: Final = "releases"
TABLES: Final = "tables"
TRASH_PREFIX: Final = ".trash-"
"""Trees on their way out; a build id never begins with a dot."""

_NAME = re.compile(r"(?P<build>[^~/]+)~(?P<number>[1-9][0-9]*)")


@dataclass(frozen=True)
class Layout:
    """The two directories of one app on one host.

    Attributes:
        root: holds `hot`, `cold` and `releases/`; one local file system.
        state_dir: holds what is known of them; may be another file system; never shared by two roots.
    """

    root: Path
    state_dir: Path

    @property
    def hot(self) -> Path:
        """The link that workers serve from."""
        return self.root / HOT

    @property
    def cold(self) -> Path:
        """The link to the standby, or to the release in preparation."""
        return self.root / COLD

    @property
    def releases(self) -> Path:
        """The directory of release directories."""
        return self.root / RELEASES

    @property
    def records(self) -> Path:
        """The directory of records, one per release."""
        return self.state_dir / RELEASES

    @property
    def tables(self) -> Path:
        """The directory of tables, one per release; what is in them is the puller's."""
        return self.state_dir / TABLES

    def table(self, release: str) -> Path:
        """The table of the release called so."""
        return self.tables / release

    @property
    def counter(self) -> Path:
        """The highest number that a release was ever given."""
        return self.state_dir / "counter"

    @property
    def lock(self) -> Path:
        """Held by the one writer; holds its pid."""
        return self.state_dir / "lock"


def name_release(build_id: str, number: int) -> str:
    """Return the name of the `number`-th release directory, made for `build_id`.

    Raises:
        Refused: kind `build_id`, `build_id` cannot stand in a path.
    """
    try:
        check_build_id(build_id)
    except ValueError as error:
        raise Refused(str(error), kind="build_id") from error
    return f"{build_id}~{number}"


def parse_release_name(name: str) -> tuple[str, int] | None:
    """Return build id and number, or None for a name that we never gave."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        check_build_id(match["build"])
    except ValueError:
        return None
    return match["build"], int(match["number"])
