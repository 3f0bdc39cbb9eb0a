"""Owns the strict reading of TOML into frozen structs: an unknown key is an error with a suggestion.

What the keys are, and which values go together, is left to each configuration.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from artifact import ConfigError

_Document = TypeVar("_Document", bound=msgspec.Struct)


def read_text(path: Path) -> str:
    """The text of a configuration file.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; write one, or name another with --config") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def parse_toml(text: str, kind: type[_Document]) -> _Document:
    """Decode TOML strictly.

    Raises:
        ConfigError: names the key, what was found and what is allowed.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}") from error
    _check_keys(raw, kind, "")
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(_locate(str(error), raw, kind)) from error


def _check_keys(raw: Mapping[str, Any], kind: type[msgspec.Struct], at: str) -> None:
    """Refuse unknown keys: a typo must not silently mean the default."""
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in raw.items():
        _check_known(key, fields, at)
        named = _named_tables(fields[key])
        if named is not None and isinstance(value, dict):
            names, tables = named
            for name, table in value.items():
                _check_known(name, names, f"{at}{key}.")
                _check_tables(table, tables, f"{at}{key}.{name}.")
        else:
            _check_tables(value, _structs_in(fields[key]), f"{at}{key}.")


def _check_tables(value: Any, kinds: tuple[type[msgspec.Struct], ...], at: str) -> None:
    for kind in kinds:
        for table in value if isinstance(value, list) else [value]:
            if isinstance(table, dict):
                _check_keys(table, kind, at)


def _check_known(key: str, known: Collection[str], at: str) -> None:
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean `{at}{near[0]}`?" if near else f"known here: {', '.join(sorted(known))}"
        raise ConfigError(f"unknown key `{at}{key}`; {hint}", kind="config_unknown_key")


def _named_tables(kind: Any) -> tuple[tuple[str, ...], tuple[type[msgspec.Struct], ...]] | None:
    """Names and kinds of the tables in a `dict[Literal[...], Struct]`; None for every other field."""
    if get_origin(kind) is not dict:
        return None
    names, tables = get_args(kind)
    return (get_args(names), _structs_in(tables)) if get_origin(names) is Literal else None


def _structs_in(kind: Any) -> tuple[type[msgspec.Struct], ...]:
    """The table type of a field: itself, or inside `tuple[...]` and unions. Mappings are not tables."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return (kind,)
    if get_origin(kind) is dict:
        return ()
    return tuple(struct for argument in get_args(kind) for struct in _structs_in(argument))


def _choices(kind: Any, parts: Sequence[str]) -> tuple[object, ...]:
    """What may stand there, where that is one of a few words."""
    for part in parts:
        if part.startswith("["):
            continue
        fields = {field.name: field.type for struct in _structs_in(kind) for field in msgspec.structs.fields(struct)}
        if part not in fields:
            return ()
        kind = fields[part]
    words = [kind, *get_args(kind)]
    return next((get_args(word) for word in words if get_origin(word) is Literal), ())


def _locate(message: str, raw: Mapping[str, Any], kind: type[msgspec.Struct]) -> str:
    """Turn msgspec's `... - at $.a.b` into `a.b = <what was found>: ...`."""
    what, _, where = message.partition(" - at ")
    path = where.strip("`").removeprefix("$").removeprefix(".")
    if not path:
        return what
    parts = path.replace("[", ".[").split(".")
    choices = _choices(kind, parts)
    if choices:
        what = f"allowed: {', '.join(map(str, choices))}"
    found: Any = raw
    for part in parts:
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.startswith("[") and part.strip("[]").isdigit():
            found = found[int(part.strip("[]"))]
        else:
            return f"{path}: {what}"
    return f"{path} = {found!r}: {what}"
