"""Owns the `[release]` table of `checkpoint.toml`: where builds come from, how they are made, where they go; strict.

The other tables of that file are left to whoever reads them; running what is configured, to the rest of the package.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from artifact import ConfigError
from fleet.keys import check_name
from fleet.strict_toml import parse_toml, read_text

DEFAULT_PATH: Final = Path("/etc/hotcold/checkpoint.toml")
_REMOTE: Final = ("http", "https", "s3")
_PREFIX: Final = re.compile(r"|[A-Za-z0-9][A-Za-z0-9._/-]*")


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: every key known, every type strict."""


class UploadTable(_Table, frozen=True):
    """`[[release.uploads]]`: one place that gets every file of a build.

    Attributes:
        to: an absolute directory, an `http://` or `https://` address that takes PUT, or `s3://bucket/prefix`.
        url: the same place as hosts see it; none: as `to`.
        headers_file: file with a header per line, as `Authorization: Bearer ...`, sent with each PUT.
        headers_env: name of a variable that holds the same.
        read_back: where each file is read again: at `url`, as hosts will, or at `to`.
        timeout_s: longest time for one file.
    """

    to: str
    url: str | None = None
    headers_file: str | None = None
    headers_env: str | None = None
    read_back: Literal["url", "to"] = "url"
    timeout_s: float = 1800.0

    @property
    def seen_at(self) -> str:
        """The address under which hosts find what lies there, without a final slash."""
        place = self.url or self.to
        return (place if urlsplit(place).scheme else Path(place).as_uri()).rstrip("/")


class ReleaseTable(_Table, frozen=True):
    """`[release]`.

    Attributes:
        repo: the git repository, absolute; none: `--repo` must name it.
        remote: its remote that is fetched from and pushed to; none: the repository itself is where releases are kept.
        main: the main branch.
        branch_prefix: before a build's id, the name of its release branch.
        tag_prefix: likewise of its tag.
        build: argument list that makes the tree, run in a fresh work tree; empty: nothing has to be made.
        build_timeout_s: longest time for it.
        tree: directory in the work tree that becomes the build.
        gate: argument list that exits with 0 for a commit that may be released; empty: every commit may.
        gate_timeout_s: longest time for it.
        format: of the artifact.
        patches: whether a patch against the build before is made.
        key: file of the secret key that signs the build; none: it is not signed.
        password_file: file with that key's password.
        work_dir: where builds are made, absolute; none: `~/.local/state/hotcold/release`.
        uploads: where builds go, at least one; hosts try them in this order.
    """

    repo: str | None = None
    remote: str | None = None
    main: str = "main"
    branch_prefix: str = "release/"
    tag_prefix: str = ""
    build: tuple[str, ...] = ()
    build_timeout_s: float = 3600.0
    tree: str = "."
    gate: tuple[str, ...] = ()
    gate_timeout_s: float = 600.0
    format: Literal["tar.zst", "tar.gz", "tar"] = "tar.zst"
    patches: bool = True
    key: str | None = None
    password_file: str | None = None
    work_dir: str | None = None
    uploads: tuple[UploadTable, ...] = ()


class _File(_Table, frozen=True):
    """The file, of which only the table is read here; the others are somebody else's to check."""

    app: str
    release: ReleaseTable | None = None
    tiers: Any = None
    windows: Any = None
    freezes: Any = None
    budget: Any = None
    commander: Any = None
    webhooks: Any = None
    metrics: Any = None
    metrics_interval_s: Any = None
    recordings: Any = None
    web: Any = None
    checklist: Any = None
    hotfix_from: Any = None


def load_release(path: Path, app: str) -> ReleaseTable:
    """Read and check the table in a file.

    Raises:
        ConfigError: names the file, the key, what was found and what is allowed.
    """
    text = read_text(path)
    try:
        return parse_release(text, app)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", kind=error.kind) from error


def parse_release(text: str, app: str) -> ReleaseTable:
    """As `load_release`, from the file's text."""
    file = parse_toml(text, _File)
    if check_name("app", file.app) != app:
        raise ConfigError(f'app = "{file.app}": the file is not about "{app}"')
    if file.release is None:
        raise ConfigError("there is no table [release]: docs/releases.md shows one")
    check_release(file.release)
    return file.release


def check_release(table: ReleaseTable) -> None:
    """Check what no type can say.

    Raises:
        ConfigError: names the key, what was found and what is allowed.
    """
    for name in ("repo", "key", "password_file", "work_dir"):
        _check_absolute(f"release.{name}", getattr(table, name))
    for name in ("build_timeout_s", "gate_timeout_s"):
        if getattr(table, name) <= 0:
            raise ConfigError(f"release.{name} = {getattr(table, name):g}: must be greater than 0")
    if Path(table.tree).is_absolute() or ".." in Path(table.tree).parts:
        raise ConfigError(f'release.tree = "{table.tree}": must be a path below the work tree, as "dist"')
    _check_names(table)
    if not table.uploads:
        raise ConfigError("release.uploads is missing: name at least one place that builds go to")
    for upload in table.uploads:
        _check_upload(upload)
        if sum(each.to.rstrip("/") == upload.to.rstrip("/") for each in table.uploads) > 1:
            raise ConfigError(f'release.uploads: "{upload.to}" stands there twice')


def _check_names(table: ReleaseTable) -> None:
    for name in ("main", "remote"):
        value = getattr(table, name)
        if value is not None and (not value or value.startswith("-")):
            raise ConfigError(f'release.{name} = "{value}": is no name that git has')
    for name in ("branch_prefix", "tag_prefix"):
        prefix = getattr(table, name)
        if not _PREFIX.fullmatch(prefix) or ".." in prefix:
            raise ConfigError(
                f'release.{name} = "{prefix}": letters, digits, ".", "_", "-" and "/" are allowed, as in "release/"'
            )
    if table.branch_prefix == "":
        raise ConfigError('release.branch_prefix = "": must not be empty, or branches would be named as tags are')


def _check_upload(upload: UploadTable) -> None:
    where = f'release.uploads "{upload.to}"'
    for name, value in (("to", upload.to), ("url", upload.url)):
        if value is None:
            continue
        parts = urlsplit(value)
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise ConfigError(f"{where}: {name} must have no user, query or fragment; headers_file is for secrets")
        is_place = parts.scheme in _REMOTE and bool(parts.netloc)
        is_directory = not parts.scheme and Path(value).is_absolute()
        is_file_url = name == "url" and parts.scheme == "file" and parts.path.startswith("/")
        if not (is_place or (is_directory and name == "to") or is_file_url):
            allowed = "an absolute directory, http://, https:// or s3://bucket/prefix"
            raise ConfigError(f'{where}: {name} = "{value}": allowed: {allowed}')
    if urlsplit(upload.to).scheme not in {"http", "https"} and (upload.headers_file or upload.headers_env):
        raise ConfigError(f"{where}: headers are for http:// and https:// alone")
    _check_absolute(f"{where}: headers_file", upload.headers_file)
    if upload.timeout_s <= 0:
        raise ConfigError(f"{where}: timeout_s = {upload.timeout_s:g}: must be greater than 0")


def _check_absolute(where: str, path: str | None) -> None:
    if path is not None and not Path(path).is_absolute():
        raise ConfigError(f'{where} = "{path}": must be an absolute path')
