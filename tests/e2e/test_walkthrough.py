"""The walkthrough, typed as it stands: ten agents, an engine, a good build, a bad one, a fix, a way back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from tests.consul_process import free_ports

ROOT = Path(__file__).resolve().parents[2]


def script() -> list[str]:
    text = (ROOT / "docs" / "walkthrough.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 11
    store, artifacts = free_ports(2)
    return [block.replace("8555", str(store)).replace("8556", str(artifacts)) for block in blocks]


@pytest.mark.timeout(900)
async def test_the_walkthrough_does_what_it_says(short_path: Path) -> None:
    """Each block succeeds, and what it shows in the end is what the page says."""
    python = shlex.quote(sys.executable)
    prelude = f'set -eu\nhotcold() {{ {python} -m hotcold "$@"; }}\npython3() {{ {python} "$@"; }}\n'
    parts = [f"echo '=== {number}'\n{block}" for number, block in enumerate(script(), start=1)]
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", prelude + "\n".join(parts)),
        cwd=short_path,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("CONSUL_")}, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(840):
            out, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    shown = out.decode()
    assert process.returncode == 0, shown[-6000:]
    said = dict(re.findall(r"=== (\d+)\n(.*?)(?==== |\Z)", shown, re.DOTALL))
    assert re.search(r"prod to 10 % +1 host .*prod-", said["5"])
    assert "prod: 7 hosts, 2 zones" in said["5"]  # each agent said its own
    assert said["6"].endswith("one\n")
    assert "7 of 7 hosts as wanted" in said["6"]
    assert "rolled back\nrollout 2 of 2 for shop" in said["7"]
    assert "LOCKED by checkpoint@" in said["7"]
    assert said["7"].endswith("one\none\none\n")
    assert said["8"].endswith("three\n")
    assert "order" in said["9"]
    told = said["10"]
    assert "2 is rolled back in staging, canary: 2 of 2 hosts failed the proof" in told
    assert re.search(r"\d+ records, whole", told)
    assert "prod-7" not in re.findall(r"2 is rolled back.*", told)[0]
