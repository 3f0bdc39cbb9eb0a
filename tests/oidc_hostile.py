"""Owns a small OpenID Connect provider that does what a real one refuses to do; leaves the lies to the tests.

Without any it is a good one: it signs in `mallory`, who is an operator.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from aiohttp import web
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey

from tests.web_world import Answer, Client

ALL = ["HS256", "RS256", "RS512", "PS256", "ES256", "ES384"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@cache
def rsa(name: str, bits: int = 2048) -> RSAKey:
    """A private key, made once for each name."""
    return RSAKey.generate_key(bits, {"kid": name})


@cache
def elliptic(name: str, curve: str = "P-256") -> ECKey:
    """Likewise."""
    return ECKey.generate_key(curve, {"kid": name})  # type: ignore[arg-type]


def signed(payload: bytes, key: RSAKey | ECKey | OctKey, **header: Any) -> str:
    """A token; `header` is as given, but for `alg` and `kid`, which are as they should be."""
    given = {"alg": "RS256", "kid": key.kid} | header
    kept = {name: value for name, value in given.items() if value is not None}
    registry = jws.JWSRegistry(algorithms=ALL, strict_check_header=False)
    return jws.serialize_compact(kept, payload, key, registry=registry)


@dataclass
class Hostile:
    """What it says; each may be changed at any time.

    Attributes:
        claims: those of the ID token, beside the nonce.
        keys: public keys as they are published.
        token: makes the ID token of the claims.
        answers: handlers instead of its own, by path.
        asked: how often each path was.
        forms: what the token endpoint was sent.
    """

    issuer: str
    metadata: dict[str, Any]
    claims: dict[str, Any]
    keys: list[dict[str, Any]]
    token: Callable[[dict[str, Any]], str]
    userinfo: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Handler] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    forms: list[dict[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    nonce: str = ""

    def table(self, public_url: str = "http://127.0.0.1:1", *, before: str = "", **more: str) -> str:
        """`[web]` and its `[web.oidc]`; the values of `more` are TOML."""
        facts = {
            "issuer": f'"{self.issuer}"',
            "client_id": '"checkpoint"',
            "roles": '{operators = "admin", lookers = "read"}',
            "timeout_s": "20",
        } | more
        lines = "".join(f"{name} = {value}\n" for name, value in facts.items() if value)
        return f'public_url = "{public_url}"\n{before}[web.oidc]\n{lines}'

    async def sign_in(self, client: Client, following: str = "/hosts", **more: str) -> Answer:
        """A whole sign-in; `more` goes into the address that leads back."""
        start = await client.get(f"/sign-in/oidc?next={quote(following, safe='')}")
        assert start.status == 303, start
        query = {name: values[0] for name, values in parse_qs(urlsplit(start.headers["Location"]).query).items()}
        self.nonce = query["nonce"]
        back = {"state": query["state"], "code": "c0de"} | more
        return await client.get("/sign-in/oidc/return", params=back)


@asynccontextmanager
async def hostile() -> AsyncIterator[Hostile]:
    """A provider on this machine."""
    made: Hostile

    async def answer(request: web.Request) -> web.StreamResponse:
        made.asked[request.path] += 1
        if request.path in made.answers:
            return await made.answers[request.path](request)
        if request.path == "/token":
            made.forms.append({name: str(value) for name, value in (await request.post()).items()})
            made.headers.append(dict(request.headers))
            token = made.token(made.claims | {"nonce": made.nonce} if "nonce" not in made.claims else made.claims)
            return web.json_response({"access_token": "acc3ss", "token_type": "Bearer", "id_token": token})
        known: dict[str, Any] = {
            "/.well-known/openid-configuration": made.metadata,
            "/keys": {"keys": made.keys},
            "/userinfo": made.userinfo,
        }
        return web.json_response(known[request.path])

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        issuer = f"http://127.0.0.1:{runner.addresses[0][1]}"
        now_s = int(time.time())
        made = Hostile(
            issuer=issuer,
            metadata={
                "issuer": issuer,
                "authorization_endpoint": f"{issuer}/authorize?tenant=7",
                "token_endpoint": f"{issuer}/token",
                "jwks_uri": f"{issuer}/keys",
                "id_token_signing_alg_values_supported": ["RS256"],
            },
            claims={
                "iss": issuer,
                "sub": "17",
                "aud": "checkpoint",
                "exp": now_s + 600,
                "iat": now_s,
                "preferred_username": "mallory",
                "groups": ["operators"],
            },
            keys=[dict(rsa("one").as_dict(private=False))],
            token=lambda claims: signed(as_json(claims), rsa("one")),
        )
        yield made
    finally:
        await runner.cleanup()


def as_json(claims: dict[str, Any]) -> bytes:
    """A payload."""
    return json.dumps(claims).encode()
