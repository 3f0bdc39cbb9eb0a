"""Owns `hotcold dev-store`; leaves what it answers to `fleet.devserver`."""

from __future__ import annotations

import asyncio
import signal

import click

from fleet.devserver import DevServer
from hotcold.command import Command


@click.command(
    "dev-store", cls=Command, examples=["hotcold dev-store --port 8500"], exits={0: "stopped by SIGTERM or SIGINT"}
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8500,
    show_default=True,
    metavar="N",
    help="Port on 127.0.0.1; 0: any free one.",
)
def dev_store(port: int) -> None:
    """Run an embedded store that speaks Consul's HTTP API, to try hotcold without Consul.

    It keeps everything in memory, knows no access control, and is not for production.
    """
    asyncio.run(_serve(port))


async def _serve(port: int) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with DevServer(port=port) as server:
        click.echo(f"export CONSUL_HTTP_ADDR={server.address}")
        click.echo("In memory only, until Ctrl-C. Not for production.", err=True)
        await stopped.wait()
