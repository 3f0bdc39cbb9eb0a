"""What a shell completes: asked as the shell asks, and, where it is installed, by the shell itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hotcold.main import COMMANDS, cli

HOTCOLD = Path(sys.executable).parent / "hotcold"


def completed(*words: str) -> list[tuple[str, str]]:
    """Kind and value of each completion of the last word."""
    environment = os.environ | {
        "_HOTCOLD_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    run = subprocess.run([HOTCOLD], env=environment, capture_output=True, text=True, check=True, timeout=60)
    return [(kind, value) for kind, _, value in (line.partition(",") for line in run.stdout.splitlines())]


def test_commands_options_and_choices_are_completed() -> None:
    assert completed("hotcold", "st") == [("plain", "status")]
    assert [value for _, value in completed("hotcold", "")] == list(COMMANDS)
    assert completed("hotcold", "status", "--wa") == [("plain", "--watch")]
    assert completed("hotcold", "key", "n") == [("plain", "new")]
    assert completed("hotcold", "completion", "f") == [("plain", "fish")]
    assert completed("hotcold", "status", "--socket", "/run/") == [("file", "/run/")]


def test_completing_loads_only_the_command_that_is_completed() -> None:
    """A shell asks at each press of a key."""
    code = (
        "import os, sys\n"
        "os.environ |= {'_HOTCOLD_COMPLETE': 'zsh_complete', 'COMP_WORDS': 'hotcold ', 'COMP_CWORD': '1'}\n"
        "from hotcold.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "Show what has happened on this host." in run.stdout, "zsh shows the summaries"
    loaded = set(run.stderr.splitlines())
    assert not {"rich", "aiohttp", "fleet", "agent"} & loaded
    assert not {f"{place.module}" for place in COMMANDS.values()} & loaded


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_takes_what_is_printed(shell: str, tmp_path: Path) -> None:
    """Its own parser finds no fault with it."""
    printed = CliRunner().invoke(cli, ["completion", shell])
    assert printed.exit_code == 0
    assert "_HOTCOLD_COMPLETE" in printed.stdout
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(printed.stdout)
    option = "--no-execute" if shell == "fish" else "-n"
    checked = subprocess.run([shell, option, script], capture_output=True, text=True, check=False, timeout=60)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes(tmp_path: Path) -> None:
    """As if Tab was pressed behind `hotcold ac`."""
    script = tmp_path / "script"
    script.write_text(CliRunner().invoke(cli, ["completion", "bash"]).stdout)
    press = (
        f"source {script}; complete -p hotcold >&2; COMP_WORDS=(hotcold ac); COMP_CWORD=1; "
        '_hotcold_completion hotcold; echo "${COMPREPLY[@]}"'
    )
    environment = os.environ | {"PATH": f"{HOTCOLD.parent}:{os.environ['PATH']}"}
    run = subprocess.run(
        ["bash", "--norc", "-c", press], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout == "acl-policy\n"
    assert "_hotcold_completion" in run.stderr


def test_another_shell_is_refused() -> None:
    result = CliRunner().invoke(cli, ["completion", "tcsh"])
    assert result.exit_code == 2
    assert "bash" in result.stderr
