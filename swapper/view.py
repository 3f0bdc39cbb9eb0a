"""Owns looking at a root without being its writer: for commands that run beside the agent, or without one."""

from __future__ import annotations

from artifact.errors import ConfigError
from swapper.disk import Disk, survey
from swapper.durable import opened_directory
from swapper.failures import explained
from swapper.kernel import LINUX
from swapper.layout import Layout
from swapper.links import Links
from swapper.records import Records


def look_at(layout: Layout) -> Disk:
    """Return what is on the disk; beside a running agent, links and releases may be of different moments.

    Raises:
        ConfigError: kind `layout`, no agent has ever worked there; `permission`, this user may not look.
        TransientError: the disk cannot be read.
    """
    if not layout.releases.is_dir() or not layout.records.is_dir():
        raise ConfigError(
            f"{layout.root} with the state in {layout.state_dir} is not, or not yet, a host's: has the agent ever run, "
            "and may you read there?",
            kind="layout",
        )
    with explained("look at", layout.root), opened_directory(layout.root) as root_fd:
        return survey(layout, Links(layout.root, root_fd, LINUX), Records(layout.records, LINUX)).disk
