"""Owns `/v1/kv`; leaves what a write does to `fleet.devserver.kv`."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from aiohttp import web

from fleet.devserver.answers import RequestRefused, empty_answer, json_answer, query_headers
from fleet.devserver.bodies import read_body
from fleet.devserver.kv import Item
from fleet.devserver.queries import read_when_newer
from fleet.devserver.state import State
from fleet.devserver.waiting import Watch


def item_json(item: Item, *, with_value: bool = True) -> dict[str, Any]:
    """An item as Consul shows it: an empty value is null, a session appears only while there is one."""
    shown: dict[str, Any] = {
        "LockIndex": item.lock_index,
        "Key": item.key,
        "Flags": item.flags,
        "Value": base64.b64encode(item.value).decode() if item.value and with_value else None,
    }
    if item.session:
        shown["Session"] = item.session
    return shown | {"CreateIndex": item.create_index, "ModifyIndex": item.modify_index}


def check_uuid(text: str) -> None:
    """Refuse what cannot be a session's id, in the words of Consul's index."""
    try:
        UUID(text)
    except ValueError as error:
        raise RequestRefused(500, "failed session lookup: index error: UUID must be 36 characters") from error


class KvHandlers:
    """Handlers of `/v1/kv`."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def get(self, request: web.Request) -> web.Response:
        """Read one key or many, now or when it changes."""
        key = request.match_info["key"]
        if "keys" in request.query or "recurse" in request.query:
            return await self._get_below(request, key)
        _need_key(key)
        index, item = await read_when_newer(
            request, self._state.waiters, Watch("kv", key), lambda: self._state.kv.read(key)
        )
        if item is None:
            return empty_answer(status=404, headers=query_headers(index))
        if "raw" in request.query:
            headers = query_headers(index) | {
                "X-Content-Type-Options": "nosniff",
                "Content-Security-Policy": "sandbox",
            }
            return web.Response(body=item.value, content_type="text/plain", headers=headers)
        return json_answer([item_json(item)], headers=query_headers(index))

    async def _get_below(self, request: web.Request, prefix: str) -> web.Response:
        index, items = await read_when_newer(
            request,
            self._state.waiters,
            Watch("kv", prefix, below=True),
            lambda: self._state.kv.read_below(prefix),
        )
        # Consul makes one exception: the list of all keys may be empty.
        if not items and not ("keys" in request.query and not prefix):
            return empty_answer(status=404, headers=query_headers(index))
        if "keys" in request.query:
            keys = _up_to_separator(items, prefix, request.query.get("separator", ""))
            return json_answer(keys, headers=query_headers(index))
        if "raw" in request.query:
            return web.Response(body=items[0].value, content_type="text/plain", headers=query_headers(index))
        return json_answer([item_json(item) for item in items], headers=query_headers(index))

    async def put(self, request: web.Request) -> web.Response:
        """Write, with a condition if one is asked for."""
        key, query = request.match_info["key"], request.query
        _need_key(key)
        _refuse_together(request, "cas", "acquire", "release")
        flags = _unsigned(query.get("flags", "")) if query.get("flags") else 0
        expected = _unsigned(query["cas"]) if "cas" in query else None
        value = await read_body(request, limit_name="kv_max_value_size")
        if "" in {query.get("acquire"), query.get("release")}:
            raise RequestRefused(500, "missing session")
        item = Item(key, value, flags)
        kv = self._state.kv
        written: Item | None
        if "acquire" in query:
            written = self._lock(Item(key, value, flags, session=query["acquire"]))
        elif "release" in query:
            written = kv.unlock(Item(key, value, flags, session=query["release"]), self._state.next_index())
        elif expected is not None:
            written = kv.check_and_set(item, expected, self._state.next_index())
        else:
            written = kv.set(item, self._state.next_index())
        self._state.publish()
        return json_answer(written is not None)

    def _lock(self, item: Item) -> Item | None:
        if self._state.is_lock_delayed(item.key):
            return None
        check_uuid(item.session)
        if self._state.sessions.get(item.session) is None:
            raise RequestRefused(500, f'invalid session "{item.session}"')
        return self._state.kv.lock(item, self._state.next_index())

    async def delete(self, request: web.Request) -> web.Response:
        """Delete one key or all below a prefix."""
        key, query, kv = request.match_info["key"], request.query, self._state.kv
        _refuse_together(request, "recurse", "cas")
        deleted = True
        if "recurse" in query:
            kv.delete_below(key, self._state.next_index())
        else:
            _need_key(key)
            if "cas" in query:
                deleted = kv.check_and_delete(key, _unsigned(query["cas"]), self._state.next_index())
            else:
                kv.delete(key, self._state.next_index())
        self._state.publish()
        return json_answer(deleted)


def _need_key(key: str) -> None:
    if not key:
        raise RequestRefused(400, "Missing key name")


def _refuse_together(request: web.Request, *names: str) -> None:
    if sum(name in request.query for name in names) > 1:
        raise RequestRefused(400, f"Conflicting flags: {urlencode(sorted(request.query.items()))}")


def _unsigned(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise RequestRefused(500, f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) >= 1 << 64:
        raise RequestRefused(500, f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def _up_to_separator(items: list[Item], prefix: str, separator: str) -> list[str]:
    keys: dict[str, None] = {}
    for item in items:
        end = item.key.find(separator, len(prefix)) if separator else -1
        keys[item.key if end < 0 else item.key[: end + len(separator)]] = None
    return list(keys)
