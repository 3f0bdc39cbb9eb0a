"""Owns when within the splay a host begins to fetch. Pure; waiting is left to `agent.work`."""

from __future__ import annotations

from fleet import position


def splay_delay_s(splay_s: float, *, host: str, serial: int) -> float:
    """The host's share of the splay: always the same for an order, another one for the next.

    Args:
        splay_s: over how many seconds the hosts of a tier spread; 0: all begin at once.
        host: its name.
        serial: of the order.
    """
    return splay_s * position(f"splay {serial}", host)
