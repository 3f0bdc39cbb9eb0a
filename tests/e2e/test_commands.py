"""The commands of an operator on a host, against a real agent."""

from __future__ import annotations

from collections.abc import Callable

from agent.memory import REFUSAL
from tests.e2e.host import APP, Host, Shop, hotcold

NewHost = Callable[..., Host]
PROBE = '[probe]\ncommand = ["test", "!", "-e", "{}/bad"]\nsuccesses = 1\ninterval_s = 0.05\ndeadline_s = 1\n'


async def test_a_forgotten_build_is_tried_again_and_stays_so(shop: Shop, new_host: NewHost) -> None:
    """The cause is mended, the operator says so, and the build is proved without a new order or a download."""
    host = new_host()
    host.write_config(PROBE.format(host.directory))
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")
    (host.directory / "bad").touch()
    await shop.order(shop.pack("b2"))
    await host.until_state("rolled_back")
    assert (host.state_dir / REFUSAL).exists()
    socket = ("--socket", str(host.socket))
    assert "b9 is not refused on this host; b2 is" in await hotcold("forget", "b9", *socket, exits=1)

    for path in (shop.directory / "artifacts").glob(f"{APP}-b2*"):
        path.unlink()
    (host.directory / "bad").unlink()
    said = await hotcold("forget", "b2", *socket)
    assert said.startswith("build b2 is no longer refused; it was for: ")
    await host.until_steady("b2")
    assert host.stamps() == {"b2"}
    assert not (host.state_dir / REFUSAL).exists()
    assert "nothing to forget" in await hotcold("forget", *socket, exits=1)

    assert host.stop() == 0
    host.start()
    await host.until_steady("b2")
    asked = [line for line in (await hotcold("history", *socket)).splitlines() if "order at the socket" in line]
    assert asked
    assert "call=/v1/forget" in asked[-1]
