"""The dev server's pure tables: keys, locks, sessions, services, checks, durations."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.devserver.catalog import OUTPUT_DELAY_S, OUTPUT_MAX_BYTES, Catalog, Check, Service
from fleet.devserver.definitions import belonging_to
from fleet.devserver.durations import nanoseconds, parse_duration
from fleet.devserver.kv import Item, KvTable
from fleet.devserver.waiting import Waiters, Watch

WEB = Service(id="web-1", name="web")


def ttl_check(**changes: object) -> Check:
    return belonging_to(WEB, Check(**({"id": "alive", "name": "alive", "ttl_s": 10.0} | changes)))


def catalog_with(check: Check) -> Catalog:
    catalog = Catalog()
    catalog.put_service(WEB, 1)
    catalog.put_check(check, 1, now_s=0.0)
    catalog.changes.clear()
    return catalog


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("1m30s", 90), ("1.5h", 5400), ("250ms", 0.25), ("-2s", -2), ("+2s", 2), ("0", 0), ("1us", 1e-6)],
)
def test_go_durations_are_understood(text: str, seconds: float) -> None:
    """Durations mean what they mean to Go."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "invalid duration"),
        ("10", "missing unit"),
        ("9x", 'unknown unit "x"'),
        ("abc", "invalid duration"),
        ("1s2", "missing unit"),
        ("s", "invalid duration"),
        ("1s-", 'unknown unit "s-"'),
    ],
)
def test_durations_without_meaning_are_refused_in_the_words_of_go(text: str, problem: str) -> None:
    """A duration without unit, number or known unit is refused."""
    with pytest.raises(ValueError, match=problem):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**18))
def test_nanoseconds_survive_the_way_there_and_back(ns: int) -> None:
    """What Go writes as nanoseconds reads back as the same length, to a float's precision."""
    assert nanoseconds(parse_duration(f"{ns}ns")) == pytest.approx(ns, rel=1e-12)


def test_writing_what_is_there_changes_nothing() -> None:
    """The same value again keeps the modify index and tells nobody."""
    kv = KvTable()
    kv.set(Item("a", b"1"), 5)
    kv.changes.clear()
    assert kv.set(Item("a", b"1"), 6).modify_index == 5
    assert kv.changes == set()
    assert kv.read("a")[0] == 5


def test_deleting_the_newest_key_does_not_let_a_lists_index_fall() -> None:
    """A list remembers its deletions, or its readers would miss them."""
    kv = KvTable()
    kv.set(Item("a/1", b""), 5)
    kv.set(Item("a/2", b""), 6)
    kv.set(Item("b", b""), 7)
    kv.delete("a/2", 8)
    assert kv.read_below("a/") == (8, [kv.get("a/1")])
    assert kv.read("a/2") == (8, None)
    assert kv.read("b")[0] == 7


def test_a_write_without_the_lock_keeps_its_holder_but_loses_the_count() -> None:
    """Locks are advisory: a plain write keeps the session and resets the lock index."""
    kv = KvTable()
    kv.lock(Item("l", b"1", session="s"), 5)
    written = kv.set(Item("l", b"2"), 6)
    assert (written.session, written.lock_index) == ("s", 0)


def test_a_lock_counts_its_holders_and_refuses_a_second_one() -> None:
    """The lock index rises with every new holder, not with the same one again."""
    kv = KvTable()
    assert kv.lock(Item("l", b"", session="one"), 1).lock_index == 1
    assert kv.lock(Item("l", b"x", session="one"), 2).lock_index == 1
    assert kv.lock(Item("l", b"", session="two"), 3) is None
    assert kv.unlock(Item("l", b"", session="two"), 4) is None
    assert kv.unlock(Item("l", b"", session="one"), 5).session == ""
    assert kv.lock(Item("l", b"", session="two"), 6).lock_index == 2
    assert [item.key for item in kv.held_by("two")] == ["l"]


_keys = st.sampled_from(["a", "a/1", "a/2", "b", "b/1"])
_writes = st.one_of(
    st.tuples(st.just("set"), _keys, st.binary(max_size=2)),
    st.tuples(st.just("delete"), _keys, st.just(b"")),
    st.tuples(st.just("delete_below"), _keys, st.just(b"")),
)


@given(st.lists(_writes, max_size=20), st.sampled_from(["a", "a/", "b", ""]))
def test_whoever_reads_below_a_prefix_sees_every_change_as_a_higher_index(writes: list, prefix: str) -> None:
    """Whenever the entries below a prefix differ from before, its index has risen.

    Not where a tree above the prefix is deleted: there Consul forgets, and so does the dev server.
    """
    kv = KvTable()
    before = kv.read_below(prefix)
    for at, (verb, key, value) in enumerate(writes, start=1):
        if verb == "delete_below" and not key.startswith(prefix):
            continue
        if verb == "set":
            kv.set(Item(key, value), at)
        else:
            getattr(kv, verb)(key, at)
        index, items = kv.read_below(prefix)
        if items != before[1]:
            assert index > before[0]
        before = index, items


def test_a_copy_is_independent() -> None:
    """What a transaction tries does not show."""
    kv = KvTable()
    kv.set(Item("a", b"1"), 1)
    draft = kv.copy()
    draft.set(Item("a", b"2"), 2)
    draft.delete_below("", 3)
    assert kv.get("a").value == b"1"
    assert kv.read("a")[0] == 1


def test_an_unreported_check_turns_critical_and_says_what_it_said_last() -> None:
    """A TTL check without a report for its TTL is critical."""
    catalog = catalog_with(ttl_check(status="passing", output="fine"))
    catalog.expire(2, now_s=9.9)
    assert catalog.check("alive").status == "passing"
    catalog.expire(3, now_s=10.0)
    check = catalog.check("alive")
    assert (check.status, check.modify_index) == ("critical", 3)
    assert check.output == check.shown_output == "TTL expired (last output before timeout follows): fine"
    assert ("service", "web") in catalog.changes


def test_a_report_starts_the_ttl_again() -> None:
    """Reporting at 9 s moves the end from 10 s to 19 s."""
    catalog = catalog_with(ttl_check())
    assert catalog.update_check("alive", "passing", "", 2, now_s=9.0)
    assert catalog.next_deadline_s() == 19.0


def test_an_output_alone_reaches_the_catalogue_late() -> None:
    """The agent shows a new output at once, the catalogue after the delay or with the next change of status."""
    catalog = catalog_with(ttl_check(status="passing", ttl_s=1000.0))
    catalog.update_check("alive", "passing", "new", 2, now_s=1.0)
    assert (catalog.check("alive").output, catalog.check("alive").shown_output) == ("new", "")
    assert catalog.changes == set()
    catalog.expire(3, now_s=1.0 + OUTPUT_DELAY_S)
    assert (catalog.check("alive").shown_output, catalog.check("alive").modify_index) == ("new", 3)


def test_a_service_critical_for_too_long_is_removed_with_its_checks() -> None:
    """`DeregisterCriticalServiceAfter` removes the service; a node's other services stay."""
    catalog = catalog_with(ttl_check(deregister_after_s=60.0))
    catalog.put_service(Service(id="other", name="other"), 1)
    catalog.update_check("alive", "critical", "", 2, now_s=5.0)
    catalog.expire(3, now_s=59.0)
    assert catalog.service("web-1") is not None
    catalog.expire(4, now_s=60.0)
    assert [service.id for service in catalog.services()] == ["other"]
    assert catalog.checks() == []
    assert catalog.service_index("web") == 4


def test_registering_again_keeps_status_and_output() -> None:
    """An agent that restarts and registers again does not turn its service critical."""
    catalog = catalog_with(ttl_check())
    catalog.update_check("alive", "passing", "up", 2, now_s=1.0)
    catalog.put_check(ttl_check(), 3, now_s=2.0)
    assert (catalog.check("alive").status, catalog.check("alive").output) == ("passing", "up")
    assert catalog.check("alive").modify_index == 2


def test_a_long_output_is_cut_and_says_so() -> None:
    """Outputs are kept to 4 KiB."""
    catalog = catalog_with(ttl_check())
    catalog.update_check("alive", "passing", "x" * 10000, 2, now_s=1.0)
    output = catalog.check("alive").output
    assert output == "x" * OUTPUT_MAX_BYTES + " ... (captured 4096 of 10000 bytes)"


def test_reports_for_unknown_checks_are_refused() -> None:
    """Neither an unknown check nor one without TTL can be reported."""
    catalog = catalog_with(ttl_check(id="fixed", ttl_s=0.0))
    assert not catalog.update_check("nope", "passing", "", 2, now_s=1.0)
    assert not catalog.update_check("fixed", "passing", "", 2, now_s=1.0)


async def test_a_change_wakes_exactly_those_who_wait_for_it() -> None:
    """The key's watcher and its prefixes' wake; a longer or shorter key's, another table's do not."""
    waiters = Waiters()
    concerned = [Watch("kv", "a/b"), Watch("kv", "a/", below=True), Watch("kv", "", below=True)]
    others = [Watch("kv", "a"), Watch("kv", "a/"), Watch("kv", "a/b/", below=True), Watch("check", "a/b")]
    tasks = {watch: asyncio.create_task(waiters.wait(watch)) for watch in [*concerned, *others]}
    await asyncio.sleep(0)
    waiters.wake([("kv", "a/b")])
    async with asyncio.timeout(10.0):
        await asyncio.gather(*(tasks[watch] for watch in concerned))
    assert [watch for watch, task in tasks.items() if not task.done()] == others
    assert len(waiters) == len(others)
    waiters.close()
    async with asyncio.timeout(10.0):
        await asyncio.gather(*tasks.values())
        await waiters.wait(others[0])
    assert len(waiters) == 0
