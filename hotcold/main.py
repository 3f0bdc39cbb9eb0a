"""Owns the entry point `hotcold` and the list of its sub-commands; leaves each of them to its module."""

from __future__ import annotations

import click

from hotcold.command import Lazy, LazyGroup

COMMANDS = {
    "demo": Lazy("hotcold.demo_command", "demo", "Show everything on this machine: store, three hosts, load, deploys."),
    "pack": Lazy("hotcold.pack_command", "pack_command", "Make an artifact and its manifest of a tree."),
    "key": Lazy("hotcold.key_commands", "key", "Make keys that sign builds, and look at them."),
    "sign": Lazy("hotcold.sign_command", "sign", "Sign manifests of builds that were packed elsewhere."),
    "release": Lazy(
        "hotcold.release_commands", "release", "Make builds of a git repository, and record what is in them."
    ),
    "deploy": Lazy("hotcold.deploy_command", "deploy", "Order a build for a tier, or for a part of it."),
    "rollback": Lazy("hotcold.rollback_command", "rollback", "Order the build before, at once, for the whole tier."),
    "rollout": Lazy("hotcold.rollout_commands", "rollout", "Roll builds out through the tiers, step by step."),
    "commander": Lazy("hotcold.commander_commands", "commander", "Be the one who watches the rollouts."),
    "schedule": Lazy("hotcold.commander_commands", "schedule", "Keep the deploys of the day with their commanders."),
    "audit": Lazy("hotcold.audit_commands", "audit", "Read what was done, and check that nothing of it was changed."),
    "checkpoint": Lazy("hotcold.checkpoint_commands", "checkpoint", "Run the engine that takes the steps of rollouts."),
    "fleet": Lazy("hotcold.fleet_command", "fleet", "Show what the hosts of an app are doing."),
    "verdict": Lazy("hotcold.verdict_command", "verdict", "Judge recorded rollouts anew, by the same or other limits."),
    "status": Lazy("hotcold.status_command", "status", "Show what the agent on this host is doing, and why."),
    "why": Lazy("hotcold.why_command", "why", "Say why this host does not run what the order says."),
    "history": Lazy("hotcold.history_command", "history", "Show what has happened on this host."),
    "hold": Lazy("hotcold.local_commands", "hold", "Let this host start no deploy until `unhold`."),
    "unhold": Lazy("hotcold.local_commands", "unhold", "Let this host deploy again."),
    "repull": Lazy("hotcold.local_commands", "repull", "Fetch this host's build anew, completely, and swap."),
    "forget": Lazy("hotcold.local_commands", "forget", "Let this host try a refused build again."),
    "verify": Lazy("hotcold.verify_command", "verify", "Read this host's releases again; say which files differ."),
    "plan": Lazy("hotcold.plan_command", "plan", "Say what this host would do now, and change nothing."),
    "doctor": Lazy("hotcold.doctor_command", "doctor", "Look for what is wrong with this host, and say what to do."),
    "acl-policy": Lazy("hotcold.acl_policy_command", "acl_policy", "Print the least that Consul must allow."),
    "install": Lazy("hotcold.install_command", "install", "Install the agent of one app on this host."),
    "agent": Lazy("hotcold.agent_commands", "agent", "Run the agent of this host."),
    "check-config": Lazy("hotcold.agent_commands", "check_config", "Check an agent's configuration file."),
    "completion": Lazy("hotcold.completion_command", "completion", "Print the completion for a shell."),
    "dev-store": Lazy(
        "hotcold.dev_store_command", "dev_store", "Run an embedded store, to try hotcold without Consul."
    ),
}


def _print_version(ctx: click.Context, _: click.Parameter, is_wanted: bool) -> None:  # noqa: FBT001 - click's signature
    if is_wanted:
        from importlib.metadata import version  # noqa: PLC0415 - slow, and asked for seldom

        click.echo(f"hotcold {version('hotcold')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""
        Example:
          hotcold pack ./build --app shop --id 2026-11-23.1 --out /srv/artifacts
          hotcold deploy /srv/artifacts/shop-2026-11-23.1.json --app shop --tier staging --wait
          hotcold fleet --app shop --watch
    """,
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def cli() -> None:
    """Pull-based deploys: set one key in Consul, and every host pulls, drains, swaps, proves and reports."""


def main() -> None:
    """Run the command line of this process and exit."""
    cli(prog_name="hotcold")
