"""The host grid as pages get it: only what changed, and never more than all of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from checkpoint.web.grid import MEANINGS, Grid, runs_of

LETTERS = st.text(alphabet="".join(MEANINGS), max_size=200)


def drawn(states: str, roster: str = "these") -> Grid:
    return Grid((), roster, states)


@given(LETTERS, st.data())
def test_runs_lead_from_before_to_now(before: str, data: st.DataObject) -> None:
    changed = data.draw(st.dictionaries(st.integers(0, max(0, len(before) - 1)), st.sampled_from(list(MEANINGS))))
    now = "".join(changed.get(place, letter) for place, letter in enumerate(before))
    shown = list(before)
    runs = runs_of(drawn(now), drawn(before))
    for begin, letters in runs:
        shown[begin : begin + len(letters)] = letters
    assert "".join(shown) == now
    assert sum(len(letters) for _, letters in runs) <= len(now)
    assert len(runs) <= len(changed)


def test_what_changed_in_thousands_of_hosts_is_short() -> None:
    before = "o" * 5000
    now = f"{before[:70]}b{before[71:4000]}nn{before[4002:]}"
    assert runs_of(drawn(now), drawn(before)) == [(70, "b"), (4000, "nn")]
    assert runs_of(drawn(before), drawn(before)) == []


def test_whoever_shows_nothing_yet_or_other_hosts_gets_all() -> None:
    assert runs_of(drawn("nob"), None) == [(0, "nob")]
    assert runs_of(drawn("nob"), drawn("no", roster="others")) == [(0, "nob")]
