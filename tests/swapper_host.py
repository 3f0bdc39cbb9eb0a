"""Owns one root as the swapper's tests use it: builds with known content, deploys, and what must hold at all times."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from swapper import LINUX, Kernel, Layout, Release, Swap, Swapper
from swapper.kernel import LinuxKernel

DIGEST = "sha256:" + "0" * 64


def idle(_paths: Sequence[Path]) -> Mapping[Path, str]:
    """No process lives anywhere."""
    return {}


class OldKernel(LinuxKernel):
    """A kernel or file system that cannot exchange names."""

    def __init__(self, number: int = errno.EINVAL) -> None:
        super().__init__()
        self.number = number

    def exchange(self, first: str, second: str, *, dir_fd: int) -> None:
        raise OSError(self.number, os.strerror(self.number), first, None, second + str(dir_fd))


class FailingKernel(LinuxKernel):
    """Fails the calls named in `failing` with an errno, as a broken device or a full disk does."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: dict[str, int] = {}

    def _fail(self, call: str) -> None:
        if call in self.failing:
            raise OSError(self.failing[call], os.strerror(self.failing[call]))

    def exchange(self, first: str, second: str, *, dir_fd: int) -> None:
        self._fail("exchange")
        super().exchange(first, second, dir_fd=dir_fd)

    def rename(self, source: str, target: str, *, dir_fd: int) -> None:
        self._fail(f"rename {target}")
        super().rename(source, target, dir_fd=dir_fd)

    def symlink(self, target: str, name: str, *, dir_fd: int) -> None:
        self._fail("symlink")
        super().symlink(target, name, dir_fd=dir_fd)

    def fsync(self, fd: int) -> None:
        self._fail(f"fsync {Path(f'/proc/self/fd/{fd}').readlink().name}")
        super().fsync(fd)

    def syncfs(self, fd: int) -> None:
        self._fail("syncfs")
        super().syncfs(fd)


class Host:
    """A root and a state directory under `base`."""

    def __init__(self, base: Path, kernel: Kernel = LINUX) -> None:
        self.base = base
        self.kernel = kernel
        self.layout = Layout(base / "root", base / "state")

    def open(self) -> Swapper:
        return Swapper.open(self.layout, now=lambda: datetime.now(UTC), kernel=self.kernel)

    def deploy(self, swapper: Swapper, build_id: str, *, is_proved: bool = True) -> Swap:
        release = swapper.prepare(build_id, DIGEST)
        fill(release)
        swap = swapper.swap_in(swapper.complete(release))
        if is_proved:
            swapper.mark_proved(swap.release)
        return swap

    def links(self) -> tuple[str | None, str | None]:
        """What `hot` and `cold` say, None where there is no link."""
        return _read_link(self.layout.hot), _read_link(self.layout.cold)

    def trees(self) -> list[str]:
        return sorted(path.name for path in self.layout.releases.iterdir())

    def records(self) -> list[str]:
        return sorted(path.name.removesuffix(".json") for path in self.layout.records.iterdir())

    def assert_sound(self) -> None:
        """Nothing is left of any operation that was cut off."""
        assert {path.name for path in self.layout.root.iterdir()} <= {"hot", "cold", "releases"}
        assert {path.name for path in self.layout.state_dir.iterdir()} <= {"lock", "counter", "releases", "tables"}
        assert {path.name for path in self.layout.tables.iterdir()} <= set(self.trees())
        assert self.trees() == self.records()
        hot, cold = self.links()
        assert hot is None or hot != cold
        for link in (hot, cold):
            if link is not None:
                assert_whole(self.layout.root / link)


def fill(release: Release) -> None:
    (release.path / "one").write_text(release.build_id)
    (release.path / "sub").mkdir()
    (release.path / "sub" / "two").write_text(release.build_id)
    (release.path / "alias").symlink_to("one")


def assert_whole(tree: Path) -> str:
    """Every file is there and of one build; returns its id."""
    build_id = tree.name.partition("~")[0]
    assert {(tree / name).read_text() for name in ("one", "sub/two", "alias")} == {build_id}
    return build_id


def _read_link(path: Path) -> str | None:
    return str(path.readlink()) if path.is_symlink() else None
