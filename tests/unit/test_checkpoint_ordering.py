"""What the next order of a tier is."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact import ConfigError, HotcoldError, Refused
from checkpoint import HostKey, TierKey, Wish, chosen_hosts, next_order, rollback_order
from checkpoint.ordering import known_index
from fleet import Order, decode_order, encode, wanted_build
from tests.commander_world import build, host, report

AT = "2026-11-23T10:00:00+00:00"


def wish(build_id: str = "b2", **facts: object) -> Wish:
    return Wish(**{"app": "shop", "tier": "prod", "build": build(build_id), "reason": "why", "by": "anna"} | facts)


def key(order: Order | None) -> TierKey:
    return TierKey("prod") if order is None else TierKey("prod", order, claimed_serial=order.serial, modify_index=1)


def ordered(build_id: str, *, serial: int = 5, **facts: object) -> Order:
    fixed = {"v": 1, "app": "shop", "tier": "prod", "serial": serial, "build": build(build_id), "salt": "old salt"}
    return Order(**fixed | facts)


def following(order: Order | None, asked: Wish, hosts: list[HostKey] | None = None) -> Order:
    return next_order(asked, key(order), hosts or [], salt="new salt", at=AT)


def rolled_back(order: Order | None, hosts: list[HostKey] | None = None, limit: int | None = None) -> Order:
    return rollback_order(key(order), hosts or [], max_unavailable=limit, reason="bad", by="anna", at=AT)


names = st.lists(st.from_regex(r"[a-z0-9][a-z0-9.-]{0,12}", fullmatch=True), min_size=1, max_size=60, unique=True)
percents = st.floats(min_value=0.01, max_value=100, allow_nan=False)


@given(names, percents, st.text(min_size=1, max_size=8))
def test_exactly_the_share_is_chosen(hosts: list[str], percent: float, salt: str) -> None:
    """Of N known hosts, max(1, ceil(percent * N)) run the new build, and all others the one before."""
    keys = [HostKey("prod", name, None) for name in hosts]
    order = next_order(wish(percent=percent), key(ordered("b1")), keys, salt=salt, at=AT)
    expected = max(1, math.ceil(percent * len(hosts) / 100 - 1e-9))
    assert len(chosen_hosts(order, keys)) == expected
    others = [name for name in hosts if wanted_build(order, name) == build("b1")]
    assert len(others) == len(hosts) - expected


@given(names, st.lists(percents, min_size=2, max_size=6))
def test_hosts_once_chosen_stay_chosen(hosts: list[str], shares: list[float]) -> None:
    """Raising the share of one build adds hosts and takes none away."""
    keys = [HostKey("prod", name, None) for name in hosts]
    order = ordered("b1")
    chosen: set[str] = set()
    for share in sorted(shares):
        order = following(order, wish(percent=share), keys)
        now = set(chosen_hosts(order, keys))
        assert chosen <= now
        chosen = now
    assert order.previous == build("b1")


@given(st.integers(0, 2**40), st.lists(st.integers(0, 2**40), max_size=20))
def test_the_serial_is_above_all_that_was_obeyed(current: int, obeyed: list[int]) -> None:
    """After a restored snapshot the key is behind its hosts; the next order is above both."""
    hosts = [host(f"web-{number}", serial=1, highest=highest) for number, highest in enumerate(obeyed)]
    order = following(ordered("b1", serial=current), wish(), hosts)
    assert order.serial == max([current, *obeyed]) + 1


@given(names, percents)
def test_what_is_ordered_can_be_read(hosts: list[str], percent: float) -> None:
    """Every order that a commander makes survives the strict decoding of an agent."""
    order = following(ordered("b1"), wish(percent=percent), [HostKey("prod", name, None) for name in hosts])
    assert decode_order(encode(order)) == order


def test_the_first_order_has_nothing_before_it() -> None:
    """In an empty tier the serial starts at 1, and hosts beyond the share keep what they have."""
    order = following(None, wish(percent=50))
    assert (order.serial, order.previous, order.salt, order.max_unavailable) == (1, None, "new salt", None)


def test_another_build_chooses_other_hosts() -> None:
    """A build that is new to the tier gets a fresh salt, and the admitted build stays for the rest."""
    order = following(ordered("b1"), wish("b2", percent=10))
    assert (order.salt, order.previous) == ("new salt", build("b1"))


def test_a_build_on_trial_is_not_what_the_rest_runs() -> None:
    """A new build over one that reached a part only leaves the rest on the build before both."""
    order = following(ordered("b2", percent=25.0, previous=build("b1")), wish("b3", percent=10))
    assert order.previous == build("b1")


def test_a_build_that_its_hosts_rejected_is_not_what_the_rest_runs() -> None:
    """Where every answer to the last full order was a rejection, the rest is not sent to that build again."""
    hosts = [host("web-1", serial=5, state="rolled_back", wanted="b2", hot="b1"), host("web-2", serial=4, hot="b1")]
    order = following(ordered("b2", previous=build("b1")), wish("b3", percent=50), hosts)
    assert order.previous == build("b1")


def test_a_build_that_one_host_rejected_is_still_admitted() -> None:
    """One sick host does not withdraw the build that the others run."""
    hosts = [
        host("web-1", serial=5, state="rolled_back", wanted="b2", hot="b1"),
        host("web-2", serial=5, wanted="b2", hot="b2"),
    ]
    order = following(ordered("b2", previous=build("b1")), wish("b3", percent=50), hosts)
    assert order.previous == build("b2")


def test_the_same_build_again_changes_only_the_serial_and_the_words() -> None:
    """Deploying again is how a host that refused gets another chance; who runs what stays."""
    current = ordered("b2", percent=25.0, cutoff=0.25, previous=build("b1"), max_unavailable=2)
    again = following(current, wish("b2", percent=25))
    assert again == msgspec.structs.replace(current, serial=6, reason="why", by="anna", at=AT)


def test_places_to_fetch_from_may_change() -> None:
    """The same build at another address is the same build: salt and previous are kept, the new address is written."""
    moved = msgspec.structs.replace(build("b2"), urls=("http://127.0.0.1:2/b2.tar",))
    order = following(ordered("b2", previous=build("b1")), wish(build=moved))
    assert (order.salt, order.previous, order.build.urls) == ("old salt", build("b1"), moved.urls)


@pytest.mark.parametrize(("asked", "before", "after"), [(None, 3, 3), (None, None, None), (0, 3, None), (4, 3, 4)])
def test_the_limit_stays_until_it_is_changed(asked: int | None, before: int | None, after: int | None) -> None:
    """Not naming a limit keeps the tier's; 0 lifts it."""
    order = following(ordered("b1", max_unavailable=before), wish(max_unavailable=asked))
    assert order.max_unavailable == after


@pytest.mark.parametrize("percent", [0, -1, 100.01, float("nan"), float("inf")])
def test_a_share_out_of_range_is_refused(percent: float) -> None:
    """No share of the tier is above all or below one host."""
    with pytest.raises(ConfigError, match="above 0, at most 100") as caught:
        following(ordered("b1"), wish(percent=percent))
    assert caught.value.kind == "bad_percent"


def test_a_negative_limit_is_refused() -> None:
    """It would stop every host."""
    with pytest.raises(ConfigError, match="-1: must be a count from 0"):
        following(ordered("b1"), wish(max_unavailable=-1))


@pytest.mark.parametrize("current", [ordered("b2"), ordered("b9", previous=build("b2"))])
def test_an_id_in_use_for_another_artifact_is_refused(current: Order) -> None:
    """People and hosts know a build by its id."""
    with pytest.raises(Refused, match="an id is for ever") as caught:
        following(current, wish(build=build("b2", digit="1")))
    assert caught.value.kind == "build_id_reused"


def test_a_faulty_key_counts_as_empty_but_its_serial_is_exceeded() -> None:
    """What a newer version wrote is replaced only above its serial."""
    faulty = TierKey("prod", None, Refused("version 2"), 7, b"{}", claimed_serial=40)
    order = next_order(wish(), faulty, [], salt="new salt", at=AT)
    assert (order.serial, order.previous) == (41, None)


def test_a_rollback_gives_everyone_the_build_before() -> None:
    """It is a new serial, for all hosts, without the rollout's deadline, and cannot be rolled forward."""
    current = ordered("b2", percent=25.0, cutoff=0.25, previous=build("b1"), max_unavailable=2, not_after=AT)
    order = rolled_back(current, [host("web-1", serial=9)])
    assert (order.serial, order.build, order.previous) == (10, build("b1"), build("b1"))
    assert (order.percent, order.cutoff, order.not_after, order.max_unavailable) == (100.0, 1.0, None, 2)
    assert (order.reason, order.by, order.at) == ("bad", "anna", AT)
    with pytest.raises(Refused, match="nothing to go back to"):
        rolled_back(order)


@pytest.mark.parametrize("current", [None, ordered("b1"), ordered("b1", previous=build("b1"))])
def test_nothing_to_go_back_to_is_said(current: Order | None) -> None:
    """Without a build before, a rollback is refused instead of guessed."""
    with pytest.raises(Refused, match="nothing") as caught:
        rolled_back(current)
    assert caught.value.kind == "nothing_to_roll_back"


@given(
    st.lists(
        st.one_of(st.none(), st.tuples(st.sampled_from(["b1", "b2", "b3"]), st.sampled_from([1.0, 25.0, 50.0, 100.0]))),
        max_size=12,
    )
)
def test_any_history_keeps_its_promises(deeds: list[tuple[str, float] | None]) -> None:
    """Through any deploys and rollbacks serials rise, and nobody is ever sent to a build that was not ordered."""
    hosts = [HostKey("prod", f"web-{number}", report(f"web-{number}")) for number in range(7)]
    order: Order | None = None
    known: set[str] = set()
    for deed in deeds:
        serial = 0 if order is None else order.serial
        try:
            if deed is None:
                order = rolled_back(order, hosts)
            else:
                known.add(deed[0])
                order = following(order, wish(deed[0], percent=deed[1]), hosts)
        except HotcoldError as error:
            assert error.kind == "nothing_to_roll_back"  # noqa: PT017 - the only one that this history allows
            continue
        assert order.serial == serial + 1
        wanted = [wanted_build(order, each.host) for each in hosts]
        assert {each.id for each in wanted if each is not None} <= known
        if deed is None:
            assert wanted == [order.build] * len(hosts)


@pytest.mark.parametrize(
    ("limit", "host_count", "count"),
    [("10%", 50, 5), ("10%", 59, 5), ("1%", 50, 1), ("100%", 7, 7), ("29%", 100, 29), ("5%", 0, 1)],
)
def test_a_share_of_hosts_out_of_service_is_reckoned_when_it_is_ordered(
    limit: str, host_count: int, count: int
) -> None:
    """Rounded down, for it is a limit; but nobody would deploy under a limit of none. A rollback takes one as well."""
    hosts = [HostKey("prod", f"web-{number}", None) for number in range(host_count)]
    assert following(ordered("b1"), wish(max_unavailable=limit), hosts).max_unavailable == count
    current = ordered("b2", previous=build("b1"))
    back = rollback_order(key(current), hosts, max_unavailable=limit, reason="bad", by="anna", at=AT)
    assert back.max_unavailable == count


@pytest.mark.parametrize("limit", ["0%", "101%", "10", "ten%", "-5%", "%"])
def test_what_is_no_share_is_refused(limit: str) -> None:
    with pytest.raises(ConfigError, match="must be a count from 0, or a share"):
        following(ordered("b1"), wish(max_unavailable=limit))


@pytest.mark.parametrize(
    ("chosen", "newcomers", "expected"),
    [
        ([3, 9, 5], [], 9),
        ([3, 9, 5], [10, 11], 9),
        ([3, 9, 5, 100], [10, 11], 9),  # one report was deleted and came back: the others' share counts more
        ([103, 109, 105], [104], 109),  # all were imported into another Consul
        ([3], [1], 3),
        ([], [4], msgspec.UNSET),
        ([], [], msgspec.UNSET),
    ],
)
def test_the_index_by_which_hosts_are_known_makes_the_fewest_mistakes(
    chosen: list[int], newcomers: list[int], expected: object
) -> None:
    assert known_index(chosen, newcomers) == expected


def test_a_share_by_hand_is_of_the_hosts_that_were_there() -> None:
    """And an order for all, or a rollback, has no need to say so."""
    hosts = [HostKey("prod", name, report(name), joined=number) for number, name in enumerate("abcdefgh", start=10)]
    order = following(ordered("b1"), wish(percent=25.0), hosts)
    assert order.known_index == 17
    assert len(chosen_hosts(order, hosts)) == 2
    late = [HostKey("prod", f"late-{number}", None, joined=18) for number in range(40)]
    assert chosen_hosts(order, late) == ()
    assert following(ordered("b1"), wish(), hosts).known_index is msgspec.UNSET
    assert rolled_back(order, hosts).known_index is msgspec.UNSET
