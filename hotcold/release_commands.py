"""Owns the list of what `hotcold release` can do; leaves each to its module, so that asking for help loads none."""

from __future__ import annotations

import click

from hotcold.command import Lazy, LazyGroup

_CUTTING = "hotcold.release_cut_commands"
_LISTING = "hotcold.release_list_commands"


@click.group(
    cls=LazyGroup,
    lazy={
        "cut": Lazy(_CUTTING, "cut", "Tag, build, upload and record the newest commit of the main branch."),
        "hotfix": Lazy(_CUTTING, "hotfix", "Pick commits onto a build's release branch, and release the result."),
        "resume": Lazy(_CUTTING, "resume", "Go on with a release that was cut short."),
        "list": Lazy(_LISTING, "list_builds", "Show the builds, and which tiers run them."),
        "show": Lazy(_LISTING, "show", "Show one build: what is in it, and what is not yet."),
    },
    epilog="""
        Example:
          hotcold release cut --app shop
          hotcold release list --app shop
          hotcold release show 2026-11-24.1 --app shop --repo /srv/git/shop
          hotcold release hotfix --app shop --pick 4f2a9c1 --onto 2026-11-24.1
    """,
)
def release() -> None:
    """Make builds of a git repository, bring them to where hosts fetch them, and record what is in them.

    Everything is configured by the table [release] of checkpoint.toml.
    """
