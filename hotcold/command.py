"""Owns how every sub-command behaves: help with examples and exit codes, errors as one message, lazy loading.

What each sub-command does is left to its own module.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, cast

import click

from artifact import ConfigError, HotcoldError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

FAILED: Final = 1
"""The operation failed: what was wanted has not happened."""
USAGE: Final = 2
"""The command line or a configuration is wrong: nothing was changed."""

_EXITS: Final[Mapping[int, str]] = {
    0: "done",
    FAILED: "the operation failed; the message says why",
    USAGE: "wrong usage or configuration; nothing was changed",
}


class Failure(click.ClickException):
    """The operation failed: one message on standard error."""

    exit_code = FAILED

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message."""
        colour = "red" if sys.stderr.isatty() else None
        click.secho(f"error: {self.message}", file=file, err=file is None, fg=colour)


class Misuse(Failure):
    """The command line or a configuration is wrong."""

    exit_code = USAGE


class Command(click.Command):
    """A sub-command whose help ends with examples, and whose expected errors are one clear message.

    Args:
        examples: command lines that work as they stand, given what they name.
        exits: meaning of exit codes, over 0, 1 and 2.
    """

    def __init__(
        self, *args: Any, examples: Sequence[str] = (), exits: Mapping[int, str] | None = None, **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        self.examples = tuple(examples)
        self.exits = {**_EXITS, **(exits or {})}

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write exit codes and, last, the examples."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in sorted(self.exits.items())])
        with formatter.section("Example" if len(self.examples) == 1 else "Examples"):
            for example in self.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Run; an expected error becomes a message, an unexpected one keeps its traceback."""
        try:
            return super().invoke(ctx)
        except HotcoldError as error:
            raise (Misuse if isinstance(error, ConfigError) else Failure)(str(error)) from error


@dataclass(frozen=True)
class Lazy:
    """Where a sub-command is, and what the list of commands says of it. `module` is imported when it is used."""

    module: str
    name: str
    summary: str


class LazyGroup(click.Group):
    """A group that lists its sub-commands without importing them: an agent must not carry what draws tables."""

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of a deploy, not of the alphabet."""
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import one sub-command."""
        place = self._lazy.get(cmd_name)
        if place is None:
            return None
        return cast("click.Command", getattr(importlib.import_module(place.module), place.name))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names and summaries, then this group's own options; again without importing what is listed."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only where a shell asks

        found = [
            CompletionItem(name, help=place.summary)
            for name, place in self._lazy.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """List names and summaries."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.summary) for name, place in self._lazy.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the epilog as it stands: it is made of command lines."""
        formatter.write(f"\n{inspect.cleandoc(self.epilog or '')}\n")
