"""The engine's unit is accepted by systemd's own tools, and as tight as its work allows."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hotcold.main import cli

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "hotcold-checkpoint@.service"
EXPOSURE_LIMIT = 2.0

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def analyze(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *argv]
    return subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """A copy with a program that exists on this machine."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/hotcold/bin/hotcold", "/bin/true"))
    return copy


@needs_systemd
def test_the_unit_is_accepted_without_a_word(unit: Path) -> None:
    """And a misspelt key would have been told."""
    verified = analyze("verify", unit)
    assert (verified.returncode, verified.stdout) == (0, "")
    unit.write_text(unit.read_text().replace("RestartSec=", "RestartSecs="))
    assert "RestartSecs" in analyze("verify", unit).stdout


@needs_systemd
def test_the_sandbox_is_tight(unit: Path) -> None:
    told = analyze("security", "--offline=true", "--no-pager", unit).stdout
    exposure = re.search(r"Overall exposure level for .*: ([\d.]+)", told)
    assert exposure is not None, told
    assert float(exposure[1]) <= EXPOSURE_LIMIT, told


def test_the_unit_starts_a_command_that_exists() -> None:
    """With the options that it has."""
    [line] = re.findall(r"^ExecStart=/opt/hotcold/bin/hotcold (.*)$", UNIT.read_text(), re.MULTILINE)
    words = line.replace("%i", "shop").split()
    command: object = cli
    with cli.make_context("hotcold", ["--help"], resilient_parsing=True) as context:
        for word in words[:2]:
            command = command.get_command(context, word)  # type: ignore[attr-defined]
    command.make_context("run", words[2:])  # type: ignore[attr-defined]
