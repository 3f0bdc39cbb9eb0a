"""Owns `hotcold acl-policy`; leaves the rules to `fleet.acl`."""

from __future__ import annotations

import socket

import click

from fleet.acl import admin_rules, agent_rules, commander_rules, engine_rules
from fleet.keys import check_name
from hotcold.command import Command
from hotcold.options import app_option


@click.command(
    cls=Command,
    examples=[
        "hotcold acl-policy --app shop --tier prod | consul acl policy create -name hotcold-shop-web-1 -rules -",
        "hotcold acl-policy --app shop --tier prod --host web-7 --node i-0abc",
        "hotcold acl-policy --app shop --tier prod --service shop-web",
        "hotcold acl-policy --app shop --commander",
        "hotcold acl-policy --app shop --admin",
        "hotcold acl-policy --app shop --engine --node deploy-1",
    ],
)
@app_option
@click.option("--tier", metavar="TIER", help="The tier of the host.")
@click.option("--host", metavar="HOST", help="Its name, as in the agent's configuration.  [default: this machine's]")
@click.option("--node", metavar="NODE", help="Name of its Consul agent.  [default: the host's]")
@click.option(
    "--service",
    "services",
    multiple=True,
    metavar="NAME",
    help="A service of the app's own that it takes out of service.",
)
@click.option("--commander", is_flag=True, help="For somebody who orders builds, instead of an agent.")
@click.option("--admin", is_flag=True, help="For a commander who may also archive the audit.")
@click.option("--engine", is_flag=True, help="For `hotcold checkpoint run`, instead of an agent; takes --node.")
def acl_policy(
    *,
    app: str,
    tier: str | None,
    host: str | None,
    node: str | None,
    services: tuple[str, ...],
    commander: bool,
    admin: bool,
    engine: bool,
) -> None:
    """Print the least that Consul must allow: to the agent of one host, to a commander, or to an engine.

    For `consul acl policy create -rules -`. Asks nobody.
    """
    check_name("app", app)
    if engine:
        if tier or host or services or commander or admin:
            raise click.UsageError("--engine is for all tiers and hosts of the app: it takes only --node")
        click.echo(engine_rules(app, node or socket.gethostname()), nl=False)
        return
    if commander or admin:
        if tier or host or services or node:
            raise click.UsageError("--commander is for all tiers and hosts of the app: it takes neither of them")
        click.echo(admin_rules(app) if admin else commander_rules(app), nl=False)
        return
    if not tier:
        raise click.UsageError("give --tier, --commander, --admin or --engine")
    host = host or socket.gethostname()
    for service in services:
        check_name("service", service)
    rules = agent_rules(app, check_name("tier", tier), check_name("host", host), node or host, services)
    click.echo(rules, nl=False)
