"""The agent's configuration: what is accepted, and how each mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import HOOK_POINTS, load_settings, parse_settings
from artifact import ConfigError
from artifact.secretkey import SecretKey

PUBLIC = SecretKey(b"\x01key-one", bytes(range(32))).public
OTHER = SecretKey(b"\x02key-two", bytes(range(32, 64))).public
MINIMAL = 'app = "shop"\ntier = "prod"\nhost = "web-1"\nroot = "/srv/shop"\n'


def test_minimal_file_gets_the_documented_defaults() -> None:
    """Four lines are enough; everything else follows from the app's name."""
    settings = parse_settings(MINIMAL, {})

    assert settings.identity.layout.state_dir == Path("/var/lib/hotcold/shop")
    assert settings.identity.socket == Path("/run/hotcold/shop.sock")
    assert settings.identity.consul.address == "http://127.0.0.1:8500"
    assert settings.hooks == {}
    assert settings.releases.keep == 3


def test_file_lies_over_the_environment() -> None:
    """Consul's usual variables count where the file says nothing."""
    environment = {"CONSUL_HTTP_ADDR": "10.0.0.1:8500", "CONSUL_HTTP_TOKEN": "from-environment"}

    settings = parse_settings(MINIMAL + '[consul]\naddress = "https://consul.example:8501"\n', environment)

    assert settings.identity.consul.address == "https://consul.example:8501"
    assert settings.identity.consul.token == "from-environment"


def test_everything_that_can_be_set() -> None:
    """Hooks, workers and probe arrive as their owners' settings."""
    text = MINIMAL + (
        '[hooks.before_drain]\nargv = ["touch", "/run/paused"]\ntimeout_s = 5\n'
        '[[drain.workers]]\nuser = "www-data"\nexecutable = "php-fpm8.2"\n[[drain.workers]]\nunit = "shop@*.service"\n'
        '[probe]\nurl = "http://127.0.0.1:8080/healthz"\nsuccesses = 3\n'
        '[releases]\nkeep = 5\npinned = ["2026-11-23.1"]\ndurability = "fsync"\n'
    )

    settings = parse_settings(text, {})

    assert settings.hooks["before_drain"].argv == ("touch", "/run/paused")
    assert [worker.unit for worker in settings.drain.workers] == [None, "shop@*.service"]
    assert settings.probe.successes == 3
    assert settings.releases.pinned == ("2026-11-23.1",)


def test_trusted_keys_are_lines_and_files(tmp_path: Path) -> None:
    """Several, as they stand in a key file or by its path; none means that signatures are not looked at."""
    file = tmp_path / "ci.pub"
    file.write_text(OTHER.text())

    settings = parse_settings(MINIMAL + f'trusted_keys = ["{PUBLIC.line()}", "{file}"]\n', {})

    assert str(settings.trusted_keys) == f"{PUBLIC.key_id}, {OTHER.key_id}"
    assert parse_settings(MINIMAL + "trusted_keys = []\n", {}).trusted_keys is None
    assert parse_settings(MINIMAL, {}).trusted_keys is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MINIMAL + "rot = 1\n", "unknown key `rot`; did you mean `root`?"),
        (MINIMAL + "[drian]\n", "unknown key `drian`; did you mean `drain`?"),
        (MINIMAL + "[drain]\ntimeout = 3\n", "unknown key `drain.timeout`; did you mean `drain.timeout_s`?"),
        (
            MINIMAL + '[[drain.workers]]\nusr = "x"\n',
            "unknown key `drain.workers.usr`; did you mean `drain.workers.user`?",
        ),
        (
            MINIMAL + '[hooks.befor_drain]\nargv = ["x"]\n',
            "unknown key `hooks.befor_drain`; did you mean `hooks.before_drain`?",
        ),
        (
            MINIMAL + '[hooks.staged]\nargs = ["x"]\n',
            "unknown key `hooks.staged.args`; did you mean `hooks.staged.argv`?",
        ),
        (MINIMAL + '[drain]\ntimeout_s = "60"\n', "drain.timeout_s = '60': Expected `float`, got `str`"),
        (MINIMAL + '[drain]\npolicy = "wait"\n', "drain.policy = 'wait': allowed: abort, proceed"),
        (MINIMAL + "[[drain.workers]]\n", "needs at least one of"),
        (MINIMAL + "[[drain.workers]]\nuser = 5\n", "drain.workers[0].user = 5: Expected `str | null`, got `int`"),
        (MINIMAL + "[releases]\nkeep = 1\n", "releases.keep = 1: at least 2"),
        (MINIMAL + "[fetch]\nmax_bytes = 0\n", "fetch.max_bytes = 0: must be greater than 0"),
        (MINIMAL + "[fetch]\nmax_rate_bytes = -1\n", "fetch.max_rate_bytes = -1: must not be negative"),
        (MINIMAL + "[fetch]\nsplay_s = -0.5\n", "fetch.splay_s = -0.5: must not be negative"),
        (MINIMAL + "[fetch]\nretry_initial_s = 9\nretry_max_s = 3\n", "fetch.retry_max_s = 3.0"),
        (MINIMAL.replace("/srv/shop", "srv/shop"), 'root = "srv/shop": must be an absolute path'),
        (MINIMAL.replace('"shop"', '"sh op"'), "app 'sh op' cannot be used in a Consul key"),
        (MINIMAL + 'trusted_keys = "RW"\n', "trusted_keys = 'RW': Expected `array`, got `str`"),
        (MINIMAL + "trusted_keys = [1]\n", "trusted_keys[0] = 1: Expected `str`, got `int`"),
        (
            MINIMAL + f'trusted_keys = ["{PUBLIC.line()}", "keys/ci.pub"]\n',
            (
                'trusted_keys[1] = "keys/ci.pub": no minisign public key (a line is not Base64); allowed: '
                "a minisign public key (RW and 54 more characters), or the absolute path of a file with one"
            ),
        ),
        (
            MINIMAL + f'trusted_keys = ["{PUBLIC.line()[:-1]}"]\n',
            f'trusted_keys[0] = "{PUBLIC.line()[:-1]}": no minisign public key (a line is not Base64); allowed: ',
        ),
        (
            MINIMAL + 'trusted_keys = ["/nonexistent/ci.pub"]\n',
            'trusted_keys[0] = "/nonexistent/ci.pub": /nonexistent/ci.pub: cannot be read as a key: No such file',
        ),
        (
            MINIMAL + 'trusted_keys = ["/dev/null"]\n',
            'trusted_keys[0] = "/dev/null": no minisign public key (a line has 0 bytes instead of 42',
        ),
        (MINIMAL.replace('app = "shop"\n', ""), "Object missing required field `app`"),
        (MINIMAL + "[", "not valid TOML"),
    ],
)
def test_mistakes_are_named(text: str, expected: str) -> None:
    """Each message names the key, what was found and what is allowed or meant."""
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, {})

    assert expected in str(caught.value)


@pytest.mark.parametrize("damage", ["missing", "directory", "not utf-8"])
def test_unreadable_file_is_named(damage: str, tmp_path: Path) -> None:
    """The path stands in the message, whatever is wrong with it."""
    path = tmp_path / "shop.toml"
    if damage == "directory":
        path.mkdir()
    elif damage == "not utf-8":
        path.write_bytes(b"app = '\xff'")

    with pytest.raises(ConfigError, match=r"shop\.toml"):
        load_settings(path, {})


def test_hook_points_are_the_documented_ones() -> None:
    """A point that is added must be given a place in the agent's work too."""
    work = Path(__file__).parents[2].joinpath("agent", "work.py").read_text()

    assert [point for point in HOOK_POINTS if f'"{point}"' not in work] == []
