"""The other tools: what each serves, what a host has before, the one command that is timed, and what it made.

How they are timed and compared is left to the benchmarks.
"""

from benchmarks.peers.archives import BsdTar, CurlTar, LibarchiveC, TarFile, Unsquashfs
from benchmarks.peers.casync import Casync
from benchmarks.peers.floor import Floor
from benchmarks.peers.git import Git
from benchmarks.peers.ostree import OSTree
from benchmarks.peers.peer import AFTER, BEFORE, PHASES, Ground, Peer, Phase
from benchmarks.peers.rsync import RsyncInPlace, RsyncLinkDest

PEERS: tuple[Peer, ...] = (
    Floor(),
    Unsquashfs(),
    LibarchiveC(),
    CurlTar(),
    BsdTar(),
    RsyncInPlace(),
    RsyncLinkDest(),
    Git(),
    TarFile(),
    Casync(),
    OSTree(),
)
"""All of them, the quick ones first."""

__all__ = ["AFTER", "BEFORE", "PEERS", "PHASES", "Ground", "Peer", "Phase"]
