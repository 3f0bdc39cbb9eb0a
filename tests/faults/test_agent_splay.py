"""The splay in an agent's life: fetching waits its share once for an order, and nothing else waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.splay import splay_delay_s
from agent.states import Steady
from tests.agent_builds import Builds, make_builds
from tests.agent_life import AgentHost, living


@pytest.fixture
def builds(tmp_path: Path) -> Builds:
    return make_builds(tmp_path / "builds", ["b1", "b2"])


async def test_fetching_waits_its_share_and_going_back_and_a_repull_do_not(tmp_path: Path, builds: Builds) -> None:
    """A build whose tree is on the disk is swapped in at once, however long the splay."""
    host = AgentHost(tmp_path / "host", probe="[fetch]\nsplay_s = 3600\n")
    (tmp_path / "host").mkdir()
    pauses: list[float] = []
    async with living(host, pauses=pauses) as life:
        for serial, build_id in ((1, "b1"), (2, "b2"), (3, "b1")):
            life.order(serial, builds[build_id])
            await life.until_steady(builds[build_id])
        shares = [splay_delay_s(3600, host="web-1", serial=serial) for serial in (1, 2)]
        assert [pause for pause in pauses if pause > 60] == shares
        before = life.disk().hot
        life.repull()
        await life.until(
            "steady on a new tree",
            lambda situation: isinstance(situation.model.state, Steady) and life.disk().hot != before,
        )
        assert [pause for pause in pauses if pause > 60] == shares
