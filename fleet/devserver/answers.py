"""Owns how an answer looks on the wire: JSON, headers, refusals; leaves what is answered to the handlers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from artifact.errors import Refused


class RequestRefused(Refused):
    """The request is answered with an error status and this text; nothing was changed by it."""

    kind = "request_refused"

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = dict(headers or {})


def query_headers(index: int) -> dict[str, str]:
    """Headers of every answer that can be waited for. An index below 1 would make clients poll, so it never leaves."""
    return {"X-Consul-Index": str(max(1, index)), **CONTACT_HEADERS}


CONTACT_HEADERS = {"X-Consul-Knownleader": "true", "X-Consul-Lastcontact": "0"}


def json_answer(data: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`data` as JSON."""
    return web.Response(body=msgspec.json.encode(data), status=status, headers=headers, content_type="application/json")


def empty_answer(*, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer that says everything by its status."""
    return web.Response(status=status, headers=headers)


def text_answer(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """A refusal as Consul words it: plain text."""
    return web.Response(text=text, status=status, headers=headers, content_type="text/plain", charset="utf-8")
