"""Any sequence of operations and crashes: hot is always whole, names are new, what matters is never collected."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from swapper import LINUX, Release, Swapper
from tests.swapper_host import DIGEST, Host, OldKernel, assert_whole, fill


class Swaps(RuleBasedStateMachine):
    """One root; `served` is the model: the names that were proved while hot, in the order in which they served."""

    swapper: Swapper
    host: Host

    @initialize(has_exchange=st.booleans())
    def start(self, has_exchange: bool) -> None:  # noqa: FBT001 -- drawn by hypothesis
        self.host = Host(Path(tempfile.mkdtemp(dir=_BASE)), LINUX if has_exchange else OldKernel())
        self.swapper = self.host.open()
        self.names: set[str] = set()
        self.hot: str | None = None
        self.proved: list[str] = []
        self.filling: Release | None = None

    @rule(build_id=st.sampled_from(["a", "b", "c"]))
    def prepare(self, build_id: str) -> None:
        self.filling = self.swapper.prepare(build_id, DIGEST)
        assert self.filling.name not in self.names
        self.names.add(self.filling.name)

    @precondition(lambda self: self.filling is not None)
    @rule()
    def complete(self) -> None:
        assert self.filling is not None
        fill(self.filling)
        self.swapper.complete(self.filling)
        self.filling = None

    @precondition(lambda self: self.filling is not None)
    @rule()
    def abandon(self) -> None:
        assert self.filling is not None
        self.swapper.abandon(self.filling)
        assert not self.filling.path.exists()
        self.filling = None

    @rule(data=st.data())
    def swap_in(self, data: st.DataObject) -> None:
        candidates = [each for each in self.swapper.look().releases if each.complete and each.name != self.hot]
        if not candidates:
            return
        release = data.draw(st.sampled_from(candidates))
        self.swapper.swap_in(release)
        self.hot = release.name
        if self.hot in self.proved:
            self.proved.remove(self.hot)
            self.proved.append(self.hot)

    @precondition(lambda self: self.hot is not None)
    @rule()
    def mark_proved(self) -> None:
        hot = self.swapper.look().hot
        assert hot is not None
        self.swapper.mark_proved(hot)
        if hot.name not in self.proved:
            self.proved.append(hot.name)

    @rule()
    def crash(self) -> None:
        """Locks and descriptors go, everything else stays as it is."""
        self.swapper.close()
        self.swapper = self.host.open()
        self.filling = None
        self.host.assert_sound()

    @rule(keep=st.integers(0, 4), pinned=st.sets(st.sampled_from(["a", "b", "c"])), data=st.data())
    def collect(self, keep: int, pinned: set[str], data: st.DataObject) -> None:
        before = {release.name: release for release in self.swapper.look().releases}
        busy: list[Path] = []

        def in_use(paths: Sequence[Path]) -> Mapping[Path, str]:
            busy.extend(data.draw(st.lists(st.sampled_from(list(paths)), unique=True)))
            return dict.fromkeys(busy, "busy")

        collected = self.swapper.collect(keep=keep, pinned=pinned, in_use=in_use)
        assert collected.failed == {}
        for name in collected.removed:
            release = before[name]
            assert name not in {self.hot, self._standby()}
            assert release.build_id not in pinned
            assert release.path not in busy
            assert not release.path.exists()
        for name in collected.kept:
            assert before[name].path.exists()
        assert {*collected.removed, *collected.kept} == before.keys()
        self.proved = [name for name in self.proved if name not in collected.removed]

    @invariant()
    def hot_is_whole_and_the_standby_is_the_last_proved(self) -> None:
        if not hasattr(self, "swapper"):
            return
        disk = self.swapper.look()
        assert (disk.hot.name if disk.hot else None) == self.hot
        assert (disk.standby.name if disk.standby else None) == self._standby()
        assert disk.problems == ()
        if disk.hot is not None:
            assert disk.hot.complete
            assert_whole(self.host.layout.hot.resolve())

    def teardown(self) -> None:
        if hasattr(self, "swapper"):
            self.swapper.close()
            self.host.open().close()
            self.host.assert_sound()
            shutil.rmtree(self.host.base)

    def _standby(self) -> str | None:
        return next((name for name in reversed(self.proved) if name != self.hot), None)


_BASE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # thousands of deploys need no device
TestSwaps = Swaps.TestCase
TestSwaps.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
