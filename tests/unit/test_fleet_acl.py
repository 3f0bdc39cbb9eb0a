"""A refusal says which rule to grant."""

from __future__ import annotations

import pytest

from fleet.acl import rule_needed


@pytest.mark.parametrize(
    ("method", "path", "rule"),
    [
        ("GET", "/v1/kv/hotcold/web/tiers/prod", 'key "hotcold/web/tiers/prod" { policy = "read" }'),
        ("GET", "/v1/kv/hotcold/web/tiers/", 'key_prefix "hotcold/web/tiers/" { policy = "read" }'),
        ("PUT", "/v1/kv/hotcold/web/tiers/prod", 'key "hotcold/web/tiers/prod" { policy = "write" }'),
        ("DELETE", "/v1/kv/a", 'key "a" { policy = "write" }'),
        ("PUT", "/v1/txn", 'key "<each key of the transaction>" { policy = "write" }'),
        ("PUT", "/v1/session/create", 'session "<node of the Consul agent>" { policy = "write" }'),
        ("PUT", "/v1/agent/service/register", 'service "<name of the service>" { policy = "write" }'),
        ("PUT", "/v1/agent/check/pass/x:alive", 'service "<name of the service>" { policy = "write" }'),
        ("GET", "/v1/agent/services", 'service_prefix "" { policy = "read" }'),
        (
            "GET",
            "/v1/health/service/web",
            'service "web" { policy = "read" } and node_prefix "" { policy = "read" }',
        ),
        ("GET", "/v1/operator/raft", "read access to /v1/operator/raft"),
    ],
)
def test_rules(method: str, path: str, rule: str) -> None:
    assert rule_needed(method, path) == rule
