"""Owns reading request bodies: size limits, and JSON into types as Go does it; leaves meaning to the handlers.

As in Go, the case of a field's name does not matter, null means "not given", and a mistyped value is refused.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from aiohttp import web

from fleet.devserver.answers import RequestRefused
from fleet.devserver.durations import parse_duration

BODY_MAX_BYTES = 512 * 1024
DECODE_PROBLEM = "Request decode failed"
_SNAKE_NAMES = frozenset({"enable_tag_override", "tagged_addresses", "deregister_critical_service_after", "service_id"})
"""The only names that Consul takes with underscores, too."""

Duration = str | int | float
"""As text with a unit, or as a number of nanoseconds."""
_Body = TypeVar("_Body", bound=msgspec.Struct)


def folded(name: str) -> str:
    """How a struct's field is called once case and underscores are gone."""
    return name.replace("_", "").lower()


async def read_body(request: web.Request, *, limit_name: str) -> bytes:
    """The body.

    Raises:
        RequestRefused: 413, longer than `BODY_MAX_BYTES`; `limit_name` is Consul's option for that.
    """
    size = request.content_length or 0
    body = b"" if size > BODY_MAX_BYTES else await request.read()
    size = max(size, len(body))
    if size > BODY_MAX_BYTES:
        raise RequestRefused(
            413,
            f"Request body({size} bytes) too large, max size: {BODY_MAX_BYTES} bytes. "
            f"See https://www.consul.io/docs/agent/options.html#{limit_name}.",
        )
    return body


def decode_json(body: bytes, problem: str = DECODE_PROBLEM) -> Any:
    """Decode JSON; `problem` begins the refusal."""
    if not body:
        raise RequestRefused(400, f"{problem}: EOF")
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestRefused(400, f"{problem}: {error}") from error


def decode_fields(data: Any, shape: type[_Body], problem: str = DECODE_PROBLEM) -> _Body:
    """A JSON object as `shape`, whose fields are renamed by `folded`.

    Raises:
        RequestRefused: not an object, a mistyped value, or a field that a `shape` with forbidden unknown fields lacks.
    """
    if not isinstance(data, dict):
        raise RequestRefused(400, f"{problem}: json: cannot unmarshal {type(data).__name__} into an object")
    fields = {}
    for name, value in data.items():
        field = folded(name) if name.lower() in _SNAKE_NAMES else name.lower()
        if shape.__struct_config__.forbid_unknown_fields and field not in shape.__struct_encode_fields__:
            raise RequestRefused(400, f'{problem}: json: unknown field "{name}"')
        if value is not None:
            fields[field] = value
    try:
        return msgspec.convert(fields, shape)
    except msgspec.ValidationError as error:
        raise RequestRefused(400, f"{problem}: json: {error}") from error


def decode_duration(value: Duration) -> float:
    """Seconds.

    Raises:
        RequestRefused: text that is no duration.
    """
    if not isinstance(value, str):
        return value / 1e9
    try:
        return parse_duration(value) if value else 0.0
    except ValueError as error:
        raise RequestRefused(400, f"{DECODE_PROBLEM}: {error}") from error
