"""Owns the options that the commands about releases share."""

from __future__ import annotations

from pathlib import Path

import click

_FILE = click.Path(path_type=Path)

config_option = click.option(
    "--config",
    type=_FILE,
    metavar="FILE",
    help="The file with the table [release].  [default: /etc/hotcold/checkpoint.toml]",
)
repo_option = click.option(
    "--repo", type=_FILE, metavar="DIR", help="The git repository.  [default: release.repo of the configuration]"
)
