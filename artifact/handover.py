"""Owns how an artifact's bytes go from the process that fetches them to the one that opens them: over a pipe.

Here is the reading end, for it must load fast; the writing end is `artifact.feed`. What the bytes are is left to
`artifact.transfer` on one side and `artifact.extract` on the other.

The end of the pipe means nothing, for it also comes when the writer is killed. The archive has ended when all its bytes
were followed by one more, `END`, which the writer withholds until it knows that they are right.
"""

from __future__ import annotations

import io
from typing import Final

from artifact.entries import CHUNK_BYTES

END: Final = b"\4"


class HandoverAborted(Exception):
    """The writer has given up or is gone: nobody wants the tree any more."""


class HandoverReader:
    """The blocking reading end.

    Args:
        fd: of a pipe.
        size_bytes: of the artifact.
    """

    def __init__(self, fd: int, size_bytes: int) -> None:
        self._pipe = io.BufferedReader(io.FileIO(fd, closefd=False), CHUNK_BYTES)
        self._missing_bytes = size_bytes
        self._at_end = False

    def read(self, size: int, /) -> bytes:
        """Block for the next bytes, at most `size`; none at the end.

        Raises:
            HandoverAborted: the writer gave up.
        """
        if self._missing_bytes:
            data = self._pipe.read1(min(size, self._missing_bytes))
            if not data:
                raise HandoverAborted
            self._missing_bytes -= len(data)
            return data
        if not self._at_end:
            if self._pipe.read1(1) != END:
                raise HandoverAborted
            self._at_end = True
        return b""
