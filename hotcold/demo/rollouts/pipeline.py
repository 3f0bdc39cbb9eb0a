"""Owns which hosts Checkpoint has in the demo, and its `checkpoint.toml`: the built-in pipeline, but in a hurry.

What is rolled out on it is left to `hotcold.demo.rollouts.story`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from hotcold.demo.builds import APP
from hotcold.demo.world import HOSTS

FLEET: Final[Mapping[str, Sequence[str]]] = {
    "staging": ("staging-1",),
    "dogfood": ("dogfood-1",),
    "canary": ("canary-1", "canary-2"),
    "prod": (*HOSTS, "web-4", "web-5"),
}
"""Hosts by their tiers, in order. Five of production are the fewest of which each step reaches one more."""
CUSTOMERS: Final = (*FLEET["canary"], *FLEET["prod"])
"""Hosts that customers ask. Those of staging and dogfood are asked by colleagues, who pay in euros."""
METRIC: Final = "failed-requests"

_CONFIG: Final = """\
app = {app}
metrics_interval_s = 1.0

[[tiers]]
name = "staging"
bake_s = 2.0
expect_s = 2.0
deadline_s = 120.0
approval = true
smoke_test = {{ command = {smoke_test}, timeout_s = 60.0 }}

[[tiers]]
name = "dogfood"
bake_s = 2.0
expect_s = 2.0
deadline_s = 120.0

[[tiers]]
name = "canary"
bake_s = 3.0
expect_s = 2.0
deadline_s = 120.0

[[tiers]]
name = "prod"
steps = [10, 25, 50, 75, 100]
bake_s = 2.0
expect_s = 2.0
deadline_s = 120.0

# Of the requests to each host, those that did not get their page. Colleagues ask too little to judge by.
[[metrics]]
name = {metric}
tiers = ["canary", "prod"]
quiet_intervals = 3

[metrics.http]
url = {counts}

[web]
listen = "127.0.0.1:0"
"""


def configuration(counts: str, staging_port: int) -> str:
    """The text of `checkpoint.toml`.

    Args:
        counts: address that answers for what clients got.
        staging_port: where the app of staging's host serves, for the smoke test.
    """
    smoke_test = (sys.executable, "-m", "hotcold.demo.rollouts.smoke_test", str(staging_port))
    return _CONFIG.format(
        app=json.dumps(APP),
        metric=json.dumps(METRIC),
        smoke_test=json.dumps(smoke_test),
        counts=json.dumps(f"{counts}/counts?hosts=$hosts&seconds=$interval"),
    )


def tier_of(host: str) -> str:
    """The tier of a host.

    Raises:
        KeyError: there is no such host.
    """
    for tier, hosts in FLEET.items():
        if host in hosts:
            return tier
    raise KeyError(host)
