"""Owns packing a part's builds one after the other, and showing how far that is; a build is `hotcold.demo.builds`'."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agent.blocking import run_blocking
from hotcold.demo.board import Board, Doing
from hotcold.demo.builds import Code, Workpiece


async def pack_all(out: Path, tree: Path, builds: Mapping[str, Code], file_count: int, board: Board) -> None:
    """Pack builds of one tree.

    Args:
        out: directory for artifacts and manifests.
        tree: a directory that does not exist yet, to work in.
        builds: ids in their order, and what their code is like.
        file_count: files in each.
        board: shows how far it is.

    Raises:
        HotcoldError: as `artifact.pack.pack`.
        OSError: a tree cannot be written.
    """
    board.say(f"packing {len(builds)} builds of {file_count} files")
    board.doing = Doing("copying files", 0.0)
    workpiece = await run_blocking(Workpiece, tree, file_count)
    sizes = []
    for number, (build, code) in enumerate(builds.items()):

        def show(share: float, number: int = number, build: str = build) -> None:
            board.doing = Doing(f"packing {build}", (number + share) / len(builds))

        manifest = await run_blocking(workpiece.pack, build, out=out, code=code, on_progress=show)
        sizes.append(manifest.size)
    board.doing = None
    board.say(
        f"the builds, {workpiece.size_bytes / 1e6:.0f} MB each ({max(sizes) / 1e6:.0f} MB packed), "
        "are at the artifact server"
    )
