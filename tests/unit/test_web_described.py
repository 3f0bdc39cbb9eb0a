"""The API against its own description: requests that it allows, and many that it does not, for everybody who may ask.

Schemathesis makes them, in a process of its own, and judges the answers by all its checks: no error of the server, no
status, type, header or shape that is not described, nothing refused that is allowed or the other way round, no answer
without a token. Its warnings count as failures.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from checkpoint.web.api import OPERATIONS, openapi
from checkpoint.web.api.operations import Operation
from checkpoint.web.rights import Role
from tests.web_world import ROLES, WebWorld, web_world

PATIENCE_S: Final = 500

CONFIG: Final = """
seed = 20261124
workers = 1
request-timeout = 60.0

[generation]
max-examples = {examples}
deterministic = true
database = "none"
no-shrink = true

[cache]
enabled = false

[warnings]
# Left out: `missing_test_data`, for numbers up to a bound are of no rollout; who was answered 200 is looked at instead.
# `missing_auth`, `validation_mismatch`: a role that may not is refused by design; of who may all, they count.
fail-on = [{warnings}]

[dictionaries]
numbers = { values = [1, 1, 2] }
tiers = { values = ["prod", "staging"] }
hosts = { values = ["prod-01", "staging-01"] }
builds = { values = ["b1", "b2"] }
manifests = { values = ["http://127.0.0.1:1/b3.json"] }
indices = { values = [9000000000000000] }

[parameters]
"path.number" = { dictionary = "numbers", probability = 0.9 }
"path.tier" = { dictionary = "tiers", probability = 0.9 }
"path.host" = { dictionary = "hosts", probability = 0.9 }
"body.tier" = { dictionary = "tiers", probability = 0.9 }
"body.host" = { dictionary = "hosts", probability = 0.9 }
"body.first_tier" = { dictionary = "tiers", probability = 0.9 }
"body.build" = { dictionary = "builds", probability = 0.9 }
"body.manifest" = { dictionary = "manifests" }
"body.index" = { dictionary = "indices", probability = 0.8 }
"""


WARNINGS: Final = (
    "missing_auth",
    "missing_deserializer",
    "unused_openapi_auth",
    "unsupported_regex",
    "method_not_allowed",
    "unmatched_filter",
    "unresolvable_reference",
    "rate_limited",
    "dictionary_mismatch",
    "validation_mismatch",
)


def configuration(examples: int, warnings: Sequence[str]) -> str:
    """`schemathesis.toml`: so many requests of each kind and operation, and the warnings that fail a run.

    Those of the description's every bound and keyword come on top.
    """
    return CONFIG.replace("{examples}", str(examples)).replace(
        "{warnings}", ", ".join(f'"{each}"' for each in warnings)
    )


@pytest.fixture
async def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WebWorld]:
    """A server with a rollout under way, to which a minute passes between two requests, and which reaches nobody."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.delenv("NO_PROXY", raising=False)
    minutes = itertools.count(step=60.0)
    async with web_world(tmp_path, monotonic=lambda: next(minutes)) as made:
        await made.world.start()
        await made.world.desk.guarding.release_command(made.world.origin())
        await made.shown()
        yield made


async def judged(
    web: WebWorld, directory: Path, token: str | None, *, examples: int = 2, warnings: Sequence[str] = ()
) -> set[str]:
    """Let Schemathesis judge the whole API; the names of the operations that were answered 200."""
    described, config, asked = (directory / name for name in ("openapi.json", "schemathesis.toml", "asked.har"))
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, described.write_text, json.dumps(openapi("shop")))
    await loop.run_in_executor(None, config.write_text, configuration(examples, warnings))
    words = ["--config-file", config, "run", described, "--url", web.serving.url, "--checks", "all", "--no-color"]
    words += ["--report", "har", "--report-har-path", asked]
    if token is not None:
        words += ["--header", f"Authorization: Bearer {token}"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", *map(str, words)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=directory,
        env={**os.environ, "NO_PROXY": "*"},
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = said.decode(errors="replace")
    assert process.returncode == 0, text
    assert re.search(r"Tested: (\d+)", text)[1] == str(len(OPERATIONS)), text  # type: ignore[index]
    return answered(json.loads(await loop.run_in_executor(None, asked.read_text)))


def is_at(operation: Operation, method: str, path: str) -> bool:
    """Whether a request is one of an operation."""
    place = re.compile(r"{\w+(?::((?:[^{}]|{[^{}]*})*))?}")
    pattern = place.sub(lambda match: match[1] or "[^/]+", operation.route.path)
    return operation.route.method == method and re.fullmatch(pattern, path) is not None


def answered(archive: Any) -> set[str]:
    """Names of the operations that were answered 200."""
    found = set()
    for entry in archive["log"]["entries"]:
        if entry["response"]["status"] == 200:
            path = urlsplit(entry["request"]["url"]).path
            found |= {each.name for each in OPERATIONS if is_at(each, entry["request"]["method"], path)}
    return found


MAY: Final = {role: {each.name for each in OPERATIONS if each.route.role <= Role[role.upper()]} for role in ROLES}
"""What each role may."""
READS: Final = {each.name for each in OPERATIONS if not each.route.writes}


@pytest.mark.timeout(PATIENCE_S + 60)
@pytest.mark.parametrize("role", ROLES)
async def test_every_operation_does_what_its_description_says(web: WebWorld, tmp_path: Path, role: str) -> None:
    """And no role is answered 200 by what it may not; by all that it may read, and by what needs no luck to be done."""
    before = await web.everything()
    examples, warnings = (6, WARNINGS) if role == "admin" else (2, ())
    answered_well = await judged(web, tmp_path, web.tokens[role], examples=examples, warnings=warnings)
    assert answered_well <= MAY[role]
    assert answered_well >= READS | ({"api_plan", "api_lock", "api_deny"} & MAY[role])
    assert ((await web.everything()) == before) == (role == "read")


@pytest.mark.timeout(PATIENCE_S + 60)
async def test_without_a_token_nothing_is_told_and_nothing_done(web: WebWorld, tmp_path: Path) -> None:
    before = await web.everything()
    assert await judged(web, tmp_path, None) == set()
    assert await web.everything() == before
