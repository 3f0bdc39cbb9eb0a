"""The start splay: each host has its place in it, the same for the whole of an order."""

from agent.splay import splay_delay_s


def test_a_host_has_the_same_share_each_time_and_another_with_the_next_order() -> None:
    first = splay_delay_s(60, host="web-1", serial=7)
    assert splay_delay_s(60, host="web-1", serial=7) == first
    assert splay_delay_s(120, host="web-1", serial=7) == 2 * first
    assert splay_delay_s(60, host="web-1", serial=8) != first
    assert splay_delay_s(60, host="web-2", serial=7) != first


def test_hosts_spread_evenly_and_none_waits_longer_than_the_splay() -> None:
    shares = sorted(splay_delay_s(60, host=f"web-{number}", serial=1) for number in range(1000))
    assert shares[0] >= 0
    assert shares[-1] < 60
    for tenth in range(10):
        assert 60 <= sum(tenth * 6 <= share < (tenth + 1) * 6 for share in shares) <= 140


def test_without_a_splay_nobody_waits() -> None:
    assert splay_delay_s(0, host="web-1", serial=7) == 0
