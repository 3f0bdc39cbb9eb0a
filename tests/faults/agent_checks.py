"""Owns what must hold of a host after a fault, and that the next agent goes on from there."""

from __future__ import annotations

from tests.agent_builds import Builds, describe
from tests.agent_life import AgentHost, leftovers, living


def served(host: AgentHost, builds: Builds) -> str | None:
    """The build that readers of hot see, whole; None where there was none before."""
    if not host.layout.hot.is_symlink():
        return None
    tree = host.layout.hot.resolve(strict=True)
    build_id = tree.name.partition("~")[0]
    assert describe(tree) == builds.described(build_id)
    return build_id


async def live_on(host: AgentHost, builds: Builds, serial: int, wanted: str, following: str) -> None:
    """The next agent does what is ordered, then what `following` asks; every tree is right; nothing is left over."""
    async with living(host) as life:
        assert life.problems == ()
        had_hot = life.disk().hot is not None
        for number, build_id in ((serial, wanted), (serial + 1, following)):
            life.order(number, builds[build_id])
            await life.until_steady(builds[build_id])
            assert served(host, builds) == build_id
            disk = life.disk()
            assert disk.problems == ()
            # A tree that was whole when its agent was killed, and is not wanted any more, stays until the next deploy.
            extra = {disk.cold.name} if disk.cold is not None and disk.cold.served == 0 and number == serial else set()
            assert len({release.name for release in disk.releases} - extra) <= host.keep
            assert all(release.complete for release in disk.releases)
            assert leftovers(host, kept=[release.name for release in disk.releases]) == []
            for release in disk.releases:
                assert describe(release.path) == builds.described(release.build_id), release.name
        assert life.disk().standby is not None or not had_hot
