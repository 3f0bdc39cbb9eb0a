"""A real agent that joins while a share of its tier tries a build, and that starts again without a store."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fleet import Order, encode
from fleet.devserver import DevServer
from fleet.keys import host_key, tier_key
from tests.e2e.host import APP, TIER, Host, Shop, hotcold


@pytest.mark.timeout(300)
async def test_a_host_that_joins_during_a_share_runs_the_build_before_also_after_a_restart_without_a_store(
    shop: Shop, dev_store: DevServer, new_host: Callable[..., Host]
) -> None:
    """All positions are below the cutoff: only when a host joined tells them apart. At 100 percent all have it."""
    before, after = shop.ref(shop.pack("b1")), shop.ref(shop.pack("b2"))
    known = new_host("web-1")
    known.start()
    await known.until_up()
    key = tier_key(APP, TIER)
    ordered = Order(v=1, app=APP, tier=TIER, serial=1, build=before)
    await shop.store.put(key, encode(ordered))
    await known.until_steady("b1")
    own = await shop.store.read(host_key(APP, TIER, "web-1"))
    assert own is not None
    share = Order(
        v=1,
        app=APP,
        tier=TIER,
        serial=2,
        build=after,
        previous=before,
        percent=99.0,
        cutoff=0.9999999,
        salt="salt",
        known_index=own.create_index,
    )
    await shop.store.put(key, encode(share))
    await known.until_steady("b2")

    new = new_host("web-2")
    new.start()
    status = await new.until_steady("b1")
    assert status["order"]["serial"] == 2

    # Both judge alike by what they remember, where no store answers.
    for host in (known, new):
        host.kill()
        address = host.consul_address
        host.consul_address = "http://127.0.0.1:1"
        host.write_config()
        host.start()
        host.consul_address = address
    assert (await known.until_steady("b2"))["order"]["build"] == "b2"
    assert (await new.until_steady("b1"))["order"]["build"] == "b1"

    for host in (known, new):
        host.kill()
        host.write_config()
        host.start()
    await new.until_steady("b1")
    await hotcold(
        *("deploy", f"{shop.url}/shop-b2.json", "--app", APP, "--tier", TIER, "--wait", "60"), consul=dev_store.address
    )
    await known.until_steady("b2")
    await new.until_steady("b2")
