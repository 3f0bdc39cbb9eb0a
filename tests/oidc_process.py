"""Owns the process of a real OpenID Connect provider, and somebody's browser there; leaves asking to the tests."""

from __future__ import annotations

import html
import random
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urljoin, urlsplit

import aiohttp

from tests.consul_process import get, wait_until
from tests.oidc_site import CLIENT_ID, CLIENT_SECRET

ROOT = Path(__file__).resolve().parent.parent
_READY_S = 60.0


def kept_port() -> int:
    """A port that nobody listens on, and that nobody who asks for a free one is given: it is taken more than once."""
    while True:
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
            return int(tried.getsockname()[1])


class OidcSite:
    """The provider, for one server of ours whose address is known before it runs.

    Attributes:
        public_port: where that server must listen, on 127.0.0.1.
    """

    def __init__(self, directory: Path, *, thin: bool = False) -> None:
        self._directory = directory
        self._thin = thin
        self._port, self.public_port = kept_port(), kept_port()
        # Another site than 127.0.0.1 to a browser, as a provider is.
        self.issuer = f"http://localhost:{self._port}/o"
        self.public_url = f"http://127.0.0.1:{self.public_port}"
        self.secret_file = directory / "secret"
        self.secret_file.touch(mode=0o600)
        self.secret_file.write_text(CLIENT_SECRET + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, key: int = 1) -> None:
        """Returns when it answers. `key`: which of its keys it signs with, and has."""
        command = [
            *(sys.executable, "-m", "tests.oidc_site", str(self._directory), "--port", str(self._port)),
            *("--redirect", f"{self.public_url}/sign-in/oidc/return"),
            *("--signed-out", f"{self.public_url}/sign-out/done", "--key", str(key)),
            *(["--thin"] if self._thin else []),
        ]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT)
        url = f"{self.issuer}/.well-known/openid-configuration"
        wait_until(lambda: self._died() or get(url) is not None, "the provider answers", _READY_S)
        if self._died():
            raise RuntimeError(f"the provider ended: {(self._directory / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        """With SIGKILL; a no-op if it does not run."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
            self._process = None

    def table(self, **more: str) -> str:
        """`[web]` and its `[web.oidc]`; the values of `more` are TOML."""
        facts: Mapping[str, str] = {
            "issuer": f'"{self.issuer}"',
            "client_id": f'"{CLIENT_ID}"',
            "client_secret_file": f'"{self.secret_file}"',
            "roles": '{lookers = "read", deployers = "deploy", operators = "admin"}',
        } | more
        lines = "".join(f"{name} = {value}\n" for name, value in facts.items() if value)
        return f'public_url = "{self.public_url}"\n[web.oidc]\n{lines}'

    def _died(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


@dataclass
class Somebody:
    """A person's browser as the provider sees it: keeps its cookies, signs in, and goes no further than its site."""

    session: aiohttp.ClientSession
    name: str

    async def go(self, url: str) -> str:
        """Where the provider sends the browser in the end; signs in on the way, where it is asked to."""
        site = urlsplit(url).netloc
        while urlsplit(url).netloc == site:
            async with self.session.get(url, allow_redirects=False) as answer:
                page, status, location = await answer.text(), answer.status, answer.headers.get("Location")
            if status == 200 and 'name="username"' in page:
                location = await self._post(url, page, {"username": self.name, "password": self.name})
            assert location is not None, (status, page)
            url = urljoin(url, location)
        return url

    async def press_in(self, url: str) -> str:
        """Sign in at a form of the provider's; where that leads."""
        async with self.session.get(url, allow_redirects=False) as answer:
            page = await answer.text()
        location = await self._post(url, page, {"username": self.name, "password": self.name})
        assert location is not None
        return urljoin(url, location)

    async def press(self, url: str, button: str | None) -> str:
        """Where the form of a page leads; `button`: the name of that which is pressed."""
        async with self.session.get(url, allow_redirects=False) as answer:
            page = await answer.text()
        location = await self._post(url, page, {} if button is None else {button: "yes"})
        assert location is not None
        return urljoin(url, location)

    async def _post(self, url: str, page: str, more: Mapping[str, str]) -> str | None:
        hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page)
        form = {name: html.unescape(value) for name, value in hidden} | dict(more)
        async with self.session.post(url, data=form, allow_redirects=False) as answer:
            return answer.headers.get("Location")
