"""Owns the artifact server of the demo: a directory, served over HTTP on 127.0.0.1.

`python -m hotcold.demo.files DIRECTORY` says its address on the first line of stdout. What lies there is left to
`hotcold.demo.builds`.

While a file `NAME.slow` lies beside `NAME`, whoever asks for `NAME` gets half of it, and the rest when `NAME.slow` is
gone: a network that is slow for as long as the demo needs.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from aiohttp import web

from agent.blocking import run_blocking

_LOOK_S: Final = 0.02


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m hotcold.demo.files", description="The demo's artifact server.")
    parser.add_argument("directory", type=Path)
    asyncio.run(_serve(parser.parse_args().directory))


async def _serve(directory: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    application = web.Application()

    async def answer(request: web.Request) -> web.StreamResponse:
        path = directory / request.match_info["name"]
        slow = slow_mark(path)
        return await _answer_slowly(request, path, slow) if slow.exists() else web.FileResponse(path)

    application.router.add_get("/{name}", answer, allow_head=False)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listener).start()
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        await stop.wait()
    finally:
        await runner.cleanup()


def slow_mark(path: Path) -> Path:
    """The file that makes downloads of `path` slow."""
    return path.with_name(f"{path.name}.slow")


async def _answer_slowly(request: web.Request, path: Path, slow: Path) -> web.StreamResponse:
    content = await run_blocking(path.read_bytes)
    wanted = range(len(content))[request.http_range]
    response = web.StreamResponse()
    if "Range" in request.headers:
        response.set_status(web.HTTPPartialContent.status_code)
        response.headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{len(content)}"
    response.content_length = len(wanted)
    await response.prepare(request)
    half = wanted.start + len(wanted) // 2
    await response.write(content[wanted.start : half])
    while await run_blocking(slow.exists):  # noqa: ASYNC110 - another process's file, there is no event
        await asyncio.sleep(_LOOK_S)
    await response.write(content[half : wanted.stop])
    return response


if __name__ == "__main__":
    main()
