"""The documents say what the code does: examples are decoded, tables compared, commands parsed, links followed."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, is_dataclass
from dataclasses import fields as dataclass_fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from click import Command, Group
from prometheus_client.parser import text_string_to_metric_families

from agent.config import HOOK_POINTS, parse_settings
from agent.durations import Durations
from agent.hooks import HookRun
from agent.metrics import exposition
from agent.runner import Situation
from agent.scrub import Scrubbed
from agent.states import STATE_NAMES, Draining, Facts, Goal, Model, Refusal, Tree
from agent.status import Sources, status_of
from agent.work import ArtifactContact, Observed
from agent.workers import Busy, Match
from artifact import decode_manifest
from artifact.pull import Progress
from artifact.secretkey import SecretKey
from artifact.signing import signature_by
from artifact.statement import statement
from benchmarks.report.page import refreshed
from benchmarks.report.results import kept
from checkpoint.pipeline import parse_settings as parse_pipeline
from checkpoint.rollout.states import NAMES as PHASE_NAMES
from checkpoint.rollout.states import PauseCause
from checkpoint.verdicts import parse_metrics
from checkpoint.verdicts.recording import Line, decode_lines, replay
from fleet import Contact, Problem, consul_settings, decode_order, decode_report, encode, keys, position
from fleet.acl import agent_rules, commander_rules
from fleet.documents import decode_build
from fleet.keys import host_key, service_id, service_name, slots_prefix, tier_key
from hotcold.main import cli
from hotcold.status_document import status_of as read_by_the_command
from swapper import Layout, Swapper
from swapper.records import Record
from tests.processes import orphan

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
FORMATS, OPERATING, ARCHITECTURE, ROLLOUTS, VERDICTS = (
    (ROOT / "docs" / name).read_text()
    for name in ("formats.md", "operating.md", "architecture.md", "rollouts.md", "verdicts.md")
)
PAGES_OF_CHECKPOINT = (ROOT / "docs" / "checkpoint-ui.md").read_text()
IDENTITY = 'app = "shop"\ntier = "prod"\nhost = "web-1"\nroot = "/srv/shop"\n'


def tables(text: str, marker: str) -> Iterator[tuple[str, list[list[str]]]]:
    """The tables below `<!-- marker: name -->`, as (name, rows of cells) without heads."""
    for match in re.finditer(rf"<!-- {marker}(?:: (\S+))? -->\n((?:\|.*\n)+)", text):
        lines = match[2].splitlines()[2:]
        cells = [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
        yield match[1] or "", cells


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def examples() -> dict[str, bytes]:
    found = re.findall(r"<!-- example: (\w+) -->\n```json\n(.*?)```", FORMATS, re.DOTALL)
    return {name: text.encode() for name, text in found}


def defaults(kind: Any) -> dict[str, str]:
    """Every field of a struct or dataclass, with its default as the tables write it."""
    if is_dataclass(kind):
        return {field.name: "required" if field.default is MISSING else "?" for field in dataclass_fields(kind)}
    return {field.name: _default(field) for field in msgspec.structs.fields(kind)}


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if value is msgspec.NODEFAULT:
        return "required"
    if isinstance(value, msgspec.Struct):
        return "table"
    if isinstance(value, float):
        return f"{value:g}"
    if value is msgspec.UNSET:
        return "absent"
    return "none" if value is None else msgspec.json.encode(value).decode()


FIELD_TABLES = [
    pytest.param(name, rows, id=name)
    for text in (FORMATS, OPERATING, ROLLOUTS, VERDICTS, PAGES_OF_CHECKPOINT)
    for name, rows in tables(text, "fields")
]


@pytest.mark.parametrize(("name", "rows"), FIELD_TABLES)
def test_field_tables_have_the_fields_and_defaults_of_their_types(name: str, rows: list[list[str]]) -> None:
    """A table of fields has a row for each field, in any order, with its default."""
    module, _, attribute = name.partition(":")
    kind = getattr(importlib.import_module(module), attribute)

    assert {row[0].strip("`"): row[1] for row in rows} == defaults(kind)
    assert all(row[2] for row in rows)


@pytest.mark.parametrize(
    ("module", "page"), [("agent.config", OPERATING), ("checkpoint.pipeline", ROLLOUTS + PAGES_OF_CHECKPOINT)]
)
def test_every_configuration_table_has_its_field_table(module: str, page: str) -> None:
    """No table of a configuration is left out: each struct that the file can hold is documented."""

    def structs(kind: Any) -> Iterator[type[msgspec.Struct]]:
        for inner in (kind, *getattr(kind, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                yield inner
                for field in msgspec.structs.fields(inner):
                    yield from structs(field.type)
            elif inner is not kind:
                yield from structs(inner)

    document = importlib.import_module(module).Document
    documented = {name.partition(":")[2] for name, _ in tables(page, "fields")}
    elsewhere = {name.partition(":")[2] for name, _ in tables(VERDICTS, "fields")}  # a page of their own
    assert documented == {kind.__name__ for kind in structs(document) if msgspec.structs.fields(kind)} - elsewhere


def test_examples_of_metrics_are_metrics() -> None:
    """Each TOML block of the page on verdicts is accepted as it stands."""
    found = blocks(VERDICTS, "toml")
    assert len(found) >= 4
    for block in found:
        assert parse_metrics(block)


def test_every_table_of_metrics_is_documented() -> None:
    """Every source, and the metric itself."""
    documented = {name.partition(":")[2] for name, _ in tables(VERDICTS, "fields")}
    sources = {"PrometheusTable", "CommandTable", "HttpTable"}  # reports have no settings
    assert documented == {"Metric", *sources}


def test_example_of_a_record_is_read() -> None:
    """And judged."""
    [record] = re.findall(r"<!-- example: record -->\n```json\n(.*?)```", VERDICTS, re.DOTALL)
    lines = decode_lines(record.encode())
    assert {type(line) for line in lines} == set(get_args(Line))
    assert replay(lines).last.metric == "errors"


def test_hook_points_are_documented() -> None:
    """The table of hooks has exactly the points that there are, in their order."""
    [(_, rows)] = tables(OPERATING, "hook points")
    assert tuple(row[0].strip("`") for row in rows) == HOOK_POINTS


def test_states_are_documented() -> None:
    """The table of states has exactly the states that there are, in their order."""
    [(_, rows)] = tables(FORMATS, "states")
    assert [row[0].strip("`") for row in rows] == list(STATE_NAMES.values())


def test_toml_examples_are_configurations_that_are_taken() -> None:
    """Each TOML block, for an agent completed by the keys that say who it is, is accepted."""
    found = [block for page in PAGES for block in blocks(page.read_text(), "toml")]
    found = [block for block in found if "[[metrics]]" not in block or "[[tiers]]" in block]  # those have a test
    assert len(found) >= 2
    for block in found:
        if "[[tiers]]" in block or "[web]" in block:
            parse_pipeline(block)
        else:
            parse_settings(block if block.startswith("app") else IDENTITY + block, {})


# --- JSON documents ---------------------------------------------------------------------------------------------------

DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    "order": decode_order,
    "report": decode_report,
    "build": decode_build,
    "manifest": decode_manifest,
    "record": lambda data: msgspec.json.decode(data, type=Record),
    "refusal": lambda data: msgspec.json.decode(data, type=Refusal),
    "status": lambda data: read_by_the_command(msgspec.json.decode(data)),
}


def test_examples_are_read_by_the_real_decoders() -> None:
    """Every example decodes, and shows every field of its type."""
    found = examples()
    assert found.keys() == DECODERS.keys()
    for name, data in found.items():
        document = DECODERS[name](data)
        if name != "status":
            assert msgspec.json.decode(data).keys() == defaults(type(document)).keys()


def test_example_order_means_what_the_page_says() -> None:
    """Position and percentage of the example are real."""
    order = decode_order(examples()["order"])
    place = position(order.salt, "web-1")
    assert f"`{order.salt}`" in FORMATS
    assert f"`{place!r}`" in FORMATS
    assert decode_order(encode(order)) == order


def test_example_signature_is_one() -> None:
    """The example's statement is that of the code, and the key that the page gives away made the signature."""
    manifest = decode_manifest(examples()["manifest"])
    key = SecretKey(b"example!", bytes(range(32)))
    [shown] = re.findall(r"<!-- statement -->\n```json\n(.*?)```", FORMATS, re.DOTALL)
    assert shown.encode() == statement(manifest.app, manifest)
    assert manifest.signature == signature_by(key, manifest), signature_by(key, manifest)
    assert f"key `{key.public.key_id}`, `{key.public.line()}`" in FORMATS


def test_keys_are_those_of_the_store() -> None:
    """The names in the table of keys are those that the code makes."""
    names = [
        tier_key("APP", "TIER"),
        host_key("APP", "TIER", "HOST"),
        f"{slots_prefix('APP', 'TIER')}N",
        service_name("APP"),
        f"{service_id('APP', 'TIER', 'HOST')}:alive",
        *(key("APP") for key in (keys.rollout_key, keys.lock_key, keys.commander_key, keys.schedule_key)),
        *(key("APP", 7).replace("/7/", "/N/") for key in (keys.plan_key, keys.rollout_state_key, keys.evidence_key)),
        keys.audit_head_key("APP"),
        f"{keys.audit_prefix('APP')}NUMBER",
        keys.audit_anchor_key("APP"),
        keys.delivery_key("APP", "WEBHOOK"),
        f"{keys.leader_prefix('APP')}0",
    ]
    for name in names:
        shown = re.sub(r"\b(APP|TIER|HOST|N|NUMBER|WEBHOOK)\b", lambda match: f"<{match[1].lower()}>", name)
        assert f"`{shown}`" in FORMATS


@pytest.fixture
def a_worker(tmp_path: Path) -> Iterator[Path]:
    """The pid file of a worker that lives in a release, and is none of this process's."""
    tree = tmp_path / "root" / "releases" / "b2~1"
    tree.mkdir(parents=True)
    with orphan(tree) as process:
        tree.rmdir()
        (tmp_path / "worker.pid").write_text(str(process.pid))
        yield tmp_path / "worker.pid"


@pytest.fixture
def sources(tmp_path: Path, a_worker: Path) -> Iterator[Sources]:
    """A host in the middle of everything at once, so that no part of its status is empty."""
    layout = Layout(root=tmp_path / "root", state_dir=tmp_path / "state")
    swapper = Swapper.open(layout, now=lambda: datetime.now(UTC))
    for build_id in ("b1", "b2"):
        swapper.swap_in(swapper.complete(swapper.prepare(build_id, f"sha256:{'0' * 64}")))
        swapper.mark_proved(swapper.look().hot)
    swapper.complete(swapper.prepare("b3", f"sha256:{'1' * 64}"))
    (layout.releases / "foreign").mkdir()
    order = decode_order(examples()["order"])
    problem = Problem(kind="sample", message="sample")
    situation = Situation(
        Model(Facts(goal=Goal(1, order.build)), Draining(Tree("b3~3", "b3", f"sha256:{'1' * 64}"))),
        order=order,
        order_problem=problem,
        since=datetime.now(UTC),
        since_s=0.0,
        signer="E7D620F8F1C4F6B5",
    )
    run = HookRun("before_drain", ("true",), 0, 0.1, "", timed_out=False)
    observed = Observed(
        progress=Progress(bytes_done=1, bytes_total=2, files_done=1, url="http://127.0.0.1/b3"),
        waiting_for=(Busy(1, "worker", ("open file",)),),
        retry_at_s=9.0,
        hooks={"before_drain": (run, datetime.now(UTC))},
        artifacts=ArtifactContact("http://127.0.0.1/b3", 1.0, 2.0, "sample"),
        phases={"draining": Durations()},
    )
    scrubbed = Scrubbed("b2", datetime.now(UTC), 4.2, 1, ("lib/code has another content",), None)
    with_everything = Sources(
        app="shop",
        tier="prod",
        host="web-1",
        root=str(layout.root),
        config_path="/etc/hotcold/shop.toml",
        store_address=consul_settings({}).address,
        swapper=swapper,
        contact=Contact(last_answer_s=1.0, failing_since_s=2.0, error="sample"),
        observed=observed,
        workers=lambda: (Match(pid_file=str(a_worker)),),
        scrubbed=lambda: (scrubbed,),
        situation=lambda: situation,
        config_problem=lambda: None,
        clock=lambda: 3.0,
        started_s=0.0,
    )
    yield with_everything
    swapper.close()


def paths(value: Any, at: str = "") -> set[str]:
    """Every key path of a document; lists count by their first element, and `hooks` has any names."""
    if isinstance(value, dict):
        names = {key: "*" if at == ".hooks" else key for key in value}
        return {f"{at}.{name}" for name in names.values()}.union(
            *(paths(value[key], f"{at}.{name}") for key, name in names.items())
        )
    return paths(value[0], f"{at}[]") if isinstance(value, list) and value else {at}


async def test_status_example_and_table_have_every_field(sources: Sources) -> None:
    """The status that an agent gives, the example and the table have the same fields."""
    status = await status_of(sources)
    [(_, rows)] = tables(FORMATS, "status")

    assert all(status[key] for key in ("order", "hot", "cold", "standby", "progress", "waiting_for", "disk_problems"))
    assert paths(msgspec.json.decode(examples()["status"])) == paths(status)
    assert [row[0].strip("`") for row in rows] == list(msgspec.json.decode(examples()["status"]))


async def test_metrics_table_has_every_metric_and_label(sources: Sources) -> None:
    """What Prometheus reads has the documented names and labels, and no others."""
    text = exposition(await status_of(sources), sources.observed).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    [(_, rows)] = tables(FORMATS, "metrics")

    documented = {row[0].strip("`"): set(filter(None, row[1].split(", "))) for row in rows}
    assert documented == {sample.name: set(sample.labels) for sample in samples}


MONITORING = ROOT / "docs" / "monitoring"


@pytest.mark.parametrize("name", ["alerts.yml", "grafana-dashboard.json"])
def test_what_is_watched_for_is_what_the_agent_tells(name: str) -> None:
    """Alerts and dashboard use metrics, labels and states that there are."""
    text = (MONITORING / name).read_text()
    [(_, rows)] = tables(FORMATS, "metrics")
    known = {row[0].strip("`"): set(filter(None, row[1].split(", "))) for row in rows}
    expressions = re.findall(r"\b(hotcold_\w+)(?:\{([^}]*)\})?", text.replace('\\"', '"'))
    assert len(expressions) >= 10
    for metric, selectors in expressions:
        assert metric in known
        for label, values in re.findall(r'(\w+)[=!]~?"([^"]*)"', selectors):
            assert label in known[metric], metric
            if label == "state":
                assert set(values.split("|")) <= set(STATE_NAMES.values())


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: apt-get install prometheus)")
def test_prometheus_takes_the_alerts() -> None:
    check = subprocess.run(
        ["promtool", "check", "rules", str(MONITORING / "alerts.yml")], check=False, capture_output=True, text=True
    )
    assert check.returncode == 0, check.stderr


# --- architecture -----------------------------------------------------------------------------------------------------


def test_state_diagram_is_what_the_machine_does() -> None:
    """The generated parts are fresh; `python docs/state_diagram.py` makes them so."""
    refreshed: Callable[[str], str] = runpy.run_path(str(ROOT / "docs" / "state_diagram.py"))["refreshed"]
    assert refreshed(ARCHITECTURE) == ARCHITECTURE


def test_diagram_of_rollouts_is_what_the_machine_does() -> None:
    """The generated part is fresh; `python docs/rollout_diagram.py` makes it so."""
    refreshed_rollouts: Callable[[str], str] = runpy.run_path(str(ROOT / "docs" / "rollout_diagram.py"))["refreshed"]
    assert refreshed_rollouts(ROLLOUTS) == ROLLOUTS


def test_phases_and_causes_are_documented() -> None:
    """Every phase and every cause of a pause stands in the page's tables, and nothing else does."""
    section = ROLLOUTS.partition("## If it does not go on\n")[2]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)) == set(get_args(PauseCause))
    assert all(f"`{name}`" in ROLLOUTS for name in PHASE_NAMES.values())


def test_performance_page_is_what_was_measured() -> None:
    """The generated part is that of the kept results; `python -m benchmarks.report` makes it so."""
    page = (ROOT / "docs" / "performance.md").read_text()
    assert refreshed(page, {each.key: each for each in kept()}) == page


def test_shutdown_list_is_that_of_the_code() -> None:
    """The numbered list stands in the same words in code and page."""
    code = (ROOT / "agent" / "daemon.py").read_text()
    in_code = re.findall(r"^ +# (\d\. .*)$", code, re.MULTILINE)
    section = ARCHITECTURE.partition("## Shutdown\n")[2].partition("\n## ")[0]
    assert len(in_code) >= 5
    assert re.findall(r"^(\d\. .*)$", section, re.MULTILINE) == in_code


def test_tasks_are_those_of_the_code() -> None:
    """The table of tasks has every task of the agent that has a fixed name."""
    code = "\n".join(path.read_text() for path in sorted((ROOT / "agent").glob("*.py")))
    section = ARCHITECTURE.partition("## Tasks and threads\n")[2].partition("\n## ")[0]
    in_code = set(re.findall(r"create_task\(.*\bname=\"([^\"]+)\"\)", code))
    assert len(in_code) >= 5
    assert set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)) == in_code


# --- words, commands, links -------------------------------------------------------------------------------------------


def test_kinds_of_problems_exist() -> None:
    """Every word that the operator's guide calls a kind is one that the code says."""
    code = "\n".join(
        path.read_text()
        for package in ("agent", "artifact", "fleet", "swapper")
        for path in (ROOT / package).rglob("*.py")
    )
    section = OPERATING.partition("## At 3 a.m.\n")[2].partition("\n### ")[0]
    symptoms = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    known = {*STATE_NAMES.values(), "http_404"}
    words = {word for symptom in symptoms for word in re.findall(r"`([a-z_0-9]+)`", symptom)}
    meant = words | set(re.findall(r"^\| `((?:order|signature|build)_\w+)` \|", FORMATS, re.MULTILINE)) - known
    assert len(meant) >= 10
    assert {word for word in meant - known if f'"{word}"' not in code and not _is_composed(word)} == set()


def _is_composed(kind: str) -> bool:
    """Kinds of documents are made of the document's name: `order_invalid`, `order_version`."""
    return kind in {f"{document}_{fault}" for document in ("order", "report") for fault in ("invalid", "version")}


def commands() -> list[tuple[str, list[str]]]:
    """Every `hotcold` command line of a shell block, or behind a prompt, with the page that it stands on."""
    found = []
    for page in PAGES:
        text = page.read_text()
        typed = [
            line.removeprefix("$ ")
            for each in blocks(text, "console")
            for line in each.splitlines()
            if line[:2] == "$ "
        ]
        for block in [*blocks(text, "sh"), "\n".join(typed)]:
            for line in block.replace("\\\n", " ").splitlines():
                match = re.search(r"(?:^|[\s/])hotcold ([a-z][a-z-]* .*|[a-z][a-z-]*)$", line)
                if match and not line.lstrip().startswith("#"):
                    found.append((page.name, shlex.split(match[1], comments=True)))
    return found


@pytest.mark.parametrize(("page", "words"), [pytest.param(*each, id=" ".join(each[1])) for each in commands()])
def test_commands_exist_with_their_options(page: str, words: list[str]) -> None:
    """A command line of a document names a sub-command that exists, and options that it has."""
    command: Command = cli
    rest = iter(words)
    with cli.make_context("hotcold", ["--help"], resilient_parsing=True) as context:
        while isinstance(command, Group):
            found = command.get_command(context, next(rest))
            assert found is not None, page
            command = found
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert used <= known


def test_documents_speak_of_commands() -> None:
    """The check above has something to check, of several commands."""
    assert {words[0] for _, words in commands()} >= {"pack", "deploy", "rollback", "status", "fleet", "hold"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link names a file that is there, and a heading that it has."""
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", page.read_text()):
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if heading:
            assert heading in anchors(file.read_text()), target


def anchors(text: str) -> set[str]:
    """Headings as forges turn them into anchors."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    ("name", "rules"),
    [("agent", agent_rules("shop", "prod", "web-1", "web-1")), ("commander", commander_rules("shop"))],
)
def test_access_rules_are_those_that_the_command_prints(name: str, rules: str) -> None:
    [shown] = re.findall(rf"<!-- acl: {name} -->\n```hcl\n(.*?)```", OPERATING, re.DOTALL)
    assert shown == rules
