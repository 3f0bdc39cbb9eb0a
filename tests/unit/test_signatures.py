"""Signatures over builds: what is signed, how it is read, and that nothing but the signed build passes."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact import IndexRef, Manifest, ManifestRef, PatchRef, Refused
from artifact.locate import reference
from artifact.minisign import PublicKey, Signature
from artifact.secretkey import SecretKey
from artifact.signing import signature_by
from artifact.statement import comment, statement
from artifact.trust import TrustedKeys

KEY = SecretKey(b"\x01key-one", bytes(range(32)))
OTHER = SecretKey(b"\x02key-two", bytes(range(32, 64)))
ZEROS, ONES = "sha256:" + "0" * 64, "sha256:" + "1" * 64
MANIFEST = Manifest(
    v=1,
    app="shop",
    id="b1",
    urls=("shop-b1.tar.zst",),
    digest=ZEROS,
    size=84,
    format="tar.zst",
    created="2026-11-23T10:00:00+00:00",
    revision="0c7ee75",
    notes="new",
    index=IndexRef(digest=ONES, size=7, patches=(PatchRef(base=ZEROS, size=3),)),
)
BUILD = reference(
    msgspec.structs.replace(MANIFEST, signature=signature_by(KEY, MANIFEST)), "https://builds.example.com/x.json"
)
TRUSTED = TrustedKeys([KEY.public])


def changed(**fields: object) -> ManifestRef:
    return msgspec.structs.replace(BUILD, **fields)


def resigned(text: str, line: int, data: bytes) -> str:
    """The signature's text with other bytes in one of its lines."""
    lines = text.split("\n")
    lines[line] = b64encode(data).decode()
    return "\n".join(lines)


def refused(build: ManifestRef, *, app: str = "shop", trusted: TrustedKeys = TRUSTED) -> Refused:
    with pytest.raises(Refused) as caught:
        trusted.signer(app, build)
    return caught.value


# --- what is signed ---------------------------------------------------------------------------------------------------


def test_the_statement_is_one_line_of_canonical_json() -> None:
    """Sorted at every depth, no blanks, no urls, nothing of the manifest that is not in the reference."""
    expected = (
        f'{{"app":"shop","digest":"{ZEROS}","format":"tar.zst","id":"b1",'
        f'"index":{{"digest":"{ONES}","patches":[{{"base":"{ZEROS}","size":3}}],"size":7}},"size":84}}\n'
    ).encode()
    assert statement("shop", MANIFEST) == expected
    assert statement("shop", BUILD) == expected


def test_fields_that_are_not_set_are_not_said() -> None:
    """So builds that were signed before a field existed stay signed, and an empty list is no list."""
    plain = msgspec.structs.replace(BUILD, index=None)
    assert (
        statement("shop", plain)
        == f'{{"app":"shop","digest":"{ZEROS}","format":"tar.zst","id":"b1","size":84}}\n'.encode()
    )
    assert b"patches" not in statement("shop", changed(index=IndexRef(digest=ONES, size=7)))


def test_a_manifest_has_every_field_of_a_reference() -> None:
    """Else a manifest could not be signed for what its reference says; and `app` is a name of the statement alone."""
    assert set(ManifestRef.__struct_fields__) <= set(Manifest.__struct_fields__)
    assert "app" not in ManifestRef.__struct_fields__


def test_every_field_of_the_reference_is_covered_but_places_and_the_signature_itself() -> None:
    """A field that is added to references is covered, or named here."""
    values: dict[str, object] = {
        "id": "b2",
        "digest": ONES,
        "size": 85,
        "format": "tar",
        "index": None,
        "urls": ("https://elsewhere.example.com/y",),
        "signature": None,
    }
    assert values.keys() == set(ManifestRef.__struct_fields__)
    said = {
        name
        for name, value in values.items()
        if statement("shop", changed(**{name: value})) != statement("shop", BUILD)
    }
    assert said == values.keys() - {"urls", "signature"}


# --- whose signature counts -------------------------------------------------------------------------------------------


def test_a_signed_build_is_accepted_by_the_id_of_its_key() -> None:
    """As minisign shows the id; also from another place, and among other keys."""
    assert TRUSTED.signer("shop", BUILD) == "656E6F2D79656B01"
    assert TRUSTED.signer("shop", changed(urls=("file:///elsewhere",))) == "656E6F2D79656B01"
    assert TrustedKeys([OTHER.public, KEY.public]).signer("shop", BUILD) == KEY.public.key_id


def test_a_key_of_the_same_id_does_not_shadow_the_other() -> None:
    """Ids are eight bytes that anybody may choose."""
    twin = SecretKey(KEY.key, OTHER.seed)
    assert TrustedKeys([twin.public, KEY.public]).signer("shop", BUILD) == KEY.public.key_id
    assert refused(BUILD, trusted=TrustedKeys([twin.public])).kind == "signature_mismatch"


def test_an_unsigned_build_is_refused_with_the_keys_that_count() -> None:
    error = refused(changed(signature=None), trusted=TrustedKeys([KEY.public, OTHER.public]))
    assert error.kind == "build_unsigned"
    assert str(error).startswith(
        "build b1 is not signed, and this host runs only what one of these keys signed: "
        "656E6F2D79656B01, 6F77742D79656B02. "
    )


def test_a_foreign_key_is_named_with_those_that_are_trusted() -> None:
    error = refused(BUILD, trusted=TrustedKeys([OTHER.public]))
    assert error.kind == "signature_untrusted"
    assert str(error).startswith(
        "build b1 is signed by key 656E6F2D79656B01, which is not trusted here; trusted: 6F77742D79656B02. "
    )


@pytest.mark.parametrize(
    ("build", "app", "message"),
    [
        (changed(digest=ONES), "shop", "are not what key 656E6F2D79656B01 signed under this id"),
        (changed(size=85), "shop", "are not what key 656E6F2D79656B01 signed under this id"),
        (changed(format="tar"), "shop", "are not what key 656E6F2D79656B01 signed under this id"),
        (changed(index=None), "shop", "are not what key 656E6F2D79656B01 signed under this id"),
        (changed(index=IndexRef(digest=ZEROS, size=7)), "shop", "are not what key 656E6F2D79656B01 signed"),
        (changed(id="b2"), "shop", "signed 'hotcold app:shop build:b1', not 'hotcold app:shop build:b2'"),
        (BUILD, "bank", "signed 'hotcold app:shop build:b1', not 'hotcold app:bank build:b1'"),
    ],
)
def test_a_signature_is_not_re_used(build: ManifestRef, app: str, message: str) -> None:
    """Neither for another app, nor build, nor for other bytes under the same id."""
    error = refused(build, app=app)
    assert error.kind == "signature_mismatch"
    assert message in str(error)


def test_the_right_comment_over_another_statement_is_refused() -> None:
    """The comment alone makes nothing true: a key that signs more than builds may be made to seal it."""
    other = KEY.sign(b"something else", comment("shop", "b1")).text()
    assert refused(changed(signature=other)).kind == "signature_mismatch"


def test_the_right_statement_under_another_comment_is_refused() -> None:
    """Also one that minisign writes by itself."""
    other = KEY.sign(statement("shop", BUILD), "timestamp:1 file:statement").text()
    error = refused(changed(signature=other))
    assert "signed 'timestamp:1 file:statement', not" in str(error)


def test_a_seal_of_another_signature_is_refused() -> None:
    """Body and comment belong together."""
    one, other = Signature.parse(BUILD.signature or ""), KEY.sign(b"x", comment("shop", "b1"))
    mixed = Signature(one.key, one.body, other.comment, other.seal).text()
    error = refused(changed(signature=mixed))
    assert (error.kind, "was altered" in str(error)) == ("signature_mismatch", True)


BODY = b64decode((BUILD.signature or "").split("\n")[1])
SEAL = b64decode((BUILD.signature or "").split("\n")[3])


@given(st.integers(0, len(BODY) * 8 - 1), st.sampled_from([1, 3]))
def test_no_flipped_bit_passes(bit: int, line: int) -> None:
    """Of form, key id, signature and seal."""
    data = bytearray(BODY if line == 1 else SEAL)
    bit %= len(data) * 8
    data[bit // 8] ^= 1 << bit % 8
    error = refused(changed(signature=resigned(BUILD.signature or "", line, bytes(data))))
    in_form, in_id = line == 1 and bit < 16, line == 1 and 16 <= bit < 80
    assert error.kind == (
        "signature_malformed" if in_form else "signature_untrusted" if in_id else "signature_mismatch"
    )


@given(st.integers(0, len(BUILD.signature or "") - 1))
def test_no_truncated_signature_passes(length: int) -> None:
    """Cut anywhere; only the newline at the end may be missing."""
    text = (BUILD.signature or "")[:length]
    if text + "\n" == BUILD.signature:
        assert TRUSTED.signer("shop", changed(signature=text)) == KEY.public.key_id
    else:
        assert refused(changed(signature=text)).kind in {"signature_malformed", "signature_mismatch"}


@given(st.text() | st.from_regex(r"untrusted comment: .*\n.*\ntrusted comment: .*\n.*", fullmatch=True))
def test_garbage_is_malformed(text: str) -> None:
    assert refused(changed(signature=text)).kind == "signature_malformed"


LEGACY = resigned(BUILD.signature or "", 1, b"Ed" + BODY[2:])
UNKNOWN = resigned(BUILD.signature or "", 1, b"EX" + BODY[2:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            LEGACY,
            "the signature of build b1 is in minisign's legacy form, which is not accepted: sign again, without -l",
        ),
        (UNKNOWN, "the signature of build b1 is of an unknown form, b'EX'"),
        ("x" * 100_000_000, "the signature of build b1 is no minisign signature: it has 100000000 characters"),
        ((BUILD.signature or "") + "\n", "the signature of build b1 is no minisign signature: that has four lines"),
        (
            (BUILD.signature or "").replace("\n", "\r\n"),
            "the signature of build b1 is no minisign signature: a line is",
        ),
        ((BUILD.signature or "").replace("untrusted", "trusted"), "the signature of build b1 is no minisign signature"),
        (resigned(BUILD.signature or "", 1, BODY[:-1]), "a line has 73 bytes instead of 74"),
        (resigned(BUILD.signature or "", 3, SEAL + b"x"), "a line has 65 bytes instead of 64"),
    ],
)
def test_what_is_no_signature_is_said_so(text: str, message: str) -> None:
    error = refused(changed(signature=text))
    assert error.kind == "signature_malformed"
    assert message in str(error)


def test_a_legacy_signature_is_refused_also_if_it_is_right() -> None:
    """Not for a weakness of its own: the form is not signed, so there shall be only one."""
    from nacl.signing import SigningKey  # noqa: PLC0415 - nothing of ours makes legacy signatures

    body = SigningKey(KEY.seed).sign(statement("shop", BUILD)).signature
    seal = SigningKey(KEY.seed).sign(body + comment("shop", "b1").encode()).signature
    text = Signature(KEY.key, body, comment("shop", "b1"), seal).text()
    legacy = resigned(text, 1, b"Ed" + KEY.key + body)
    assert "legacy form" in str(refused(changed(signature=legacy)))
    assert refused(changed(signature=text)).kind == "signature_mismatch"


def test_a_line_has_one_spelling() -> None:
    """Base64 that decodes to the same bytes is not the same signature."""
    lines = (BUILD.signature or "").split("\n")
    spare = lines[1][:-2] + chr(ord(lines[1][-2]) + 1) + "="
    assert b64decode(spare) == BODY
    text = "\n".join([lines[0], spare, *lines[2:]])
    assert refused(changed(signature=text)).kind == "signature_malformed"


def test_a_long_comment_is_clipped_in_messages() -> None:
    text = KEY.sign(statement("shop", BUILD), "c" * 3000).text()
    assert len(str(refused(changed(signature=text)))) < 500


# --- public keys ------------------------------------------------------------------------------------------------------


def test_a_public_key_is_read_as_a_line_and_as_a_file() -> None:
    line = KEY.public.line()
    assert line.startswith("RW")
    for text in (line, line + "\n", KEY.public.text(), f"untrusted comment: ours\n{line}"):
        assert PublicKey.parse(text) == KEY.public
    assert KEY.public.text() == f"untrusted comment: minisign public key 656E6F2D79656B01\n{line}\n"


def packed(data: bytes) -> str:
    return b64encode(data).decode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a line has 0 bytes instead of 42"),
        ("RW!", "a line is not Base64"),
        ("RWé", "a line is not Base64"),
        (KEY.public.line()[:-4], "a line has 39 bytes instead of 42"),
        (packed(b"ED" + KEY.key + KEY.public.point), "it does not begin with RW"),
        (packed(b"Ed" + KEY.key + bytes(32)), "is no point of the curve"),
        (packed(b"Ed" + KEY.key + b"\x02" + bytes(31)), "is no point of the curve"),
        (KEY.public.line() + "\n" + KEY.public.line(), "a file has two lines"),
        (KEY.text(None), "a line has 158 bytes instead of 42"),
    ],
)
def test_what_is_no_public_key(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PublicKey.parse(text)


def test_most_mistyped_keys_are_found_out() -> None:
    """A public key has no checksum, but few numbers are points of the right subgroup."""
    line = KEY.public.line()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    typed = [line[:at] + new + line[at + 1 :] for at in range(16, 56) for new in alphabet if new != line[at]]
    found = sum(1 for text in typed if _is_refused(lambda text=text: PublicKey.parse(text)))  # type: ignore[misc]
    assert found / len(typed) > 0.9


def _is_refused(parse: Callable[[], object]) -> bool:
    try:
        parse()
    except ValueError:
        return True
    return False


# --- making them ------------------------------------------------------------------------------------------------------


def test_signing_twice_gives_the_same() -> None:
    assert signature_by(KEY, MANIFEST) == BUILD.signature


def test_a_signature_is_one_over_the_blake2b_of_the_statement() -> None:
    """As minisign's prehashed form has it."""
    from nacl.signing import VerifyKey  # noqa: PLC0415 - what the module under test uses, by hand

    digest = hashlib.blake2b(statement("shop", BUILD)).digest()
    assert VerifyKey(KEY.public.point).verify(digest, BODY[10:]) == digest


@pytest.mark.parametrize("text", ["two\nlines", "ümlaut", "tab\there", "c" * 4000])
def test_a_comment_that_minisign_could_not_hold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="comment"):
        KEY.sign(b"x", text)
