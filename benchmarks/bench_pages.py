"""What the page of a rollout costs with thousands of hosts: the browser, the server, Consul; and how late it is.

    python -m benchmarks.bench_pages [--hosts 5000] [--per-s 50] [--seconds 20]

Three real Consul servers, `hotcold checkpoint serve` with its engine, a rollout in the middle of prod whose hosts
report so often a second (`benchmarks.page_hosts`), and Debian's Chromium. Then 99 pages more, without a browser.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil
from playwright.async_api import Browser, Page, async_playwright

from benchmarks.bench_rollout import build_of, cluster, free_ports, until, until_led
from benchmarks.options import ROOT
from benchmarks.page_hosts import Flow
from checkpoint.actions import Desk
from checkpoint.pipeline import load_settings
from checkpoint.rollout.events import Origin
from fleet import ConsulSettings, ConsulStore, Order, encode
from fleet.keys import tier_key

_PIPELINE: Final = """
app = "shop"
[[tiers]]
name = "staging"
bake_s = 1
[[tiers]]
name = "canary"
bake_s = 1
[[tiers]]
name = "prod"
steps = [50, 100]
deadline_s = 3600
"""
_LOADS: Final = 5
_PAGES: Final = 100
_ARGS: Final = ("--no-sandbox", "--disable-background-networking", "--disable-dev-shm-usage", "--no-first-run")

# A frame after the change, so that it has been drawn; wall-clock time, for hosts and browser share the machine.
_WATCH: Final = """() => {
    window.shown = [];
    new MutationObserver((changes) => {
        const found = changes.map((change) => [change.target.title.split(": ")[0], change.target.dataset.s]);
        requestAnimationFrame(() => {
            const at = Date.now() / 1000;
            for (const [host, letter] of found) window.shown.push([host, letter, at]);
        });
    }).observe(document.getElementById("grid"), {subtree: true, attributes: true, attributeFilter: ["data-s"]});
    window.tasks = [];
    new PerformanceObserver((list) => {
        for (const each of list.getEntries()) window.tasks.push(each.duration);
    }).observe({type: "longtask"});
}"""
_LOADED: Final = """() => {
    const page = performance.getEntriesByType("navigation")[0];
    const all = [page, ...performance.getEntriesByType("resource").filter((each) => !each.name.includes("/events"))];
    return {
        paint_ms: performance.getEntriesByName("first-contentful-paint")[0].startTime,
        answer_ms: page.responseEnd, ready_ms: page.domContentLoadedEventEnd,
        page_bytes: page.decodedBodySize, sent_bytes: all.reduce((sum, each) => sum + each.transferSize, 0),
    };
}"""


@dataclass(frozen=True)
class Spell:
    """What so many seconds with so many open pages cost, as shares of one core; `late_s` for each change shown."""

    pages: int
    server: float
    servers: float
    asked_per_s: float
    connections: int
    reports_per_s: float
    late_s: Sequence[float] = ()
    busy: float = 0.0
    scripts: float = 0.0
    style: float = 0.0
    layout: float = 0.0
    long_tasks_ms: Sequence[float] = ()
    stream_bytes_per_s: float = 0.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--hosts", type=int, default=5_000, help="of production (%(default)s)")
    options.add_argument("--per-s", type=float, default=50.0, help="reports a second (%(default)s)")
    options.add_argument("--seconds", type=float, default=20.0, help="of each measurement (%(default)s)")
    options.add_argument("--picture", type=Path, help="write a picture of the page there")
    arguments = options.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if shutil.which("chromium") is None:
        raise SystemExit("needs Debian's chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="hc-") as place:
        asyncio.run(_measure(Path(place), arguments))


async def _measure(place: Path, arguments: argparse.Namespace) -> None:
    hosts = [("staging", "staging-0"), ("canary", "canary-0")]
    hosts += [("prod", f"web-{each:05}") for each in range(arguments.hosts)]
    config = place / "checkpoint.toml"
    config.write_text(_PIPELINE)
    async with contextlib.AsyncExitStack() as open_:
        addresses, servers = open_.enter_context(cluster(place))
        store = await open_.enter_async_context(ConsulStore(ConsulSettings(address=addresses[1])))
        await until_led(store)
        tiers = dict.fromkeys(tier for tier, _ in hosts)
        orders = {tier: Order(v=1, app="shop", tier=tier, serial=1, build=build_of("b1")) for tier in tiers}
        for tier, order in orders.items():
            await store.put(tier_key("shop", tier), encode(order))
        flow = Flow(store, addresses[1], "shop", hosts, arguments.per_s)
        await flow.start(orders)
        server, link = open_.enter_context(_serving(config, addresses[0]))
        flowing = asyncio.create_task(flow.run())
        open_.callback(flowing.cancel)
        await _start(store, config)
        enough = min(100, arguments.hosts // 50)
        await until(lambda: sum(host.startswith("web-") for host, _ in flow.sent) > enough, "the rollout reaches prod")
        meter = _Meter(server, servers, addresses[0], flow, arguments.seconds)
        spells = [await meter.spell(0)]
        async with _browser() as browser, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            loads, page = await _load(browser, link)
            if arguments.picture:
                await page.screenshot(path=arguments.picture)
            cookie = "; ".join(f"{each['name']}={each['value']}" for each in await page.context.cookies())
            events = f"{link.partition('/sign-in')[0]}/events?page=rollout&number=1"
            spells.append(await meter.spell(1, page))
            readers = [asyncio.create_task(_read(http, events, cookie)) for _ in range(_PAGES - 1)]
            await asyncio.sleep(2.0)
            spells.append(await meter.spell(_PAGES, page, readers))
            if any(reader.done() for reader in readers):
                raise SystemExit("a stream ended")
            for reader in readers:
                reader.cancel()
        if flowing.done():
            flowing.result()
        _tell(loads, spells)


async def _start(store: ConsulStore, config: Path) -> None:
    desk = Desk(store, "shop", now=lambda: datetime.now(UTC), new_salt=lambda: "sample", pause=asyncio.sleep)
    plan = await desk.plan(load_settings(config).pipeline, build_of("b2"), by="bench", reason="bench")
    await desk.start(plan, Origin(by="bench", via="cli", reason="bench", at=datetime.now(UTC)))


@contextlib.contextmanager
def _serving(config: Path, consul: str) -> Any:
    """The server's process, and the link that signs in."""
    [port] = free_ports(1)
    listen = f"127.0.0.1:{port}"
    argv = ["checkpoint", "serve", "--app", "shop", "--config", str(config), "--listen", listen]
    process = psutil.Popen(
        [sys.executable, "-m", "hotcold", *argv],
        cwd=ROOT,
        env={**os.environ, "CONSUL_HTTP_ADDR": consul, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        for line in process.stdout:
            found = re.search(r"http://\S+/sign-in\?token=\S+", line)
            if found is not None:
                yield process, found[0]
                break
        else:
            raise SystemExit("the server did not start")
    finally:
        process.kill()
        process.wait()


@contextlib.asynccontextmanager
async def _browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(_ARGS))
        try:
            yield browser
        finally:
            await browser.close()


async def _load(browser: Browser, link: str) -> tuple[list[dict[str, float]], Page]:
    """What it takes to open the page, each time by a browser that has nothing of it; and the page, open."""
    loads: list[dict[str, float]] = []
    state = None
    while True:
        context = await browser.new_context(viewport={"width": 1200, "height": 900}, storage_state=state)
        page = await context.new_page()
        if state is None:
            await page.goto(link)
            button = page.get_by_role("button", name="Sign in")
            if await button.count():
                await button.click()
            await page.wait_for_selector("#pulse")
            state = await context.storage_state()
            await context.close()
            continue
        await page.goto(f"{link.partition('/sign-in')[0]}/rollouts/1")
        await page.wait_for_selector("#pulse[data-state=live]", state="attached")
        loads.append(await page.evaluate(_LOADED))
        if len(loads) == _LOADS:
            await page.evaluate(_WATCH)
            return loads, page
        await context.close()


@dataclass(frozen=True)
class _Meter:
    """Measures spells of so many seconds."""

    server: psutil.Popen
    servers: list[psutil.Popen]
    consul: str
    flow: Flow
    seconds: float

    async def spell(self, pages: int, page: Page | None = None, readers: Sequence[asyncio.Task[Any]] = ()) -> Spell:
        """Let time pass, and see what it took."""
        cdp = None if page is None else await page.context.new_cdp_session(page)
        if page is not None and cdp is not None:
            await cdp.send("Performance.enable")
            await page.evaluate("() => { shown.length = 0; tasks.length = 0; }")
        browser = await _metrics(cdp)
        before, began_s, reports = self._cpu_s(), time.monotonic(), self.flow.report_count
        read_bytes = sum(_READ.values())
        await asyncio.sleep(self.seconds)
        took_s = time.monotonic() - began_s
        server_s, servers_s = (after - former for after, former in zip(self._cpu_s(), before, strict=True))
        after = await _metrics(cdp)
        seen = [] if page is None else await page.evaluate("shown")
        # What was sent before the page watched, or is not shown yet, has no counterpart.
        late_s = [at - self.flow.sent[host, letter] for host, letter, at in seen if (host, letter) in self.flow.sent]
        return Spell(
            pages=pages,
            server=server_s / took_s,
            servers=servers_s / took_s,
            asked_per_s=await self._asked_per_s(),
            connections=sum(
                each.status == psutil.CONN_ESTABLISHED and each.raddr[1] == int(self.consul.rpartition(":")[2])
                for each in self.server.net_connections("tcp")
            ),
            reports_per_s=(self.flow.report_count - reports) / took_s,
            late_s=sorted(late_s),
            busy=(after["TaskDuration"] - browser["TaskDuration"]) / took_s if page else 0.0,
            scripts=(after["ScriptDuration"] - browser["ScriptDuration"]) / took_s if page else 0.0,
            style=(after["RecalcStyleDuration"] - browser["RecalcStyleDuration"]) / took_s if page else 0.0,
            layout=(after["LayoutDuration"] - browser["LayoutDuration"]) / took_s if page else 0.0,
            long_tasks_ms=[] if page is None else await page.evaluate("tasks"),
            stream_bytes_per_s=(sum(_READ.values()) - read_bytes) / max(1, len(readers)) / took_s,
        )

    def _cpu_s(self) -> tuple[float, float]:
        return sum(self.server.cpu_times()[:2]), sum(sum(each.cpu_times()[:2]) for each in self.servers)

    async def _asked_per_s(self) -> float:
        """Requests that Consul was asked by the server; nobody else asks this one of the three."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.consul}/v1/agent/metrics") as answer:
            samples = (await answer.json())["Samples"]
        asked: float = sum(each["Count"] for each in samples if each["Name"].startswith("consul.http.GET.v1.kv"))
        return asked / 10


_READ: Final[dict[int, int]] = {}
"""Bytes that each page without a browser has got."""


async def _read(http: aiohttp.ClientSession, url: str, cookie: str) -> None:
    timeout = aiohttp.ClientTimeout(total=None)
    async with http.get(url, headers={"Cookie": cookie}, timeout=timeout) as response:
        response.raise_for_status()
        number = len(_READ)
        _READ[number] = 0
        async for chunk in response.content.iter_any():
            _READ[number] += len(chunk)


async def _metrics(cdp: Any) -> dict[str, float]:
    if cdp is None:
        return {}
    found = await cdp.send("Performance.getMetrics")
    return {each["name"]: each["value"] for each in found["metrics"]}


def _tell(loads: Sequence[dict[str, float]], spells: Sequence[Spell]) -> None:
    def median(name: str) -> float:
        return statistics.median(each[name] for each in loads)

    print(
        f"opened {len(loads)} times: first paint {median('paint_ms'):.0f} ms (at most "
        f"{max(each['paint_ms'] for each in loads):.0f}), answer whole at {median('answer_ms'):.0f} ms, ready at "
        f"{median('ready_ms'):.0f} ms; the page has {median('page_bytes') / 1000:.0f} kB, and comes with all that it "
        f"loads as {median('sent_bytes') / 1000:.0f} kB"
    )
    print(
        "| open pages | reports/s | from report to page, p50, ms | p95, ms | most, ms | changes seen | "
        "browser busy, % | scripts, % | style, % | layout, % | long tasks | server's CPU, % of a core | "
        "three Consuls', % | requests to Consul/s | connections | bytes/s and page |"
    )
    print("| ---: " * 16 + "|")
    for each in spells:
        late = [1000 * value for value in each.late_s] or [float("nan")]
        print(
            f"| {each.pages} | {each.reports_per_s:.0f} | {statistics.median(late):.0f} | "
            f"{late[int(0.95 * (len(late) - 1))]:.0f} | {late[-1]:.0f} | {len(each.late_s)} | {100 * each.busy:.0f} | "
            f"{100 * each.scripts:.0f} | {100 * each.style:.0f} | {100 * each.layout:.0f} | "
            f"{len(each.long_tasks_ms)} | {100 * each.server:.0f} | {100 * each.servers:.0f} | "
            f"{each.asked_per_s:.1f} | {each.connections} | {each.stream_bytes_per_s:.0f} |"
        )


if __name__ == "__main__":
    main()
