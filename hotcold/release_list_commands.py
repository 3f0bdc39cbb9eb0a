"""Owns `hotcold release list` and `show`; leaves how they look to `hotcold.release_view`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from checkpoint.release import BuildKey, Git, Ledger, ReleaseTable, load_release
from checkpoint.release.choosing import unfinished_of
from checkpoint.release.commits import Commits
from checkpoint.release.settings import DEFAULT_PATH
from fleet import Build, StoreUnreachable
from fleet.keys import check_name
from hotcold.command import Command, Failure
from hotcold.consul_options import consul_options, settings_of
from hotcold.options import app_option, person
from hotcold.release_options import config_option, repo_option
from hotcold.release_view import document, lines_of, table_of
from hotcold.terminal import console, print_plain

_SHOWN: Final = 20


@click.command(
    "list",
    cls=Command,
    examples=[
        "hotcold release list --app shop",
        "hotcold release list --app shop --repo /srv/git/shop",
        "hotcold release list --app shop --json | jq '.builds[] | {id, tiers, denied}'",
    ],
    exits={0: "shown", 1: "nothing was ever released, or Consul does not answer"},
)
@app_option
@config_option
@repo_option
@click.option("--all", "show_all", is_flag=True, help=f"Every build, not only the newest {_SHOWN}.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@consul_options
def list_builds(
    *,
    app: str,
    config: Path | None,
    repo: Path | None,
    show_all: bool,
    as_json: bool,
    consul: str | None,
    token_file: str | None,
) -> None:
    """Show the builds, the newest first: revision, when, by whom, commits, the tiers ordered to run them.

    With a repository also how many commits of the main branch each lacks, as far as they were fetched, and releases
    that were begun and never recorded.
    """
    standing = _ledger(app, consul, token_file).standing()
    git, table = _git(app, config, repo)
    kept = standing.builds if show_all else standing.builds[:_SHOWN]
    lacking = {key.id: _lacking(git, key) for key in kept}
    begun = () if git is None else unfinished_of(git.begun(app), standing.builds)
    if as_json:
        builds = [document(key, standing, lacking[key.id]) for key in kept]
        unfinished = [{"id": each.id, "commit": each.commit, "by": each.by, "at": each.at} for each in begun]
        click.echo(json.dumps({"app": app, "builds": builds, "unfinished": unfinished}, ensure_ascii=False))
        return
    if not standing.builds and not begun:
        raise Failure(f"nothing of {app} was released yet: `hotcold release cut --app {app}` does it")
    screen, picture = console(), table_of(kept, standing, lacking)
    if screen.is_terminal:
        screen.print(picture)
    else:
        print_plain(picture)
    if len(kept) < len(standing.builds):
        click.echo(f"{len(standing.builds) - len(kept)} older ones: --all shows them")
    for each in begun:
        click.echo(
            f"{each.id} was begun by {each.by} at {each.at} and is not recorded: "
            f"hotcold release resume {each.id} --app {app}"
        )
    if git is not None:
        click.echo(f"not yet: commits of {table.main} that a build lacks, as last fetched")


@click.command(
    cls=Command,
    examples=[
        "hotcold release show 2026-11-24.1 --app shop",
        "hotcold release show 2026-11-24.1 --app shop --repo /srv/git/shop --json | jq .not_yet",
    ],
    exits={0: "shown", 1: "there is no such build, or Consul does not answer"},
)
@click.argument("build_id", metavar="BUILD")
@app_option
@config_option
@repo_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@consul_options
def show(
    *,
    build_id: str,
    app: str,
    config: Path | None,
    repo: Path | None,
    as_json: bool,
    consul: str | None,
    token_file: str | None,
) -> None:
    """Show one build: where it is from, who cut it, its tiers, its commits; with a repository those it lacks."""
    standing = _ledger(app, consul, token_file).standing()
    key = next((key for key in standing.builds if key.id == build_id), None)
    if key is None:
        raise Failure(
            f"build {build_id} of {app} is not recorded: `hotcold release list --app {app}` shows those that are"
        )
    git, _ = _git(app, config, repo)
    lacking = _lacking(git, key)
    if as_json:
        click.echo(json.dumps(document(key, standing, lacking, with_commits=True), ensure_ascii=False))
        return
    if key.build is None:
        raise Failure(f"the record of build {build_id} cannot be read: {key.fault}")
    for line in lines_of(key.build, standing, lacking):
        click.echo(line)


def _ledger(app: str, consul: str | None, token_file: str | None) -> Ledger:
    check_name("app", app)
    return Ledger(settings_of(consul, token_file), app, _say_retry)


def _git(app: str, config: Path | None, repo: Path | None) -> tuple[Git | None, ReleaseTable]:
    """The repository, where one is given or configured on this machine."""
    if config is None and not DEFAULT_PATH.exists():
        table = ReleaseTable()
    else:
        table = load_release(config or DEFAULT_PATH, app)
    place = repo.absolute() if repo is not None else None if table.repo is None else Path(table.repo)
    return None if place is None else Git(place, table, by=person()), table


def _lacking(git: Git | None, key: BuildKey) -> Commits | None:
    """What the main branch has and the build has not; None: no repository tells."""
    build: Build | None = key.build
    if git is None or build is None or not git.is_known(build.revision):
        return None
    return git.log(git.main_commit(), build.revision)


def _say_retry(error: StoreUnreachable) -> None:
    click.echo(f"Consul does not answer ({error}); trying again", err=True)
