"""Owns the commands of README's ten steps, taken from its text so that they cannot differ from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
_CHAPTER: Final = "## One real host in ten steps"
_STEP: Final = re.compile(r"^\*\*(\d+)\. ", re.MULTILINE)
_BLOCK: Final = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def ten_steps() -> dict[int, str]:
    """The shell commands of each step."""
    chapter = (CHECKOUT / "README.md").read_text().partition(_CHAPTER)[2].partition("\n## ")[0]
    parts = _STEP.split(chapter)[1:]
    steps = {int(number): "".join(_BLOCK.findall(text)) for number, text in zip(parts[::2], parts[1::2], strict=True)}
    assert sorted(steps) == list(range(1, 11)), f"README has other steps than ten: {sorted(steps)}"
    assert all(steps.values()), "a step of README has no commands"
    return steps
