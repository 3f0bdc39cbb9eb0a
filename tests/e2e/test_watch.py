"""A proved build that falls ill goes back; an agent that is ended again and again stops trying."""

from __future__ import annotations

from collections.abc import Callable

from agent.runner import MAX_STARTS
from tests.e2e.host import Host, Shop, until

NewHost = Callable[..., Host]

WATCH = """[probe]
command = ["test", "!", "-e", "{ill}"]
interval_s = 0.05
watch_s = 600
watch_failures = 2
"""


def watching(new_host: NewHost) -> Host:
    host = new_host()
    host.write_config(WATCH.format(ill=host.config_path.with_name("ill")))
    host.start()
    return host


async def test_a_build_that_falls_ill_while_it_serves_goes_back(shop: Shop, new_host: NewHost) -> None:
    """Also after a kill in the middle of the watch; it stays refused over another one."""
    host = watching(new_host)
    await shop.order(shop.pack("b1"))
    await host.until_state("watching")
    await shop.order(shop.pack("b2"))
    await host.until("on watch", lambda s: s["state"]["name"] == "watching" and s["hot"]["build"] == "b2")
    host.kill()
    host.start()
    status = await host.until_state("watching")
    assert (status["hot"]["build"], status["hot"]["proved"]) == ("b2", True)

    host.config_path.with_name("ill").touch()
    status = await host.until_state("rolled_back")
    assert (status["hot"]["build"], status["problem"]["kind"]) == ("b1", "watch_failed")
    assert "failed 2 time(s) in a row" in status["problem"]["message"]
    assert host.stamps() == {"b1"}
    host.kill()
    host.start()
    status = await host.until_up()
    assert (status["state"]["name"], status["hot"]["build"]) == ("rolled_back", "b1")


async def test_a_watch_that_passes_comes_to_rest(shop: Shop, new_host: NewHost) -> None:
    host = new_host()
    host.write_config('[probe]\ncommand = ["true"]\ninterval_s = 0.02\nwatch_s = 0.1\n')
    host.start()
    await shop.order(shop.pack("b1"))
    await host.until_steady("b1")
    assert '"state": "watching"' in host.log.read_text()
    assert not (host.state_dir / "watch.json").exists()


async def test_an_agent_that_never_comes_to_rest_halts(shop: Shop, new_host: NewHost) -> None:
    """Killed in the same place again and again; a new order lets it try once more, and rest ends the count."""
    host = new_host()
    gate = host.config_path.with_name("gate")
    host.write_config(f'[hooks.staged]\nargv = ["sh", "-c", "until [ -e {gate} ]; do sleep 0.05; done"]\n')
    host.start()
    await shop.order(shop.pack("b1"))
    for _ in range(MAX_STARTS):
        await host.until_state("staged")
        host.kill()
        host.start()
    # The first start had no order yet, and is not counted.
    await host.until_state("staged")
    host.kill()
    host.start()
    status = await host.until_state("halted")
    assert status["problem"]["kind"] == "halted"
    assert f"started {MAX_STARTS} times in a row" in status["problem"]["message"]
    assert status["hot"] is None
    host.kill()
    host.start()
    await host.until_state("halted")

    gate.touch()
    await shop.order(shop.pack("b2"))
    await host.until_steady("b2")

    async def is_forgotten() -> bool:
        return not (host.state_dir / "starts.json").exists()

    await until("the count is gone", is_forgotten)
