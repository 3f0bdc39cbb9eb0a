"""Owns asking Prometheus: queries for the hosts of a rollout, and the reading of its answers.

HTTP is left to `checkpoint.verdicts.sources.web`.
"""

from __future__ import annotations

import asyncio
import string
import time
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import msgspec

from checkpoint.verdicts.metric import PrometheusTable
from checkpoint.verdicts.observed import Counts, Kind
from checkpoint.verdicts.sources.asking import Answer, Asked, SourceFailed
from checkpoint.verdicts.sources.web import Web

_SHOWN: Final = 300


class _Sample(msgspec.Struct, frozen=True):
    metric: dict[str, str]
    value: tuple[float, str]


class _Data(msgspec.Struct, frozen=True, rename="camel"):
    result_type: str
    result: Any = None


class _Reply(msgspec.Struct, frozen=True):
    """What `/api/v1/query` answers; newer servers may add fields."""

    status: Literal["success", "error"]
    data: _Data | None = None
    error: Annotated[str, msgspec.Meta()] = ""
    warnings: tuple[str, ...] = ()


class PrometheusSource:
    """Two instant queries, with one value for each host."""

    def __init__(self, table: PrometheusTable, kind: Kind, web: Web, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._table = table
        self._kind = kind
        self._web = web

    async def counts(self, asked: Asked) -> Answer:
        """Ask for bad and total.

        Raises:
            SourceFailed: an answer is missing, partial, or no value for each host.
        """
        table = self._table
        at_s = self._clock() - table.lag_s
        try:
            async with asyncio.timeout(table.timeout_s):
                bad = await self._ask("bad", table.bad, asked, at_s)
                total = await self._ask("total", table.total, asked, at_s)
        except TimeoutError as error:
            raise SourceFailed(f"{table.url} gave no answers within {table.timeout_s:g} s") from error
        counts: list[Counts] = []
        oddities: dict[str, str] = {}
        for host in sorted(bad.keys() | total.keys()):
            if host not in total:
                oddities[host] = "it has `bad`, but no `total`"
            elif host not in bad and not table.absent_bad_is_zero:
                oddities[host] = "it has `total`, but no `bad`"
            else:
                counts.append(self._rounded(host, bad.get(host, 0.0), total[host]))
        return Answer(tuple(counts), oddities)

    def _rounded(self, host: str, bad: float, total: float) -> Counts:
        # `increase` stretches what it saw to the whole interval: one failure may come as 1.07 or as 0.93.
        if not 0 <= bad < float("inf") or (self._kind == "share" and not bad <= total):
            return Counts(host, bad, total)
        whole = float(round(bad))
        return Counts(host, whole, max(total, whole) if self._kind == "share" else total)

    async def _ask(self, name: str, query: str, asked: Asked, at_s: float) -> dict[str, float]:
        table = self._table
        text = string.Template(query).substitute(
            app=asked.app,
            tiers="|".join(_pattern(tier) for tier in asked.tiers),
            hosts="|".join(_pattern(host) for host in (*asked.updated, *asked.others)),
            interval=f"{max(1, round(asked.interval_s))}s",
        )
        url = f"{table.url.rstrip('/')}/api/v1/query"
        form = {"query": text, "time": f"{at_s:.3f}", "timeout": f"{max(1, round(table.timeout_s))}s"}
        data = await self._web.post(url, form, timeout_s=table.timeout_s, bearer_file=table.bearer_file)
        return self._read(data, f"{url} ({name})")

    def _read(self, data: bytes, where: str) -> dict[str, float]:
        try:
            reply = msgspec.json.decode(data, type=_Reply)
            if reply.status != "success" or reply.data is None:
                raise SourceFailed(f"{where} refused: {reply.error[:_SHOWN]}")
            if reply.warnings:
                # A partial answer reads like hosts without failures.
                raise SourceFailed(f"{where} warns: {'; '.join(reply.warnings)[:_SHOWN]}")
            if reply.data.result_type != "vector":
                raise SourceFailed(
                    f"{where} answered a {reply.data.result_type}; a query with one value for each host is needed"
                )
            samples = msgspec.convert(reply.data.result, type=tuple[_Sample, ...])
            return self._by_host(samples, where)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise SourceFailed(f"{where} answered {data[:80]!r}: {error}; is it Prometheus?") from error

    def _by_host(self, samples: tuple[_Sample, ...], where: str) -> dict[str, float]:
        table, made = self._table, dict[str, float]()
        for sample in samples:
            label = sample.metric.get(table.host_label)
            if label is None:
                raise SourceFailed(
                    f"{where} answered a value without label `{table.host_label}`: {sample.metric}; "
                    f"keep it by `sum by ({table.host_label}) (...)`, or set host_label"
                )
            host = label.rpartition(":")[0] if table.strip_port and ":" in label else label
            if host in made:
                raise SourceFailed(
                    f"{where} answered two values for host {host}; join them by `sum by ({table.host_label}) (...)`"
                )
            made[host] = float(sample.value[1])
        return made


def _pattern(name: str) -> str:
    """A name as a part of a regular expression; names have no other character that means something there."""
    return name.replace(".", "[.]")
