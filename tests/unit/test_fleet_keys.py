"""Where everything lies in Consul, and which names can lie there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact import ConfigError
from fleet import keys


def test_keys_are_where_the_documentation_says() -> None:
    assert keys.tier_key("web", "prod") == "hotcold/web/tiers/prod"
    assert keys.tiers_prefix("web") == "hotcold/web/tiers/"
    assert keys.host_key("web", "prod", "h1.example") == "hotcold/web/hosts/prod/h1.example"
    assert keys.hosts_prefix("web", "prod") == "hotcold/web/hosts/prod/"
    assert keys.hosts_prefix("web") == "hotcold/web/hosts/"
    assert keys.slots_prefix("web", "prod") == "hotcold/web/slots/prod/"
    assert keys.service_name("web") == "hotcold-web"
    assert keys.service_id("web", "prod", "h1") == "hotcold-web-prod-h1"


def test_no_prefix_of_one_host_or_tier_covers_another() -> None:
    """Access rules are prefixes: without the slash at their end, `prod` would also open `prod2`."""
    assert not keys.host_key("web", "prod2", "h1").startswith(keys.hosts_prefix("web", "prod"))
    assert not keys.slots_prefix("web", "prod2").startswith(keys.slots_prefix("web", "prod"))


@pytest.mark.parametrize("name", ["", ".", "..", "a..b", "a/b", "a b", "-a", ".a", "a:1", "ä", "a\n", "a" * 64, "a%2e"])
def test_a_name_that_cannot_stand_in_a_key_is_refused_by_what_it_names(name: str) -> None:
    for what, make in (
        ("app", lambda: keys.tier_key(name, "prod")),
        ("tier", lambda: keys.tier_key("web", name)),
        ("host", lambda: keys.host_key("web", "prod", name)),
    ):
        with pytest.raises(ConfigError, match=f"^{what} ") as caught:
            make()
        assert caught.value.kind == "bad_name"
        assert repr(name) in str(caught.value)


@given(st.text(max_size=70))
def test_an_accepted_name_stays_one_part_of_the_key(name: str) -> None:
    try:
        key = keys.tier_key("web", name)
    except ConfigError:
        return
    assert key.split("/") == ["hotcold", "web", "tiers", name]
    assert name not in {".", ".."}
