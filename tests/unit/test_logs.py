"""Logging: what its stream cannot take is lost, and nothing else happens."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

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


def test_a_journal_gets_each_line_with_its_priority(tmp_path: Path) -> None:
    """And nobody else does: a stream that was redirected is no journal."""
    before = structlog.get_config()
    try:
        for is_journal in (True, False):
            with (tmp_path / str(is_journal)).open("w+") as stream:
                found = os.fstat(stream.fileno())
                named = f"{found.st_dev}:{found.st_ino}" if is_journal else f"{found.st_dev}:1"
                configure_logs(LogTable(level="debug"), {"JOURNAL_STREAM": named}, stream)
                log = structlog.get_logger()
                for level in ("debug", "info", "warning", "error"):
                    getattr(log, level)("said")
                stream.seek(0)
                lines = stream.read().splitlines()
            starts = ["<7>", "<6>", "<4>", "<3>"] if is_journal else [""] * 4
            assert [line.partition("{")[0] for line in lines] == starts
    finally:
        structlog.configure(**before)
