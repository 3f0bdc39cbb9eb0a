"""Owns how the agent logs: one line per event on standard error; keeping and rotating it is left to the supervisor."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final, TextIO

import structlog

from agent.config import LogTable

_PRIORITIES: Final = MappingProxyType({"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7})
"""What syslog, and so the journal, calls our levels."""


class LineLogger(structlog.PrintLogger):
    """Prints lines, and loses what it cannot: a full disk under a log, or a journal that is gone, stops nobody."""

    def msg(self, message: str) -> None:
        """Print one line."""
        with suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = fatal = failure = err = error = critical = exception = msg


def configure_logs(
    table: LogTable,
    environment: Mapping[str, str],
    stream: TextIO = sys.stderr,
    *,
    note: structlog.typing.Processor = lambda _logger, _method, entry: entry,
) -> None:
    """Log from now on as the configuration says; may be called again.

    `auto` is JSON where systemd connected the stream to its journal (`JOURNAL_STREAM`) or it is no terminal. A
    journal gets each line with its priority, so that `journalctl -p warning` works. `note` is told everything from
    `info` on, also what the log does not show.
    """
    levels = logging.getLevelNamesMapping()
    level = levels[table.level.upper()]

    def noted(logger: object, method: str, entry: structlog.typing.EventDict) -> structlog.typing.ProcessorReturnValue:
        return entry if levels[entry["level"].upper()] < logging.INFO else note(logger, method, entry)

    def shown(_logger: object, _method: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if levels[entry["level"].upper()] < level:
            raise structlog.DropEvent
        return entry

    is_journal = "JOURNAL_STREAM" in environment or not stream.isatty()
    as_json = is_journal if table.format == "auto" else table.format == "json"
    rendering: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)]
    )
    if _is_journal(environment.get("JOURNAL_STREAM", ""), stream):
        rendering.append(_with_priority(rendering.pop()))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            noted,
            shown,
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min(level, logging.INFO)),
        logger_factory=lambda *_: LineLogger(stream),
        cache_logger_on_first_use=False,
    )


def _is_journal(named: str, stream: TextIO) -> bool:
    """Whether it is the very stream that systemd named, by device and inode, and not one that was redirected since."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or none of the system's
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


def _with_priority(render: structlog.typing.Processor) -> structlog.typing.Processor:
    """Put sd-daemon(3)'s prefix before what is rendered."""

    def rendered(logger: object, method: str, entry: structlog.typing.EventDict) -> str:
        return f"<{_PRIORITIES.get(method, _PRIORITIES['info'])}>{render(logger, method, entry)!s}"

    return rendered
