"""Owns which names and link targets an archive may contain, before anything touches a disk. Pure.

Reading archives is left to `artifact.tarstream` and `artifact.zipentries`, creating entries to `artifact.tree`.

Names are `str` in which bytes that are not UTF-8 stand as surrogates (`surrogateescape`), as Linux allows them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

from artifact.errors import ArtifactRejected

MAX_COMPONENT_BYTES: Final = 255
"""NAME_MAX of every file system that hotcold is meant for."""
MAX_PATH_BYTES: Final = 4096
"""PATH_MAX: a longer path could be created piece by piece, but no program could open it."""
MAX_LINKS_FOLLOWED: Final = 40
"""What Linux follows before it says ELOOP."""

Parts = tuple[str, ...]
"""A path below the root of the tree, split into components; the root itself is `()`."""


class _Kind(Enum):
    FILE = "a file"
    DIRECTORY = "a directory"
    IMPLIED = "a directory that other paths imply"
    SYMLINK = "a symbolic link"


def reject(entry: str, problem: str, *, kind: str = "archive_hostile") -> ArtifactRejected:
    """The error for one entry; `ascii` keeps control characters and broken encodings out of logs and reports."""
    return ArtifactRejected(f"archive entry {entry!a} {problem}", kind=kind)


class NameTable:
    """Every name of one archive, in the archive's order; refuses those that a host must not create.

    Each method raises `ArtifactRejected` naming the entry; the table is unusable afterwards.

    Args:
        allow_case_collisions: accept names that differ only by case or Unicode normalisation.
    """

    def __init__(self, *, allow_case_collisions: bool = False) -> None:
        self._allow_case_collisions = allow_case_collisions
        self._kinds: dict[str, _Kind] = {}
        self._folded: dict[str, str] = {}
        self._targets: dict[str, str] = {}
        self._root_listed = False

    def __len__(self) -> int:
        """How many entries there are, implied directories included, the root not."""
        return len(self._kinds)

    def add_file(self, name: str) -> Parts:
        """Accept a regular file."""
        return self._add(name, _Kind.FILE)

    def add_directory(self, name: str) -> Parts:
        """Accept a directory; the root (`./`) gives `()` and may be listed once."""
        return self._add(name, _Kind.DIRECTORY)

    def add_symlink(self, name: str, target: str) -> Parts:
        """Accept a symbolic link; where it leads is judged by `check_links`, when all names are known."""
        check_link(name, target)
        parts = self._add(name, _Kind.SYMLINK)
        self._targets["/".join(parts)] = target
        return parts

    def add_hard_link(self, name: str, target: str) -> tuple[Parts, Parts]:
        """Accept a hard link to a regular file that came earlier; returns its parts and those of the file."""
        target_parts = _split(name, target, "hard link target ")
        if self._kinds.get("/".join(target_parts)) is not _Kind.FILE:
            raise reject(name, f"is a hard link to {target!a}, which is no earlier regular file of the archive")
        return self._add(name, _Kind.FILE), target_parts

    def check_links(self) -> None:
        """Refuse symbolic links that leave the tree or run in circles. Links to nothing inside it are fine."""
        check_targets(self._targets)

    def _add(self, name: str, kind: _Kind) -> Parts:
        parts = _split(name, name, "")
        if not parts:
            if kind is not _Kind.DIRECTORY:
                raise reject(name, f"would replace the root of the tree by {kind.value}")
            if self._root_listed:
                raise reject(name, "(the root) is listed twice")
            self._root_listed = True
            return parts
        self._add_parents(name, parts)
        path = "/".join(parts)
        earlier = self._kinds.get(path)
        if earlier is not None and not (earlier is _Kind.IMPLIED and kind is _Kind.DIRECTORY):
            raise reject(name, f"is listed as {kind.value}, but the archive already has {earlier.value} there")
        if earlier is None:
            self._claim(name, path)
        self._kinds[path] = kind
        return parts

    def _add_parents(self, name: str, parts: Parts) -> None:
        missing = []
        for depth in range(len(parts) - 1, 0, -1):
            parent = "/".join(parts[:depth])
            kind = self._kinds.get(parent)
            if kind is None:
                missing.append(parent)
                continue
            if kind in (_Kind.FILE, _Kind.SYMLINK):
                raise reject(name, f"lies below {parent!a}, which is {kind.value} of the archive")
            break
        for parent in reversed(missing):
            self._claim(name, parent)
            self._kinds[parent] = _Kind.IMPLIED

    def _claim(self, name: str, path: str) -> None:
        """Remember `path` in the form in which a case-insensitive reader sees it.

        A path that is its own folded form is found in `_kinds` already, which halves the memory of usual trees.
        """
        if self._allow_case_collisions:
            return
        folded = fold(path)
        other = self._folded.get(folded, folded if folded in self._kinds else None)
        if other is not None and other != path:
            raise reject(name, f"makes {path!a}, which differs from {other!a} only by case or Unicode form: rename one")
        if folded != path:
            self._folded[folded] = path


def check_length(name: str) -> None:
    """Refuse a path that no program could open."""
    if _byte_count(name) > MAX_PATH_BYTES:
        raise reject(name[:64], f"(cut here) has a name longer than {MAX_PATH_BYTES} bytes")


def check_link(name: str, target: str) -> None:
    """Refuse a symbolic link that could not be made, or that is absolute."""
    if not target or "\0" in target:
        raise reject(name, f"is a symbolic link with the impossible target {target!a}")
    if target.startswith("/"):
        raise reject(name, f"is a symbolic link to the absolute path {target!a}: make it relative")
    if _byte_count(target) >= MAX_PATH_BYTES:
        raise reject(name, f"is a symbolic link whose target is longer than {MAX_PATH_BYTES - 1} bytes")
    if any(_byte_count(component) > MAX_COMPONENT_BYTES for component in target.split("/")):
        raise reject(name, f"is a symbolic link with a component longer than {MAX_COMPONENT_BYTES} bytes")


def check_targets(targets: Mapping[str, str]) -> None:
    """Refuse symbolic links, given as path and target, that leave the tree or run in circles."""
    for path, target in targets.items():
        _follow(path, target, targets)


def check_collisions(paths: Iterable[str]) -> None:
    """Refuse paths that differ only by case or Unicode form."""
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.setdefault(fold(path), path)
        if other != path:
            raise reject(path, f"differs from {other!a} only by case or Unicode form: rename one")


def fold(path: str) -> str:
    """The form in which a reader that minds neither case nor Unicode form sees it."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def _follow(path: str, target: str, targets: Mapping[str, str]) -> None:
    here = path.split("/")[:-1]
    ahead = target.split("/")[::-1]
    followed = 1
    while ahead:
        component = ahead.pop()
        if component in ("", "."):
            continue
        if component == "..":
            if not here:
                raise reject(path, f"is a symbolic link to {target!a}, which leads out of the tree")
            here.pop()
            continue
        here.append(component)
        further = targets.get("/".join(here))
        if further is not None:
            followed += 1
            if followed > MAX_LINKS_FOLLOWED:
                raise reject(path, f"is a symbolic link to {target!a}, which runs in circles")
            here.pop()
            ahead.extend(further.split("/")[::-1])


def _split(entry: str, path: str, what: str) -> Parts:
    if not path:
        raise reject(entry, f"has an empty {what or 'name '}".rstrip())
    if "\0" in path:
        raise reject(entry, f"has a NUL character in its {what or 'name '}".rstrip())
    if path.startswith("/"):
        raise reject(entry, f"has the absolute {what or 'name '}{path!a}")
    if _byte_count(path) > MAX_PATH_BYTES:
        raise reject(entry[:64], f"(cut here) has a {what or 'name '}longer than {MAX_PATH_BYTES} bytes")
    components = path.removesuffix("/").split("/")
    if ".." in components:
        raise reject(entry, f"climbs with '..' in its {what or 'name '}".rstrip())
    if "" in components:
        raise reject(entry, f"has an empty component in its {what or 'name '}".rstrip())
    for component in components:
        if _byte_count(component) > MAX_COMPONENT_BYTES:
            raise reject(entry, f"has a component longer than {MAX_COMPONENT_BYTES} bytes")
    return tuple(component for component in components if component != ".")


def _byte_count(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))
