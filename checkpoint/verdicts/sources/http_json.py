"""Owns asking a URL that answers with JSON; HTTP is left to `checkpoint.verdicts.sources.web`."""

from __future__ import annotations

import string
from urllib.parse import quote

from checkpoint.verdicts.metric import HttpTable
from checkpoint.verdicts.sources.asking import Answer, Asked, decode_answer
from checkpoint.verdicts.sources.web import Web


class HttpSource:
    """GET, and `{"hosts": [...]}`."""

    def __init__(self, table: HttpTable, web: Web) -> None:
        self._table = table
        self._web = web

    async def counts(self, asked: Asked) -> Answer:
        """Ask.

        Raises:
            SourceFailed: no answer in time, or none that is one.
        """
        table = self._table
        url = string.Template(table.url).substitute(
            app=quote(asked.app, safe=""),
            tiers=quote(",".join(asked.tiers), safe=","),
            hosts=quote(",".join((*asked.updated, *asked.others)), safe=","),
            interval=f"{asked.interval_s:g}",
        )
        data = await self._web.get(url, timeout_s=table.timeout_s, bearer_file=table.bearer_file)
        return decode_answer(data, url)
