"""Owns `hotcold key`: making the keys that sign builds, and looking at them; leaves their files to `artifact`."""

from __future__ import annotations

from pathlib import Path

import click

from artifact import ConfigError
from artifact.minisign import PublicKey, read_key_text
from hotcold.command import Command, Lazy, LazyGroup
from hotcold.key_options import new_password, open_key, password_option

_FILE = click.Path(path_type=Path)


@click.group(
    cls=LazyGroup,
    lazy={
        "new": Lazy("hotcold.key_commands", "new", "Make a secret key and its public key."),
        "show": Lazy("hotcold.key_commands", "show", "Show a key's id, and the line by which agents trust it."),
    },
    epilog="""
        Example:
          hotcold key new ci.key
          hotcold key show ci.pub
    """,
)
def key() -> None:
    """Make keys that sign builds, and look at them. They are minisign's: `minisign` reads ours, and we its."""


@click.command(
    cls=Command,
    examples=[
        "hotcold key new ci.key",
        "hotcold key new ci.key --public /srv/keys/ci.pub --password-file /run/secrets/ci",
        "hotcold key new ci.key --no-password",
    ],
    exits={1: "the disk failed; neither file was made", 2: "wrong usage, or one of the files exists"},
)
@click.argument("secret", type=_FILE, metavar="FILE")
@click.option(
    "--public", type=_FILE, metavar="FILE", help="Where the public key goes.  [default: FILE, ending in .pub]"
)
@password_option
@click.option("--no-password", is_flag=True, help="Do not lock the secret key: whoever reads the file can sign.")
def new(*, secret: Path, public: Path | None, password_file: Path | None, no_password: bool) -> None:
    """Make a secret key in FILE, which only you may read, and its public key beside it.

    The password locks the secret key; without --password-file or --no-password it is asked for.
    """
    from artifact.keyfiles import write_key_pair  # noqa: PLC0415 - only who makes keys pays for it
    from artifact.secretkey import SecretKey  # noqa: PLC0415 - the same

    if no_password and password_file is not None:
        raise click.UsageError("--password-file and --no-password contradict each other")
    public = public or secret.with_suffix(".pub")
    if public == secret:
        raise ConfigError(f"{secret}: secret and public key need a file each; name the other one by --public")
    made = SecretKey.generate()
    password = None if no_password else new_password(secret, password_file)
    write_key_pair(made, secret=secret, public=public, password=password)
    click.echo(f"secret key  {secret}  (keep it where builds are signed, and nowhere else)")
    click.echo(f"public file {public}")
    _describe(made.public)


@click.command(
    cls=Command,
    examples=["hotcold key show ci.pub", "hotcold key show ci.key --password-file /run/secrets/ci"],
)
@click.argument("file", type=_FILE, metavar="FILE")
@password_option
def show(*, file: Path, password_file: Path | None) -> None:
    """Show the id of the key in FILE, public or secret, and the line by which agents trust it.

    A secret key that is locked shows nothing without its password.
    """
    try:
        public = PublicKey.parse(read_key_text(file))
    except ValueError as not_public:
        try:
            public = open_key(file, password_file).public
        except ConfigError as not_secret:
            if not_secret.kind != "key_invalid":
                raise
            raise ConfigError(
                f"{file}: a minisign key neither public ({not_public}) nor secret ({not_secret})", kind="key_invalid"
            ) from not_public
    _describe(public)


def _describe(public: PublicKey) -> None:
    click.echo(f"key id      {public.key_id}")
    click.echo(f"public key  {public.line()}")
    click.echo(f'for agents  trusted_keys = ["{public.line()}"]')
