"""Owns what a check finds; leaves finding it to the checks, and showing it to `hotcold.doctor_command`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "wrong", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        check: what was looked at.
        level: `ok`; `warning`: it works, and could be better or hides a trap; `wrong`: deploys fail or serve something
            else than they should; `unknown`: could not be looked at.
        message: what was found.
        remedy: what to do; empty where nothing is to be done.
    """

    check: str
    level: Level
    message: str
    remedy: str = ""
