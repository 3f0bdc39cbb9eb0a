"""Owns what a signature over a build says: one line of JSON, and a comment that is signed with it. Pure.

Making and judging signatures is left to `artifact.secretkey` and `artifact.trust`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from artifact.manifest import Manifest, ManifestRef

_NOT_SAID: Final = frozenset({"urls", "signature"})
"""Mirrors come and go, and the digest says already which bytes they must give. A signature cannot cover itself."""


def statement(app: str, build: Manifest | ManifestRef) -> bytes:
    """The bytes that are signed: app and reference, without `_NOT_SAID`, as canonical JSON and a newline.

    Keys are sorted, at every depth; there is no blank; a field that is null or an empty list is left out. So a field
    that references do not have yet is covered as soon as it is set, cannot be taken away again, and changes nothing
    while it is not set. A manifest and its reference say the same.
    """
    document = msgspec.json.decode(msgspec.json.encode(build))
    said = {name: document[name] for name in ManifestRef.__struct_fields__ if name not in _NOT_SAID}
    return msgspec.json.encode(_without_unset({"app": app, **said}), order="sorted") + b"\n"


def comment(app: str, build_id: str) -> str:
    """The trusted comment of a build's signature; neither name can contain a blank or a colon."""
    return f"hotcold app:{app} build:{build_id}"


def _without_unset(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_unset(inner) for key, inner in value.items() if inner is not None and inner != []}
    return [_without_unset(inner) for inner in value] if isinstance(value, list) else value
