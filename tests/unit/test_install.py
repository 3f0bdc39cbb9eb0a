"""What `hotcold install` puts on a host: whole, once, never over what somebody changed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.config import load_settings, parse_settings
from artifact import ConfigError
from hotcold.install_files import File, Wanted, files_for, is_untouched, sealed, unsealed
from hotcold.main import cli

ROOT = Path(__file__).resolve().parents[2]
WANTED = Wanted(app="shop", tier="prod", root=Path("/srv/shop"), program=Path("/opt/hc/bin/hotcold"))
needs_tools = pytest.mark.skipif(
    shutil.which("systemd-sysusers") is None or shutil.which("systemd-tmpfiles") is None,
    reason="systemd's tools are not installed",
)
Install = Callable[..., Result]


def by_name(files: tuple[File, ...]) -> dict[str, File]:
    return {str(file.path): file for file in files}


# --- which files ------------------------------------------------------------------------------------------------------


def test_the_unit_runs_this_program_and_nothing_else_differs() -> None:
    """The files are those that are shipped, but for the path."""
    files = by_name(files_for(WANTED))
    unit = files["/etc/systemd/system/hotcold-agent@.service"].content
    assert "ExecStart=/opt/hc/bin/hotcold agent --config /etc/hotcold/%i.toml\n" in unit
    shipped = (ROOT / "systemd" / "hotcold-agent@.service").read_text()
    assert unsealed(unit).replace("/opt/hc/bin", "/opt/hotcold/bin") == shipped
    assert (
        unsealed(files["/usr/lib/sysusers.d/hotcold.conf"].content)
        == (ROOT / "systemd" / "hotcold.sysusers.conf").read_text()
    )
    assert list(files) == [
        "/usr/lib/sysusers.d/hotcold.conf",
        "/usr/lib/tmpfiles.d/hotcold.conf",
        "/etc/tmpfiles.d/hotcold-shop.conf",
        "/etc/systemd/system/hotcold-agent@.service",
        "/usr/local/bin/hotcold-ask",
        "/etc/systemd/system/hotcold-reload@.path",
        "/etc/systemd/system/hotcold-reload@.service",
        "/etc/systemd/system/hotcold-restart@.path",
        "/etc/systemd/system/hotcold-restart@.service",
        "/etc/hotcold/shop.toml",
    ]


def test_what_the_host_understands_is_installed() -> None:
    """The back-off is for newer systemd, the other root for who has one."""
    files = by_name(files_for(replace(WANTED, systemd_version=254, root=Path("/data/shop"))))
    assert "RestartSteps" in files["/etc/systemd/system/hotcold-agent@.service.d/backoff.conf"].content
    dropin = files["/etc/systemd/system/hotcold-agent@shop.service.d/root.conf"].content
    assert "ReadWritePaths=\nReadWritePaths=/data/shop\n" in dropin
    assert "d /data/shop 0755 hotcold hotcold -" in files["/etc/tmpfiles.d/hotcold-shop.conf"].content
    assert files_for(replace(WANTED, systemd_version=253)) == files_for(WANTED)


def test_the_configuration_is_one_that_an_agent_takes() -> None:
    """As bare as it gets, and with everything that can be given; odd characters are no way out of a string."""
    bare = parse_settings(files_for(WANTED)[-1].content, {})
    assert bare.identity.consul.address == "http://127.0.0.1:8500"
    assert (bare.drain.workers, bare.probe.url) == ((), None)
    full = replace(
        WANTED,
        host="web-1",
        consul="https://consul.example.com:8501",
        token_file='/etc/hotcold/"token"\\',
        unit="shop.service",
        probe_url="http://127.0.0.1:8080/healthz",
    )
    settings = parse_settings(files_for(full)[-1].content, {})
    assert settings.identity.host == "web-1"
    assert settings.identity.consul.token_file == '/etc/hotcold/"token"\\'
    assert [match.unit for match in settings.drain.workers] == ["shop.service"]
    assert (settings.probe.url, settings.probe.successes) == ("http://127.0.0.1:8080/healthz", 3)


@pytest.mark.parametrize(
    "change",
    [
        {"app": "../x"},
        {"root": Path("srv/shop")},
        {"root": Path("/srv/my shop")},
        {"root": Path("/srv/%i")},
        {"root": Path("/home/shop")},
        {"program": Path("/opt/x y/hotcold")},
    ],
)
def test_what_a_unit_could_not_name_or_see_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        files_for(replace(WANTED, **change))


def test_a_seal_tells_whether_somebody_changed_a_file() -> None:
    text = sealed("a = 1\n")
    assert is_untouched(text)
    assert unsealed(text) == "a = 1\n"
    assert not is_untouched(text.replace("1", "2"))
    assert not is_untouched(text + "b = 2\n")
    assert not is_untouched("a = 1\n")
    assert unsealed("a = 1\n") == "a = 1\n"


# --- putting them in place --------------------------------------------------------------------------------------------


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Into an image that no user of this machine matters to."""
    (tmp_path / "image" / "etc").mkdir(parents=True)
    words = ["install", "--app", "shop", "--tier", "prod", "--prefix", str(tmp_path / "image")]
    words += ["--program", "/opt/hc/bin/hotcold"]
    return lambda *more: CliRunner().invoke(cli, [*words, *more])


def contents(image: Path) -> dict[str, tuple[str, int]]:
    """Every file with its text and mode."""
    return {
        str(path.relative_to(image)): (path.read_text(), path.stat().st_mode & 0o7777)
        for path in image.rglob("*")
        if path.is_file()
    }


def test_a_dry_run_shows_everything_and_writes_nothing(install: Install, tmp_path: Path) -> None:
    result = install("--dry-run")
    assert result.exit_code == 0
    assert contents(tmp_path / "image") == {}
    for words in (
        "would write",
        "ExecStart=/opt/hc/bin/hotcold agent",
        'app = "shop"',
        "would run systemd-sysusers",
        "would run systemd-tmpfiles",
        "0640 root:hotcold",
    ):
        assert words in result.stdout


@needs_tools
def test_installing_twice_changes_nothing_the_second_time(install: Install, tmp_path: Path) -> None:
    """As root with user and owners; as another user the files alone, and what is left to do is told."""
    first = install()
    assert first.exit_code == 0, first.output
    assert "systemctl enable --now hotcold-agent@shop" in first.stdout
    assert ("ran " if os.geteuid() == 0 else "left ") in first.stdout
    image = tmp_path / "image"
    made = contents(image)
    assert made["etc/hotcold/shop.toml"][1] == 0o640
    assert load_settings(image / "etc" / "hotcold" / "shop.toml", {}).identity.app == "shop"
    second = install()
    assert second.exit_code == 0
    assert "wrote" not in second.stdout
    assert "replaced" not in second.stdout
    assert contents(image) == made


@needs_tools
def test_what_somebody_changed_is_kept_unless_it_is_forced(install: Install, tmp_path: Path) -> None:
    """A file of an earlier version that nobody touched is brought up to date; what force replaces stays as .old."""
    install()
    config = tmp_path / "image" / "etc" / "hotcold" / "shop.toml"
    unit = tmp_path / "image" / "etc" / "systemd" / "system" / "hotcold-agent@.service"
    config.write_text(config.read_text() + "stop_timeout_s = 30\n")
    mine = config.read_text()
    unit.write_text(sealed("[Unit]\nDescription=of an earlier version\n"))
    result = install("--probe-url", "http://127.0.0.1/x")
    assert result.exit_code == 0
    assert f"kept      {config}  (changed by hand" in result.stdout
    assert f"replaced  {unit}" in result.stdout
    assert config.read_text() == mine
    assert "/opt/hc/bin/hotcold" in unit.read_text()
    shown = install("--probe-url", "http://127.0.0.1/x", "--force", "--dry-run")
    assert "-stop_timeout_s = 30" in shown.stdout
    assert '+url = "http://127.0.0.1/x"' in shown.stdout
    assert config.read_text() == mine

    assert install("--probe-url", "http://127.0.0.1/x", "--force").exit_code == 0
    assert 'url = "http://127.0.0.1/x"' in config.read_text()
    assert config.with_name("shop.toml.old").read_text() == mine


@pytest.mark.root
@needs_tools
@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
def test_user_directories_and_owners_are_made_in_the_image(install: Install, tmp_path: Path) -> None:
    """By systemd's own tools, with the numbers of that host and not of this one."""
    assert install().exit_code == 0
    image = tmp_path / "image"
    [account] = [line for line in (image / "etc" / "passwd").read_text().splitlines() if line.startswith("hotcold:")]
    uid, gid = (int(number) for number in account.split(":")[2:4])
    found = {path: (image / path).stat() for path in ("srv/shop", "etc/hotcold", "etc/hotcold/shop.toml")}
    assert {path: (oct(stat.st_mode & 0o7777), stat.st_uid, stat.st_gid) for path, stat in found.items()} == {
        "srv/shop": ("0o755", uid, gid),
        "etc/hotcold": ("0o750", 0, gid),
        "etc/hotcold/shop.toml": ("0o640", 0, gid),
    }


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_what_is_installed_is_accepted_by_systemd(tmp_path: Path) -> None:
    """The unit with the drop-in for another root, without a word; and the drop-in is read, for its root is missing."""
    (tmp_path / "data").mkdir()
    wanted = replace(WANTED, program=Path("/bin/true"), root=tmp_path / "data")
    try:
        files = files_for(wanted)
    except ConfigError:  # pytest's directory is below /tmp
        files = files_for(replace(wanted, root=Path("/srv")))
    for file in files:
        if file.path.is_relative_to("/etc/systemd/system"):
            path = tmp_path / file.path.relative_to("/etc/systemd/system")
            path.parent.mkdir(exist_ok=True)
            path.write_text(file.content)
    shutil.copy(tmp_path / "hotcold-agent@.service", tmp_path / "hotcold-agent@shop.service")
    run = ["systemd-analyze", "verify", tmp_path / "hotcold-agent@shop.service"]
    verified = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    dropin = tmp_path / "hotcold-agent@shop.service.d" / "root.conf"
    dropin.write_text(dropin.read_text().replace("ReadWritePaths=/", "ReadWritePathz=/"))
    assert "ReadWritePathz" in subprocess.run(run, capture_output=True, text=True, check=False).stderr


def test_a_program_that_cannot_be_run_is_refused_first(tmp_path: Path) -> None:
    """Before anything is written, and whoever asks."""
    program = tmp_path / "hotcold"
    result = CliRunner().invoke(cli, ["install", "--app", "shop", "--tier", "prod", "--program", str(program)])
    assert result.exit_code == 2
    assert "--program" in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="is for who is not root")
def test_who_is_not_root_is_told() -> None:
    result = CliRunner().invoke(cli, ["install", "--app", "shop", "--tier", "prod", "--program", "/bin/true"])
    assert result.exit_code == 2
    assert "needs root" in result.stderr


def test_a_wheel_carries_the_files(tmp_path: Path) -> None:
    """Installed by pip, outside of any checkout, the command finds what it installs."""
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    if built.returncode and "hatchling" in built.stderr:
        pytest.skip("the build backend cannot be had here")
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", format="zip")
    code = "from hotcold.main import main; main()"
    words = ["install", "--app", "shop", "--tier", "prod", "--prefix", str(tmp_path / "image"), "--dry-run"]
    shown = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        timeout=60,
    )
    assert "ExecStart=" in shown.stdout
    assert re.search(r"would write .*hotcold-agent@\.service", shown.stdout)
