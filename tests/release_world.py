"""Owns what the tests of releases share: real git repositories, a server that takes PUT, the command with its file."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from click.testing import CliRunner, Result

from hotcold.main import cli
from tests.commander_world import Loop

APP = "shop"
BUILD = 'mkdir -p dist && cp page lib.txt dist/ && printf %s "$HOTCOLD_BUILD" > dist/build-id && echo built it'
LIB = "".join(f"{hashlib.sha256(bytes([row % 256, row // 256])).hexdigest()}\n" for row in range(2000))
"""Content that no compression makes small, so that a patch of it is worth while."""
TOKEN = "Bearer very-secret"


def git(repo: Path, *arguments: str, fails: bool = False) -> str:
    """Ask the real program, as somebody with a name."""
    identity = {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "Anna"), ("EMAIL", "anna@example.com"))
    }
    run = subprocess.run(
        ["git", "-C", str(repo), *arguments], capture_output=True, text=True, check=False, env=os.environ | identity
    )
    assert (run.returncode != 0) is fails, run.stderr
    return run.stdout.strip()


def commit(repo: Path, subject: str, **files: str) -> str:
    """Commit files of a checkout: `page="..."`, and `lib__txt` is `lib.txt`."""
    for name, content in files.items():
        (repo / name.replace("__", ".")).write_text(content)
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "-m", subject)
    return git(repo, "rev-parse", "HEAD")


def new_repo(path: Path) -> Path:
    """A repository with two commits on `main`."""
    path.mkdir()
    git(path, "init", "--quiet", "--initial-branch=main")
    commit(path, "Begin", page="one\n", lib__txt=LIB)
    commit(path, "Second", page="two\n")
    return path


@dataclass
class Depot:
    """A server that keeps what is PUT to `/up/<name>` and gives it at `/<name>`.

    Attributes:
        directory: what it has.
        requests: method and path of each, in order.
        faults: asked before each request is answered; an answer takes the place of the real one.
    """

    directory: Path
    address: str = ""
    requests: list[str] = field(default_factory=list)
    lengths: list[str | None] = field(default_factory=list)
    faults: list[Callable[[str], web.Response | None]] = field(default_factory=list)
    token: str | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        told = f"{request.method} {request.path}"
        self.requests.append(told)
        body = await request.read()
        for fault in self.faults:
            instead = fault(told)
            if instead is not None:
                return instead
        name = request.match_info["name"]
        path = self.directory / name
        if request.path.startswith("/up/") and self.token not in {None, request.headers.get("Authorization")}:
            return web.Response(status=403)
        if request.method == "PUT":
            self.lengths.append(request.headers.get("Content-Length"))
            path.write_bytes(body)
            return web.Response(status=201)
        return web.FileResponse(path) if path.exists() else web.Response(status=404)


@contextmanager
def depot(directory: Path) -> Iterator[Depot]:
    """Serve a new directory."""
    directory.mkdir()
    served, loop = Depot(directory), Loop()
    application = web.Application(client_max_size=1 << 26)
    application.router.add_route("*", "/up/{name}", served.answer)
    application.router.add_route("*", "/{name}", served.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()

    try:
        loop.run(start())
        served.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield served
        loop.run(runner.cleanup())
    finally:
        loop.close()


@contextmanager
def nginx(directory: Path, locations: str, port: int) -> Iterator[str]:
    """A real nginx with these locations; its address."""
    directory.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(
        f"{user} daemon off; pid {directory}/pid; error_log {directory}/error.log;\nevents {{}}\n"
        f"http {{ access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;\n"
        f"fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;\n"
        f"server {{ listen 127.0.0.1:{port};\n{locations}\n}} }}\n"
    )
    command = ["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", str(directory / "error.log")]
    with subprocess.Popen(command) as server:
        try:
            ends_s = time.monotonic() + 30
            while not _answers(port):
                assert server.poll() is None, (directory / "error.log").read_text()
                assert time.monotonic() < ends_s
                time.sleep(0.02)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _answers(port: int) -> bool:
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=10):
        return True
    return False


@dataclass
class Desk:
    """Where somebody releases from: a repository, a configuration, a store.

    Attributes:
        directory: everything lies below it.
        consul: the store's address.
        uploads: the tables of places.
        extra: more lines of `[release]`.
    """

    directory: Path
    consul: str
    uploads: Sequence[str] = ()
    extra: str = ""
    build: str = BUILD
    gate: str = "true"
    tree: str = "dist"

    @property
    def repo(self) -> Path:
        return self.directory / "repo"

    @property
    def files(self) -> Path:
        """Where builds go when nothing else is said."""
        return self.directory / "files"

    @property
    def work(self) -> Path:
        return self.directory / "work" / APP

    def config(self) -> Path:
        """Write the file as it is to be now."""
        self.files.mkdir(exist_ok=True)
        uploads = self.uploads or (f'to = "{self.files}"',)
        text = (
            f'app = "{APP}"\n[release]\nrepo = "{self.repo}"\nwork_dir = "{self.directory / "work"}"\n'
            f"build = ['sh', '-ec', '''{self.build}''']\ngate = ['sh', '-ec', '''{self.gate}''']\n"
            f'tree = "{self.tree}"\n{self.extra}\n'
        )
        text += "".join(f"[[release.uploads]]\n{upload}\n" for upload in uploads)
        path = self.directory / "checkpoint.toml"
        path.write_text(text)
        return path

    def arguments(self, *words: str) -> list[str]:
        extra = ["--app", APP, "--config", str(self.config()), "--consul", self.consul]
        return ["release", *words, *extra]

    def run(self, *words: str, exits: int = 0) -> Result:
        """The command, in this process."""
        result = CliRunner().invoke(cli, self.arguments(*words))
        assert result.exit_code == exits, (result.output, result.exception)
        return result

    def start(self, *words: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """The command, as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "hotcold", *self.arguments(*words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(environment or {}),
        )

    def state(self) -> dict[str, str]:
        """Every reference of the repository, and what is checked out there, to see that nothing changed."""
        shown = git(self.repo, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        refs = dict(line.split() for line in shown)
        return refs | {
            "HEAD": git(self.repo, "rev-parse", "--symbolic-full-name", "HEAD"),
            "status": git(self.repo, "status", "--porcelain"),
            "worktrees": git(self.repo, "worktree", "list"),
        }


def digest_of(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
