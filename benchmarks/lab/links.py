"""Owns what lies between clients and servers: nothing, or a link with a rate and a delay.

The shaped link is a process of ours between two tun devices, `link.c`, and not `tc netem`: that is a module which the
kernels of many virtual machines do not have.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.lab.programs import compiled


@dataclass(frozen=True)
class Link:
    """One way between two hosts.

    Attributes:
        name: on the command line.
        title: in tables.
        rate_bit: bits per second in each direction, None for loopback.
        round_trip_ms: there and back.
    """

    name: str
    title: str
    rate_bit: int | None = None
    round_trip_ms: int = 0

    @contextmanager
    def between(self, server_pid: int, client_pid: int, scratch: Path) -> Iterator[None]:
        """Join the network namespaces of two processes by a device `tun0` in each."""
        program = compiled("link.c", scratch)
        spaces = [f"/proc/{pid}/ns/net" for pid in (server_pid, client_pid)]
        argv = [str(program), *spaces, str(self.rate_bit), str(self.round_trip_ms * 500)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                if process.stdout.readline() != "ready\n":
                    sys.exit("lab: the shaped link does not start; see above")
                yield
            finally:
                process.kill()


LINKS: Final[Mapping[str, Link]] = {
    link.name: link
    for link in (
        Link("loopback", "loopback"),
        Link("shaped", "1 Gbit/s, 20 ms", rate_bit=10**9, round_trip_ms=20),
    )
}
