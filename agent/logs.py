"""Owns how the agent logs: one line per event on standard error; keeping and rotating it is left to the supervisor."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TextIO

import structlog

from agent.config import LogTable


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

    `auto` is JSON where systemd connected the stream to its journal (`JOURNAL_STREAM`) or it is no terminal. `note` is
    told everything from `info` on, also what the log does not show.
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
