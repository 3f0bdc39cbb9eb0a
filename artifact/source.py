"""Owns that a place does not give what it should, and opening places that are local files; HTTP is `artifact.fetch`'s.

Light on purpose: a pull that needs no network does not pay for a client of one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from artifact.errors import TransientError


class SourceFailed(TransientError):
    """One url did not give the artifact; another one, or the same one later, may."""

    kind = "artifact_unreachable"


class RateWatch:
    """Notices a server that drips: pure arithmetic over the time spent waiting for it.

    Args:
        min_rate_bytes: per second; slower over a whole window is too slow.
        window_s: of waiting.
    """

    def __init__(self, min_rate_bytes: int, window_s: float) -> None:
        self._min_rate_bytes = min_rate_bytes
        self._window_s = window_s
        self._waited_s = 0.0
        self._received_bytes = 0

    def is_too_slow(self, waited_s: float, received_bytes: int) -> bool:
        """Count one read; True where it completes a window that was too slow."""
        self._waited_s += waited_s
        self._received_bytes += received_bytes
        if self._waited_s < self._window_s:
            return False
        too_slow = self._received_bytes < self._min_rate_bytes * self._waited_s
        self._waited_s, self._received_bytes = 0.0, 0
        return too_slow


@contextmanager
def opened_path(url: str) -> Iterator[int]:
    """A descriptor of the regular file that a `file` url names.

    Raises:
        SourceFailed: there is none, or it cannot be read.
    """
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise SourceFailed(f"{url} names the host {parts.netloc!r}: a file:// url must be file:///path", kind="bad_url")
    try:
        # O_NONBLOCK: a fifo put there would block the open for ever.
        fd = os.open(Path(unquote(parts.path)), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceFailed(
            f"{url} cannot be opened by user {os.geteuid()}: {reason}; copy the artifact there"
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise SourceFailed(f"{url} is no regular file: put the artifact there")
        yield fd
    finally:
        os.close(fd)
