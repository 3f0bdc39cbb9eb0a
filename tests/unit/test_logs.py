"""Logging: what its stream cannot take is lost, and nothing else happens."""

from __future__ import annotations

import io
import json

import structlog

from agent.config import LogTable
from agent.logs import configure_logs


class Full(io.StringIO):
    """A stream on a full disk."""

    is_full = True

    def write(self, text: str, /) -> int:
        if self.is_full:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_a_full_disk_under_the_log_stops_nobody_and_logging_goes_on() -> None:
    stream = Full()
    before = structlog.get_config()
    try:
        configure_logs(LogTable(), {}, stream)
        log = structlog.get_logger()
        log.warning("lost")
        stream.is_full = False
        log.warning("kept", build="b1")
    finally:
        structlog.configure(**before)
    [line] = stream.getvalue().splitlines()
    assert (json.loads(line)["event"], json.loads(line)["build"]) == ("kept", "b1")
