"""Owns what signing in at a provider needs while the server runs, from its start to its end.

How a sign-in goes is left to `checkpoint.web.oidc.pages`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from checkpoint.web.limits import Limit
from checkpoint.web.oidc.flows import Flows
from checkpoint.web.oidc.keys import load
from checkpoint.web.oidc.provider import Provider, http_session, read_secret
from checkpoint.web.oidc.settings import OidcTable
from checkpoint.web.rights import RETURN_PATH, SIGNED_OUT_PATH
from checkpoint.web.sealing import Seal
from checkpoint.web.settings import WebTable

ATTEMPTS_PER_MINUTE: Final = 120
"""For each address, and two for each sign-in; a whole company may come from the address of its proxy."""


@dataclass(frozen=True)
class SignIn:
    """Signing in at the provider of `table`.

    Attributes:
        attempts: how often an address may begin or end one.
        return_url: where the provider sends people back to.
        signed_out_url: where it sends them after it has signed them out.
    """

    table: OidcTable
    provider: Provider
    flows: Flows
    attempts: Limit
    return_url: str
    signed_out_url: str


@asynccontextmanager
async def opened(web: WebTable, seal: Seal) -> AsyncIterator[SignIn | None]:
    """Signing in at the configured provider, while the context is open; None: none is configured. Asks nobody.

    Raises:
        ConfigError: a library is missing, or the client's secret cannot be read.
    """
    table = web.oidc
    if table is None:
        yield None
        return
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, load)
    if table.client_secret_file:
        await loop.run_in_executor(None, read_secret, Path(table.client_secret_file))
    public = web.public_url.rstrip("/")
    async with http_session() as http:
        yield SignIn(
            table=table,
            provider=Provider(table, http, clock=time.monotonic, wall=time.time),
            flows=Flows(seal, prefix="__Host-hotcold" if web.is_secure else "hotcold", wall=time.time),
            attempts=Limit(ATTEMPTS_PER_MINUTE, 60.0, time.monotonic),
            return_url=public + RETURN_PATH,
            signed_out_url=public + SIGNED_OUT_PATH,
        )
