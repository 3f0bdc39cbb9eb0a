"""The command as such: help, errors, what is loaded, and the small sub-commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from artifact import ArtifactRejected, ConfigError, HotcoldError, decode_manifest
from artifact.secretkey import SecretKey
from fleet.acl import agent_rules, commander_rules
from hotcold.command import Command
from hotcold.main import COMMANDS, cli


def sub_commands() -> Iterator[tuple[tuple[str, ...], Command]]:
    """Every sub-command with its name, which is two words inside a group."""
    context = click.Context(cli)
    for name in COMMANDS:
        if name == "demo":  # shown by its own tests
            continue
        found = cli.get_command(context, name)
        members = (
            {(name, inner): found.get_command(context, inner) for inner in found.list_commands(context)}
            if isinstance(found, click.Group)
            else {(name,): found}
        )
        for words, command in members.items():
            assert isinstance(command, Command)
            yield words, command


@pytest.mark.parametrize(("name", "command"), [pytest.param(*each, id=" ".join(each[0])) for each in sub_commands()])
def test_help_ends_with_examples_that_parse(name: tuple[str, ...], command: Command) -> None:
    """Every example is a command line that the sub-command accepts as it stands."""
    shown = CliRunner().invoke(cli, [*name, "--help"])
    assert shown.exit_code == 0
    examples = re.split(r"Examples?:\n", shown.stdout)[1]
    assert "Exit codes:" in shown.stdout
    assert examples.strip()
    for line in examples.replace("\\\n", " ").splitlines():
        first = re.split(r" (?:\||&&) ", line.strip())[0]
        words = shlex.split(first)
        assert words[: 1 + len(name)] == ["hotcold", *name]
        command.make_context(name[-1], words[1 + len(name) :])


def test_a_group_shows_its_sub_commands_and_examples() -> None:
    """As the whole command does."""
    shown = CliRunner().invoke(cli, ["key", "--help"])
    assert shown.exit_code == 0
    assert re.findall(r"^  ([a-z-]+)  +\S", shown.stdout.partition("Commands:")[2], re.MULTILINE) == ["new", "show"]
    assert "hotcold key new ci.key" in shown.stdout.partition("Example:")[2]


def test_the_list_names_every_command() -> None:
    """In the order of a deploy, each with its summary, without loading any of them."""
    shown = CliRunner().invoke(cli, ["--help"])
    assert shown.exit_code == 0
    listed = re.findall(r"^  ([a-z-]+)  +\S", shown.stdout.partition("Commands:")[2], re.MULTILINE)
    assert listed == list(COMMANDS)


def loaded_by(*arguments: str) -> set[str]:
    """Names of the modules that a command line loads."""
    code = (
        "import sys; from hotcold.main import cli\n"
        f"try: cli({list(arguments)!r})\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(run.stderr.splitlines())


def test_an_agent_does_not_carry_what_draws() -> None:
    """Memory of an idle agent counts: no commander, no live screens. (The log library loads some of rich itself.)"""
    assert not {"checkpoint", "hotcold.terminal", "rich.live", "rich.progress"} & loaded_by(
        "agent", "--config", "/nonexistent/x.toml"
    )


def test_who_neither_signs_nor_trusts_does_not_load_the_library_of_signatures(tmp_path: Path) -> None:
    """An agent that trusts no keys, a deploy, and packing without a key."""
    plain, trusting = tmp_path / "plain.toml", tmp_path / "trusting.toml"
    plain.write_text(CONFIG)
    trusting.write_text(f'trusted_keys = ["{SecretKey.generate().public.line()}"]\n{CONFIG}')
    pack = ["pack", str(tmp_path), "--app", "shop", "--id", "b1", "--out", "/nonexistent"]
    for arguments in (
        ["check-config", str(plain)],
        ["agent", "--config", "/nonexistent/x.toml"],
        ["deploy", "--help"],
        pack,
    ):
        assert "nacl" not in loaded_by(*arguments)
    for arguments in (["check-config", str(trusting)], ["key", "new", str(tmp_path / "k"), "--no-password"]):
        assert "nacl" in loaded_by(*arguments)


def test_help_and_status_do_not_load_the_client_of_consul() -> None:
    """Who only asks this machine must not wait for it."""
    assert not {"rich", "aiohttp", "fleet", "agent"} & loaded_by("--help")
    assert not {"aiohttp", "fleet", "agent"} & loaded_by("status", "--socket", "/nonexistent/x.sock")


def test_version_and_module() -> None:
    """`python -m hotcold --version` tells the installed version."""
    run = subprocess.run([sys.executable, "-m", "hotcold", "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"hotcold \d+\.\d+\.\d+\n", run.stdout)


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("a: wrong"), 2), (ArtifactRejected("b: hostile"), 1), (HotcoldError("c: failed"), 1)],
)
def test_an_expected_error_is_one_message(error: HotcoldError, code: int) -> None:
    """On standard error, with an exit code that says who must act."""

    @click.command(cls=Command)
    def fail() -> None:
        raise error

    result = CliRunner().invoke(fail)
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"error: {error}\n")


def test_an_unexpected_error_keeps_its_traceback() -> None:
    """It is ours to fix, and the traceback says where."""

    @click.command(cls=Command)
    def fail() -> None:
        raise ZeroDivisionError

    assert isinstance(CliRunner().invoke(fail).exception, ZeroDivisionError)


CONFIG = """
app = "shop"
tier = "prod"
host = "web-1"
root = "/srv/shop"
[consul]
address = "https://consul.example.com:8501"
token = "very secret"
[drain]
workers = [{ user = "www-data" }]
[probe]
url = "http://user:very-secret@127.0.0.1:8080/healthz?key=very-secret"
headers = { Authorization = "Bearer very-secret" }
successes = 3
[hooks.staged]
argv = ["/usr/bin/warm", "--token", "very-secret"]
"""


def test_check_config_shows_what_is_in_effect_without_secrets(tmp_path: Path) -> None:
    """Enough to see a mistake, nothing that must not stand in a log."""
    file = tmp_path / "shop.toml"
    file.write_text(CONFIG)
    result = CliRunner().invoke(cli, ["check-config", str(file)], env={"CONSUL_HTTP_TOKEN_FILE": None})
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"{file}: ok"
    shown = dict(line.split(maxsplit=1) for line in lines[1:])
    assert shown["host"] == "web-1, in shop/prod"
    assert shown["consul"] == "https://consul.example.com:8501, with a token"
    assert shown["probe"] == "http://127.0.0.1:8080/healthz answers 200, 3 in a row within 60 s"
    assert shown["hooks"] == "staged: warm (60 s)"
    assert shown["trusts"] == "every build: signatures are not checked"
    assert "secret" not in result.stdout


def test_check_config_shows_the_trusted_keys(tmp_path: Path) -> None:
    """By id, as `hotcold key show` and minisign do."""
    one, other = (SecretKey.generate().public for _ in range(2))
    file = tmp_path / "shop.toml"
    file.write_text(f'trusted_keys = ["{one.line()}", "{other.line()}"]\n{CONFIG}')
    result = CliRunner().invoke(cli, ["check-config", str(file)], env={"CONSUL_HTTP_TOKEN_FILE": None})
    assert f"  trusts   builds signed by {one.key_id}, {other.key_id}\n" in result.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [(CONFIG + "[prob]\n", "did you mean `probe`?"), ("app = 3", "app"), ("app =", "not valid TOML")],
)
def test_check_config_names_file_and_mistake(tmp_path: Path, text: str, message: str) -> None:
    """Exit code 2, and what the agent would say."""
    file = tmp_path / "shop.toml"
    file.write_text(text)
    for arguments in (["check-config", str(file)], ["agent", "--config", str(file)]):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {file}: ")
        assert message in result.stderr


def test_pack_prints_what_it_made(tmp_path: Path) -> None:
    """Where the manifest is, size, entries and digest; packing again says the same."""
    tree, out = tmp_path / "tree", tmp_path / "out"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "index.php").write_text("hello")
    out.mkdir()
    arguments = ["pack", str(tree), "--app", "shop", "--id", "b1", "--out", str(out), "--notes", "new", "--format"]
    first = CliRunner().invoke(cli, [*arguments, "tar", "--url", "https://builds.example.com/shop/"])
    assert first.exit_code == 0
    manifest = decode_manifest((out / "shop-b1.json").read_bytes())
    assert (manifest.notes, manifest.urls) == ("new", ("https://builds.example.com/shop/shop-b1.tar",))
    assert f"manifest  {out}/shop-b1.json" in first.stdout
    assert manifest.digest in first.stdout
    with tarfile.open(out / "shop-b1.tar") as archive:
        assert "a/index.php" in [name.removeprefix("./") for name in archive.getnames()]
    (tree / "a" / "index.php").write_text("other")
    other = CliRunner().invoke(cli, [*arguments, "tar"])
    assert other.exit_code == 2
    assert "b1" in other.stderr
    assert decode_manifest((out / "shop-b1.json").read_bytes()) == manifest


def test_pack_draws_a_bar_on_a_terminal(tmp_path: Path) -> None:
    """On standard error, so that what was made can be piped."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "index.php").write_text("hello")
    arguments = ["pack", str(tmp_path / "tree"), "--app", "shop", "--id", "b1", "--out", str(tmp_path)]
    result = CliRunner().invoke(cli, arguments, env={"FORCE_COLOR": "1"})
    assert result.exit_code == 0
    assert "packing b1" in result.stderr
    assert "\x1b" not in result.stdout
    wrong = CliRunner().invoke(cli, [*arguments[:5], "[/]", *arguments[6:]], env={"FORCE_COLOR": "1"})
    assert wrong.exit_code == 2
    assert "'[/]'" in wrong.stderr


def test_dev_store_runs_until_it_is_told_to_stop() -> None:
    """The first line can be evaluated by a shell, and what it names answers."""
    words = [sys.executable, "-m", "hotcold", "dev-store", "--port", "0"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as store:
        assert store.stdout is not None
        name, _, address = store.stdout.readline().strip().partition("=")
        assert name == "export CONSUL_HTTP_ADDR"
        with urllib.request.urlopen(f"{address}/v1/status/leader", timeout=20) as answer:
            assert json.load(answer)
        store.send_signal(signal.SIGTERM)
        assert store.wait(timeout=20) == 0


def test_access_rules_are_for_this_host_unless_another_is_named() -> None:
    """The node is the host's own, as it is where each host runs a Consul agent."""
    run = CliRunner().invoke
    here = run(cli, ["acl-policy", "--app", "shop", "--tier", "prod"])
    assert here.stdout == agent_rules("shop", "prod", socket.gethostname(), socket.gethostname())
    named = run(cli, ["acl-policy", "--app", "shop", "--tier", "prod", "--host", "web-7", "--node", "i-0abc"])
    assert named.stdout == agent_rules("shop", "prod", "web-7", "i-0abc")
    served = run(cli, ["acl-policy", "--app", "shop", "--tier", "prod", "--service", "web", "--service", "api"])
    assert served.stdout == here.stdout + 'service "web" { policy = "write" }\nservice "api" { policy = "write" }\n'
    assert run(cli, ["acl-policy", "--app", "shop", "--commander"]).stdout == commander_rules("shop")
    for wrong in (["--app", "shop"], ["--app", "shop", "--commander", "--tier", "prod"]):
        assert run(cli, ["acl-policy", *wrong]).exit_code == 2
    assert run(cli, ["acl-policy", "--app", "../x", "--commander"]).exit_code != 0
