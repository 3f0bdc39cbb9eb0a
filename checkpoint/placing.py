"""Owns how an order gets into a tier's key: read, compute, write by check-and-set, once, whatever the network does.

What stands in the order is left to `checkpoint.ordering`, and whether hosts obeyed to `checkpoint.following`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from artifact import Refused
from checkpoint.guards import Guards, check_guards, read_document
from checkpoint.insisting import Insistence
from checkpoint.ordering import Wish, chosen_hosts, next_order, rollback_order
from checkpoint.reading import HostKey, TierKey, read_host_keys, read_tier_key
from fleet import Order, Store, StoreUnreachable, encode
from fleet.keys import hosts_prefix, lock_key, tier_key


@dataclass(frozen=True)
class Placed:
    """An order that stands in its key.

    Attributes:
        before: the order that it replaced, None where there was none.
        order: what was written.
        host_count: hosts of the tier that have reported so far.
        chosen: those of them that shall run the order's `build`.
    """

    before: Order | None
    order: Order
    host_count: int
    chosen: tuple[str, ...]


class Commander:
    """Writes orders into a store.

    Args:
        store: where orders and reports lie.
        now: wall-clock time, aware.
        new_salt: gives an unguessable word for each rollout.
        pause: waits that many seconds.
        on_retry: told of each failure that is tried again.
    """

    def __init__(
        self,
        store: Store,
        *,
        now: Callable[[], datetime],
        new_salt: Callable[[], str],
        pause: Callable[[float], Awaitable[None]],
        on_retry: Callable[[StoreUnreachable], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._now = now
        self._new_salt = new_salt
        self._insistence = Insistence(pause, on_retry)

    async def deploy(self, wish: Wish, *, replace_malformed: bool = False, pierce_guards: bool = False) -> Placed:
        """Order `wish`.

        Raises:
            Refused: the key holds something that is no order and `replace_malformed` is not set, the app is locked or
                the build denied and `pierce_guards` is not set, somebody else wrote meanwhile, or the build's id is in
                use; nothing was written.
            ConfigError: the wish is out of range, or the store refused; nothing was written.
            StoreUnreachable: no answer for about a quarter of a minute; the order may or may not have arrived.
        """
        guards = await self._insistence.ask(lambda: self._store.read(lock_key(wish.app)))
        if guards is not None and not pierce_guards:
            check_guards(read_document(guards, Guards), wish.build, remedy="or deploy with --override")
        key, hosts = await self._read(wish.app, wish.tier)
        if key.fault is not None and not replace_malformed:
            raise _malformed(wish.app, key, "look at it, then deploy again with --replace-malformed")
        order = next_order(wish, key, hosts, salt=self._new_salt(), at=self._at())
        if not await self._write(order, key):
            raise await self._lost_race(order)
        return Placed(key.order, order, len(hosts), chosen_hosts(order, hosts))

    async def roll_back(
        self, app: str, tier: str, *, reason: str, by: str, max_unavailable: int | str | None = None
    ) -> Placed:
        """Order the build before the present one for the whole tier. Needs nobody alive but the store.

        Raises:
            Refused: nothing to go back to, the key is malformed, or somebody ordered other builds meanwhile.
            ConfigError: the store refused; nothing was written.
            StoreUnreachable: no answer for about a quarter of a minute; the order may or may not have arrived.
        """
        key, hosts = await self._read(app, tier)
        while True:
            if key.fault is not None:
                raise _malformed(app, key, "deploy the wanted build's manifest with --replace-malformed")
            order = rollback_order(key, hosts, max_unavailable=max_unavailable, reason=reason, by=by, at=self._at())
            if await self._write(order, key):
                return Placed(key.order, order, len(hosts), chosen_hosts(order, hosts))
            was = key.order
            key, hosts = await self._read(app, tier)
            # A rollout that took its next step meanwhile does not change what is asked for; other builds do.
            if was is None or key.order is None or (was.build, was.previous) != (key.order.build, key.order.previous):
                raise await self._lost_race(order)

    async def _read(self, app: str, tier: str) -> tuple[TierKey, tuple[HostKey, ...]]:
        name, prefix = tier_key(app, tier), hosts_prefix(app, tier)
        key = read_tier_key(app, tier, await self._insistence.ask(lambda: self._store.read(name)))
        return key, read_host_keys(app, await self._insistence.ask(lambda: self._store.read_prefix(prefix)))

    async def _write(self, order: Order, key: TierKey) -> bool:
        """Write by check-and-set; False where another content stands there.

        After an answer was lost the same bytes are written again on the same index: either they are there already, and
        the read below finds them, or they are written now. Nothing can be ordered twice.
        """
        name, value = tier_key(order.app, order.tier), encode(order)
        if await self._insistence.ask(lambda: self._store.put(name, value, cas=key.modify_index)):
            return True
        entry = await self._insistence.ask(lambda: self._store.read(name))
        return entry is not None and entry.value == value

    async def _lost_race(self, order: Order) -> Refused:
        key, _ = await self._read(order.app, order.tier)
        if key.order is None:
            what = "it was deleted" if key.value is None else "something that is no order stands there now"
        else:
            now = key.order
            what = f"{now.by or 'somebody'} ordered {now.build.id} for {now.percent:g} % (serial {now.serial}" + (
                f", {now.reason!r})" if now.reason else ")"
            )
        return Refused(
            f"{tier_key(order.app, order.tier)} changed meanwhile: {what}. Nothing was written by this command; "
            f"look at `hotcold fleet --app {order.app} --tier {order.tier}` and decide again",
            kind="lost_race",
        )

    def _at(self) -> str:
        return self._now().astimezone(UTC).isoformat(timespec="seconds")


def _malformed(app: str, key: TierKey, remedy: str) -> Refused:
    name = tier_key(app, key.tier)
    return Refused(f"{name} holds something that is no order: {key.fault}; `consul kv get {name}` shows it; {remedy}")
