"""Owns the real corpus: packages of PyPI and npm, as an app ships them, in three versions.

v1 is some 59,000 files and 1.1 GB. v2 is v1 with the bumps of an ordinary week: some 300 files differ, 100 are new.
v3 is v2 after a small fix: ten files. Everything is pinned in `pins/`. A file that does not change keeps its mtime, as
after a packer that normalises them; what this is worth to tools that look at mtimes first is theirs to keep.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, get_args

from benchmarks.corpus.compare import walk

Version = Literal["v1", "v2", "v3"]
VERSIONS: Final[tuple[Version, ...]] = get_args(Version)

_PINS: Final = Path(__file__).with_name("pins")
_RECIPE: Final = "2"
"""Part of the cache's key: raise it when what is made of the same pins changes."""

# Times of the three builds. Fixed, so that archives of the trees are the same bytes on every machine.
_BUILT_S: Final[Mapping[Version, int]] = {"v1": 1_717_200_000, "v2": 1_717_804_800, "v3": 1_717_891_200}

_EDITED_COUNT, _ADDED_COUNT = 7, 2
_EDITED_BYTES: Final = range(20_000, 60_000)


def corpus_key() -> str:
    """Another one whenever the trees are others; what is made of them is kept under it."""
    key = hashlib.sha256(_RECIPE.encode())
    for pin in sorted(_PINS.iterdir()):
        key.update(pin.read_bytes())
    return key.hexdigest()[:12]


def real_trees(directory: Path) -> dict[Version, Path]:
    """Make the trees below `directory`, or find those that an earlier call has made.

    Raises:
        subprocess.CalledProcessError: pip or npm failed; what they had made so far is removed at the next call.
    """
    home = directory / f"real-{corpus_key()}"
    if not home.exists():
        unfinished = home.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for version in ("v1", "v2"):
            _install(unfinished / version, unfinished / "scratch", version)
        _fix(unfinished / "v2", unfinished / "v3")
        _date(unfinished)
        unfinished.rename(home)
    return {version: home / version for version in VERSIONS}


def _install(tree: Path, scratch: Path, version: str) -> None:
    print(f"corpus: installing {version} from PyPI and npm", file=sys.stderr, flush=True)
    tree.mkdir(parents=True)
    scratch.mkdir()
    environment = os.environ | {"TMPDIR": str(scratch)}
    # The platform is named so that every machine gets the same wheels, whatever its Python is.
    platform = ["--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_17_x86_64", "--python-version", "3.11"]
    abis = ["--implementation", "cp", "--abi", "cp311", "--abi", "abi3", "--abi", "none"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    pip += ["--root-user-action", "ignore", "--target", str(tree / "python"), "--no-compile", "--no-deps"]
    pip += ["--only-binary", ":all:", *platform, *abis, "--requirement", str(_PINS / f"python-{version}.txt")]
    subprocess.run(pip, check=True, env=environment, umask=0o022)
    shutil.copyfile(_PINS / f"node-{version}.json", tree / "package.json")
    # Of v2 only the bumped packages differ from the lock; npm keeps the rest as it says.
    shutil.copyfile(_PINS / "node-v1.lock.json", tree / "package-lock.json")
    npm = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--no-progress"]
    npm += ["--omit-lockfile-registry-resolved", "--os=linux", "--cpu=x64", "--libc=glibc", f"--cache={scratch}/npm"]
    subprocess.run(npm, check=True, cwd=tree, env=environment, umask=0o022, stdout=subprocess.DEVNULL)
    shutil.rmtree(scratch)


def _fix(old: Path, new: Path) -> None:
    """Make v3 of v2: seven files of the size of ordinary sources edited, two added, one removed."""
    shutil.copytree(old, new, symlinks=True)
    fitting = sorted(
        path
        for path, entry in walk(new).items()
        if path.endswith((".py", ".js")) and entry.stat(follow_symlinks=False).st_size in _EDITED_BYTES
    )
    chosen = fitting[:: len(fitting) // (_EDITED_COUNT + 1)]
    for path in chosen[:_EDITED_COUNT]:
        lines = (new / path).read_bytes().splitlines(keepends=True)
        lines.insert(len(lines) // 2, b"\n")
        (new / path).write_bytes(b"".join(lines))
    (new / chosen[_EDITED_COUNT]).unlink()
    for number in range(_ADDED_COUNT):
        (new / "python" / f"fix_{number}.py").write_text(f'"""Number {number}."""\n\n' + f"VALUE = {number}\n" * 200)


def _date(home: Path) -> None:
    """Give everything the time of the build in which it came to be what it is."""
    before: Path | None = None
    for version in VERSIONS:
        tree = home / version
        paths = sorted(walk(tree, with_directories=True), reverse=True)
        for path in (*paths, "."):
            is_kept = before is not None and _is_same(before / path, tree / path)
            moment_s = (before / path).lstat().st_mtime if is_kept and before is not None else _BUILT_S[version]
            os.utime(tree / path, (moment_s, moment_s), follow_symlinks=False)
        before = tree


def _is_same(one: Path, other: Path) -> bool:
    """Whether it is the same file or link, or a directory with the same names, whatever has become of those."""
    if not os.path.lexists(one):
        return False
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and one.readlink() == other.readlink()
    if one.is_dir() or other.is_dir():
        return one.is_dir() and other.is_dir() and _names(one) == _names(other)
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()


def _names(directory: Path) -> set[str]:
    return {each.name for each in directory.iterdir()}
