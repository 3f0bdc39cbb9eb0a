"""Owns `/v1/txn`: all of the operations or none; leaves what each does to `fleet.devserver.kv`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from aiohttp import web

from fleet.devserver.answers import CONTACT_HEADERS, RequestRefused, json_answer
from fleet.devserver.bodies import decode_fields, decode_json, folded, read_body
from fleet.devserver.http_kv import item_json
from fleet.devserver.kv import Item, KvTable
from fleet.devserver.state import State

OPERATIONS_MAX_COUNT = 64
_PROBLEM = "Failed to parse body"
_WRITES = frozenset({"set", "cas", "delete", "delete-cas", "delete-tree", "lock", "unlock"})
_Unsigned = Annotated[int, msgspec.Meta(ge=0)]
_Operation = tuple[str, Item, int]
"""Verb, the item it is about (key, value, flags, session), and the index it gives."""


class _Envelope(msgspec.Struct, forbid_unknown_fields=True, rename=folded):
    kv: dict[str, Any] | None = None
    node: dict[str, Any] = {}
    service: dict[str, Any] = {}
    check: dict[str, Any] = {}
    session: dict[str, Any] = {}


class _KvBody(msgspec.Struct, forbid_unknown_fields=True, rename=folded):
    verb: str = ""
    key: str = ""
    value: bytes = b""
    flags: _Unsigned = 0
    index: _Unsigned = 0
    session: str = ""


class _Failed(Exception):
    """The operation cannot be done as the table stands."""


class TxnHandlers:
    """Handler of `/v1/txn`."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def put(self, request: web.Request) -> web.Response:
        """Do all of the operations, or none and say which could not be done."""
        operations = _decode(await read_body(request, limit_name="txn_max_req_len"))
        errors = self._forbidden(operations)
        results: list[Item] = []
        draft = self._state.kv.copy()
        if not errors:
            results, errors = self._run(operations, draft)
        is_write = any(verb in _WRITES for verb, _, _ in operations)
        if is_write and not errors:
            self._state.adopt(draft)
        answer: dict[str, Any] = {
            "Results": None if errors else [{"KV": item_json(item)} for item in results],
            "Errors": [{"OpIndex": place, "What": what} for place, what in errors] or None,
        }
        status = 409 if errors else 200
        if is_write:
            return json_answer(answer, status=status)
        answer |= {"Index": 0, "LastContact": 0, "KnownLeader": True, "ConsistencyLevel": ""}
        return json_answer(answer, status=status, headers=CONTACT_HEADERS)

    def _forbidden(self, operations: list[_Operation]) -> list[tuple[int, str]]:
        errors = []
        for place, (verb, item, _) in enumerate(operations):
            if not item.key and verb != "delete-tree":
                errors.append((place, "Must provide key"))
            elif verb == "lock" and self._state.is_lock_delayed(item.key):
                errors.append((place, f'failed to lock key "{item.key}" due to lock delay'))
        return errors

    def _run(self, operations: list[_Operation], draft: KvTable) -> tuple[list[Item], list[tuple[int, str]]]:
        at = self._state.next_index()
        results: list[Item] = []
        errors: list[tuple[int, str]] = []
        for place, operation in enumerate(operations):
            try:
                results += self._do(operation, draft, at)
            except _Failed as failure:
                errors.append((place, str(failure)))
        return results, errors

    def _do(self, operation: _Operation, draft: KvTable, at: int) -> list[Item]:
        verb, item, index = operation
        match verb:
            case "set" | "cas" | "lock" | "unlock":
                return [_without_value(self._write(operation, draft, at))]
            case "delete":
                draft.delete(item.key, at)
                return []
            case "delete-cas":
                if not draft.check_and_delete(item.key, index, at):
                    raise _Failed(f'failed to delete key "{item.key}", index is stale')
                return []
            case "delete-tree":
                draft.delete_below(item.key, at)
                return []
            case "get-tree":
                return draft.read_below(item.key)[1]
            case _:
                return _check(operation, draft.get(item.key))

    def _write(self, operation: _Operation, draft: KvTable, at: int) -> Item:
        verb, item, index = operation
        if verb == "set":
            return draft.set(item, at)
        if verb == "cas":
            written = draft.check_and_set(item, index, at)
            failure = f'failed to set key "{item.key}", index is stale'
        elif not item.session:
            raise _Failed("missing session")
        elif verb == "lock":
            if self._state.sessions.get(item.session) is None:
                raise _Failed(f'invalid session "{item.session}"')
            written = draft.lock(item, at)
            failure = f'failed to lock key "{item.key}", lock is already held'
        else:
            written = draft.unlock(item, at)
            failure = f'failed to unlock key "{item.key}", lock isn\'t held, or is held by another session'
        if written is None:
            raise _Failed(failure)
        return written


def _check(operation: _Operation, found: Item | None) -> list[Item]:
    verb, item, index = operation
    match verb, found:
        case "check-not-exists", None:
            return []
        case "check-not-exists", _:
            raise _Failed(f'key "{item.key}" exists')
        case "get", None:
            raise _Failed(f'key "{item.key}" doesn\'t exist')
        case "get", Item():
            return [found]
        case (("check-index" | "check-session"), None):
            raise _Failed(f'failed to check {verb.removeprefix("check-")}, key "{item.key}" doesn\'t exist')
        case "check-index", Item():
            if found.modify_index != index:
                raise _Failed(
                    f'failed index check for key "{item.key}", current modify index {found.modify_index} != {index}'
                )
        case "check-session", Item():
            if found.session != item.session:
                raise _Failed(
                    f'failed session check for key "{item.key}", current session "{found.session}" != "{item.session}"'
                )
        case _:
            raise _Failed(f'unknown KV verb "{verb}"')
    return [_without_value(found)]


def _without_value(item: Item) -> Item:
    return Item(item.key, b"", item.flags, item.session, item.lock_index, item.create_index, item.modify_index)


def _decode(body: bytes) -> list[_Operation]:
    data = decode_json(body, _PROBLEM)
    if not isinstance(data, list):
        raise RequestRefused(400, f"{_PROBLEM}: json: cannot unmarshal {type(data).__name__} into a list of operations")
    if len(data) > OPERATIONS_MAX_COUNT:
        raise RequestRefused(413, f"Transaction contains too many operations ({len(data)} > {OPERATIONS_MAX_COUNT})")
    return [operation for one in data for operation in _decode_operation(one)]


def _decode_operation(data: Any) -> list[_Operation]:
    envelope = decode_fields(data, _Envelope, _PROBLEM)
    if envelope.node or envelope.service or envelope.check or envelope.session:
        raise RequestRefused(501, "the dev server's transactions know only KV operations; use a real Consul")
    if envelope.kv is None:
        return []
    body = decode_fields(envelope.kv, _KvBody, _PROBLEM)
    return [(body.verb, Item(body.key, body.value, body.flags, body.session), body.index)]
