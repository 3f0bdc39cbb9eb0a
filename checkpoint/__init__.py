"""The commander's side: what is ordered of a tier, how it gets there, and what became of it.

Hosts, and what is served on them, are left to `agent`; the two meet only in the documents of `fleet`.
"""

from checkpoint.following import Progress, follow, progress
from checkpoint.observing import Observer, look
from checkpoint.ordering import Wish, chosen_hosts, next_order, rollback_order
from checkpoint.overview import HostView, Overview, Standing, TierView, overview
from checkpoint.placing import Commander, Placed
from checkpoint.reading import HostKey, TierKey, read_host_keys, read_tier_key, read_tier_keys

__all__ = [
    "Commander",
    "HostKey",
    "HostView",
    "Observer",
    "Overview",
    "Placed",
    "Progress",
    "Standing",
    "TierKey",
    "TierView",
    "Wish",
    "chosen_hosts",
    "follow",
    "look",
    "next_order",
    "overview",
    "progress",
    "read_host_keys",
    "read_tier_key",
    "read_tier_keys",
    "rollback_order",
]
