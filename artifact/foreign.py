"""Owns pulling an archive that anybody may have made: tries each url until one gives it.

One attempt is left to `artifact.transfer`, the process that opens the archive (never this one) to `artifact.opening`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import Final

from artifact.diskerrors import disk_error
from artifact.errors import ConfigError, TransientError
from artifact.manifest import ManifestRef
from artifact.opening import Opening
from artifact.pullwire import Progress, PullSettings
from artifact.source import SourceFailed

_WORKING_MODE: Final = 0o700


async def pull_from_any(
    ref: ManifestRef,
    into: Path,
    *,
    settings: PullSettings,
    on_progress: Callable[[Progress], None],
    on_gaps: Callable[[tuple[str, ...]], None],
) -> None:
    """Fill `into`, an existing empty directory, from the first of the reference's urls that gives the artifact.

    Raises:
        TransientError: no url did; the message names each one's failure, the kind is theirs if they share one.
        HotcoldError: what `artifact.transfer` raises that no other url can help.
    """
    _check_empty(into)
    opening = Opening.start(ref, into, settings, on_gaps=on_gaps)
    try:
        # Only now, so that the other process starts meanwhile: the HTTP client takes longer to load than all else.
        from artifact.transfer import transfer  # noqa: PLC0415

        failures: list[SourceFailed] = []
        for url in ref.urls:
            if failures:
                empty(into)
                opening = Opening.start(ref, into, settings, on_gaps=on_gaps)
            try:
                await transfer(ref, url, opening, settings=settings, on_progress=on_progress)
            except SourceFailed as failure:
                failures.append(failure)
            else:
                return
    finally:
        opening.kill()  # it has ended, unless the modules could not be loaded
    kinds = {failure.kind for failure in failures}
    raise TransientError(
        f"build {ref.id} cannot be fetched: " + "; and ".join(str(failure) for failure in failures),
        kind=kinds.pop() if len(kinds) == 1 else SourceFailed.kind,
    ) from failures[-1]


def _check_empty(into: Path) -> None:
    try:
        with os.scandir(into) as entries:
            found = next((entry.name for entry in entries), None)
    except OSError as error:
        raise ConfigError(f"{into} cannot be filled: {error.strerror}", kind="disk_not_writable") from error
    if found is not None:
        raise ConfigError(f"{into} cannot be filled: it holds {found!a} already", kind="not_empty")


def empty(into: Path) -> None:
    """Remove what is in a directory, whoever's archive it came from; without recursion, however deep it is.

    Raises:
        TransientError, ConfigError: the disk; some of it is left.
    """
    try:
        with ExitStack() as stack:
            root = _opened(into, None, stack)
            pending = os.listdir(root)  # noqa: PTH208 - by a descriptor
            for round_count in count():
                if not pending:
                    return
                pending += _remove(pending.pop(), root, f".{secrets.token_hex(8)}.{round_count}")
    except OSError as error:
        raise disk_error(error, into, "removing what another attempt left") from error


def _remove(name: str, root: int, prefix: str) -> list[str]:
    """Remove a file, or a directory whose own directories move to the root under the names that are returned."""
    with suppress(IsADirectoryError):
        os.unlink(name, dir_fd=root)
        return []
    os.chmod(name, _WORKING_MODE, dir_fd=root)  # else it could not be listed or emptied
    moved: list[str] = []
    with ExitStack() as stack:
        fd = _opened(name, root, stack)
        for child in os.listdir(fd):  # noqa: PTH208 - by a descriptor
            try:
                os.unlink(child, dir_fd=fd)
            except IsADirectoryError:
                moved.append(f"{prefix}.{len(moved)}")
                os.chmod(child, _WORKING_MODE, dir_fd=fd)  # else it could not be moved
                os.rename(child, moved[-1], src_dir_fd=fd, dst_dir_fd=root)
    os.rmdir(name, dir_fd=root)
    return moved


def _opened(path: Path | str, dir_fd: int | None, stack: ExitStack) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    stack.callback(os.close, fd)
    return fd
