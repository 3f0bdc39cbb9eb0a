"""The commands around keys: `key new`, `key show`, `pack --key`, `sign`."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from artifact import Manifest, decode_manifest, encode_manifest
from artifact.keyfiles import read_secret_key
from artifact.locate import reference
from artifact.minisign import PublicKey
from artifact.secretkey import SecretKey
from artifact.signing import signature_by
from artifact.trust import TrustedKeys
from hotcold.main import cli

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def key(run: Run) -> SecretKey:
    """A key without a password, in `ci.key`."""
    assert run("key", "new", "ci.key", "--no-password").exit_code == 0
    return read_secret_key(Path("ci.key"), bytes)


@pytest.fixture
def tree(run: Run, tmp_path: Path) -> Path:
    del run  # which has changed the directory
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "page").write_text("hello\n")
    (tmp_path / "out").mkdir()
    return tmp_path / "tree"


def pack(run: Run, *rest: object) -> Result:
    return run("pack", "tree", "--app", "shop", "--id", "b1", "--out", "out", *rest)


def packed() -> Manifest:
    return decode_manifest(Path("out/shop-b1.json").read_bytes())


def signer(*keys: SecretKey) -> str:
    trusted = TrustedKeys([key.public for key in keys])
    return trusted.signer("shop", reference(packed(), "out/shop-b1.json"))


# --- key new ----------------------------------------------------------------------------------------------------------


def test_new_makes_a_pair_and_says_how_agents_trust_it(run: Run) -> None:
    result = run("key", "new", "ci.key", "--no-password")
    public = PublicKey.parse(Path("ci.pub").read_text())
    assert result.stdout.splitlines() == [
        "secret key  ci.key  (keep it where builds are signed, and nowhere else)",
        "public file ci.pub",
        f"key id      {public.key_id}",
        f"public key  {public.line()}",
        f'for agents  trusted_keys = ["{public.line()}"]',
    ]
    assert stat.S_IMODE(Path("ci.key").stat().st_mode) == 0o600
    assert read_secret_key(Path("ci.key"), bytes).public == public


def test_new_locks_with_the_first_line_of_a_file(run: Run) -> None:
    Path("password").write_bytes(b"correct horse\r\nsecond line\n")
    assert run("key", "new", "ci.key", "--public", "keys.pub", "--password-file", "password").exit_code == 0
    assert read_secret_key(Path("ci.key"), lambda: b"correct horse").public.text() == Path("keys.pub").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ci.key"], "there is no terminal to ask on; give --password-file, or --no-password"),
        (["ci.key", "--password-file", "empty"], "empty: the first line is empty"),
        (["ci.key", "--password-file", "gone"], "gone: the password cannot be read: No such file"),
        (["ci.key", "--password-file", "empty", "--no-password"], "contradict each other"),
        (["ci.pub", "--no-password"], "secret and public key need a file each"),
    ],
)
def test_new_makes_nothing_of_what_it_cannot_finish(run: Run, arguments: list[str], message: str) -> None:
    Path("empty").write_bytes(b"\n")
    result = run("key", "new", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert [path.name for path in Path().iterdir()] == ["empty"]


@pytest.mark.usefixtures("key")
def test_new_never_overwrites(run: Run) -> None:
    before = Path("ci.key").read_bytes()
    result = run("key", "new", "ci.key", "--no-password")
    assert (result.exit_code, "error: ci.key exists" in result.stderr) == (2, True)
    assert Path("ci.key").read_bytes() == before


def on_a_terminal(*arguments: str, answers: list[str], where: Path) -> tuple[int, str]:
    """Run with a terminal for input and messages; each answer is given when it is asked for."""
    main, side = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "hotcold", *arguments],
        stdin=side,
        stdout=side,
        stderr=side,
        cwd=where,
        start_new_session=True,  # so that no other terminal is asked
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        os.close(side)
        said = b""
        waiting = list(answers)
        while True:
            try:
                part = os.read(main, 4096)
            except OSError:  # the other side has closed
                break
            if not part:
                break
            said += part
            if waiting and part.rstrip().endswith(b":"):
                os.write(main, f"{waiting.pop(0)}\n".encode())
        os.close(main)
        return process.wait(timeout=60), said.decode()


def test_a_password_is_asked_for_and_not_shown(tmp_path: Path) -> None:
    """Twice for a new key, once to use it."""
    code, said = on_a_terminal("key", "new", "ci.key", answers=["geheim", "geheim"], where=tmp_path)
    assert (code, "geheim" in said) == (0, False)
    assert "Password for ci.key: " in said
    public = PublicKey.parse((tmp_path / "ci.pub").read_text())
    code, said = on_a_terminal("key", "show", "ci.key", answers=["geheim"], where=tmp_path)
    assert (code, "geheim" in said, public.key_id in said) == (0, False, True)
    code, said = on_a_terminal("key", "show", "ci.key", answers=["falsch"], where=tmp_path)
    assert (code, "ci.key: wrong password" in said) == (2, True)


# --- key show ---------------------------------------------------------------------------------------------------------


def test_show_tells_the_same_of_both_files(run: Run, key: SecretKey) -> None:
    public, secret = run("key", "show", "ci.pub"), run("key", "show", "ci.key")
    assert public.stdout == secret.stdout
    assert public.stdout.startswith(f"key id      {key.public.key_id}\n")


def test_show_says_what_is_no_key(run: Run) -> None:
    Path("junk").write_text("junk\n")
    result = run("key", "show", "junk")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: junk: a minisign key neither public (a line has 3 bytes instead of 42")
    assert "nor secret (" in result.stderr
    assert run("key", "show", "gone").stderr == "error: gone: cannot be read as a key: No such file or directory\n"


# --- pack --key -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tree")
def test_pack_signs_what_it_packed(run: Run, key: SecretKey) -> None:
    result = pack(run, "--key", "ci.key")
    assert result.exit_code == 0
    assert f"signed    by key {key.public.key_id}\n" in result.stdout
    assert signer(key) == key.public.key_id


@pytest.mark.usefixtures("tree")
def test_pack_signs_what_was_packed_before(run: Run, key: SecretKey) -> None:
    """The manifest keeps everything else, its time above all."""
    pack(run, "--notes", "first")
    before = packed()
    assert before.signature is None
    assert pack(run, "--key", "ci.key", "--notes", "second").exit_code == 0
    assert msgspec.structs.replace(packed(), signature=None) == before
    assert signer(key) == key.public.key_id
    signed = Path("out/shop-b1.json").read_bytes()
    pack(run)
    assert Path("out/shop-b1.json").read_bytes() == signed


@pytest.mark.usefixtures("tree")
def test_pack_never_signs_what_somebody_wrote_into_the_manifest(run: Run, key: SecretKey) -> None:
    """The key vouches for the tree; whoever may write in the directory of artifacts shall not get its word."""
    pack(run)
    path = Path("out/shop-b1.json")
    path.write_bytes(encode_manifest(msgspec.structs.replace(packed(), format="zip")))
    assert pack(run, "--key", "ci.key").exit_code == 0
    assert (packed().format, packed().signature is None) == ("zip", False)
    with pytest.raises(Exception, match="digest, size, format or index are not what key") as caught:
        signer(key)
    assert getattr(caught.value, "kind", None) == "signature_mismatch"


@pytest.mark.usefixtures("tree")
def test_pack_asks_for_the_key_first(run: Run) -> None:
    """A wrong key after an hour of packing helps nobody."""
    result = pack(run, "--key", "gone.key")
    assert (result.exit_code, "gone.key: cannot be read as a key" in result.stderr) == (2, True)
    assert list(Path("out").iterdir()) == []


# --- sign -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tree")
def test_sign_signs_manifests_of_others(run: Run, key: SecretKey) -> None:
    """Again gives the same; another key takes over."""
    pack(run)
    result = run("sign", "out/shop-b1.json", "--key", "ci.key")
    assert result.stdout == f"out/shop-b1.json: build b1 of shop, signed by key {key.public.key_id}\n"
    assert packed().signature == signature_by(key, packed())
    before = Path("out/shop-b1.json").read_bytes()
    run("sign", "out/shop-b1.json", "--key", "ci.key")
    assert Path("out/shop-b1.json").read_bytes() == before

    run("key", "new", "next.key", "--no-password")
    assert run("sign", "out/shop-b1.json", "--key", "next.key").exit_code == 0
    assert signer(read_secret_key(Path("next.key"), bytes)) != key.public.key_id


@pytest.mark.usefixtures("tree", "key")
@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"app": "sh op"}, 1, "not signed: app 'sh op'"),
        ({"digest": "md5:0"}, 1, "digest 'md5:0' is not"),
        ({"urls": ()}, 1, "`urls` is empty"),
        (None, 1, "not signed: this is not a manifest"),
    ],
)
def test_sign_vouches_for_nothing_that_no_host_could_use(
    run: Run, change: dict[str, object] | None, code: int, message: str
) -> None:
    """Nothing is written, neither into it nor into the good manifest before it."""
    pack(run)
    good, bad = Path("out/shop-b1.json"), Path("bad.json")
    document = b"junk" if change is None else encode_manifest(msgspec.structs.replace(packed(), **change))
    bad.write_bytes(document)
    before = good.read_bytes()
    result = run("sign", good, bad, "--key", "ci.key")
    assert result.exit_code == code
    assert result.stderr.startswith("error: bad.json: not signed: ")
    assert message in result.stderr
    assert (good.read_bytes(), bad.read_bytes()) == (before, document)


@pytest.mark.usefixtures("key")
def test_sign_wants_a_file(run: Run) -> None:
    result = run("sign", "https://builds.example.com/x.json", "--key", "ci.key")
    assert result.exit_code == 2
    assert "give the file of a manifest" in result.stderr
