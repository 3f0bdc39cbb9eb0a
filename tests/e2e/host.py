"""A host for end-to-end tests: a real agent process with its own root, and an artifact server that can misbehave.

Nothing here is patched: the agent runs as `python -m hotcold agent`, Consul's API is spoken over TCP.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import zstandard
from aiohttp import web

from artifact import Manifest, ManifestRef, decode_manifest
from artifact.locate import reference
from artifact.pack import pack
from fleet import ConsulSettings, ConsulStore, Order, encode
from fleet.keys import tier_key

APP, TIER = "shop", "prod"
DEADLINE_S = 30.0
"""Far beyond what anything here takes, so that a busy machine fails nothing."""


async def until(what: str, condition: Callable[[], Awaitable[object]], deadline_s: float = DEADLINE_S) -> Any:
    """Wait until the condition gives something true, and return that."""
    ends_s = time.monotonic() + deadline_s
    while True:
        value = await condition()
        if value:
            return value
        assert time.monotonic() < ends_s, f"not within {deadline_s:.0f} s: {what}"
        await asyncio.sleep(0.02)


async def hotcold(*arguments: str, consul: str = "", exits: int = 0) -> str:
    """Run the command as an operator does; its standard output, or, where it has to fail, its standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hotcold",
        *arguments,
        env=os.environ | {"CONSUL_HTTP_ADDR": consul},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == exits, f"{arguments} ended with {process.returncode}:\n{out.decode()}\n{err.decode()}"
    return out.decode() if exits == 0 else err.decode()


@dataclass
class Host:
    """One agent. Paths are short: a Unix socket's must stay below 108 bytes."""

    directory: Path
    consul_address: str
    name: str = "web-1"
    config: str = ""
    tier: str = TIER
    environment: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = (sys.executable, "-m", "hotcold")
    process: subprocess.Popen[bytes] | None = None
    root: Path = Path()

    def __post_init__(self) -> None:
        if self.root == Path():
            self.root = self.directory / "root"

    @property
    def hot(self) -> Path:
        return self.root / "hot"

    @property
    def state_dir(self) -> Path:
        return self.directory / "state"

    @property
    def socket(self) -> Path:
        return self.directory / "s"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def config_path(self) -> Path:
        return self.directory / "agent.toml"

    def write_config(self, extra: str | None = None) -> None:
        text = (
            f'app = "{APP}"\ntier = "{self.tier}"\nhost = "{self.name}"\nroot = "{self.root}"\n'
            f'state_dir = "{self.state_dir}"\nsocket = "{self.socket}"\n'
        )
        self.config = self.config if extra is None else extra
        tail = (
            self.config
            if "[fetch]" in self.config
            else f"{self.config}\n[fetch]\nretry_initial_s = 0.2\nretry_max_s = 1\n"
        )
        self.config_path.write_text(text + tail + f'\n[consul]\naddress = "{self.consul_address}"\n')

    def start(self) -> None:
        """Start the agent; it may still be starting when this returns."""
        self.directory.mkdir(exist_ok=True)
        if not self.config_path.exists():
            self.write_config()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CONSUL_")} | dict(self.environment)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "agent", "--config", str(self.config_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """kill -9, as an out-of-memory killer would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM and wait; the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=DEADLINE_S)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def get(self, path: str) -> tuple[int, bytes]:
        connector = aiohttp.UnixConnector(str(self.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(f"http://agent{path}") as response,
        ):
            return response.status, await response.read()

    async def status(self) -> dict[str, Any] | None:
        """The status document, or None while nobody answers."""
        try:
            _, body = await self.get("/v1/status")
        except (aiohttp.ClientError, OSError):
            return None
        document: dict[str, Any] = json.loads(body)
        return document

    async def until(self, what: str, test: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait for a status that passes the test. A dead agent fails at once, with its log."""

        async def look() -> dict[str, Any] | None:
            assert self.is_alive(), f"the agent ended with {self.process.poll()}:\n{self.log.read_text()}"
            status = await self.status()
            return status if status is not None and test(status) else None

        try:
            found: dict[str, Any] = await until(what, look)
        except AssertionError as error:
            raise AssertionError(
                f"{error}\nlast status: {await self.status()}\n{self.log.read_text()[-4000:]}"
            ) from None
        return found

    async def until_steady(self, build_id: str) -> dict[str, Any]:
        return await self.until(
            f"steady on {build_id}",
            lambda s: s["state"]["name"] == "steady" and s["hot"] is not None and s["hot"]["build"] == build_id,
        )

    async def until_state(self, name: str) -> dict[str, Any]:
        return await self.until(name, lambda s: s["state"]["name"] == name)

    async def until_up(self) -> dict[str, Any]:
        return await self.until("up", lambda _: True)

    def stamps(self) -> set[str]:
        """What a reader of hot sees: one directory, every file's build id."""
        fd = os.open(self.hot, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return {part.read_text() for part in Path(f"/proc/self/fd/{fd}").glob("part-*")}
        finally:
            os.close(fd)


@dataclass
class Shop:
    """What a deploy needs beside the hosts: builds, a server for them, and the key."""

    directory: Path
    store: ConsulStore
    url: str
    behaviours: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]
    serial: int = 0

    def pack(self, build_id: str, *, files: int = 20, size_bytes: int = 0, extra: str | None = None) -> Manifest:
        """Make a build of stamped files, with random ballast and an extra file where asked."""
        tree = self.directory / f"tree-{build_id}"
        tree.mkdir()
        for number in range(files):
            (tree / f"part-{number}").write_text(build_id)
        if extra is not None:
            (tree / extra).touch()
        if size_bytes:
            (tree / "ballast").write_bytes(os.urandom(size_bytes))
        return self.pack_tree(build_id, tree)

    def pack_tree(self, build_id: str, tree: Path) -> Manifest:
        """Make a build of a tree that is there."""
        return pack(
            tree,
            app=APP,
            build_id=build_id,
            out=self.directory / "artifacts",
            created="2026-11-23T00:00:00+00:00",
            on_progress=lambda _: None,
        )

    def tar(
        self, build_id: str, entries: list[tuple[tarfile.TarInfo, bytes]], *, is_compressed: bool = False
    ) -> ManifestRef:
        """A hand-made artifact, hostile or not."""
        raw = BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as archive:
            for info, content in entries:
                info.size = len(content)
                archive.addfile(info, BytesIO(content))
        data = zstandard.compress(raw.getvalue()) if is_compressed else raw.getvalue()
        archive_format = "tar.zst" if is_compressed else "tar"
        name = f"{build_id}.{archive_format}"
        (self.directory / "artifacts" / name).write_bytes(data)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        return ManifestRef(
            id=build_id, urls=(f"{self.url}/{name}",), digest=digest, size=len(data), format=archive_format
        )

    def ref(self, manifest: Manifest) -> ManifestRef:
        return reference(manifest, f"{self.url}/{manifest.app}-{manifest.id}.json")

    def manifest(self, build_id: str) -> Manifest:
        """The manifest of a build that was packed."""
        return decode_manifest((self.directory / "artifacts" / f"{APP}-{build_id}.json").read_bytes())

    async def order(self, build: ManifestRef | Manifest, **changes: Any) -> Order:
        """Write the next order."""
        self.serial = changes.pop("serial", self.serial + 1)
        ref = self.ref(build) if isinstance(build, Manifest) else build
        order = Order(v=1, app=APP, tier=TIER, serial=self.serial, build=ref, **changes)
        await self.write(encode(order))
        return order

    async def write(self, value: bytes) -> None:
        await self.store.put(tier_key(APP, TIER), value)


@asynccontextmanager
async def a_shop(directory: Path, consul_address: str, *, token: str = "") -> AsyncIterator[Shop]:
    """Serve `directory/artifacts`; names in `behaviours` are answered by the test's own function instead."""
    artifacts = directory / "artifacts"
    artifacts.mkdir(parents=True)
    behaviours: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}

    async def serve(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name in behaviours:
            return await behaviours[name](request)
        path = artifacts / name
        return web.FileResponse(path) if path.exists() else web.Response(status=404)

    application = web.Application()
    application.router.add_get("/{name}", serve)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with ConsulStore(ConsulSettings(address=consul_address, token=token or None)) as store:
            yield Shop(directory, store, f"http://127.0.0.1:{port}", behaviours)
    finally:
        await runner.cleanup()
