"""Owns the API's description in OpenAPI 3.1, made from the types that requests are parsed with. Pure.

What the operations are is left to `checkpoint.web.api`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from checkpoint.web.api.operations import JSON, Operation
from checkpoint.web.api_errors import STATUSES, Error

VERSION: Final = "1"
_PATTERN: Final = re.compile(r"{(\w+):(?:[^{}]|{[^{}]*})*}")
"""What a place in a route's path may be; the type of the path says that here."""
_ATTRIBUTE: Final = re.compile(r"^ {4}(\w+(?:, \w+)*): (.+(?:\n {8}.+)*)", re.MULTILINE)
"""What a docstring says of attributes, below that heading."""
_REF: Final = "#/components/schemas/{name}"

_ABOUT: Final = """\
The same facts and deeds as the pages, with the same rights; see docs/checkpoint-ui.md.

A deed that answers 200 was done and is in the audit. With any other status nothing was done, and the answer says why in
one shape. Where a deed takes an `index`, it is the `index` of the rollout that the decision was made on: if the rollout
changed since, deeds that let it go on are refused with 409, and pausing, aborting and rolling back are done all the
same, as long as it is the same rollout."""


def openapi(app: str, operations: Sequence[Operation]) -> dict[str, Any]:
    """The description of an app's API."""
    types = [kind for each in operations for kind in (each.path, each.query, each.body, each.answer) if kind]
    schemas, components = msgspec.json.schema_components([*types, Error], ref_template=_REF)
    by_type = dict(zip(map(id, types), schemas, strict=False))
    inlined = {_name(by_type[id(kind)]) for each in operations for kind in (each.path, each.query) if kind}
    paths: dict[str, Any] = {}
    for each in operations:
        path = _PATTERN.sub(r"{\1}", each.route.path)
        paths.setdefault(path, {})[each.route.method.lower()] = _operation(each, by_type, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"hotcold Checkpoint of {app}", "version": VERSION, "description": _ABOUT},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "of `tokens_file`"}},
            "schemas": {name: _plain(schema) for name, schema in sorted(components.items()) if name not in inlined},
            "responses": {
                str(status): {"description": said, "content": {JSON: {"schema": {"$ref": _REF.format(name="Error")}}}}
                for status, said in STATUSES.items()
            },
        },
    }


def _operation(
    each: Operation, by_type: Mapping[int, dict[str, Any]], components: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    route = each.route
    described: dict[str, Any] = {
        "operationId": route.name.removeprefix("api_"),
        "summary": each.summary,
        "description": f"Needs the role {route.role.name.lower()}.",
        "responses": {
            "200": {"description": "done", "content": {JSON: {"schema": _plain(by_type[id(each.answer)])}}},
            **{str(status): {"$ref": f"#/components/responses/{status}"} for status in each.statuses},
        },
    }
    parameters = [
        parameter
        for place, kind in (("path", each.path), ("query", each.query))
        if kind is not None
        for parameter in _parameters(place, components[_name(by_type[id(kind)])])
    ]
    if parameters:
        described["parameters"] = parameters
    if each.body is not None:
        content = {JSON: {"schema": _plain(by_type[id(each.body)])}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _parameters(place: str, struct: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for name, schema in struct["properties"].items():
        said = schema.get("description", "")
        yield {
            "name": name,
            "in": place,
            "required": name in struct.get("required", ()),
            **({"description": said} if said else {}),
            "schema": {key: value for key, value in schema.items() if key != "description"},
        }


def _name(schema: Mapping[str, Any]) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _plain(schema: Any) -> Any:
    """The schema with what docstrings say where programs look for it: in one line, and of each property at its own."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _plain(value) for key, value in schema.items()}
    said = schema.get("description")
    if isinstance(said, str):
        said = inspect.cleandoc(said)
        plain["description"] = said.partition("\n\n")[0].replace("\n", " ")
        for names, about in _ATTRIBUTE.findall(said.partition("Attributes:\n")[2]):
            for name in names.split(", "):
                plain["properties"][name] = {"description": " ".join(about.split()), **plain["properties"][name]}
    return plain
