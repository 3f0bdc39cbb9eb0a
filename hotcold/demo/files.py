"""Owns the artifact server of the demo: a directory, served over HTTP on 127.0.0.1.

`python -m hotcold.demo.files DIRECTORY` says its address on the first line of stdout. What lies there is left to
`hotcold.demo.builds`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
from pathlib import Path

from aiohttp import web


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m hotcold.demo.files", description="The demo's artifact server.")
    parser.add_argument("directory", type=Path)
    asyncio.run(_serve(parser.parse_args().directory))


async def _serve(directory: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    application = web.Application()
    application.router.add_static("/", directory)
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


if __name__ == "__main__":
    main()
