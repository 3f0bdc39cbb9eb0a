"""Owns `hotcold pack`; leaves what goes into an artifact to `artifact.pack`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from artifact import ConfigError, Manifest
from artifact.minisign import Signature
from artifact.pack import PACKED_FORMATS, PackProgress, git_revision, pack
from artifact.previous import opened_previous
from hotcold.command import Command
from hotcold.key_options import key_options, open_key
from hotcold.terminal import console, many, size


@click.command(
    "pack",
    cls=Command,
    examples=[
        "hotcold pack ./build --app shop --id 2026-11-23.1 --out /srv/artifacts",
        "hotcold pack ./build --app shop --id 2026-11-23.1 --out ./out --url https://builds.example.com/shop",
        "hotcold pack ./build --app shop --id 2026-11-23.1 --out ./out --key ci.key",
    ],
    exits={1: "the tree holds what no host would open, or the disk failed; nothing was left in DIR"},
)
@click.argument("tree", type=click.Path(path_type=Path), metavar="TREE")
@click.option("--app", required=True, metavar="APP", help="The app.")
@click.option("--id", "build_id", required=True, metavar="ID", help="The build's id; used once, for ever.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Where artifact and manifest go."
)
@click.option(
    "--url",
    "url_base",
    multiple=True,
    metavar="BASE",
    help="Where DIR will be served, for the manifest; may be given several times, hosts try one after the other. "
    "Without it, hosts look beside the manifest.",
)
@click.option("--notes", metavar="TEXT", help="What is new, for people.")
@click.option("--format", "format_", type=click.Choice(PACKED_FORMATS), default="tar.zst", show_default=True)
@click.option(
    "--level",
    type=click.IntRange(1, 22),
    metavar="N",
    help="Compression: 1 to 22 for tar.zst, 1 to 9 for tar.gz.  [default: the format's own]",
)
@click.option(
    "--against",
    metavar="MANIFEST",
    help="The build before, by its manifest's path or URL: hosts that have it then fetch only a patch.",
)
@key_options(is_required=False)
def pack_command(
    *,
    tree: Path,
    app: str,
    build_id: str,
    out: Path,
    url_base: tuple[str, ...],
    notes: str | None,
    format_: str,
    level: int | None,
    against: str | None,
    key: Path | None,
    password_file: Path | None,
) -> None:
    """Make an artifact and its manifest of the directory TREE.

    The same tree gives the same bytes. Packing an unchanged tree again is harmless; another tree under the same id is
    refused, because hosts and people know a build by its id. The git commit of TREE is noted, where there is one.
    """
    if against is not None and format_ != "tar.zst":
        raise click.UsageError(f"--against makes a patch, which {format_} cannot have: leave --format away")
    sign = None if key is None else _signing(key, password_file)
    with ExitStack() as stack:
        previous = None if against is None else stack.enter_context(opened_previous(against))
        show = stack.enter_context(_display(app, build_id))
        manifest = pack(
            tree,
            app=app,
            build_id=build_id,
            out=out,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            on_progress=show,
            format=format_,
            level=level,
            url_base=url_base,
            revision=git_revision(tree),
            notes=notes,
            previous=previous,
            newest_s=_source_date_epoch(os.environ),
            sign=sign,
        )
    click.echo(f"manifest  {out / f'{app}-{build_id}.json'}")
    click.echo(f"artifact  {size(manifest.size)}, {manifest.format}, {show.summary}")
    for patch in manifest.index.patches if manifest.index else ():
        click.echo(f"patch     {size(patch.size)}, against {previous.id if previous else patch.base}")
    click.echo(f"digest    {manifest.digest}")
    click.echo(f"revision  {manifest.revision or 'unknown: not in a git work tree'}")
    if key is not None and manifest.signature is not None:
        click.echo(f"signed    by key {Signature.parse(manifest.signature).key_id}")
    for url in manifest.urls if url_base else ():
        click.echo(f"url       {url}")


def _source_date_epoch(environment: Mapping[str, str]) -> int | None:
    """The usual wish for reproducible builds: no modification time after this one."""
    text = environment.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise ConfigError(
            f"SOURCE_DATE_EPOCH is {text!r} and must be whole seconds since 1970: correct it, or unset it",
            kind="bad_epoch",
        )
    return int(text)


def _signing(key: Path, password_file: Path | None) -> Callable[[Manifest], str]:
    from artifact.signing import signature_by  # noqa: PLC0415 - only who signs pays for it

    return functools.partial(signature_by, open_key(key, password_file))


class _Shown:
    """What was packed so far, drawn by `draw`."""

    def __init__(self, draw: Callable[[PackProgress], None]) -> None:
        self._draw = draw
        self._last = PackProgress(files_done=0, files_total=0, bytes_done=0, bytes_total=0)

    def __call__(self, step: PackProgress) -> None:
        self._last = step
        self._draw(step)

    @property
    def summary(self) -> str:
        """How much went in."""
        return f"of {many(self._last.files_total, 'entry', 'entries')} with {size(self._last.bytes_total)}"


@contextmanager
def _display(app: str, build_id: str) -> Iterator[_Shown]:
    screen = console(stderr=True)
    if not screen.is_terminal:
        click.echo(f"packing {app} {build_id}", err=True)
        yield _Shown(lambda _: None)
        return
    columns = (
        TextColumn("packing {task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(build_id, total=None)
        yield _Shown(lambda step: bar.update(task, completed=step.bytes_done, total=step.bytes_total))
