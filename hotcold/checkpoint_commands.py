"""Owns `hotcold checkpoint`: the engine's process and its configuration; leaves its work to `checkpoint.engine`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import click
import structlog

from checkpoint.pipeline import Pipeline, Settings, load_settings
from fleet import ConsulSettings, ConsulStore, Store
from hotcold.command import Command, Lazy, LazyGroup
from hotcold.consul_options import consul_options, settings_of
from hotcold.options import app_option, without_credentials
from hotcold.rollout_options import config_option, pipeline_of
from hotcold.terminal import duration

_HERE = "hotcold.checkpoint_commands"
log = structlog.get_logger()


@click.group(
    cls=LazyGroup,
    lazy={
        "run": Lazy(_HERE, "run", "Run an engine: it takes the steps of rollouts."),
        "serve": Lazy(
            "hotcold.serve_commands", "serve", "Run an engine, and the pages on which people steer rollouts."
        ),
        "token": Lazy("hotcold.serve_commands", "token", "Make a token by which somebody signs in to the pages."),
        "deliveries": Lazy("hotcold.delivery_commands", "deliveries", "Show which messages reached the webhooks."),
        "resend": Lazy("hotcold.delivery_commands", "resend", "Have messages sent to a webhook once more."),
        "check-config": Lazy(_HERE, "check_config", "Check a pipeline, and show its steps."),
    },
    epilog="""
        Example:
          hotcold checkpoint check-config /etc/hotcold/checkpoint.toml
          hotcold checkpoint run --app shop
    """,
)
def checkpoint() -> None:
    """Run the engine that takes the steps of rollouts, its pages, and check their configuration."""


@click.command(
    cls=Command,
    examples=["hotcold checkpoint run --app shop --config /etc/hotcold/checkpoint.toml"],
    exits={0: "stopped by SIGTERM or SIGINT", 1: "cannot run; the message says why"},
)
@app_option
@config_option
@consul_options
def run(*, app: str, config: Path | None, consul: str | None, token_file: str | None) -> None:
    """Run an engine in the foreground. Of any number of them one leads; the others stand by.

    It may be killed at any moment: everything is in Consul, and the next leader goes on from the same step.
    """
    settings = engine_settings(config, app)
    asyncio.run(run_engine(settings_of(consul, token_file), settings))


def engine_settings(config: Path | None, app: str) -> Settings:
    """The settings of a process that stays, which logs from now on."""
    from agent.config import LogTable  # noqa: PLC0415 - only a process that stays logs
    from agent.logs import configure_logs  # noqa: PLC0415 - likewise

    settings = pipeline_of(config, app)
    if settings.pipeline.app != app:
        raise click.UsageError(f"{config} is for {settings.pipeline.app!r}, not for {app!r}")
    configure_logs(LogTable(), os.environ)
    return settings


async def run_engine(
    consul: ConsulSettings,
    settings: Settings,
    beside: Callable[[Store, str], contextlib.AbstractAsyncContextManager[object]] = lambda _store, _name: (
        contextlib.nullcontext()
    ),
) -> None:
    """Run an engine until SIGTERM or SIGINT.

    Args:
        consul: where the store is.
        settings: of the engine.
        beside: given the store and the engine's name, what is kept open as long.
    """
    from checkpoint.charting import Charts  # noqa: PLC0415 - check-config needs none of these
    from checkpoint.clock import SteadyClock  # noqa: PLC0415
    from checkpoint.engine import Engine  # noqa: PLC0415
    from checkpoint.leading import lead  # noqa: PLC0415
    from checkpoint.metric_judge import MetricJudge  # noqa: PLC0415
    from checkpoint.notifying import Notifier  # noqa: PLC0415
    from checkpoint.recordings import Recordings  # noqa: PLC0415
    from checkpoint.rollout.kept_evidence import JUDGE  # noqa: PLC0415
    from checkpoint.verdicts.sources import Sources  # noqa: PLC0415

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    name = f"checkpoint@{socket.gethostname()}"
    app = settings.pipeline.app
    async with ConsulStore(consul) as store, beside(store, name):

        async def work() -> None:
            clock = SteadyClock(_now, time.monotonic)
            recordings = None if settings.recordings is None else Recordings(settings.recordings).record
            async with (
                Sources(settings.pipeline.metrics) as sources,
                contextlib.aclosing(
                    MetricJudge(
                        settings.pipeline.metrics,
                        sources,
                        interval_s=settings.metrics_interval_s,
                        record=recordings,
                        plot=Charts(store).plot,
                    )
                ) as metrics,
                aiohttp.ClientSession() as http,
                asyncio.TaskGroup() as group,
            ):
                engine = Engine(store, settings.pipeline, name=name, clock=clock, judges={JUDGE: metrics})
                group.create_task(engine.run(), name="engine")
                for webhook in settings.webhooks:
                    notifier = Notifier(store, app, webhook, now=_now, pause=asyncio.sleep, http=http)
                    group.create_task(notifier.run(), name=f"webhook {webhook.name}")

        holder = f"{name} (pid {os.getpid()})"
        leading = asyncio.create_task(
            lead(store, app, holder, work, chance=random.Random(), clock=time.monotonic),  # noqa: S311 - spreads questions
            name="engine",
        )
        waiting = asyncio.create_task(stopped.wait(), name="signals")
        await asyncio.wait({leading, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not leading.done():
            log.info("stopping")
            leading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leading


def _now() -> datetime:
    return datetime.now(UTC)


@click.command(
    "check-config",
    cls=Command,
    examples=["hotcold checkpoint check-config /etc/hotcold/checkpoint.toml"],
    exits={0: "an engine would start with it", 2: "it would not; the message names file, key and what is allowed"},
)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
def check_config(file: Path) -> None:
    """Parse FILE exactly as the engine does, and show the steps in effect."""
    settings = load_settings(file)
    click.echo(f"{file}: ok")
    for line in _in_effect(settings.pipeline):
        click.echo(f"  {line}")
    for webhook in settings.webhooks:
        click.echo(f"  webhook {webhook.name}: {without_credentials(webhook.url)} ({webhook.format})")


def _in_effect(pipeline: Pipeline) -> list[str]:
    lines = []
    for step in pipeline.steps:
        gates = [
            *([f"smoke test {step.smoke_test.command[0]}"] if step.smoke_test is not None else []),
            *(["verdict"] if step.verdict else []),
            *(["approval"] if step.approval else []),
        ]
        bake, deadline = duration(step.bake_s), duration(step.deadline_s)
        then = f", then {', '.join(gates)}" if gates else ""
        lines.append(f"{step.tier} to {step.percent:g} %: hosts have {deadline}, bakes {bake}{then}")
    lines += [f"window {window.name}: {', '.join(window.tiers) or 'all tiers'}" for window in pipeline.calendar.windows]
    return lines
