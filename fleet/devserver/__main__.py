"""Owns `python -m fleet.devserver`; leaves serving to `fleet.devserver.server`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from fleet.devserver.server import DevServer


def main() -> int:
    """Serve until SIGTERM or SIGINT; the first line on stdout is the address."""
    parser = argparse.ArgumentParser(
        prog="python -m fleet.devserver", description="An in-memory Consul for demos and tests; not for production."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to bind (default: any free one)")
    arguments = parser.parse_args()
    try:
        asyncio.run(_serve(arguments.host, arguments.port))
    except OSError as error:
        sys.stderr.write(f"cannot serve on {arguments.host}:{arguments.port}: {error}; choose another --port\n")
        return 1
    return 0


async def _serve(host: str, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with DevServer(host=host, port=port) as server:
        sys.stdout.write(f"{server.address}\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
