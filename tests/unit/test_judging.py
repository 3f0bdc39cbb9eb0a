"""Judging orders: which build needs a signature, and what is left of an order that loses it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest

from agent.config import Settings, parse_settings
from agent.judging import judge, uphold, withdrawn
from agent.states import Goal
from artifact import Manifest, ManifestRef, Refused
from artifact.locate import reference
from artifact.secretkey import SecretKey
from artifact.signing import signature_by
from artifact.trust import TrustedKeys
from fleet import Order, encode

KEY = SecretKey(b"\x01key-one", bytes(range(32)))
OTHER = SecretKey(b"\x02key-two", bytes(range(32, 64)))
NOW = datetime(2026, 11, 23, tzinfo=UTC)


def build(build_id: str, key: SecretKey | None = KEY) -> ManifestRef:
    manifest = Manifest(
        v=1,
        app="shop",
        id=build_id,
        urls=("x.tar",),
        digest="sha256:" + "0" * 64,
        size=1,
        format="tar",
        created="2026-11-23T10:00:00+00:00",
    )
    signature = None if key is None else signature_by(key, manifest)
    return reference(msgspec.structs.replace(manifest, signature=signature), "https://builds.example.com/x.json")


def settings(*keys: SecretKey, app: str = "shop") -> Settings:
    plain = parse_settings(f'app = "{app}"\ntier = "prod"\nhost = "web-1"\nroot = "/srv/shop"\n', {})
    return replace(plain, trusted_keys=TrustedKeys([key.public for key in keys]) if keys else None)


def order(**fields: object) -> Order:
    return Order(**{"v": 1, "app": "shop", "tier": "prod", "serial": 3, "build": build("b2"), **fields})  # type: ignore[arg-type]


def test_a_signed_order_is_obeyed_and_its_signer_known() -> None:
    asked = order(max_unavailable=2)
    judged = judge(encode(asked), settings(OTHER, KEY), highest=None, now=NOW)
    assert judged.order == asked
    assert judged.goal == Goal(3, asked.build, 2)
    assert judged.signer == KEY.public.key_id


def test_without_trusted_keys_nothing_is_looked_at() -> None:
    """Not even whether the signature is one."""
    for asked in (build("b2", None), msgspec.structs.replace(build("b2"), signature="junk")):
        judged = judge(encode(order(build=asked)), settings(), highest=None, now=NOW)
        assert (judged.goal.build, judged.signer) == (asked, None)


@pytest.mark.parametrize("key", [None, OTHER])
def test_only_the_build_of_this_host_needs_a_signature(key: SecretKey | None) -> None:
    """Beyond the cutoff that is `previous`; where there is none, the host keeps what it has, and nobody is asked."""
    beyond = {"cutoff": 0.0, "percent": 1.0}
    signed, not_trusted = build("b1"), build("b2", key)

    assert (
        judge(
            encode(order(build=not_trusted, previous=signed, **beyond)), settings(KEY), highest=None, now=NOW
        ).goal.build
        == signed
    )
    assert judge(encode(order(build=not_trusted, **beyond)), settings(KEY), highest=None, now=NOW).signer is None
    for refused in (order(build=not_trusted, previous=signed), order(build=signed, previous=not_trusted, **beyond)):
        with pytest.raises(Refused) as caught:
            judge(encode(refused), settings(KEY), highest=None, now=NOW)
        assert caught.value.kind == ("build_unsigned" if key is None else "signature_untrusted")


def test_the_app_of_the_host_counts() -> None:
    """An order for another app is refused before its signature is looked at."""
    with pytest.raises(Refused) as caught:
        judge(encode(order()), settings(KEY, app="bank"), highest=None, now=NOW)
    assert caught.value.kind == "order_wrong_tier"
    with pytest.raises(Refused) as caught:
        judge(encode(order(app="bank")), settings(KEY, app="bank"), highest=None, now=NOW)
    assert caught.value.kind == "signature_mismatch"


def test_the_order_that_is_obeyed_is_judged_by_the_keys_of_now() -> None:
    """Also though it was obeyed before: a key that was removed vouches for nothing any more."""
    obeyed = order()
    assert judge(encode(obeyed), settings(KEY), highest=obeyed, now=NOW).goal == uphold(obeyed, settings(KEY)).goal
    for again in (
        lambda: judge(encode(obeyed), settings(OTHER), highest=obeyed, now=NOW),
        lambda: uphold(obeyed, settings(OTHER)),
    ):
        with pytest.raises(Refused) as caught:
            again()
        assert caught.value.kind == "signature_untrusted"
    assert withdrawn(obeyed) == Goal(3, None)
