"""Owns telling webhooks what was done: one message for each step and for whatever needs a person, signed, tried again.

What was done is left to the audit: messages are made from its records, in their order, so that nothing is told that was
not written, and nothing is forgotten by a leader that dies. A message may come twice, with the same delivery id, if the
leader dies between sending it and noting that; one that is older than an hour is not sent any more, unless somebody
asks for it. No webhook holds up a rollout, or another webhook.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp
import msgspec
import structlog

from artifact import HotcoldError, Refused
from checkpoint.audit import Record, read_anchor, read_head, read_record
from checkpoint.deliveries import Again, Delivered, Delivery, read_delivered
from checkpoint.pipeline import Webhook
from fleet import Store
from fleet.keys import audit_anchor_key, audit_head_key, audit_key, delivery_key

log = structlog.get_logger()

TOLD: Final = frozenset(
    {
        "aborted",
        "allowed",
        "closing",
        "command_taken",
        "decided",
        "denied",
        "deploy_overridden",
        "done",
        "finished",
        "handed_over",
        "held",
        "hotfix_released",
        "judged",
        "locked",
        "overridden",
        "paused",
        "released",
        "resumed",
        "rolled_back",
        "started",
        "unlocked",
        "wanting",
    }
)
"""Records that are told. What a step does on its way (`ordered`, `arrived`, `baked`, `tested`) is not."""
MAX_AGE: Final = timedelta(hours=1)
PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
INTERVAL_S: Final = 1.0
SIGNATURE: Final = "X-Hotcold-Signature"
DELIVERY: Final = "X-Hotcold-Delivery"

_AGAIN: Final = frozenset({408, 425, 429})
_OK: Final = range(200, 300)
_CLIENT: Final = range(400, 500)
_ERROR_CHARACTERS: Final = 200


def body(record: Record, app: str, form: Literal["json", "slack"]) -> bytes:
    """What is sent for a record: the record itself, or a text for Slack and what understands its messages."""
    if form == "slack":
        about = f" rollout {record.rollout}" if record.rollout else ""
        why = f"\n> {record.reason}" if record.reason and record.reason not in record.message else ""
        following = f"\nnext: {record.next}" if record.next else ""
        return msgspec.json.encode({"text": f"*{app}*{about}: {record.message} (by {record.by}){why}{following}"})
    fields: dict[str, Any] = {name: getattr(record, name) for name in record.__struct_fields__}
    return msgspec.json.encode({"app": app, **fields})


def signature(secret: bytes, at: datetime, sent: bytes) -> str:
    """`t=<seconds since 1970>,v1=<HMAC-SHA256 of "<seconds>.<body>" in hex>`: a receiver refuses old times."""
    seconds = int(at.timestamp())
    mac = hmac.new(secret, f"{seconds}.".encode() + sent, hashlib.sha256)
    return f"t={seconds},v1={mac.hexdigest()}"


@dataclass(frozen=True)
class _Answer:
    """What became of one attempt: why it failed, or empty. `is_final`: trying again is of no use."""

    error: str
    status: int = 0
    is_final: bool = False


class Notifier:
    """Tells one webhook, in order, while its engine leads.

    Args:
        store: where the audit lies.
        app: the app.
        webhook: whom to tell.
        now: wall-clock time, aware.
        pause: waits that many seconds.
        http: sends; not closed.
    """

    def __init__(
        self,
        store: Store,
        app: str,
        webhook: Webhook,
        *,
        now: Callable[[], datetime],
        pause: Callable[[float], Awaitable[None]],
        http: aiohttp.ClientSession,
    ) -> None:
        self._store = store
        self._app = app
        self._webhook = webhook
        self._now = now
        self._pause = pause
        self._http = http

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            try:
                while await self.tell_next():
                    pass
            except HotcoldError as error:
                log.warning("cannot tell a webhook", webhook=self._webhook.name, kind=error.kind, error=str(error))
            await self._pause(INTERVAL_S)

    async def tell_next(self) -> bool:
        """Look at one more record, or send a message once more; False where there is nothing to do.

        Raises:
            StoreUnreachable: no answer; the record is looked at again.
            Refused: the record, or the log of deliveries, cannot be read.
        """
        known, _ = await read_delivered(self._store, self._app, self._webhook.name)
        if known.again:
            await self._tell_again(known.again[0])
            return True
        head, _ = read_head(await self._store.read(audit_head_key(self._app)))
        if known.last >= head.number:
            return False
        number = known.last + 1
        found = await self._store.read(audit_key(self._app, number))
        if found is None:
            await self._pass_over_archived(known.last)
            return True
        record = read_record(found.value)
        delivery = await self._tell(record) if record.what in TOLD else None

        def note(log: Delivered) -> Delivered | None:
            if log.last >= number:
                return None  # another engine told too, for a moment, and has noted it
            told = msgspec.structs.replace(log, last=number)
            return told if delivery is None else told.noted(delivery)

        await self._note(note)
        return True

    async def _pass_over_archived(self, last: int) -> None:
        """Go on behind what is archived, which is too old to be told.

        Raises:
            Refused: the record behind the last one is missing, and is not archived.
        """
        anchor, _ = read_anchor(await self._store.read(audit_anchor_key(self._app)))
        if last >= anchor.number:
            raise Refused(f"record {last + 1} of the audit is missing: `hotcold audit verify`", kind="audit_damaged")
        await self._note(
            lambda log: None if log.last >= anchor.number else msgspec.structs.replace(log, last=anchor.number)
        )

    async def _tell_again(self, wish: Again) -> None:
        found = await self._store.read(audit_key(self._app, wish.number))
        if found is None:
            said = f"record {wish.number} is no longer in Consul"
            delivery = Delivery(number=wish.number, at=self._now(), outcome="failed", attempts=0, error=said)
        else:
            delivery = await self._attempt(read_record(found.value))
        delivery = msgspec.structs.replace(delivery, by=wish.by)

        def note(log: Delivered) -> Delivered | None:
            if wish not in log.again:
                return None
            rest = tuple(each for each in log.again if each != wish)
            return msgspec.structs.replace(log, again=rest).noted(delivery)

        await self._note(note)

    async def _note(self, change: Callable[[Delivered], Delivered | None]) -> None:
        """Note what was sent, also if somebody asked for something else to be sent meanwhile."""
        while True:
            log, index = await read_delivered(self._store, self._app, self._webhook.name)
            changed = change(log)
            key = delivery_key(self._app, self._webhook.name)
            if changed is None or await self._store.put(key, msgspec.json.encode(changed), cas=index):
                return

    async def _tell(self, record: Record) -> Delivery:
        if self._now() - record.at > MAX_AGE:
            return Delivery(number=record.number, at=self._now(), outcome="too_old", attempts=0, what=record.what)
        return await self._attempt(record)

    async def _attempt(self, record: Record) -> Delivery:
        sent = body(record, self._app, self._webhook.format)
        answer, attempts = await self._send(record, sent), 1
        for pause_s in PAUSES_S:
            if not answer.error or answer.is_final:
                break
            await self._pause(pause_s)
            answer, attempts = await self._send(record, sent), attempts + 1
        if answer.error:
            log.warning("a webhook was not told", webhook=self._webhook.name, number=record.number, error=answer.error)
        return Delivery(
            number=record.number,
            at=self._now(),
            outcome="failed" if answer.error else "delivered",
            attempts=attempts,
            error=answer.error,
            what=record.what,
            status=answer.status,
        )

    async def _send(self, record: Record, sent: bytes) -> _Answer:
        headers = {"Content-Type": "application/json", DELIVERY: f"{self._app}-{record.number}"}
        try:
            secret = await self._secret()
        except OSError as error:
            return _Answer(f"{self._webhook.secret_file} cannot be read: {error.strerror}")
        if secret is not None:
            headers[SIGNATURE] = signature(secret, self._now(), sent)
        timeout = aiohttp.ClientTimeout(total=self._webhook.timeout_s)
        try:
            async with self._http.post(
                self._webhook.url, data=sent, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status in _OK:
                    return _Answer("", response.status)
                text = (await response.content.read(_ERROR_CHARACTERS)).decode(errors="replace")
                is_final = response.status in _CLIENT and response.status not in _AGAIN
                return _Answer(f"answered {response.status}: {text}".rstrip(": "), response.status, is_final=is_final)
        except TimeoutError:
            return _Answer(f"no answer within {self._webhook.timeout_s:g} s")
        except aiohttp.ClientError as error:
            return _Answer(str(error) or type(error).__name__)

    async def _secret(self) -> bytes | None:
        """The key, read each time, so that it may be changed without a restart."""
        if self._webhook.secret_file is None:
            return None
        file = Path(self._webhook.secret_file)
        return (await asyncio.get_running_loop().run_in_executor(None, file.read_bytes)).strip()
