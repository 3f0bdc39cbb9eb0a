"""Owns the log of what each webhook was told, in Consul: reading it, noting in it, and asking for a message once more.

Sending is left to `checkpoint.notifying`: only the engine has the webhooks' keys, so whoever asks writes a wish, and
the engine that leads carries it out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final, Literal

import msgspec

from artifact import Refused
from checkpoint.audit import Record
from checkpoint.insisting import Insistence
from checkpoint.rollout.events import Origin
from checkpoint.windows import Moment
from checkpoint.writing import Writer
from fleet import Entry, Put, Store
from fleet.keys import deliveries_prefix, delivery_key

KEPT_DELIVERIES: Final = 50
_ATTEMPTS: Final = 20
_PAUSE_S: Final = 0.05


class Delivery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One message that was sent, or given up.

    Attributes:
        number: of its record.
        at: when it was delivered, or given up.
        outcome: `failed`: given up after all attempts, `error` says why.
        attempts: how often it was sent.
        what: the record's word for machines.
        status: of the last answer, as in HTTP; 0: there was none.
        by: who wanted it sent once more; empty: it was sent for the first time.
    """

    number: int
    at: Moment
    outcome: Literal["delivered", "failed", "too_old"]
    attempts: int
    error: str = ""
    what: str = ""
    status: int = 0
    by: str = ""


class Again(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A message that shall be sent once more: the number of its record, and who wants it."""

    number: int
    by: str


class Delivered(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far a webhook was told: the record that was looked at last, the latest deliveries, what is sent once more."""

    v: int = 1
    last: int = 0
    deliveries: tuple[Delivery, ...] = ()
    again: tuple[Again, ...] = ()

    @property
    def failed(self) -> tuple[int, ...]:
        """Records of which the latest delivery failed, and which nobody has asked for again."""
        latest = {each.number: each.outcome for each in self.deliveries}
        waiting = {each.number for each in self.again}
        return tuple(number for number, outcome in latest.items() if outcome == "failed" and number not in waiting)

    def noted(self, delivery: Delivery) -> Delivered:
        """With one delivery more, the oldest ones forgotten."""
        return msgspec.structs.replace(self, deliveries=(*self.deliveries, delivery)[-KEPT_DELIVERIES:])


class Deliveries:
    """The logs of one app's webhooks.

    Args:
        store: where they lie.
        app: the app.
        insistence: asks again where the store does not answer.
        pause: waits that many seconds.
    """

    def __init__(
        self, store: Store, app: str, insistence: Insistence, pause: Callable[[float], Awaitable[None]]
    ) -> None:
        self._store = store
        self._app = app
        self._insistence = insistence
        self._writer = Writer(store, app, insistence)
        self._pause = pause

    async def read(self) -> dict[str, Delivered]:
        """What each webhook was told, by its name.

        Raises:
            Refused: a log cannot be read.
        """
        return await self._insistence.ask(lambda: read_deliveries(self._store, self._app))

    async def resend(self, webhook: str, numbers: Collection[int] | None, origin: Origin) -> tuple[int, ...]:
        """Have messages sent once more by the engine that leads, in the order of their records.

        Args:
            webhook: to whom.
            numbers: of the messages' records; None: all that failed.
            origin: who.

        Returns:
            Those that will be sent and were not asked for before; empty: nothing was written.

        Raises:
            Refused: the webhook was never told anything, or not of one of these records.
        """
        for _ in range(_ATTEMPTS):
            logs: Mapping[str, tuple[Delivered, Entry]] = await self._insistence.ask(self._entries)
            if webhook not in logs:
                known = ", ".join(sorted(logs)) or "none was ever told anything"
                raise Refused(f"no webhook {webhook} was ever told anything of {self._app}: {known}", kind="no_webhook")
            log, entry = logs[webhook]
            wanted = log.failed if numbers is None else tuple(sorted(set(numbers)))
            unknown = set(wanted) - {each.number for each in log.deliveries}
            if unknown:
                raise Refused(
                    f"{webhook} was not told of record {min(unknown)}, or so long ago that nobody knows: its latest "
                    f"{KEPT_DELIVERIES} messages can be sent again",
                    kind="unknown_delivery",
                )
            waiting = {each.number for each in log.again}
            fresh = tuple(number for number in wanted if number not in waiting)
            if not fresh:
                return ()
            again = (*log.again, *(Again(number=number, by=origin.by) for number in fresh))
            value = msgspec.json.encode(msgspec.structs.replace(log, again=again))
            said = f"{'message' if len(fresh) == 1 else 'messages'} {', '.join(map(str, fresh))} to {webhook}"
            record = Record(
                v=1,
                number=0,
                at=origin.at,
                by=origin.by,
                via=origin.via,
                what="resend_asked",
                message=f"{said} shall be sent once more",
                reason=origin.reason,
            )
            if await self._writer.write([Put(entry.key, value, cas=entry.modify_index)], [record]) is not None:
                return fresh
            await self._pause(_PAUSE_S)
        raise Refused(f"others write to {self._app} all the time; nothing was written", kind="lost_race")

    async def _entries(self) -> dict[str, tuple[Delivered, Entry]]:
        entries = await self._store.read_prefix(deliveries_prefix(self._app))
        return {entry.key.rpartition("/")[2]: (decode_delivered(entry), entry) for entry in entries}


async def read_deliveries(store: Store, app: str) -> dict[str, Delivered]:
    """What each webhook was told, by its name.

    Raises:
        Refused: a log cannot be read.
        StoreUnreachable: no answer.
    """
    entries = await store.read_prefix(deliveries_prefix(app))
    return {entry.key.rpartition("/")[2]: decode_delivered(entry) for entry in entries}


async def read_delivered(store: Store, app: str, webhook: str) -> tuple[Delivered, int]:
    """How far a webhook was told, and the index of its log; 0: there is none yet. Errors as of `read_deliveries`."""
    entry = await store.read(delivery_key(app, webhook))
    return (Delivered(), 0) if entry is None else (decode_delivered(entry), entry.modify_index)


def decode_delivered(entry: Entry) -> Delivered:
    """A webhook's log.

    Raises:
        Refused: it cannot be read.
    """
    try:
        return msgspec.json.decode(entry.value, type=Delivered)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(
            f"{entry.key} cannot be read: {error}; `consul kv delete {entry.key}` begins anew", kind="document_invalid"
        ) from error
