"""Owns `checkpoint.toml`: tiers in their order, steps, gates, windows, budget, metrics, webhooks; strict.

What is made of them is left to `checkpoint.rollout`. `hotcold checkpoint check-config` runs exactly this parse.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec

from artifact import ConfigError
from checkpoint.ordering import check_limit
from checkpoint.verdicts import Metric, check_metrics
from checkpoint.web.settings import WebTable, check_web
from checkpoint.windows import Calendar, Freeze, Window, longest
from fleet.keys import check_name
from fleet.strict_toml import parse_toml, read_text

ALL_PERCENT: Final = 100.0
MAX_CONFIRMATION: Final = 200
"""Characters of a text that is confirmed: all of them stand in one record of the audit."""
DEFAULT_PATH: Final = Path("/etc/hotcold/checkpoint.toml")


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: every key known, every type strict."""


class SmokeTest(_Table, frozen=True):
    """A command of the engine's host that must exit with 0 before the step is done."""

    command: tuple[str, ...]
    timeout_s: float = 600.0


class Budget(_Table, frozen=True):
    """Hosts of a step that may fail, be silent or overdue: the larger of both, and never all of them.

    Attributes:
        count: so many.
        percent: so large a share of the step's hosts, rounded down.
        roll_back_after: so many hosts whose proof failed, beyond the budget, roll back by themselves; fewer pause.
    """

    count: int = 1
    percent: float = 2.0
    roll_back_after: int = 2


class StepTable(_Table, frozen=True):
    """One share of a tier; what is not given is as the tier has it."""

    percent: float
    bake_s: float | None = None
    expect_s: float | None = None
    deadline_s: float | None = None
    approval: bool | None = None
    verdict: bool | None = None
    smoke_test: SmokeTest | None = None


class TierTable(_Table, frozen=True):
    """One tier.

    Attributes:
        steps: shares of its hosts, rising to 100.
        bake_s: how long a step's hosts serve before its gates are asked.
        expect_s: how long its hosts are expected to take; windows are judged on it.
        deadline_s: how long a host may take before it counts as overdue.
        max_unavailable: hosts that may be out of service at once, a count or a share such as "10%"; 0: no limit; none:
            as the tier's order has it.
        clears: whether all remaining steps of the tier must end before a window closes, or the one that starts.
    """

    name: str
    steps: tuple[float | StepTable, ...] = (ALL_PERCENT,)
    bake_s: float = 300.0
    expect_s: float = 120.0
    deadline_s: float = 900.0
    approval: bool = False
    verdict: bool = True
    smoke_test: SmokeTest | None = None
    max_unavailable: int | str | None = None
    budget: Budget | None = None
    clears: Literal["tier", "step"] = "tier"


class CommanderTable(_Table, frozen=True):
    """`[commander]`: whether somebody must watch, how long a lease lasts, when a decision on closing is asked for."""

    required: bool = True
    lease_s: float = 7200.0
    decide_before_s: float = 1800.0


class Webhook(_Table, frozen=True):
    """`[[webhooks]]`: where messages go. The file holds the key that signs them."""

    name: str
    url: str
    secret_file: str | None = None
    format: Literal["json", "slack"] = "json"
    timeout_s: float = 10.0


class Confirmation(_Table, frozen=True):
    """`[[checklist]]`: a text that the commander confirms before a start; it goes into the audit with it.

    Attributes:
        name: for forms and `--confirm`.
        tiers: asked where the rollout reaches one of them; none: always.
    """

    name: str
    text: str
    tiers: tuple[str, ...] = ()


class Document(_Table, frozen=True):
    """The whole file as it is written."""

    app: str
    tiers: tuple[TierTable, ...] = ()
    windows: tuple[Window, ...] = ()
    freezes: tuple[Freeze, ...] = ()
    budget: Budget = Budget()
    commander: CommanderTable = CommanderTable()
    webhooks: tuple[Webhook, ...] = ()
    metrics: tuple[Metric, ...] = ()
    metrics_interval_s: float = 30.0
    recordings: str | None = None
    release: dict[str, Any] | None = None
    checklist: tuple[Confirmation, ...] = ()
    hotfix_from: str | None = None
    web: WebTable = WebTable()


class StepRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One step with everything that counts for it, nothing left to look up."""

    tier: str
    percent: float
    bake_s: float
    expect_s: float
    deadline_s: float
    approval: bool
    verdict: bool
    smoke_test: SmokeTest | None
    max_unavailable: int | str | None
    budget: Budget
    clears: Literal["tier", "step"]

    @property
    def length(self) -> timedelta:
        """How long the step is expected to take, bake included."""
        return timedelta(seconds=self.expect_s + self.bake_s)


class Pipeline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a rollout of the app goes through: the part that is frozen into its plan."""

    app: str
    steps: tuple[StepRule, ...]
    calendar: Calendar
    commander: CommanderTable
    metrics: tuple[Metric, ...] = ()

    @property
    def tiers(self) -> tuple[str, ...]:
        """Their names in order."""
        return tuple(dict.fromkeys(step.tier for step in self.steps))


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration: the pipeline, and what stays with the engine that has read it.

    Attributes:
        checklist: what is confirmed before a start.
        hotfix_from: tier at which rollouts of hotfixes begin; None: at the first, as all.
    """

    pipeline: Pipeline
    webhooks: tuple[Webhook, ...] = ()
    metrics_interval_s: float = 30.0
    recordings: Path | None = None
    checklist: tuple[Confirmation, ...] = ()
    hotfix_from: str | None = None
    web: WebTable = WebTable()


DEFAULT_TIERS: Final = (
    TierTable(
        name="staging",
        smoke_test=SmokeTest(command=("/etc/hotcold/smoke-test",)),
        bake_s=60.0,
        approval=True,
    ),
    TierTable(name="dogfood", bake_s=600.0),
    TierTable(name="canary", bake_s=600.0),
    TierTable(name="prod", steps=(10.0, 25.0, 50.0, 75.0, ALL_PERCENT)),
)
DEFAULT_HOTFIX_FROM: Final = "canary"
DEFAULT_WINDOWS: Final = (
    Window(
        name="business hours",
        zone="America/New_York",
        opens=datetime(2000, 1, 1, 9).time(),  # noqa: DTZ001 - a time of day
        closes=datetime(2000, 1, 1, 17).time(),  # noqa: DTZ001 - a time of day
        tiers=("dogfood", "canary", "prod"),
    ),
)


def default_settings(app: str) -> Settings:
    """What counts without a file: staging with a smoke test, dogfood, canary, prod by five steps, business hours."""
    return _settle(Document(app=app, tiers=DEFAULT_TIERS, windows=DEFAULT_WINDOWS, hotfix_from=DEFAULT_HOTFIX_FROM))


def load_settings(path: Path) -> Settings:
    """Read and check the file.

    Raises:
        ConfigError: names the file, the key, what was found and what is allowed.
    """
    text = read_text(path)
    try:
        return parse_settings(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", kind=error.kind) from error


def parse_settings(text: str) -> Settings:
    """As `load_settings`, from the file's text. Without `tiers` it has the default ones and their windows."""
    document = parse_toml(text, Document)
    if document.release is not None:
        from checkpoint.release.settings import parse_release  # noqa: PLC0415 - loads what only releases need

        parse_release(text, document.app)
    if not document.tiers:
        windows = document.windows or DEFAULT_WINDOWS
        hotfix_from = document.hotfix_from or DEFAULT_HOTFIX_FROM
        document = msgspec.structs.replace(document, tiers=DEFAULT_TIERS, windows=windows, hotfix_from=hotfix_from)
    return _settle(document)


def _settle(document: Document) -> Settings:
    check_name("app", document.app)
    names = [check_name("tier", tier.name) for tier in document.tiers]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f'tiers: "{name}" stands there twice')
    _check_spans(document, names)
    _check_budget("budget", document.budget)
    if document.commander.lease_s <= 0:
        raise ConfigError(f"commander.lease_s = {document.commander.lease_s:g}: must be greater than 0")
    _check_webhooks(document.webhooks)
    _check_metrics(document, names)
    _check_starts(document, names)
    check_web(document.web)
    pipeline = Pipeline(
        app=document.app,
        steps=tuple(step for tier in document.tiers for step in _steps(tier, document.budget)),
        calendar=Calendar(windows=document.windows, freezes=document.freezes),
        commander=document.commander,
        metrics=document.metrics,
    )
    _check_lengths(pipeline)
    return Settings(
        pipeline=pipeline,
        webhooks=document.webhooks,
        web=document.web,
        metrics_interval_s=document.metrics_interval_s,
        recordings=None if document.recordings is None else Path(document.recordings),
        checklist=document.checklist,
        hotfix_from=document.hotfix_from,
    )


def _steps(tier: TierTable, budget: Budget) -> Iterator[StepRule]:
    if not tier.steps:
        raise ConfigError(f"tiers.{tier.name}.steps is empty: give at least [100]")
    try:
        check_limit(tier.max_unavailable)
    except ConfigError as error:
        raise ConfigError(f"tiers.{tier.name}: {error}", kind=error.kind) from error
    if tier.budget is not None:
        _check_budget(f"tiers.{tier.name}.budget", tier.budget)
    before = 0.0
    for given in tier.steps:
        step = StepTable(percent=given) if isinstance(given, (int, float)) else given
        where = f"tiers.{tier.name}.steps: {step.percent:g}"
        if not before < step.percent <= ALL_PERCENT:
            raise ConfigError(f"{where}: shares must rise, from above 0 to 100")
        before = step.percent
        rule = StepRule(
            tier=tier.name,
            percent=step.percent,
            bake_s=_given(step.bake_s, tier.bake_s),
            expect_s=_given(step.expect_s, tier.expect_s),
            deadline_s=_given(step.deadline_s, tier.deadline_s),
            approval=tier.approval if step.approval is None else step.approval,
            verdict=tier.verdict if step.verdict is None else step.verdict,
            smoke_test=step.smoke_test or tier.smoke_test,
            max_unavailable=tier.max_unavailable,
            budget=tier.budget or budget,
            clears=tier.clears,
        )
        if rule.bake_s < 0 or rule.expect_s < 0 or rule.deadline_s <= 0:
            raise ConfigError(f"{where}: bake_s and expect_s must not be negative, deadline_s greater than 0")
        if rule.smoke_test is not None and (not rule.smoke_test.command or rule.smoke_test.timeout_s <= 0):
            raise ConfigError(f"{where}: smoke_test needs a command, and a timeout_s greater than 0")
        yield rule
    if before != ALL_PERCENT:
        raise ConfigError(f"tiers.{tier.name}.steps ends at {before:g}: the last step must be 100")


def _given(step: float | None, tier: float) -> float:
    return tier if step is None else step


def _check_budget(where: str, budget: Budget) -> None:
    if budget.count < 0 or not 0 <= budget.percent < ALL_PERCENT or budget.roll_back_after < 1:
        raise ConfigError(
            f"{where}: count and percent must not be negative, percent below 100, roll_back_after above 0"
        )


def _check_spans(document: Document, tiers: list[str]) -> None:
    for window in document.windows:
        try:
            ZoneInfo(window.zone)
        except (KeyError, OSError, ValueError) as error:
            raise ConfigError(
                f'windows.zone = "{window.zone}": no IANA time zone here; is tzdata installed?'
            ) from error
        if window.opens.tzinfo is not None or window.closes.tzinfo is not None:
            raise ConfigError(f'windows "{window.name}": opens and closes are times of day in its zone, as in 09:00:00')
    for freeze in document.freezes:
        if freeze.begins >= freeze.ends:
            raise ConfigError(f'freezes "{freeze.reason}": ends before it begins')
    named = [*(window.tiers for window in document.windows), *(freeze.tiers for freeze in document.freezes)]
    for tier in (tier for some in named for tier in some):
        if tier not in tiers:
            raise ConfigError(f'tiers = "{tier}": no such tier; known here: {", ".join(tiers)}')


def _check_webhooks(webhooks: tuple[Webhook, ...]) -> None:
    names = [check_name("webhook", webhook.name) for webhook in webhooks]
    for webhook in webhooks:
        parts = urlsplit(webhook.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(f'webhooks "{webhook.name}": url must begin with http:// or https:// and name a host')
        if webhook.timeout_s <= 0:
            raise ConfigError(f'webhooks "{webhook.name}": timeout_s must be greater than 0')
        if names.count(webhook.name) > 1:
            raise ConfigError(f'webhooks: "{webhook.name}" stands there twice')


def _check_starts(document: Document, tiers: list[str]) -> None:
    names = [check_name("confirmation", each.name) for each in document.checklist]
    for each in document.checklist:
        unknown = [tier for tier in each.tiers if tier not in tiers]
        if unknown:
            raise ConfigError(f'checklist "{each.name}": no tier {unknown[0]}; known here: {", ".join(tiers)}')
        if names.count(each.name) > 1:
            raise ConfigError(f'checklist: "{each.name}" stands there twice')
        if not each.text.strip() or not each.text.isprintable() or len(each.text) > MAX_CONFIRMATION:
            raise ConfigError(f'checklist "{each.name}": text must be one line of 1 to {MAX_CONFIRMATION} characters')
    if document.hotfix_from is not None and document.hotfix_from not in tiers:
        raise ConfigError(f'hotfix_from = "{document.hotfix_from}": no such tier; known here: {", ".join(tiers)}')


def _check_metrics(document: Document, tiers: list[str]) -> None:
    check_metrics(document.metrics)
    for metric in document.metrics:
        unknown = [tier for tier in metric.tiers if tier not in tiers]
        if unknown:
            raise ConfigError(f'metrics "{metric.name}": no tier {unknown[0]}; known here: {", ".join(tiers)}')
    if document.metrics_interval_s <= 0:
        raise ConfigError(f"metrics_interval_s = {document.metrics_interval_s:g}: must be greater than 0")
    if document.recordings is not None and not document.recordings.startswith("/"):
        raise ConfigError(f'recordings = "{document.recordings}": must be an absolute path')


def _check_lengths(pipeline: Pipeline) -> None:
    """A tier whose steps fit into none of its windows would wait for ever."""
    if not pipeline.calendar.windows:
        return
    for tier in pipeline.tiers:
        steps = [step for step in pipeline.steps if step.tier == tier]
        lengths = [step.length for step in steps]
        needed = sum(lengths, timedelta()) if steps[0].clears == "tier" else max(lengths)
        # Any time will do: windows repeat every week.
        span = longest(pipeline.calendar, tier, datetime(2026, 1, 1, tzinfo=UTC))
        if span is None or needed > span:
            raise ConfigError(
                f"tiers.{tier}: its steps take {needed}, and its longest window is open for {span}: it would never "
                'start; shorten bake_s or expect_s, lengthen the window, or set clears = "step"'
            )
