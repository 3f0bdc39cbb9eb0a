"""Owns telling webhooks what was done: one message for each step and for whatever needs a person, signed, tried again.

What was done is left to the audit: messages are made from its records, in their order, so that nothing is told that was
not written, and nothing is forgotten by a leader that dies. A message may come twice, with the same delivery id, if the
leader dies between sending it and noting that; one that is older than an hour is not sent any more. No webhook holds up
a rollout, or another webhook.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp
import msgspec
import structlog

from artifact import HotcoldError, Refused
from checkpoint.audit import Record, read_head, read_record
from checkpoint.pipeline import Webhook
from checkpoint.windows import Moment
from fleet import Store
from fleet.keys import audit_head_key, audit_key, deliveries_prefix, delivery_key

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
KEPT_DELIVERIES: Final = 50
PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
INTERVAL_S: Final = 1.0
SIGNATURE: Final = "X-Hotcold-Signature"
DELIVERY: Final = "X-Hotcold-Delivery"

_AGAIN: Final = frozenset({408, 425, 429})
_OK: Final = range(200, 300)
_CLIENT: Final = range(400, 500)
_ERROR_CHARACTERS: Final = 200


class Delivery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One message. `number` is its record's; `outcome` `failed`: given up after all attempts, `error` says why."""

    number: int
    at: Moment
    outcome: Literal["delivered", "failed", "too_old"]
    attempts: int
    error: str = ""


class Delivered(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far a webhook was told: the record that was looked at last, and the latest deliveries."""

    v: int = 1
    last: int = 0
    deliveries: tuple[Delivery, ...] = ()


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
        """Look at one more record; False where there is none.

        Raises:
            StoreUnreachable: no answer; the record is looked at again.
            Refused: the record, or the log of deliveries, cannot be read.
        """
        head, _ = read_head(await self._store.read(audit_head_key(self._app)))
        key = delivery_key(self._app, self._webhook.name)
        entry = await self._store.read(key)
        known = Delivered() if entry is None else _delivered(entry.value, key)
        if known.last >= head.number:
            return False
        number = known.last + 1
        found = await self._store.read(audit_key(self._app, number))
        if found is None:
            raise Refused(f"record {number} of the audit is missing: `hotcold audit verify`", kind="audit_damaged")
        record = read_record(found.value)
        deliveries = known.deliveries
        if record.what in TOLD:
            deliveries = (*deliveries, await self._tell(record))[-KEPT_DELIVERIES:]
        value = msgspec.json.encode(Delivered(last=number, deliveries=deliveries))
        # Where another engine tells too, for a moment, one of both finds the log changed, and looks again.
        await self._store.put(key, value, cas=0 if entry is None else entry.modify_index)
        return True

    async def _tell(self, record: Record) -> Delivery:
        if self._now() - record.at > MAX_AGE:
            return Delivery(number=record.number, at=self._now(), outcome="too_old", attempts=0)
        sent = body(record, self._app, self._webhook.format)
        error = ""
        for attempt, pause_s in enumerate((*PAUSES_S, None), start=1):
            error, is_final = await self._send(record, sent)
            if not error:
                return Delivery(number=record.number, at=self._now(), outcome="delivered", attempts=attempt)
            if is_final or pause_s is None:
                break
            await self._pause(pause_s)
        log.warning("a webhook was not told", webhook=self._webhook.name, number=record.number, error=error)
        return Delivery(number=record.number, at=self._now(), outcome="failed", attempts=attempt, error=error)

    async def _send(self, record: Record, sent: bytes) -> tuple[str, bool]:
        """Why it failed, empty where it did not; and whether trying again is of no use."""
        headers = {"Content-Type": "application/json", DELIVERY: f"{self._app}-{record.number}"}
        try:
            secret = await self._secret()
        except OSError as error:
            return f"{self._webhook.secret_file} cannot be read: {error.strerror}", False
        if secret is not None:
            headers[SIGNATURE] = signature(secret, self._now(), sent)
        timeout = aiohttp.ClientTimeout(total=self._webhook.timeout_s)
        try:
            async with self._http.post(
                self._webhook.url, data=sent, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status in _OK:
                    return "", True
                text = (await response.content.read(_ERROR_CHARACTERS)).decode(errors="replace")
                is_final = response.status in _CLIENT and response.status not in _AGAIN
                return f"answered {response.status}: {text}".rstrip(": "), is_final
        except TimeoutError:
            return f"no answer within {self._webhook.timeout_s:g} s", False
        except aiohttp.ClientError as error:
            return str(error) or type(error).__name__, False

    async def _secret(self) -> bytes | None:
        """The key, read each time, so that it may be changed without a restart."""
        if self._webhook.secret_file is None:
            return None
        file = Path(self._webhook.secret_file)
        return (await asyncio.get_running_loop().run_in_executor(None, file.read_bytes)).strip()


async def read_deliveries(store: Store, app: str) -> dict[str, Delivered]:
    """What each webhook was told, by its name.

    Raises:
        Refused: a log cannot be read.
        StoreUnreachable: no answer.
    """
    entries = await store.read_prefix(deliveries_prefix(app))
    return {entry.key.rpartition("/")[2]: _delivered(entry.value, entry.key) for entry in entries}


def _delivered(value: bytes, key: str) -> Delivered:
    try:
        return msgspec.json.decode(value, type=Delivered)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(
            f"{key} cannot be read: {error}; `consul kv delete {key}` begins anew", kind="document_invalid"
        ) from error
