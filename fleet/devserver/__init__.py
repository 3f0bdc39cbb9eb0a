"""Owns an embedded, in-memory server that speaks Consul's HTTP API, for demos, trials and fast tests.

Not for production: one process, no persistence, no access control, no cluster. What it answers follows Consul
1.8.7; what it lacks it refuses with 501. Clients are left to `fleet.consul`, which cannot tell the difference.
"""

from fleet.devserver.server import DevServer

__all__ = ["DevServer"]
