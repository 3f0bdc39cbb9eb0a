"""Our keys and signatures against the real `minisign`: each side reads what the other writes."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from artifact import IndexRef, Manifest, PatchRef, Refused, decode_manifest, encode_manifest
from artifact.keyfiles import read_secret_key, write_key_pair
from artifact.locate import reference
from artifact.minisign import PublicKey, Signature, read_key_text
from artifact.secretkey import LockedKey, SecretKey
from artifact.signing import signature_by
from artifact.statement import comment, statement
from artifact.trust import TrustedKeys

MINISIGN, JQ = shutil.which("minisign"), shutil.which("jq")
pytestmark = pytest.mark.skipif(MINISIGN is None, reason="needs minisign (Debian: apt-get install minisign)")
needs_jq = pytest.mark.skipif(JQ is None, reason="needs jq (Debian: apt-get install jq)")

FORMATS = Path(__file__).parents[2] / "docs" / "formats.md"
DIGEST = "sha256:" + "0" * 64
MANIFEST = Manifest(
    v=1,
    app="shop",
    id="2026-11-23.3",
    urls=("shop-2026-11-23.3.tar.zst",),
    digest=DIGEST,
    size=48130211,
    format="tar.zst",
    created="2026-11-23T09:58:40+00:00",
    revision="0c7ee75",
    notes='größer, <schneller> & "besser" \u2028',
    index=IndexRef(digest=DIGEST, size=61204, patches=(PatchRef(base=DIGEST, size=1493120),)),
)
COMMENT = "hotcold app:shop build:2026-11-23.3"

Minisign = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def minisign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Minisign:
    """The tool, in a directory of its own; passwords come from `answers`, and it must end as `exits` says."""
    monkeypatch.chdir(tmp_path)
    assert MINISIGN is not None

    def run(*arguments: str, answers: str = "", exits: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [MINISIGN, *arguments], input=answers, capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode == exits, done.stderr + done.stdout
        return done

    return run


def make_ours(password: bytes | None = None) -> SecretKey:
    key = SecretKey.generate()
    write_key_pair(key, secret=Path("ci.key"), public=Path("ci.pub"), password=password)
    return key


def signer(manifest: Manifest, public: PublicKey) -> str:
    return TrustedKeys([public]).signer("shop", reference(manifest, "https://builds.example.com/x.json"))


def test_minisign_verifies_ours(minisign: Minisign) -> None:
    """By our public file and by our line, with the comment that we gave, in the prehashed form."""
    key = make_ours()
    Path("statement").write_bytes(statement("shop", MANIFEST))
    Path("statement.minisig").write_text(signature_by(key, MANIFEST))
    for way in (("-p", "ci.pub"), ("-P", key.public.line())):
        said = minisign("-V", "-H", "-Q", *way, "-m", "statement")
        assert said.stdout == f"{COMMENT}\n"

    Path("statement").write_bytes(statement("bank", MANIFEST))
    minisign("-V", "-p", "ci.pub", "-m", "statement", exits=1)


def test_we_verify_what_minisign_makes(minisign: Minisign) -> None:
    """Key, id, signature and comment."""
    minisign("-G", "-W", "-p", "its.pub", "-s", "its.key")
    Path("statement").write_bytes(statement("shop", MANIFEST))
    minisign("-S", "-s", "its.key", "-m", "statement", "-t", COMMENT, "-c", "anything ünder the sun")
    public = PublicKey.parse(read_key_text(Path("its.pub")))

    signed = msgspec.structs.replace(MANIFEST, signature=Path("statement.minisig").read_text())

    assert f"minisign public key {signer(signed, public)}\n" in Path("its.pub").read_text()


def test_ids_are_shown_as_minisign_shows_them(minisign: Minisign) -> None:
    """People compare them: also the one in 256 that begins with a zero byte."""
    write_key_pair(SecretKey(b"1234567\0", bytes(32)), secret=Path("ci.key"), public=Path("ci.pub"), password=None)
    minisign("-R", "-s", "ci.key", "-p", "again.pub")
    assert Path("again.pub").read_text() == Path("ci.pub").read_text()
    assert "public key 37363534333231\n" in Path("ci.pub").read_text()


def test_equal_keys_sign_equally(minisign: Minisign) -> None:
    """Byte by byte, but for the line that says who signed."""
    make_ours()
    Path("statement").write_bytes(statement("shop", MANIFEST))
    minisign("-S", "-s", "ci.key", "-m", "statement", "-t", COMMENT)
    ours = signature_by(read_secret_key(Path("ci.key"), bytes), MANIFEST)
    assert Path("statement.minisig").read_text().split("\n")[1:] == ours.split("\n")[1:]


def test_minisign_opens_our_locked_keys(minisign: Minisign) -> None:
    """It asks for the password, and remakes the public file that we wrote."""
    make_ours(b"correct horse")
    minisign("-R", "-s", "ci.key", "-p", "again.pub", answers="correct horse\n")
    assert Path("again.pub").read_text() == Path("ci.pub").read_text()
    minisign("-R", "-s", "ci.key", "-p", "wrong.pub", answers="battery staple\n", exits=2)


def test_we_open_its_locked_keys(minisign: Minisign) -> None:
    """They take a gigabyte for a moment, as minisign wants it."""
    minisign("-G", "-p", "its.pub", "-s", "its.key", answers="correct horse\ncorrect horse\n")
    locked = LockedKey.parse(read_key_text(Path("its.key")))
    assert locked.cost.memory_bytes == 2**30
    key = locked.unlock(b"correct horse")
    assert key.public == PublicKey.parse(read_key_text(Path("its.pub")))


def test_its_legacy_signatures_are_refused(minisign: Minisign) -> None:
    """Deliberately, though they are right."""
    key = make_ours()
    Path("statement").write_bytes(statement("shop", MANIFEST))
    minisign("-S", "-l", "-s", "ci.key", "-m", "statement", "-t", COMMENT)
    minisign("-V", "-p", "ci.pub", "-m", "statement")
    legacy = msgspec.structs.replace(MANIFEST, signature=Path("statement.minisig").read_text())
    with pytest.raises(Refused, match="legacy form, which is not accepted: sign again, without -l") as caught:
        signer(legacy, key.public)
    assert caught.value.kind == "signature_malformed"


def test_its_own_comment_is_refused(minisign: Minisign) -> None:
    """Whoever forgets `-t` signs the right bytes and does not say for which app and build."""
    key = make_ours()
    Path("statement").write_bytes(statement("shop", MANIFEST))
    minisign("-S", "-s", "ci.key", "-m", "statement")
    signed = msgspec.structs.replace(MANIFEST, signature=Path("statement.minisig").read_text())
    with pytest.raises(Refused, match=r"signed 'timestamp:\d+\\tfile:statement\\thashed', not 'hotcold app:shop"):
        signer(signed, key.public)


def in_the_page() -> list[str]:
    return re.findall(r"<!-- minisign -->\n```sh\n(.*?)```", FORMATS.read_text(), re.DOTALL)


@needs_jq
@pytest.mark.usefixtures("minisign")
@pytest.mark.parametrize("is_whole", [True, False], ids=["everything set", "nothing set"])
def test_the_commands_of_the_page_sign_and_verify(*, is_whole: bool) -> None:
    """With jq and minisign alone, also where optional fields are null, empty or not there at all."""
    key = make_ours()
    manifest = MANIFEST
    if not is_whole:
        manifest = msgspec.structs.replace(MANIFEST, index=IndexRef(digest=DIGEST, size=1), notes=None, revision=None)
    document = encode_manifest(manifest)
    if not is_whole:
        raw = msgspec.json.decode(document)
        del raw["index"]["patches"], raw["notes"], raw["signature"]
        document = msgspec.json.encode(raw)
    Path("shop-2026-11-23.3.json").write_bytes(document)
    sign, verify = in_the_page()

    subprocess.run(["/bin/sh", "-euc", sign], check=True, timeout=60, capture_output=True)

    assert Path("statement").read_bytes() == statement("shop", manifest)
    signed = decode_manifest(Path("signed.json").read_bytes())
    assert signer(signed, key.public) == key.public.key_id
    assert msgspec.structs.replace(signed, signature=None) == manifest
    assert Signature.parse(signed.signature or "").comment == comment("shop", manifest.id)

    Path("signed.json").write_bytes(
        encode_manifest(msgspec.structs.replace(manifest, signature=signature_by(key, manifest)))
    )
    checked = subprocess.run(["/bin/sh", "-euc", verify], check=True, timeout=60, capture_output=True, text=True)
    assert f"Trusted comment: {COMMENT}" in checked.stdout
