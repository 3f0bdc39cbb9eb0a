"""Owns `hotcold release cut`, `hotfix` and `resume`; leaves what a release is to `checkpoint.release`."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from artifact import ConfigError, Manifest
from checkpoint.release import Git, Ledger, Releaser, ReleaseTable, Uploader, Workshop, load_release, place_of
from checkpoint.release.settings import DEFAULT_PATH
from fleet import Build, StoreUnreachable
from fleet.keys import check_name
from hotcold.command import Command
from hotcold.consul_options import consul_options, settings_of
from hotcold.options import app_option, person
from hotcold.release_options import config_option, repo_option
from hotcold.terminal import many

if TYPE_CHECKING:
    from artifact.secretkey import SecretKey

_notes_option = click.option("--notes", metavar="TEXT", help="What is new, for people; it goes into the manifest.")
_new_option = click.option(
    "--new", "is_new", is_flag=True, help="Leave a release that was begun and not recorded for good."
)
_dry_option = click.option(
    "--dry-run", "is_dry", is_flag=True, help="Ask the gate, say what would be made, and make nothing."
)


@click.command(
    cls=Command,
    examples=[
        "hotcold release cut --app shop",
        "hotcold release cut --app shop --repo /srv/git/shop --dry-run",
        "hotcold release cut --app shop --config ./checkpoint.toml --notes 'new checkout'",
    ],
    exits={
        0: "recorded; with --dry-run: it could be cut",
        1: "not cut, or not to the end; the message says why, and the command that goes on",
    },
)
@app_option
@config_option
@repo_option
@click.option("--commit", metavar="REVISION", help="An older commit of the main branch.  [default: its newest]")
@_notes_option
@_new_option
@click.option("--again", "is_again", is_flag=True, help="Release a commit that has a build already.")
@_dry_option
@consul_options
def cut(
    *,
    app: str,
    config: Path | None,
    repo: Path | None,
    commit: str | None,
    notes: str | None,
    is_new: bool,
    is_again: bool,
    is_dry: bool,
    consul: str | None,
    token_file: str | None,
) -> None:
    """Cut a release: gate, release branch and tag, build, pack, upload, record.

    It runs in a fresh work tree of the commit: the repository's checkout is neither used nor touched. Cut short at any
    point, it goes on where it was when it is run again, or says what to do.
    """
    releaser = _releaser(app, config, repo, consul=consul, token_file=token_file)
    _tell(releaser.cut(commit, notes=notes, is_new=is_new, is_again=is_again, is_dry=is_dry))


@click.command(
    cls=Command,
    examples=[
        "hotcold release hotfix --app shop --pick 4f2a9c1 --onto 2026-11-24.1",
        "hotcold release hotfix --app shop --pick 4f2a9c1 --pick 77b01de --dry-run",
    ],
    exits={
        0: "recorded; with --dry-run: it could be released",
        1: "not released, or not to the end; the message says why, and the command that goes on",
    },
)
@app_option
@config_option
@repo_option
@click.option(
    "--pick",
    "picks",
    multiple=True,
    required=True,
    metavar="SHA",
    help="A commit to apply; may be given several times, in that order.",
)
@click.option(
    "--onto", metavar="BUILD", help="The build to mend.  [default: the one that all tiers are ordered to run]"
)
@_notes_option
@_new_option
@_dry_option
@consul_options
def hotfix(
    *,
    app: str,
    config: Path | None,
    repo: Path | None,
    picks: tuple[str, ...],
    onto: str | None,
    notes: str | None,
    is_new: bool,
    is_dry: bool,
    consul: str | None,
    token_file: str | None,
) -> None:
    """Mend a build: pick commits onto its release branch, then build, upload and record as `release cut` does.

    A pick that conflicts is told with its files, and nothing is changed. The record says which build is mended.
    """
    releaser = _releaser(app, config, repo, consul=consul, token_file=token_file)
    _tell(releaser.hotfix(picks, onto, notes=notes, is_new=is_new, is_dry=is_dry))


@click.command(
    cls=Command,
    examples=[
        "hotcold release resume 2026-11-24.1 --app shop",
        "hotcold release resume 2026-11-24.1 --app shop --take-over",
    ],
    exits={0: "recorded, now or before", 1: "not to the end; the message says why"},
)
@click.argument("build_id", metavar="BUILD")
@app_option
@config_option
@repo_option
@click.option(
    "--take-over", is_flag=True, help="Go on also where it was begun on another machine, which is at it no more."
)
@consul_options
def resume(
    *,
    build_id: str,
    app: str,
    config: Path | None,
    repo: Path | None,
    take_over: bool,
    consul: str | None,
    token_file: str | None,
) -> None:
    """Go on with the release of BUILD that was cut short, with the same commit and under the same id."""
    releaser = _releaser(app, config, repo, consul=consul, token_file=token_file)
    _tell(releaser.resume(build_id, take_over=take_over))


def _releaser(
    app: str, config: Path | None, repo: Path | None, *, consul: str | None, token_file: str | None
) -> Releaser:
    check_name("app", app)
    # As by Ctrl-C: what is being run is ended, its work tree removed, and what is left is told.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    table = load_release(config or DEFAULT_PATH, app)
    place = repo.absolute() if repo is not None else None if table.repo is None else Path(table.repo)
    if place is None:
        raise ConfigError("which repository? give --repo, or release.repo in the configuration", kind="no_repository")
    by = person()
    git = Git(place, table, by=by)
    places = [place_of(upload, os.environ) for upload in table.uploads]
    workshop = Workshop(
        _work_dir(table) / app,
        app=app,
        table=table,
        git=git,
        environment=os.environ,
        now=lambda: datetime.now(UTC).isoformat(timespec="seconds"),
        say=click.echo,
        show=_show,
        sign=_signing(table),
    )
    return Releaser(
        app,
        table,
        git=git,
        workshop=workshop,
        records=Ledger(settings_of(consul, token_file), app, _say_retry),
        places=places,
        uploader=Uploader(places, pause=time.sleep, say=click.echo),
        by=by,
        now=lambda: datetime.now(UTC),
        say=click.echo,
    )


def _work_dir(table: ReleaseTable) -> Path:
    if table.work_dir is not None:
        return Path(table.work_dir)
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state") / "hotcold" / "release"


def _signing(table: ReleaseTable) -> Callable[[Manifest], str] | None:
    if table.key is None:
        return None
    from artifact.signing import signature_by  # noqa: PLC0415 - only who signs pays for it
    from hotcold.key_options import open_key  # noqa: PLC0415 - likewise

    password_file = None if table.password_file is None else Path(table.password_file)
    # Opened now: a password that is wrong, or has to be asked for, must not come up after an hour of building.
    key: SecretKey = open_key(Path(table.key), password_file)
    return functools.partial(signature_by, key)


def _show(output: bytes) -> None:
    sys.stdout.flush()
    sys.stderr.buffer.write(output)
    sys.stderr.buffer.flush()


def _say_retry(error: StoreUnreachable) -> None:
    click.echo(f"Consul does not answer ({error}); trying again", err=True)


def _tell(build: Build | None) -> None:
    if build is None:
        return
    since = "" if build.since is None else f" since {build.since}"
    click.echo(f"build     {build.build.id}, {many(build.commit_count, 'commit')}{since}")
    if build.hotfix_of is not None:
        click.echo(f"mends     {build.hotfix_of}")
    click.echo(f"revision  {build.revision}")
    click.echo(f"manifest  {build.manifest}")
    click.echo(f"roll it out with: hotcold rollout start {build.build.id} --app {build.app} --reason TEXT")
