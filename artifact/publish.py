"""Owns putting an artifact and its manifest into a directory, whole or not at all; leaves making them to `pack`."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from artifact.diskerrors import disk_error
from artifact.errors import ConfigError, HotcoldError
from artifact.manifest import Manifest, decode_manifest

_PUBLISHED_MODE: Final = 0o644


class HashingWriter:
    """Counts and hashes what is written through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        """Write all of `data`."""
        self._file.write(data)
        self._hash.update(data)
        self.size_bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held here: the file is flushed when it is published."""

    @property
    def digest(self) -> str:
        """As it stands in a manifest."""
        return f"sha256:{self._hash.hexdigest()}"


@contextmanager
def unpublished(out: Path) -> Iterator[IO[bytes]]:
    """A new file in `out` under a temporary name; removed at the end unless `publish` has renamed it.

    Raises:
        ConfigError: kind `no_directory` or `disk_not_writable`.
        TransientError: the disk.
    """
    if not out.is_dir():
        raise ConfigError(f"{out} cannot be written: it is no directory; create it first", kind="no_directory")
    try:
        file = tempfile.NamedTemporaryFile(dir=out, prefix=".hotcold-", delete=False)  # noqa: SIM115 - closed below
    except OSError as error:
        raise disk_error(error, out, "creating a file") from error
    try:
        with file:
            yield file
    finally:
        with suppress(FileNotFoundError):
            Path(file.name).unlink()


def publish(file: IO[bytes], path: Path) -> None:
    """Give the finished temporary file its name: its data is durable before the name is, and the name at the end.

    Raises:
        ConfigError, TransientError: the disk.
    """
    try:
        file.flush()
        os.fchmod(file.fileno(), _PUBLISHED_MODE)
        os.fsync(file.fileno())
        # A crash before this line leaves no artifact, after it a whole one.
        Path(file.name).rename(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise disk_error(error, path.parent, f"publishing {path.name}") from error


def publish_data(data: bytes, path: Path) -> None:
    """Write `data` to `path`, whole or not at all; what stood there is replaced.

    Raises:
        ConfigError, TransientError: the disk.
    """
    with unpublished(path.parent) as file:
        try:
            file.write(data)
        except OSError as error:
            raise disk_error(error, path.parent, f"writing {path.name}") from error
        publish(file, path)


def check_unused(path: Path, digest: str) -> None:
    """Refuse to replace another artifact of the same name.

    Raises:
        ConfigError: kind `build_exists`.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256")
    except FileNotFoundError:
        return
    except OSError as error:
        raise disk_error(error, path.parent, f"comparing with {path.name}") from error
    if f"sha256:{found.hexdigest()}" != digest:
        raise _exists(path)


def published_manifest(path: Path, digest: str) -> Manifest | None:
    """The manifest at `path` if it describes the artifact with `digest`; None where there is no manifest yet.

    Raises:
        ConfigError: kind `build_exists`: it describes another one, or is no manifest.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise disk_error(error, path.parent, f"comparing with {path.name}") from error
    try:
        manifest = decode_manifest(data)
    except HotcoldError as error:
        raise ConfigError(f"{path} exists and is no manifest ({error}): move it away", kind="build_exists") from error
    if manifest.digest != digest:
        raise _exists(path)
    return manifest


def _exists(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} exists already and belongs to another tree: a build id is for ever, choose a new one",
        kind="build_exists",
    )
