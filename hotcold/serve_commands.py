"""Owns `hotcold checkpoint serve` and `token`: the process with pages; leaves what they show to `checkpoint.web`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import click
import msgspec

from artifact import ConfigError
from checkpoint.pipeline import Settings
from checkpoint.web.settings import check_web
from fleet import Store
from hotcold.checkpoint_commands import engine_settings, run_engine
from hotcold.command import Command
from hotcold.consul_options import consul_options, settings_of
from hotcold.options import app_option, person
from hotcold.rollout_options import config_option


@click.command(
    cls=Command,
    examples=[
        "hotcold checkpoint serve --app shop",
        "hotcold checkpoint serve --app shop --config /etc/hotcold/checkpoint.toml --listen 127.0.0.1:8091",
    ],
    exits={0: "stopped by SIGTERM or SIGINT", 1: "cannot run; the message says why"},
)
@app_option
@config_option
@click.option(
    "--listen", metavar="ADDRESS", help="Where the pages are served.  [default: web.listen, else 127.0.0.1:8090]"
)
@consul_options
def serve(*, app: str, config: Path | None, listen: str | None, consul: str | None, token_file: str | None) -> None:
    """Run an engine and Checkpoint's pages in the foreground: look at rollouts in a browser, start and steer them.

    Any number of them may run; one leads, all serve. Without a way to sign in configured, it listens on this machine
    only, and prints a link that signs in whoever opens it.
    """
    _check_installed()
    settings = engine_settings(config, app)
    if listen is not None:
        settings = msgspec.structs.replace(settings, web=msgspec.structs.replace(settings.web, listen=listen))
        check_web(settings.web)

    def beside(store: Store, name: str) -> contextlib.AbstractAsyncContextManager[object]:
        return _pages(store, settings, name)

    asyncio.run(run_engine(settings_of(consul, token_file), settings, beside))


@contextlib.asynccontextmanager
async def _pages(store: Store, settings: Settings, name: str) -> AsyncIterator[None]:
    from checkpoint.web.app import serving  # noqa: PLC0415 - a server and templates: for this command only

    async with serving(store, settings, name=name, launcher=person()) as served:
        click.echo(f"Checkpoint of {settings.pipeline.app} is at {served.url}")
        if served.sign_in_url is not None:
            click.echo(f"sign in by this link, as {person()}: {served.sign_in_url}")
        yield


def _check_installed() -> None:
    try:
        import jinja2  # noqa: F401, PLC0415 - only asked whether it is there
    except ImportError as error:
        raise ConfigError(
            "the pages need Jinja2, which is not installed: pip install 'hotcold[checkpoint]'. "
            "`hotcold checkpoint run` needs no pages"
        ) from error


@click.command(
    cls=Command,
    examples=["hotcold checkpoint token new --name anna --role deploy --file /etc/hotcold/checkpoint-tokens.toml"],
    exits={0: "made; standard output is the token", 2: "not made; the file is as it was"},
)
@click.argument("deed", type=click.Choice(["new"]), metavar="new")
@click.option("--name", required=True, metavar="NAME", help="Whose it is: it stands in the audit.")
@click.option("--role", type=click.Choice(["read", "deploy", "admin"]), default="read", show_default=True)
@click.option(
    "--file",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file that web.tokens_file names; it holds hashes only.",
)
def token(*, deed: str, name: str, role: Literal["read", "deploy", "admin"], file: Path) -> None:
    """Make a token by which somebody signs in to the pages, or calls the API. It is shown once, and kept nowhere.

    Take its lines out of the file to end it: its sessions end within seconds.
    """
    from checkpoint.web.tokens import new_token  # noqa: PLC0415 - scrypt's module, for this command only

    assert deed == "new"  # noqa: S101 - the only choice
    click.echo(new_token(file, name, role))
