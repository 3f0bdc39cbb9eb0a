"""The parts under the pages: tokens, seals, limits, settings, vendored files, what commands load."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from artifact import ConfigError
from checkpoint.pipeline import parse_settings
from checkpoint.web.limits import Limit
from checkpoint.web.rights import Role
from checkpoint.web.sealing import Seal, read_key
from checkpoint.web.tokens import checked, new_token, read_tokens
from hotcold.main import cli

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("directory", ["checkpoint/web/static/vendor", "tests/browser/vendor"])
def test_vendored_files_are_those_of_their_packages(directory: str) -> None:
    """Each file is listed with package, version, licence and SHA-256, and nothing else lies there."""
    place = ROOT / directory
    listed = json.loads((place / "vendored.json").read_text())
    licences = {facts["licence_file"] for facts in listed.values()}
    others = {"vendored.json", "axe.LICENSE-3RD-PARTY"}
    assert {path.name for path in place.iterdir()} - others == set(listed) | licences
    for name, facts in listed.items():
        assert hashlib.sha256((place / name).read_bytes()).hexdigest() == facts["sha256"], name
        assert set(facts) == {"package", "version", "path", "licence", "licence_file", "sha256"}
    for licence in licences:
        assert (place / licence).stat().st_size > 100


def test_a_token_opens_for_its_role_and_the_file_holds_hashes_only(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    first, second = new_token(file, "anna", "admin"), new_token(file, "ben@example.com", "read")
    assert first.split("_")[2] not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    known = read_tokens(file)
    anna, ben = checked(first, known), checked(second, known)
    assert anna is not None
    assert (anna.name, anna.role) == ("anna", Role.ADMIN)
    assert ben is not None
    assert (ben.name, ben.role) == ("ben@example.com", Role.READ)
    swapped = "_".join((*first.split("_")[:2], second.split("_", 2)[2]))
    for wrong in (first[:-1], first + "x", swapped, "", "hc__", first.upper()):
        assert checked(wrong, known) is None


def test_a_file_that_is_wrong_is_refused_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    for text in ("x", "[[tokens]]\nid='a'", "[[tokens]]\nid='a'\nname='<b>'\nrole='read'\nhash=''\n"):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"tokens\.toml"):
            new_token(file, "anna", "read")
        assert file.read_text() == text
    with pytest.raises(ConfigError, match="cannot be a person's name"):
        new_token(file, "a b", "read")
    with pytest.raises(ConfigError, match="cannot be added"):
        new_token(tmp_path / "none" / "x", "anna", "read")


def test_what_is_sealed_is_opened_for_its_purpose_only_and_ends() -> None:
    seal = Seal(b"a" * 32)
    sealed = seal.close("plan", b"content", until_s=100)
    assert seal.open("plan", sealed, now_s=99) == b"content"
    assert seal.open("plan", sealed, now_s=100) is None
    assert seal.open("session", sealed, now_s=99) is None
    assert Seal(b"b" * 32).open("plan", sealed, now_s=99) is None
    for place in range(0, len(sealed), 3):
        altered = sealed[:place] + ("A" if sealed[place] != "A" else "B") + sealed[place + 1 :]
        assert seal.open("plan", altered, now_s=99) is None
    for wrong in ("", ".", "a.b", "\N{SNOWMAN}.\N{SNOWMAN}", sealed.partition(".")[0]):
        assert seal.open("plan", wrong, now_s=99) is None


def test_the_key_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    file = tmp_path / "key"
    key = read_key(file)
    assert read_key(file) == key
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_key(file)
    file.chmod(0o600)
    file.write_bytes(b"short")
    with pytest.raises(ConfigError, match="needs 32"):
        read_key(file)
    with pytest.raises(ConfigError, match="cannot be used"):
        read_key(tmp_path / "none" / "key")


def test_a_limit_refills_and_is_for_each_key() -> None:
    now_s = [0.0]
    limit = Limit(3, 60.0, lambda: now_s[0])
    assert [limit.allows("a") for _ in range(4)] == [True, True, True, False]
    assert limit.allows("b")
    now_s[0] += 20.0
    assert [limit.allows("a") for _ in range(2)] == [True, False]
    now_s[0] += 6000.0
    assert [limit.allows("a") for _ in range(4)] == [True, True, True, False]
    for number in range(20_001):
        limit.allows(str(number))
    assert limit.allows("new")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('listen = "0.0.0.0:80"', "is open to other machines"),
        ('listen = "[::]:80"', "is open to other machines"),
        ('listen = "8090"', "give an address and a port"),
        ('listen = "127.0.0.1:99999"', "give an address and a port"),
        ('public_url = "deploy.example.com"', "give scheme and host"),
        ('public_url = "https://x/path"', "give scheme and host"),
        ("session_s = 0", "greater than 0"),
        ("proxy = {trusted = []}", "name the proxy's address"),
        ("proxy = {trusted = ['x']}", "web.proxy.trusted"),
        ("proxy = {trusted = ['10.0.0.0/8'], default_role = 'root'}", "root"),
        ("lissten = 'x'", "lissten"),
    ],
)
def test_a_wrong_table_is_refused_by_name(table: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_settings(f'app = "shop"\n[web]\n{table}\n')


def test_beyond_this_machine_with_a_way_to_sign_in() -> None:
    for table in ('tokens_file = "/x"', "proxy = {trusted = ['10.0.0.7']}"):
        web = parse_settings(f'app = "shop"\n[web]\nlisten = "0.0.0.0:8090"\n{table}\n').web
        assert web.address == ("0.0.0.0", 8090)
    assert parse_settings('app = "shop"\n[web]\nlisten = "[::1]:80"\n').web.address == ("::1", 80)


def test_a_token_is_printed_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    command = ["checkpoint", "token", "new", "--name", "anna", "--role", "deploy", "--file", str(file)]
    made = CliRunner().invoke(cli, command)
    assert made.exit_code == 0
    assert checked(made.stdout.strip(), read_tokens(file)) is not None
    assert CliRunner().invoke(cli, [*command[:4], "", *command[5:]]).exit_code == 2


def test_help_and_other_commands_load_no_server_and_no_templates() -> None:
    """`checkpoint check-config` reads `[web]` as well, and must stay quick."""
    code = (
        "import sys\nfrom hotcold.main import cli\n"
        "for words in (['--help'], ['checkpoint', '--help'], ['checkpoint', 'serve', '--help']):\n"
        "    try: cli(words)\n    except SystemExit: pass\n"
        "import checkpoint.pipeline\n"
        "names = ('jinja2', 'aiohttp.web', 'checkpoint.web.app', 'joserfc', 'cryptography')\n"
        "print([name for name in names if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", code]
    shown = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60, env=environment)
    assert shown.stdout.splitlines()[-1] == "[]", shown.stderr


def test_signatures_are_loaded_where_a_provider_is_configured_and_missed_in_words() -> None:
    """A server without one does not need the library; with one, whoever starts it is told what to install."""
    code = (
        "import sys\nimport checkpoint.web.app\nprint('joserfc' in sys.modules)\n"
        "sys.modules['joserfc'] = None\n"
        "from checkpoint.web.oidc.keys import load\n"
        "try: load()\nexcept Exception as error: print(error.kind, error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", code]
    shown = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60, env=environment)
    first, second = shown.stdout.splitlines()
    assert first == "False", shown.stderr
    assert second.startswith("config [web.oidc] needs joserfc")
    assert "hotcold[checkpoint,oidc]" in second
