"""Owns which ACL rule a request to Consul needs, so that a refusal can say what to grant. Pure.

Requests themselves are left to `fleet.transport`.
"""

from __future__ import annotations

from urllib.parse import unquote


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
