"""Owns files of archived records: one JSON object a line, as they lay in Consul. Blocking.

Which records go into one is left to `checkpoint.archiving`. A file is written whole or not at all, is durable before
anybody is told of it, and replaces no other.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from artifact import ConfigError, Refused
from artifact.publish import unpublished
from checkpoint.audit import read_record
from fleet import Entry
from fleet.keys import audit_key


def write_archive(path: Path, entries: Sequence[Entry]) -> None:
    """Write records into a new file.

    Raises:
        Refused: kind `file_exists`; nothing was written.
        ConfigError, TransientError: the disk; nothing was written.
    """
    with unpublished(path.parent) as file:
        try:
            file.writelines(entry.value + b"\n" for entry in entries)
            file.flush()
            os.fsync(file.fileno())
            # A crash before this line leaves no file of that name, after it a whole one. A link replaces nothing.
            os.link(file.name, path)
            _sync(path.parent)
        except FileExistsError as error:
            raise Refused(f"{path} exists: name another file", kind="file_exists") from error
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}", kind="disk_not_writable") from error


def read_archive(path: Path, app: str) -> tuple[Entry, ...]:
    """Records of a file, as entries of the keys that they had.

    Raises:
        Refused: kind `audit_damaged`: a line is no record.
        ConfigError: kind `file_unreadable`.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", kind="file_unreadable") from error
    entries = []
    for place, line in enumerate(lines, start=1):
        try:
            number = read_record(line).number
        except Refused as error:
            raise Refused(f"{path}, line {place}: {error}", kind="audit_damaged") from error
        entries.append(Entry(audit_key(app, number), line, 0, 0))
    return tuple(entries)


def make_durable(path: Path) -> None:
    """Make a file durable that an interrupted life may have written.

    Raises:
        ConfigError: the disk.
    """
    try:
        _sync(path, os.O_RDONLY)
        _sync(path.parent)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made durable: {error.strerror}", kind="disk_not_writable") from error


def _sync(path: Path, flags: int = os.O_RDONLY | os.O_DIRECTORY) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
