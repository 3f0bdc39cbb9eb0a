"""Which build a host runs, and which order it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact import ManifestRef, Refused
from fleet import (
    Order,
    check_obeyable,
    cutoff_for,
    decode_order,
    depends_on_joining,
    encode,
    hosts_for_percent,
    is_newcomer,
    position,
    wanted_build,
)


def build(name: str) -> ManifestRef:
    return ManifestRef(id=name, urls=(f"https://a.example/{name}",), digest="sha256:" + "a" * 64, size=1, format="tar")


NEW, OLD = build("new"), build("old")
ORDER = Order(v=1, app="web", tier="prod", serial=5, build=NEW, previous=OLD)
NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOSTS = st.lists(st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True), unique=True, max_size=60)


def order(**fields: Any) -> Order:
    return msgspec.structs.replace(ORDER, **fields)


class TestPercent:
    def test_a_position_is_the_same_for_every_implementation(self) -> None:
        """Other languages must come to the same numbers: SHA-256, first 53 bits, big endian."""
        assert position("", "") == (0x6E340B9CFFB37A98 >> 11) / 2**53 == 0.4304816492364817
        assert position("salt", "host-1") == 0.9598904111010063
        assert position("salt", "host-1") != position("tlas", "host-1")
        assert position("a", "b") != position("ab", "")

    @given(st.text(), st.text())
    def test_a_position_is_within_zero_and_one(self, salt: str, host: str) -> None:
        assert 0.0 <= position(salt, host) < 1.0

    @pytest.mark.parametrize(
        ("hosts", "percent", "expected"),
        [(0, 50, 0), (10, 0, 0), (10, 10, 1), (10, 11, 2), (3, 10, 1), (3, 34, 2), (200, 0.5, 1), (7, 100, 7)],
    )
    def test_a_percentage_is_rounded_up_and_is_at_least_one_host(
        self, hosts: int, percent: float, expected: int
    ) -> None:
        assert hosts_for_percent(hosts, percent) == expected

    @given(st.integers(1, 100), st.integers(1, 1000))
    def test_whole_percentages_of_whole_hundreds_are_exact(self, percent: int, hundreds: int) -> None:
        """Floating point must not round 29 percent of 100 hosts to 30."""
        assert hosts_for_percent(100 * hundreds, float(percent)) == percent * hundreds

    @given(HOSTS, st.text(max_size=5), st.floats(0, 100))
    def test_the_cutoff_lets_exactly_the_asked_number_of_hosts_run_the_build(
        self, hosts: list[str], salt: str, percent: float
    ) -> None:
        cutoff = cutoff_for(hosts, salt, percent)
        chosen = [host for host in hosts if wanted_build(order(cutoff=cutoff, salt=salt), host) is NEW]
        assert 0.0 <= cutoff <= 1.0
        assert len(chosen) == hosts_for_percent(len(hosts), percent)

    @given(HOSTS, st.text(max_size=5), st.floats(0, 100), st.floats(0, 100))
    def test_a_higher_percentage_takes_no_build_away(self, hosts: list[str], salt: str, one: float, two: float) -> None:
        low, high = sorted((one, two))
        below = {host for host in hosts if position(salt, host) < cutoff_for(hosts, salt, low)}
        assert below <= {host for host in hosts if position(salt, host) < cutoff_for(hosts, salt, high)}

    @pytest.mark.parametrize(("percent", "cutoff"), [(0, 0.0), (25, 0.25), (100, 1.0), (120, 1.0), (-1, 0.0)])
    def test_without_known_hosts_the_cutoff_is_the_fraction(self, percent: float, cutoff: float) -> None:
        assert cutoff_for([], "salt", percent) == cutoff

    def test_an_unknown_host_falls_on_one_side_in_proportion(self) -> None:
        cutoff = cutoff_for([f"host{number}" for number in range(1000)], "salt", 25)
        joined = sum(position("salt", f"later{number}") < cutoff for number in range(4000))
        assert math.isclose(joined / 4000, 0.25, abs_tol=0.05)


class TestWantedBuild:
    def test_below_the_cutoff_the_build_above_it_the_previous(self) -> None:
        place = position("s", "h")
        assert wanted_build(order(salt="s", cutoff=math.nextafter(place, 1)), "h") is NEW
        assert wanted_build(order(salt="s", cutoff=place), "h") is OLD

    def test_a_cutoff_of_one_is_everybody_and_of_zero_nobody(self) -> None:
        for number in range(100):
            assert wanted_build(order(cutoff=1.0), f"h{number}") is NEW
            assert wanted_build(order(cutoff=0.0), f"h{number}") is OLD

    def test_without_previous_the_others_keep_what_they_have(self) -> None:
        assert wanted_build(order(cutoff=0.0, previous=None), "h") is None


@dataclass(frozen=True)
class Refusal:
    given: Order
    kind: str
    message: str


class TestObeying:
    @pytest.mark.parametrize(
        ("new", "highest"),
        [
            (order(), None),
            (order(), order()),
            (order(serial=6), order()),
            (order(serial=900, build=OLD), order(serial=6)),
            (order(not_after="2030-01-01T00:00:00Z"), None),
            (order(not_after="2030-01-01T01:00:00+01:00"), None),
            (order(not_after="2029-01-01T00:00:00Z"), order(not_after="2029-01-01T00:00:00Z")),
        ],
    )
    def test_these_are_obeyed(self, new: Order, highest: Order | None) -> None:
        """A first order, the same again (even past its time: it was obeyed already), and any higher serial."""
        check_obeyable(new, app="web", tier="prod", highest=highest, now=NOW)

    @pytest.mark.parametrize(
        "refusal",
        [
            Refusal(order(app="shop"), "order_wrong_tier", "order is for shop/prod, but this host serves web/prod"),
            Refusal(order(tier="canary"), "order_wrong_tier", "order is for web/canary"),
            Refusal(order(serial=4), "order_serial", "serial 4, but this host already obeyed 5"),
            Refusal(order(build=OLD), "order_serial", "re-uses serial 5"),
            Refusal(order(serial=6, not_after="2029-12-31T23:59:59Z"), "order_expired", "expired at 2029"),
            Refusal(order(serial=6, not_after="tomorrow"), "order_invalid", "'tomorrow' is no time"),
            Refusal(order(serial=6, not_after="2031-01-01T00:00:00"), "order_invalid", "no time zone"),
        ],
    )
    def test_these_are_refused(self, refusal: Refusal) -> None:
        with pytest.raises(Refused, match=refusal.message) as caught:
            check_obeyable(refusal.given, app="web", tier="prod", highest=ORDER, now=NOW)
        assert caught.value.kind == refusal.kind


class TestNewcomers:
    """Hosts that nobody knew when a share was chosen."""

    @given(salt=st.text(min_size=1, max_size=6), cutoff=st.floats(0, 1, exclude_max=True), joined=st.integers(1, 200))
    def test_a_host_takes_part_if_it_was_known(self, salt: str, cutoff: float, joined: int) -> None:
        asked = order(salt=salt, cutoff=cutoff, known_index=100)
        plain = order(salt=salt, cutoff=cutoff)
        assert wanted_build(asked, "h", joined) is (wanted_build(plain, "h") if joined <= 100 else OLD)
        assert wanted_build(asked, "h", None) is OLD

    def test_all_take_part_in_an_order_for_all(self) -> None:
        for joined in (1, 200, None):
            assert wanted_build(order(cutoff=1.0, known_index=100), "h", joined) is NEW
            assert not is_newcomer(order(cutoff=1.0, known_index=100), joined)
        assert not is_newcomer(None, None)

    def test_it_is_asked_only_where_it_matters(self) -> None:
        place = position("s", "h")
        below, above = math.nextafter(place, 1), place
        assert depends_on_joining(order(salt="s", cutoff=below, known_index=1), "h")
        assert not depends_on_joining(order(salt="s", cutoff=above, known_index=1), "h")
        assert not depends_on_joining(order(salt="s", cutoff=below), "h")
        assert not depends_on_joining(order(salt="s", cutoff=1.0, known_index=1), "h")

    def test_an_order_that_does_not_need_it_does_not_name_it(self) -> None:
        """So that agents which do not know the field obey all orders but those for a share."""
        assert b"known_index" not in encode(order())
        assert decode_order(encode(order(known_index=7))).known_index == 7
