"""Orders and reports are decoded strictly and encoded the same way every time."""

from __future__ import annotations

import json

import pytest

from artifact import ManifestRef, Refused
from fleet import Order, Problem, Report, decode_order, decode_report, encode

BUILD = ManifestRef(
    id="b2", urls=("https://artifacts.example/b2.tar.zst",), digest="sha256:" + "a" * 64, size=7, format="tar.zst"
)
ORDER = Order(v=1, app="web", tier="prod", serial=3, build=BUILD)
REPORT = Report(v=1, app="web", tier="prod", host="h1", serial=3, highest=3, state="steady")


def changed(**fields: object) -> bytes:
    document = json.loads(encode(ORDER)) | fields
    return json.dumps({name: value for name, value in document.items() if value is not ...}).encode()


def test_an_order_comes_back_as_it_was_encoded() -> None:
    full = Order(
        v=1,
        app="web",
        tier="prod",
        serial=4,
        build=BUILD,
        previous=BUILD,
        percent=25.0,
        cutoff=0.25,
        salt="s",
        max_unavailable=2,
        not_after="2030-01-01T00:00:00Z",
        reason="new prices",
        by="ann",
        at="2029-12-31T00:00:00Z",
    )
    assert decode_order(encode(full)) == full
    assert encode(decode_order(encode(full))) == encode(full)


def test_an_order_needs_little() -> None:
    """By default everybody runs the build, at once and without an end."""
    order = decode_order(changed(previous=..., percent=..., cutoff=..., salt=..., max_unavailable=..., not_after=...))
    assert order == ORDER
    assert (order.percent, order.cutoff, order.max_unavailable, order.not_after) == (100.0, 1.0, None, None)


def test_a_report_comes_back_as_it_was_encoded() -> None:
    report = Report(
        v=1,
        app="web",
        tier="prod",
        host="h1",
        serial=3,
        highest=4,
        state="rolled_back",
        wanted="b2",
        hot="b1",
        standby="b2",
        problem=Problem(kind="proof_failed", message="503"),
        agent="0.1.0",
        since="2029-12-31T00:00:00Z",
    )
    assert decode_report(encode(report)) == report


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "order_invalid"),
        (b"{", "order_invalid"),
        (b"null", "order_invalid"),
        (b"[]", "order_invalid"),
        (b"{}", "order_invalid"),
        (b"\xff", "order_invalid"),
        (encode(ORDER)[:-1], "order_invalid"),
        (encode(ORDER) + b"x", "order_invalid"),
        (b'{"generation":0}', "order_invalid"),
        (changed(v=2), "order_version"),
        (changed(v=0, unknown="field"), "order_version"),
        (changed(v="1"), "order_invalid"),
        (changed(unknown="field"), "order_invalid"),
        (changed(app=...), "order_invalid"),
        (changed(serial=...), "order_invalid"),
        (changed(build=...), "order_invalid"),
        (changed(build=None), "order_invalid"),
        (changed(build={"id": "b"}), "order_invalid"),
        (changed(serial="3"), "order_invalid"),
        (changed(serial=1.5), "order_invalid"),
        (changed(serial=0), "order_invalid"),
        (changed(serial=-1), "order_invalid"),
        (changed(cutoff=1.01), "order_invalid"),
        (changed(cutoff=-0.01), "order_invalid"),
        (changed(cutoff=True), "order_invalid"),
        (changed(max_unavailable=0), "order_invalid"),
        (changed(max_unavailable=-1), "order_invalid"),
    ],
)
def test_an_order_that_is_not_exactly_one_is_refused(data: bytes, kind: str) -> None:
    with pytest.raises(Refused) as caught:
        decode_order(data)
    assert caught.value.kind == kind


def test_a_refusal_of_another_version_says_what_to_upgrade() -> None:
    with pytest.raises(Refused, match=r"order has version 2; this hotcold reads version 1: upgrade the older side"):
        decode_order(changed(v=2))


@pytest.mark.parametrize("data", [b"", b"{}", b'{"v":1}', encode(ORDER)])
def test_a_report_that_is_not_exactly_one_is_refused(data: bytes) -> None:
    with pytest.raises(Refused) as caught:
        decode_report(data)
    assert caught.value.kind == "report_invalid"
