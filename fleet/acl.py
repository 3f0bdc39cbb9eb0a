"""Owns Consul's ACL rules: which one a request needs, and all that an agent or a commander needs. Pure.

Requests themselves are left to `fleet.transport`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from fleet.keys import (
    ROOT,
    audit_anchor_key,
    checkpoint_prefix,
    host_key,
    service_name,
    slots_prefix,
    tier_key,
    tiers_prefix,
)


@dataclass(frozen=True)
class Right:
    """What a token must be allowed to do.

    Attributes:
        resource: as Consul's policy language calls it: `key`, `key_prefix`, `session`, `service`.
        segment: the name, or where the names begin.
        access: `read` or `write`.
        use: what the agent does by it, for people.
    """

    resource: str
    segment: str
    access: str
    use: str

    @property
    def rule(self) -> str:
        """The line that grants it."""
        return f'{self.resource} "{self.segment}" {{ policy = "{self.access}" }}'


def agent_rights(app: str, tier: str, host: str, node: str, services: Iterable[str] = ()) -> tuple[Right, ...]:
    """All that the agent of one host needs; arguments as for `agent_rules`."""
    return (
        Right("key", tier_key(app, tier), "read", "hear of orders"),
        Right("key", host_key(app, tier, host), "write", "report what this host does"),
        Right("key_prefix", slots_prefix(app, tier), "write", "take a slot"),
        Right("session", node, "write", "hold a slot"),
        Right("service", service_name(app), "write", "show that the agent lives"),
        *(Right("service", name, "write", "take the app out of service for a swap") for name in services),
    )


def agent_rules(app: str, tier: str, host: str, node: str, services: Iterable[str] = ()) -> str:
    """The least that the agent of one host needs, in Consul's policy language.

    Args:
        app: as in its configuration.
        tier: likewise.
        host: likewise.
        node: name of the Consul agent that it asks, which owns its session.
        services: names of the app's own services that it takes out for a swap.
    """
    return "".join(f"{right.rule}\n" for right in agent_rights(app, tier, host, node, services))


def commander_rules(app: str) -> str:
    """The least that somebody needs who orders builds of an app, rolls them out, and looks at its hosts."""
    return (
        f'key_prefix "{ROOT}/{app}/" {{ policy = "read" }}\n'
        f'key_prefix "{ROOT}/{app}/builds/" {{ policy = "write" }}\n'
        f'key_prefix "{tiers_prefix(app)}" {{ policy = "write" }}\n'
        f'key_prefix "{checkpoint_prefix(app)}" {{ policy = "write" }}\n'
        f'key "{audit_anchor_key(app)}" {{ policy = "read" }}\n'
        f'service "{service_name(app)}" {{ policy = "read" }}\n'
        'node_prefix "" { policy = "read" }\n'
    )


def admin_rules(app: str) -> str:
    """The least that somebody needs who archives an app's audit: a commander's rights, and to say where it begins."""
    anchor = f'key "{audit_anchor_key(app)}"'
    return commander_rules(app).replace(f'{anchor} {{ policy = "read" }}', f'{anchor} {{ policy = "write" }}')


def engine_rules(app: str, node: str) -> str:
    """The least that an engine needs: a commander's rights, and the session that it leads by, of that Consul agent."""
    return f'{commander_rules(app)}session "{node}" {{ policy = "write" }}\n'


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
