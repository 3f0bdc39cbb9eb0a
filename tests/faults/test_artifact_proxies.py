"""Real programs between hosts and the artifact server, by configuration alone: nginx as a cache, Squid as a proxy.

Their configurations are the page's own, so that what it recommends is what works.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest

from artifact import ManifestRef
from artifact.pullwire import Local
from tests.builds import SETTINGS, Depot, File, Packed, Releases, shape_of
from tests.faults.ranged_server import RangedServer, serving

SCALE = (Path(__file__).resolve().parents[2] / "docs/scale.md").read_text()
NGINX, SQUID = shutil.which("nginx"), shutil.which("squid")

PULL = """
import asyncio, sys
from pathlib import Path
import msgspec
from artifact.manifest import ManifestRef
from artifact.pull import Local, PullSettings, pull
ref, into, local, settings = sys.argv[1:]
asyncio.run(
    pull(
        msgspec.json.decode(ref, type=ManifestRef),
        Path(into),
        settings=msgspec.json.decode(settings, type=PullSettings),
        on_progress=lambda _: None,
        local=msgspec.json.decode(local, type=Local),
    )
)
"""


def recommended(language: str) -> str:
    """The configuration that the page shows."""
    [block] = re.findall(rf"<!-- {language} -->\n```{language}\n(.*?)```", SCALE, re.DOTALL)
    return block


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(argv: list[str], port: int, log: Path) -> Iterator[None]:
    """A server in the foreground, from when it listens."""
    with log.open("wb") as file, subprocess.Popen(argv, stdout=file, stderr=file) as process:
        try:
            deadline_s = time.monotonic() + 30
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline_s, f"{argv[0]} does not listen: {log.read_text()}"
                time.sleep(0.05)
            yield
        finally:
            family = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            process.wait(30)
            psutil.wait_procs(family, timeout=30)


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "depot")


@pytest.fixture
def build(depot: Depot) -> Packed:
    entries = {f"f{number}": File(random.Random(number).randbytes(60_000)) for number in range(100)}
    return depot.pack("1", {**entries, "big": File(random.Random(0).randbytes(9 << 20))})


@pytest.fixture
def changed(depot: Depot, build: Packed) -> Packed:
    """The next build, with a patch."""
    entries = {f"f{number}": File(random.Random(number).randbytes(60_000)) for number in range(100)}
    return depot.pack(
        "2", {**entries, "f7": File(b"7"), "big": File(random.Random(0).randbytes(9 << 20))}, against=build
    )


@pytest.fixture
def host(tmp_path: Path) -> Releases:
    return Releases(tmp_path / "releases")


def ref_at(build: Packed, url: str) -> ManifestRef:
    return msgspec.structs.replace(build.ref, urls=(f"{url}/{build.artifact.name}",))


def origin_bytes(origin: RangedServer) -> int:
    return sum(len(request.body) for request in origin.requests)


async def pull_with(environment: dict[str, str], host: Releases, name: str, ref: ManifestRef, local: Local) -> None:
    """Pull as an agent with these variables does."""
    host.tree(name).mkdir()
    clean = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    arguments = [msgspec.json.encode(each).decode() for each in (ref, local, SETTINGS)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PULL, arguments[0], str(host.tree(name)), *arguments[1:], env={**clean, **environment}
    )
    assert await process.wait() == 0


@pytest.mark.skipif(NGINX is None, reason="needs nginx")
async def test_nginx_with_slices_asks_the_origin_once_for_each_part(
    host: Releases, depot: Depot, build: Packed, changed: Packed, tmp_path: Path
) -> None:
    """Three hosts cost the origin what one does, by ranges; so does a change, by patch."""
    assert NGINX is not None
    port, base = free_port(), tmp_path / "nginx"
    base.mkdir()
    async with serving(depot.path / "out") as origin:
        server = (
            recommended("nginx")
            .replace("/var/cache/nginx/builds", f"{base}/cache")
            .replace("listen 8080", f"listen 127.0.0.1:{port}")
            .replace("http://origin.example:80", origin.url)
        )
        temporary = "".join(
            f"{kind}_temp_path {base}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (base / "nginx.conf").write_text(
            f"daemon off;\npid {base}/pid;\nerror_log stderr;\n{'user root;' if os.geteuid() == 0 else ''}\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{server}}}\n"
        )
        argv = [NGINX, "-p", str(base), "-c", str(base / "nginx.conf"), "-e", "stderr"]
        cache = f"http://127.0.0.1:{port}"
        with running(argv, port, base / "log"):
            for name in ("r1", "r2", "r3"):
                await host.pulling(name, ref_at(build, cache))
                assert shape_of(host.tree(name)) == build.shape()
            assert origin_bytes(origin) <= build.manifest.size + build.index.stat().st_size
            assert all(request.start is not None for request in origin.requests)
            before = origin_bytes(origin)
            for name in ("r1", "r2"):
                await host.pulling(f"{name}-next", ref_at(changed, cache), bases=[name])
                assert shape_of(host.tree(f"{name}-next")) == changed.shape()
            assert changed.manifest.index is not None
            assert origin_bytes(origin) - before == changed.manifest.index.patches[0].size


@pytest.mark.skipif(SQUID is None, reason="needs squid")
async def test_squid_by_http_proxy_in_the_environment(
    host: Releases, depot: Depot, build: Packed, tmp_path: Path
) -> None:
    """What one host has fetched through it, the origin is not asked for again; what `no_proxy` names goes past it."""
    assert SQUID is not None
    port, base = free_port(), tmp_path / "squid"
    base.mkdir()
    text = (
        recommended("squid")
        .replace("http_port 3128", f"http_port 127.0.0.1:{port}")
        .replace(
            "cache_dir ufs /var/spool/squid 50000 16 256", "cache_mem 200 MB\nmaximum_object_size_in_memory 100 MB"
        )
    )
    (base / "squid.conf").write_text(
        f"{text}http_access allow all\npid_filename none\naccess_log none\ncache_log stdio:/dev/stderr\n"
        f"coredump_dir {base}\nshutdown_lifetime 0 seconds\ncache_store_log none\nnetdb_filename none\n"
        "visible_hostname localhost\npinger_enable off\n"
    )
    async with serving(depot.path / "out") as origin:
        with running([SQUID, "-N", "-f", str(base / "squid.conf")], port, base / "log"):
            proxied = {"http_proxy": f"http://127.0.0.1:{port}"}
            await pull_with(proxied, host, "r1", ref_at(build, origin.url), host.local("r1"))
            assert shape_of(host.tree("r1")) == build.shape()
            first = len(origin.requests)
            for name in ("r2", "r3"):
                await pull_with(proxied, host, name, ref_at(build, origin.url), host.local(name))
                assert shape_of(host.tree(name)) == build.shape()
            assert len(origin.requests) == first
            await pull_with(
                {**proxied, "no_proxy": "127.0.0.1"}, host, "r4", ref_at(build, origin.url), host.local("r4")
            )
            assert len(origin.requests) > first
    assert shape_of(host.tree("r4")) == build.shape()


async def test_a_proxy_that_is_down_is_named_as_such(depot: Depot, build: Packed, host: Releases) -> None:
    """Whoever reads the error looks at the proxy first."""
    host.tree("r").mkdir()
    clean = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    async with serving(depot.path / "out") as origin:
        arguments = [
            msgspec.json.encode(each).decode() for each in (ref_at(build, origin.url), host.local("r"), SETTINGS)
        ]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PULL,
            arguments[0],
            str(host.tree("r")),
            *arguments[1:],
            env={**clean, "http_proxy": f"http://127.0.0.1:{free_port()}"},
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        assert origin.requests == []
    assert b"TransientError" in said
    assert b"proxy" in said
