"""Owns Checkpoint's process in the demo, where its pages are, and opening them where somebody has a desktop.

What is rolled out is left to `hotcold.demo.rollouts.story`.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hotcold.demo.builds import APP
from hotcold.demo.children import Children

NEEDS: str = "the pages need Jinja2: pip install 'hotcold[checkpoint]'"


@dataclass(frozen=True)
class Pages:
    """Where they are; `link` signs in whoever opens it."""

    url: str
    link: str


def can_be_served() -> bool:
    """Whether what the pages need is installed."""
    return importlib.util.find_spec("jinja2") is not None


async def serve(children: Children, config: Path, store: str) -> Pages:
    """Start an engine with its pages, as people do.

    Raises:
        DemoFailed: it does not come up.
    """
    options = ("--app", APP, "--config", str(config), "--consul", store)
    checkpoint = await children.start(
        "checkpoint", [sys.executable, "-m", "hotcold", "checkpoint", "serve", *options], is_read=True
    )
    # Each of its two lines ends with an address.
    return Pages(url=(await checkpoint.line()).split()[-1], link=(await checkpoint.line()).split()[-1])


def has_desktop(environment: Mapping[str, str]) -> bool:
    """Whether a browser that is started here would have a window before whoever sits here.

    Without that, what opens may be a browser of text, which takes the terminal away; over SSH, one far from here.
    """
    is_remote = any(environment.get(name) for name in ("SSH_CONNECTION", "SSH_TTY"))
    return not is_remote and any(environment.get(name) for name in ("WAYLAND_DISPLAY", "DISPLAY"))


def open_browser(link: str) -> None:
    """Ask the desktop to show a page. It is not waited for, and is no part of the demo: it lives on."""
    subprocess.Popen(  # noqa: S603 - this same Python; a process of its own, because a browser may take its time
        [sys.executable, "-m", "webbrowser", "-t", link],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the demo alone
    )
