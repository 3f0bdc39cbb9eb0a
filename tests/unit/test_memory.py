"""What the agent remembers over restarts, and what a damaged file does."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.memory import ABSENCE, HOLD, JOINED, ORDER, REFUSAL, Absence, Hold, Joined, Memory
from agent.states import Refusal
from artifact import ManifestRef
from fleet import Order, Problem

BUILD = ManifestRef(id="b", urls=("http://127.0.0.1/b",), digest="sha256:" + "0" * 64, size=1, format="tar")
THE_ORDER = Order(v=1, app="shop", tier="prod", serial=7, build=BUILD, reason="é")
THE_REFUSAL = Refusal(7, "b", BUILD.digest, Problem(kind="k", message="m"), swapped=True)


def test_everything_comes_back(tmp_path: Path) -> None:
    """What one life keeps, the next recalls; what it forgets is gone."""
    memory = Memory(tmp_path)
    memory.keep_order(THE_ORDER)
    memory.keep_refusal(THE_REFUSAL)
    memory.keep_hold(Hold("looking"))
    memory.keep_absence(Absence(swapped=True))
    memory.keep_joined(Joined(17))

    recalled = Memory(tmp_path).recall()

    assert recalled.order == THE_ORDER
    assert recalled.refusal == THE_REFUSAL
    assert recalled.hold == Hold("looking")
    assert recalled.absence == Absence(swapped=True)
    assert recalled.joined == Joined(17)
    assert recalled.problems == ()

    memory.keep_refusal(None)
    memory.keep_hold(None)
    memory.keep_absence(None)
    memory.keep_absence(None)
    assert Memory(tmp_path).recall().absence is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [JOINED, ORDER]


def test_empty_directory_is_a_first_life(tmp_path: Path) -> None:
    """Nothing is remembered and nothing is wrong."""
    recalled = Memory(tmp_path).recall()

    assert (recalled.order, recalled.refusal, recalled.hold, recalled.absence) == (None, None, None, None)
    assert recalled.problems == ()


@pytest.mark.parametrize("name", [ORDER, REFUSAL, HOLD, ABSENCE])
@pytest.mark.parametrize("damage", [b"", b"{", b'{"v": 9}', b"\xff\xfe", None])
def test_damaged_file_counts_as_absent_and_is_named(name: str, damage: bytes | None, tmp_path: Path) -> None:
    """A file that cannot be read never stops the agent: the rest is recalled, and the file is reported."""
    memory = Memory(tmp_path)
    memory.keep_order(THE_ORDER)
    memory.keep_hold(Hold("looking"))
    (tmp_path / name).unlink(missing_ok=True)
    if damage is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(damage)

    recalled = memory.recall()

    assert len(recalled.problems) == 1
    assert name in recalled.problems[0]
    assert recalled.order == (None if name == ORDER else THE_ORDER)
    assert recalled.hold == (None if name == HOLD else Hold("looking"))
