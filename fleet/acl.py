"""Owns Consul's ACL rules: which one a request needs, and all that an agent or a commander needs. Pure.

Requests themselves are left to `fleet.transport`.
"""

from __future__ import annotations

from urllib.parse import unquote

from fleet.keys import ROOT, host_key, service_name, slots_prefix, tier_key, tiers_prefix


def agent_rules(app: str, tier: str, host: str, node: str) -> str:
    """The least that the agent of one host needs, in Consul's policy language.

    Args:
        app: as in its configuration.
        tier: likewise.
        host: likewise.
        node: name of the Consul agent that it asks, which owns its session.
    """
    return (
        f'key "{tier_key(app, tier)}" {{ policy = "read" }}\n'
        f'key "{host_key(app, tier, host)}" {{ policy = "write" }}\n'
        f'key_prefix "{slots_prefix(app, tier)}" {{ policy = "write" }}\n'
        f'session "{node}" {{ policy = "write" }}\n'
        f'service "{service_name(app)}" {{ policy = "write" }}\n'
    )


def commander_rules(app: str) -> str:
    """The least that somebody needs who orders builds of an app, and looks at its hosts."""
    return (
        f'key_prefix "{ROOT}/{app}/" {{ policy = "read" }}\n'
        f'key_prefix "{ROOT}/{app}/builds/" {{ policy = "write" }}\n'
        f'key_prefix "{tiers_prefix(app)}" {{ policy = "write" }}\n'
        f'service "{service_name(app)}" {{ policy = "read" }}\n'
        'node_prefix "" { policy = "read" }\n'
    )


def rule_needed(method: str, path: str) -> str:
    """The rule, in Consul's policy language, that lets `method` on `path` (without query) through."""
    access = "read" if method == "GET" else "write"
    parts = [unquote(part) for part in path.removeprefix("/v1/").split("/")]
    match parts:
        case ["kv", *key] if access == "read" and key[-1] == "":
            rule = f'key_prefix "{"/".join(key)}" {{ policy = "read" }}'
        case ["kv", *key]:
            rule = f'key "{"/".join(key)}" {{ policy = "{access}" }}'
        case ["txn"]:
            rule = 'key "<each key of the transaction>" { policy = "write" }'
        case ["session", *_]:
            rule = f'session "<node of the Consul agent>" {{ policy = "{access}" }}'
        case ["health", "service", name]:
            rule = f'service "{name}" {{ policy = "read" }} and node_prefix "" {{ policy = "read" }}'
        case ["agent", "service" | "check", *_]:
            rule = f'service "<name of the service>" {{ policy = "{access}" }}'
        case ["agent", "services" | "checks"]:
            rule = 'service_prefix "" { policy = "read" }'
        case _:
            rule = f"{access} access to {path}"
    return rule
