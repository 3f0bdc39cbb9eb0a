"""Owns finding out whether Consul is well and what a token may do there, without changing anything that lasts.

Which rights are needed is `fleet.acl`'s; what to make of the answer is left to the callers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import msgspec

from fleet.acl import Right
from fleet.contact import ContactLog
from fleet.settings import ConsulSettings
from fleet.transport import Answer, AnsweredBadly, AnsweredNo, ConsulClient, Transport

_OK: Final = 200
_NO_RULES: Final = frozenset({401, 404, 501})
"""Of `authorize`: access rules are off, or the server knows none."""
_SESSION_TTL_S: Final = 10
_RESOURCES: Final = {"key_prefix": "key"}


class _Decision(msgspec.Struct, rename="pascal"):
    allow: bool


@dataclass(frozen=True)
class Health:
    """How Consul is.

    Attributes:
        leader: address of the cluster's leader, "" where there is none.
        date: what the Consul agent's clock says, as in the header of that name; "" where it says nothing.
    """

    leader: str
    date: str


class Examination:
    """Questions to one Consul; an asynchronous context manager.

    Args:
        settings: where Consul is.
        grace_s: how long each answer may take.
    """

    def __init__(self, settings: ConsulSettings, *, grace_s: float) -> None:
        self._transport = Transport(settings, ContactLog(time.monotonic), grace_s=grace_s)
        self._client = ConsulClient(self._transport, datacenter=settings.datacenter)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.close()

    async def health(self) -> Health:
        """Whether it answers and has a leader.

        Raises:
            StoreUnreachable, StoreRefused, ConfigError: as of every request.
        """
        answer: Answer = await self._transport.get(_whole, "/v1/status/leader")
        leader = msgspec.json.decode(answer.text) if answer.text.strip() else ""
        return Health(str(leader), _header(answer.headers, "Date"))

    async def missing(self, rights: Sequence[Right]) -> tuple[Right, ...] | None:
        """Those of `rights` that the token lacks; None where Consul has no access rules, or does not tell.

        Raises:
            StoreUnreachable, StoreRefused, ConfigError: as of every request.
        """
        questions = [
            {
                "Resource": _RESOURCES.get(right.resource, right.resource),
                "Segment": right.segment,
                "Access": right.access,
            }
            for right in rights
        ]
        try:
            answer: Answer = await self._transport.post(
                _whole, "/v1/internal/acl/authorize", data=msgspec.json.encode(questions)
            )
        except (AnsweredNo, AnsweredBadly) as error:
            if error.answer.status in _NO_RULES:
                return None
            raise
        if answer.status != _OK:
            return None
        decisions = msgspec.json.decode(answer.text, type=list[_Decision])
        denied = [right for right, decision in zip(rights, decisions, strict=True) if not decision.allow]
        return tuple([right for right in denied if right.resource != "session" or not await self._may_hold_sessions()])

    async def _may_hold_sessions(self) -> bool:
        """Try it: the right goes by the name of Consul's node, which this token usually may not ask for."""
        try:
            session = await self._client.session.create(
                name="hotcold doctor", checks=[], behavior="delete", ttl=_SESSION_TTL_S, lock_delay=0
            )
        except AnsweredNo:
            return False
        await self._client.session.destroy(session)
        return True


def _whole(response: Any) -> Answer:
    return Answer(response.code, response.headers, response.body)


def _header(headers: Mapping[str, str], name: str) -> str:
    return next((value for key, value in headers.items() if key.lower() == name.lower()), "")
