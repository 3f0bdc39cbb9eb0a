"""Owns the network of a run: one namespace for servers and clients, or two with a shaped link between them.

The machine's own network is not used or touched. Bytes are counted by the kernel, on the interface that all of a
case's traffic passes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.lab.links import LINKS, Link

SERVER_ADDRESS: Final = "192.0.2.1"
CLIENT_ADDRESS: Final = "192.0.2.2"
_SUBNET: Final = "192.0.2.0/24"


@dataclass(frozen=True)
class Net:
    """Where commands of each side run.

    Attributes:
        link: what lies between the two sides.
        address: of the servers, as clients see it.
    """

    link: Link
    address: str
    _server_pid: int
    _client_pid: int
    _counted: str

    def on_server(self, argv: Sequence[str | Path]) -> list[str]:
        """The command line that runs `argv` where the servers are."""
        return _inside(self._server_pid, argv)

    def on_client(self, argv: Sequence[str | Path]) -> list[str]:
        """The command line that runs `argv` where the clients are."""
        return _inside(self._client_pid, argv)

    def received_bytes(self) -> int:
        """What the client's side has received since the network was made, headers included.

        On loopback both directions count: what clients sent is in it too.
        """
        for line in Path(f"/proc/{self._client_pid}/net/dev").read_text().splitlines():
            name, _, numbers = line.partition(":")
            if name.strip() == self._counted:
                return int(numbers.split()[0])
        raise LookupError(self._counted)


@contextmanager
def network(link_name: str, scratch: Path) -> Iterator[Net]:
    """Make the network named in `LINKS`; it ends with the context."""
    link = LINKS[link_name]
    with ExitStack() as stack:
        server = stack.enter_context(_namespace())
        if link.rate_bit is None:
            yield Net(link, "127.0.0.1", server, server, "lo")
            return
        client = stack.enter_context(_namespace())
        stack.enter_context(link.between(server, client, scratch))
        for pid, address in ((server, SERVER_ADDRESS), (client, CLIENT_ADDRESS)):
            for command in (
                ["ip", "address", "add", f"{address}/24", "dev", "tun0"],
                ["ip", "link", "set", "tun0", "up"],
                # Linux's usual one, by route: what this machine was told to use may be another.
                ["ip", "route", "replace", _SUBNET, "dev", "tun0", "src", address, "congctl", "cubic"],
            ):
                subprocess.run(_inside(pid, command), check=True)
        yield Net(link, SERVER_ADDRESS, server, client, "tun0")


@contextmanager
def _namespace() -> Iterator[int]:
    """Keep a network namespace with its loopback up; gives the pid of the process that holds it."""
    holding = ["unshare", "--net", "--", "sh", "-c", "ip link set lo up && echo ready && exec sleep infinity"]
    with subprocess.Popen(holding, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            if holder.stdout.readline() != "ready\n":
                sys.exit("lab: cannot make a network namespace")
            yield holder.pid
        finally:
            holder.kill()


def _inside(pid: int, argv: Sequence[str | Path]) -> list[str]:
    return ["nsenter", f"--net=/proc/{pid}/ns/net", "--", *map(str, argv)]
