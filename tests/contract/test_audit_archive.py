"""Archiving the audit, on both stores: nothing is lost, the rest is proved, and with the files the whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from artifact import ConfigError, Refused
from checkpoint.archive_file import read_archive
from checkpoint.archiving import Archived, Archivist
from checkpoint.audit import Record, digest, number_of, read_record, verify
from checkpoint.audit_reading import Chain, read_chain
from checkpoint.deliveries import read_deliveries
from checkpoint.insisting import Insistence
from checkpoint.notifying import Notifier
from checkpoint.pipeline import Webhook
from checkpoint.writing import Writer
from fleet import ConsulStore, Entry, StoreUnreachable
from fleet.keys import audit_anchor_key, audit_key
from fleet.store import Operation
from tests.rollout_world import Fleet, RolloutWorld, no_pause

OLD = 100
"""Records that are old, besides those of a rollout: more than two transactions remove."""


class Killed(BaseException):
    """The process is gone."""


class MortalStore:
    """A real store whose user dies at the n-th transaction; `after`: once it was written; `lost`: a message is lost."""

    def __init__(self, store: ConsulStore, dies_at: int = 0, *, after: bool = False, lost: bool = False) -> None:
        self._store = store
        self._dies_at = dies_at
        self._after = after
        self._lost = lost
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def transact(self, operations: Sequence[Operation]) -> bool:
        self.count += 1
        if self.count != self._dies_at:
            return await self._store.transact(operations)
        if self._after:
            await self._store.transact(operations)
        if self._lost:
            raise StoreUnreachable("a message was lost")
        raise Killed


@pytest.fixture
async def world(store: ConsulStore) -> AsyncIterator[RolloutWorld]:
    """A month-old audit, and two records of today."""
    fresh = RolloutWorld(store, Fleet(store))
    await fresh.order_everywhere()
    await fresh.start()
    await fresh.until_ended()
    writer = Writer(store, "shop", Insistence(no_pause))
    for _ in range(OLD // 50):
        note = Record(v=1, number=0, at=fresh.time.wall, by="anna", via="cli", what="locked", message="locked: x")
        assert await writer.write([], [note] * 50)
    fresh.time.pass_(timedelta(days=30).total_seconds())
    await fresh.desk.guarding.lock(fresh.origin())
    await fresh.desk.guarding.unlock(fresh.origin())
    yield fresh
    for entry in await store.read_prefix("hotcold/shop/"):
        await store.delete(entry.key)
    for tier, host in fresh.fleet.hosts:
        await store.deregister(fresh.fleet.service(tier, host))


def listed(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def count(world: RolloutWorld) -> int:
    return (await read_chain(world.store, "shop")).head.number


async def chain(world: RolloutWorld) -> Chain:
    return await read_chain(world.store, "shop")


async def archive(
    world: RolloutWorld, file: Path, *, days: float = 7, store: Any = None, person: str = "root@desk"
) -> Archived | None:
    archivist = Archivist(store or world.store, "shop", Insistence(no_pause), no_pause)
    return await archivist.archive(file, world.time.wall - timedelta(days=days), world.origin(person, "quarter"))


async def prove(world: RolloutWorld, *files: Path) -> list[Entry]:
    """The rest is proved alone; with the files, the whole from the first record on. Returns the whole."""
    now = await chain(world)
    assert list(verify(now.entries, now.head, now.anchor)) == []
    archived = [entry for file in files for entry in read_archive(file, "shop")]
    whole = [*archived, *now.entries]
    assert list(verify(whole, now.head)) == []
    return whole


async def test_old_records_go_and_the_rest_is_proved(world: RolloutWorld, tmp_path: Path) -> None:
    before = [entry.value for entry in (await chain(world)).entries]
    old = len(before) - 2
    file = tmp_path / "audit.jsonl"
    done = await archive(world, file)
    assert done is not None
    assert (done.first, done.last, done.removed_count) == (1, old, old)
    assert file.read_bytes() == b"".join(value + b"\n" for value in before[:old])
    assert file.stat().st_mode & 0o077 == 0
    now = await chain(world)
    assert (now.leftovers, now.anchor.number, now.anchor.hash) == ((), old, done.hash)
    assert [number_of(entry) for entry in now.entries] == [old + 1, old + 2, old + 3]
    told = read_record(now.entries[-1].value)
    assert (told.what, told.by, told.reason) == ("archived", "root@desk", "quarter")
    assert f"records 1 to {old} are archived in audit.jsonl (SHA-256 " in told.message
    whole = await prove(world, file)
    assert [entry.value for entry in whole[:-1]] == before
    assert listed(tmp_path) == ["audit.jsonl"]


async def test_a_second_archive_goes_on_behind_the_first(world: RolloutWorld, tmp_path: Path) -> None:
    """Also the record that told of the first is archived by then."""
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    await archive(world, first)
    world.time.pass_(timedelta(days=30).total_seconds())
    await world.desk.guarding.lock(world.origin())
    done = await archive(world, second)
    assert done is not None
    assert done.first == number_of(read_archive(first, "shop")[-1]) + 1
    await prove(world, first, second)
    now = await chain(world)
    [flaw, *_] = verify([*read_archive(second, "shop"), *now.entries], now.head)
    assert flaw.message.startswith("record 1 is missing")


async def test_what_is_young_or_under_way_or_the_latest_stays(world: RolloutWorld, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="less than 1 day"):
        await archive(world, tmp_path / "a", days=0.5)
    assert await archive(world, tmp_path / "b", days=365) is None
    number = await count(world)
    await world.start("b3")
    world.time.pass_(timedelta(days=30).total_seconds())
    await world.desk.guarding.lock(world.origin())
    done = await archive(world, tmp_path / "c")
    assert done is not None
    assert done.last == number
    assert listed(tmp_path) == ["c"]
    assert await world.desk.look() is not None


async def test_the_latest_record_stays_however_old_it_is(world: RolloutWorld, tmp_path: Path) -> None:
    world.time.pass_(timedelta(days=400).total_seconds())
    number = await count(world)
    done = await archive(world, tmp_path / "a")
    assert done is not None
    assert done.last == number - 1


async def transactions(world: RolloutWorld, file: Path) -> int:
    counting = MortalStore(world.store)
    await archive(world, file, store=counting)
    return counting.count


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("dies_at", [1, 2, 3, 4])
async def test_killed_at_any_write_nothing_is_lost_and_the_same_command_goes_on(
    world: RolloutWorld, tmp_path: Path, dies_at: int, *, after: bool
) -> None:
    """The transaction of the anchor, and the three that remove; at each moment every record is somewhere durable."""
    before = [entry.value for entry in (await chain(world)).entries]
    file = tmp_path / "audit.jsonl"
    with pytest.raises(Killed):
        await archive(world, file, store=MortalStore(world.store, dies_at, after=after))
    now = await chain(world)
    here = {entry.value for entry in (*now.entries, *now.leftovers)}
    there = {entry.value for entry in read_archive(file, "shop")}
    assert set(before) <= here | there
    assert list(verify(now.entries, now.head, now.anchor)) == []

    await archive(world, file)
    now = await chain(world)
    assert now.leftovers == ()
    whole = await prove(world, file)
    assert [entry.value for entry in whole[:-1]] == before
    assert [read_record(entry.value).what for entry in whole].count("archived") == 1


async def test_those_are_all_the_writes(world: RolloutWorld, tmp_path: Path) -> None:
    assert await transactions(world, tmp_path / "a") == 4


@pytest.mark.parametrize("after", [False, True], ids=["question", "answer"])
@pytest.mark.parametrize("dies_at", [1, 2, 4])
async def test_a_message_that_is_lost_is_asked_again(
    world: RolloutWorld, tmp_path: Path, dies_at: int, *, after: bool
) -> None:
    file = tmp_path / "audit.jsonl"
    await archive(world, file, store=MortalStore(world.store, dies_at, after=after, lost=True))
    whole = await prove(world, file)
    assert [read_record(entry.value).what for entry in whole].count("archived") == 1
    await archive(world, tmp_path / "next")  # whatever was not known to be removed is removed now
    assert (await chain(world)).leftovers == ()


async def test_of_two_at_once_one_archives(world: RolloutWorld, tmp_path: Path) -> None:
    """Into two files: the other is refused, and says that its file is a copy."""
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    answers = await asyncio.gather(*(archive(world, file) for file in files), return_exceptions=True)
    won = [file for file, answer in zip(files, answers, strict=True) if isinstance(answer, Archived)]
    lost = [answer for answer in answers if isinstance(answer, Refused)]
    assert (len(won), len(lost)) in {(1, 1), (1, 0)}
    for refusal in lost:
        assert refusal.kind == "lost_race"
    await prove(world, won[0])
    assert (await chain(world)).leftovers == ()


async def test_of_two_at_once_into_one_file_one_archives(world: RolloutWorld, tmp_path: Path) -> None:
    """Both may end well, if one goes on with what the other began; never is anything removed that the file lacks."""
    file = tmp_path / "a.jsonl"
    before = [entry.value for entry in (await chain(world)).entries]
    answers = await asyncio.gather(*(archive(world, file) for _ in range(3)), return_exceptions=True)
    assert any(isinstance(answer, Archived) for answer in answers)
    assert all(isinstance(answer, Archived | Refused) for answer in answers)
    whole = await prove(world, file)
    assert [entry.value for entry in whole[: len(before)]] == before


async def test_somebody_who_writes_meanwhile_is_not_lost(world: RolloutWorld, tmp_path: Path) -> None:
    async def work() -> None:
        for _ in range(10):
            await world.desk.guarding.lock(world.origin())
            await world.desk.guarding.unlock(world.origin())

    number = await count(world)
    done, _ = await asyncio.gather(archive(world, tmp_path / "a"), work())
    assert done is not None
    whole = await prove(world, tmp_path / "a")
    assert len(whole) == number + 20 + 1


async def test_another_file_is_never_overwritten_or_trusted(world: RolloutWorld, tmp_path: Path) -> None:
    before = await chain(world)
    for content in (b"", b"not a record\n", before.entries[3].value + b"\n"):
        file = tmp_path / "taken"
        file.write_bytes(content)
        with pytest.raises(Refused):
            await archive(world, file)
        assert file.read_bytes() == content
    forged = msgspec.structs.replace(read_record(before.entries[0].value), reason="forged")
    forged = msgspec.structs.replace(forged, hash=digest(forged))
    file.write_bytes(msgspec.json.encode(forged) + b"\n")
    with pytest.raises(Refused, match="holds other records"):
        await archive(world, file)
    assert (await chain(world)) == before


async def test_a_directory_that_is_not_there_changes_nothing(world: RolloutWorld, tmp_path: Path) -> None:
    before = await chain(world)
    with pytest.raises(ConfigError):
        await archive(world, tmp_path / "missing" / "a")
    assert (await chain(world)) == before


async def test_a_chain_that_is_not_whole_is_not_archived(world: RolloutWorld, tmp_path: Path) -> None:
    """Whoever looks into it needs it as it is."""
    await world.store.delete(audit_key("shop", 5))
    with pytest.raises(Refused, match="record 5 is missing"):
        await archive(world, tmp_path / "a")
    assert listed(tmp_path) == []


async def test_what_is_done_to_the_rest_or_to_the_anchor_is_found(world: RolloutWorld, tmp_path: Path) -> None:
    await archive(world, tmp_path / "a")
    now = await chain(world)
    assert [flaw.number for flaw in verify(now.entries[1:], now.head, now.anchor)]
    assert [flaw.number for flaw in verify(now.entries[:-1], now.head, now.anchor)]
    # Somebody takes the oldest records out and moves the anchor, without anything in the audit that says so.
    first = read_record(now.entries[0].value)
    moved = msgspec.structs.replace(now.anchor, number=first.number, hash=first.hash)
    await world.store.put(audit_anchor_key("shop"), msgspec.json.encode(moved))
    later = await chain(world)
    [flaw] = verify(later.entries, later.head, later.anchor)
    assert "the anchor was put in" in flaw.message
    # And an archive that was altered is found with the file.
    lines = (tmp_path / "a").read_bytes().splitlines()
    record: Record = msgspec.structs.replace(read_record(lines[7]), reason="altered")
    lines[7] = msgspec.json.encode(record)
    (tmp_path / "a").write_bytes(b"\n".join(lines) + b"\n")
    flaws = verify([*read_archive(tmp_path / "a", "shop"), *now.entries], now.head)
    assert "record 8 was altered" in next(flaws).message


async def test_a_webhook_that_is_new_begins_behind_what_is_archived(world: RolloutWorld, tmp_path: Path) -> None:
    await archive(world, tmp_path / "a")
    anchor = (await chain(world)).anchor.number
    async with aiohttp.ClientSession() as http:
        webhook = Webhook(name="chat", url="http://127.0.0.1:1/hook")
        notifier = Notifier(world.store, "shop", webhook, now=lambda: world.time.wall, pause=no_pause, http=http)
        assert await notifier.tell_next()
        assert (await read_deliveries(world.store, "shop"))["chat"].last == anchor
        while await notifier.tell_next():
            pass
    log = (await read_deliveries(world.store, "shop"))["chat"]
    assert log.last == await count(world)
    assert [each.what for each in log.deliveries] == ["locked", "unlocked"]
