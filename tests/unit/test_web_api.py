"""The JSON API: everything that pages show and do, in typed answers; every refusal in one shape."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request
from aiohttp.web import Request

from artifact import IllegalTransition
from checkpoint.metric_judge import Judged, Kept
from checkpoint.rollout import events as ev
from checkpoint.rollout import states as st
from checkpoint.verdicts import Evidence, Verdict
from checkpoint.web.api import OPERATIONS, answers, openapi
from checkpoint.web.api.operations import operation
from checkpoint.web.api_errors import STATUSES, Error
from checkpoint.web.app import MAX_BODY_BYTES
from checkpoint.web.gate import WRITES_PER_MINUTE
from checkpoint.web.rights import ROUTES, Role
from fleet import Build, encode
from fleet.keys import build_key, evidence_key, rollout_state_key
from tests.commander_world import build
from tests.web_world import Client, WebWorld, web_world


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path) as made:
        yield made


@dataclass
class Api:
    """A program with a token: answers are decoded as strictly as they are described."""

    client: Client
    token: str

    async def ask(self, method: str, path: str, **facts: Any) -> tuple[int, bytes, Any]:
        headers = {"Authorization": f"Bearer {self.token}", **facts.get("headers", {})}
        facts = facts | {"headers": headers}
        async with self.client.session.request(method, self.client.url + path, **facts) as answer:
            return answer.status, await answer.read(), answer.headers

    async def get(self, path: str) -> Any:
        status, body, _ = await self.ask("GET", path)
        assert status == 200, body
        return msgspec.json.decode(body, type=answer_of("GET", path))

    async def do(self, path: str, **body: Any) -> Any:
        status, said, _ = await self.ask("POST", path, json=body)
        assert status == 200, said
        return msgspec.json.decode(said, type=answer_of("POST", path))

    async def refused(self, path: str, **body: Any) -> tuple[int, Error]:
        status, said, _ = await self.ask("POST", path, json=body)
        assert status >= 400, said
        return status, msgspec.json.decode(said, type=Error)


def answer_of(method: str, path: str) -> Any:
    """The type that the operation at a path answers with."""
    for each in OPERATIONS:
        pattern = re.sub(r"{\w+(?::((?:[^{}]|{[^{}]*})*))?}", lambda match: match[1] or "[^/]+", each.route.path)
        if each.route.method == method and re.fullmatch(pattern, path.partition("?")[0]):
            return each.answer
    raise AssertionError(path)


def api(web: WebWorld, role: str = "deploy") -> Api:
    return Api(web.client(), web.tokens[role])


async def release(web: WebWorld, build_id: str, digit: str = "2", **facts: Any) -> None:
    """Record a build, as `hotcold release` does."""
    record = Build(
        v=1,
        app="shop",
        build=build(build_id, digit),
        manifest=f"file:///srv/builds/shop-{build_id}.json",
        revision="0" * 40,
        branch="main",
        tag=build_id,
        by="anna",
        at="2026-11-23T12:00:00+00:00",
        **facts,
    )
    await web.world.store.put(build_key("shop", build_id), encode(record))


async def test_a_rollout_from_its_plan_to_its_end(web: WebWorld) -> None:
    """By a build's id; every deed is in the audit, and what is read next shows it."""
    await release(web, "2026-11-23.1")
    program = api(web)
    planned = await program.do("/api/plans", build="2026-11-23.1", reason="checkout fix")
    assert (planned.rollout, planned.obstacle, planned.build.id) == (1, None, "2026-11-23.1")
    assert [tier.name for tier in planned.tiers] == ["staging", "canary", "prod"]
    assert [step.host_count for step in planned.steps] == [2, 3, 1, 3, 5, 8, 10]
    assert await web.world.desk.ledger.latest() is None
    started = await program.do("/api/rollouts", plan=planned.sealed)
    assert (started.rollout, started.phase) == (1, "ready")
    status, error = await program.refused("/api/rollouts", plan=planned.sealed)
    assert (status, error.kind) == (409, "rollout_under_way")
    assert (await program.do("/api/plans", build="b1", reason="x")).obstacle.startswith("rollout 1 of 2026-11-23.1")

    shown = await program.get("/api/rollout")
    assert (shown.rollout.build, shown.rollout.commander.holder) == ("2026-11-23.1", "deployer")
    assert "pause" in shown.actions
    on = {"reason": "because", "index": shown.rollout.index}
    aside = await program.do("/api/rollouts/1/set-aside", tier="prod", host="prod-01", **on)
    assert aside.messages == ("prod/prod-01 is not waited for: because",)
    assert (await program.get("/api/rollouts/1")).set_aside == ("prod/prod-01",)
    paused = await program.do("/api/rollouts/1/act", action="pause", **on)
    assert (paused.phase, paused.messages) == ("paused", ("paused: because",))
    status, error = await program.refused("/api/rollouts/1/act", action="resume", **on)
    assert (status, error.kind) == (409, "stale")
    assert "deployer: paused: because" in error.message
    on["index"] = float((await program.get("/api/rollout")).rollout.index)  # an integer, to JSON
    assert (await program.do("/api/rollouts/1/act", action="resume", **on)).phase == "ready"
    done = await program.do("/api/rollouts/1/act", action="rollback", **on)
    assert done.phase == "rolled_back"
    status, error = await program.refused("/api/rollouts/1/act", action="rollback", **on)
    assert (status, error.kind) == (409, "not_applicable")
    assert error.message == "rollout 1 is rolled back; it is back already: nothing was done"

    guards = await program.get("/api/guards")
    assert [each.id for each in guards.denied] == ["2026-11-23.1"]
    assert guards.lock.by == "deployer"
    again = await program.do("/api/plans", build="2026-11-23.1", reason="once more")
    assert "is locked by deployer" in again.obstacle
    assert "build_denied" in {line.kind for line in again.checklist if line.weight == "blocks"}
    assert (await program.refused("/api/rollouts", plan=again.sealed))[1].kind == "build_denied"
    [row] = (await program.get("/api/rollouts")).rollouts
    assert (row.phase, row.stopped_by, row.because, row.lasted_s) == ("rolled_back", "deployer", "because", 0.0)
    told = [record.what for record in (await program.get("/api/audit?rollout=1")).records]
    assert told[0] == "rolled_back"
    assert told[-1] == "started"


async def test_a_build_that_is_not_known_names_those_near_it(web: WebWorld) -> None:
    for number in range(1, 4):
        await release(web, f"2026-11-23.{number}")
    program = api(web)
    status, error = await program.refused("/api/plans", build="2026-11-23.9", reason="x")
    assert (status, error.kind) == (404, "unknown_build")
    assert "near it are 2026-11-23.3, 2026-11-23.2, 2026-11-23.1" in error.message
    assert error.next.startswith("look at /api/builds")
    found = {each.id: each for each in (await program.get("/api/builds")).builds}
    assert list(found) == ["2026-11-23.3", "2026-11-23.2", "2026-11-23.1", "b1"]
    assert found["b1"].tiers == dict.fromkeys(("canary", "prod", "staging"), 100.0)
    assert found["2026-11-23.3"].by == "anna"
    status, error = await program.refused("/api/deny", build="2026-11-23.9", reason="x")
    assert (status, error.kind) == (404, "unknown_build")


async def test_command_lock_and_denials(web: WebWorld) -> None:
    """As the pages press them; what does not apply is refused, so that 200 always means that it was done."""
    program, admin = api(web), api(web, "admin")
    assert "deployer is the commander until" in (await program.do("/api/command/take")).messages[0]
    status, error = await admin.refused("/api/command/take")
    assert (status, error.kind) == (409, "not_the_commander")
    status, error = await program.refused("/api/command/take", force=True)
    assert (status, error.message) == (403, "only an admin takes the command from somebody else")
    await admin.do("/api/command/take", force=True, reason="deployer is ill")
    assert (await program.get("/api/guards")).commander.note == "deployer is ill"
    assert (await program.refused("/api/command/hand-over", to="me", reason="x"))[1].kind == "not_the_commander"
    await admin.do("/api/command/hand-over", to="deployer", reason="well again")
    await program.do("/api/command/release")
    assert (await program.get("/api/guards")).commander is None
    assert (await program.refused("/api/command/release"))[1].kind == "not_applicable"

    await program.do("/api/lock", reason="moving the database")
    assert (await program.refused("/api/lock", reason="again"))[1].kind == "not_applicable"
    planned = await program.do("/api/plans", build="b1", reason="x")
    assert "locked by deployer" in planned.obstacle
    assert (await program.refused("/api/rollouts", plan=planned.sealed))[1].kind == "locked"
    status, error = await program.refused("/api/rollouts", plan=planned.sealed, override_min=5)
    assert (status, error.message) == (403, "only an admin starts a rollout under an override")
    assert (await admin.refused("/api/rollouts", plan=planned.sealed))[1].kind == "plan_stale"
    await admin.do("/api/unlock", reason="moved")
    assert (await admin.refused("/api/unlock", reason="moved"))[1].kind == "not_applicable"

    await program.do("/api/deny", build="b1", reason="it leaks")
    assert (await program.refused("/api/deny", build="b1", reason="it leaks"))[1].kind == "not_applicable"
    assert (await program.refused("/api/allow", build="b1", reason="mended"))[0] == 403
    await admin.do("/api/allow", build="b1", reason="mended")
    assert (await admin.refused("/api/allow", build="b1", reason="mended"))[1].kind == "not_applicable"
    told = [json.loads(record)["what"] for record in await web.audit()]
    done = [what for what in told if what != "refused"]
    assert done == [
        "command_taken",
        "command_taken",
        "handed_over",
        "command_released",
        "locked",
        "unlocked",
        "denied",
        "allowed",
    ]


async def test_what_only_admins_may_is_refused_in_the_audit(web: WebWorld) -> None:
    """Also where the role is looked at in the body."""
    await api(web).refused("/api/command/take", force=True)
    async with asyncio.timeout(30):
        while not any("only an admin takes the command" in record for record in await web.audit()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_an_override_lasts_as_long_as_is_said(web: WebWorld) -> None:
    await web.world.start()
    await web.world.desk.guarding.release_command(web.world.origin())
    await web.shown()
    admin = api(web, "admin")
    index = (await admin.get("/api/rollout")).rollout.index
    await admin.do("/api/rollouts/1/override", minutes=5, reason="agreed", index=index)
    shown = (await admin.get("/api/rollout")).rollout
    assert (shown.override_until - web.world.time.wall).total_seconds() == 300
    assert (await admin.refused("/api/rollouts/1/override", minutes=0, reason="x", index=index))[1].kind == "stale"
    await admin.do("/api/rollouts/1/override", minutes=0, reason="done", index=shown.index)
    assert (await admin.get("/api/rollout")).rollout.override_until is None


async def test_tiers_and_hosts_stand_to_their_orders(web: WebWorld) -> None:
    await web.world.start()
    web.world.fleet.unproved["staging-00"] = "b2"
    await web.world.settle()
    program = api(web, "read")
    async with asyncio.timeout(30):
        while not (await program.get("/api/hosts?standing=failed")).count:  # noqa: ASYNC110 - reports arrive by a watch
            await asyncio.sleep(0.02)
    found = {tier.tier: tier for tier in (await program.get("/api/tiers")).tiers}
    assert (found["staging"].order.build, found["staging"].order.previous) == ("b2", "b1")
    assert found["staging"].running == {"b1": 1, "b2": 1}
    assert found["staging"].standings == {"failed": 1, "good": 1}
    trouble = await program.get("/api/hosts?standing=trouble")
    assert [host.host for host in trouble.hosts] == ["staging-00"]
    first = await program.get("/api/hosts?tier=prod&limit=4")
    rest = await program.get("/api/hosts?tier=prod&offset=4")
    assert (first.count, rest.count, len(first.hosts)) == (10, 10, 4)
    assert [host.host for host in (*first.hosts, *rest.hosts)] == [f"prod-{number:02}" for number in range(10)]
    assert (await program.get("/api/hosts?tier=prod&name=-03")).count == 1
    assert (await program.get("/api/hosts?name=b2")).count == 1
    one = await program.get("/api/hosts/staging/staging-00")
    assert one.report.problem.kind == "proof_failed"
    assert (one.rank.of, one.rank.step, one.order.serial) == (2, "staging to 100 %", 2)
    assert 0 <= one.position < 1
    status, said, _ = await program.ask("GET", "/api/hosts/staging/nobody")
    assert (status, json.loads(said)["kind"]) == (404, "unknown_host")


async def test_rollouts_are_paged_and_a_damaged_one_hides_no_other(web: WebWorld) -> None:
    program = api(web, "read")
    assert (await program.get("/api/rollouts")).rollouts == ()
    for number in range(5):
        await web.world.start(f"b{number + 2}")
        web.world.time.pass_(90)
        await web.world.act(ev.AbortRequested(), reason="postponed")
    first = await program.get("/api/rollouts?limit=2")
    assert [row.rollout for row in first.rollouts] == [5, 4]
    assert (first.rollouts[0].lasted_s, first.rollouts[0].because, first.next) == (90.0, "postponed", 4)
    entry = await web.world.store.read(rollout_state_key("shop", 2))
    assert entry is not None
    await web.world.store.put(entry.key, b"{")
    rest = await program.get(f"/api/rollouts?before={first.next}")
    assert [row.rollout for row in rest.rollouts] == [3, 1]
    assert rest.unreadable[0].rollout == 2
    assert rest.next is None
    past = await program.get("/api/rollouts/3")
    assert (past.summary.phase, past.index, past.build.id) == ("aborted", None, "b4")
    assert (await program.get("/api/rollouts/5")).index == (await web.world.now()).index
    for path in ("/api/rollouts/9", "/api/rollouts/9/evidence"):
        status, said, _ = await program.ask("GET", path)
        assert (status, json.loads(said)["kind"]) == (404, "unknown_rollout")
    status, error = await api(web).refused("/api/rollouts/3/act", action="pause", reason="x", index=1)
    assert (status, error.kind) == (409, "stale")
    assert "rollout 5 of b6 was started meanwhile" in error.message


async def test_what_verdicts_rest_on_is_told_as_it_is_kept(web: WebWorld) -> None:
    await web.world.start()
    program = api(web, "read")
    assert (await program.get("/api/rollouts/1/evidence")).metrics == {}
    judged = Judged(
        evidence=Evidence(intervals=3, updated_bad=1.0, updated_total=90.0),
        verdict=Verdict(outcome="none", action="wait", reason="too little"),
    )
    kept = Kept(step=1, at=web.world.time.wall, metrics={"errors": judged})
    await web.world.store.put(
        evidence_key("shop", 1), msgspec.json.encode({"v": 1, "judges": {"metrics": kept, "other": {}}})
    )
    found = await program.get("/api/rollouts/1/evidence")
    assert (found.step, found.at) == (1, web.world.time.wall)
    assert (found.metrics["errors"].updated_total, found.metrics["errors"].verdict.reason) == (90.0, "too little")
    await web.world.store.put(evidence_key("shop", 1), b"{")
    status, said, _ = await program.ask("GET", "/api/rollouts/1/evidence")
    assert (status, json.loads(said)["kind"]) == (409, "document_invalid")


async def test_the_audit_is_filtered_and_paged_to_its_end(web: WebWorld) -> None:
    for number in range(120):
        act = web.world.desk.guarding.unlock if number % 2 else web.world.desk.guarding.lock
        await act(web.world.origin("anna@desk" if number % 4 else "ben@desk", reason=f"turn {number}"))
    program = api(web, "read")
    seen: list[int] = []
    following = 1000
    while following is not None:
        page = await program.get(f"/api/audit?limit=7&before={following}")
        seen += [record.number for record in page.records]
        following = page.next
    assert seen == list(range(120, 0, -1))
    found = await program.get("/api/audit?who=ben&what=TURN%204")
    assert [record.reason for record in found.records] == ["turn 48", "turn 44", "turn 40", "turn 4"]
    assert found.next is None
    whole = await program.get("/api/audit/verify")
    assert (whole.is_whole, whole.count, whole.flaw) == (True, 120, None)
    entry = await web.world.store.read("hotcold/shop/checkpoint/audit/0000000007")
    assert entry is not None
    await web.world.store.put(entry.key, entry.value.replace(b"turn 6", b"turn 9"))
    whole = await program.get("/api/audit/verify")
    assert (whole.is_whole, whole.flaw) == (False, "record 7 was altered: its hash is not its own")


async def test_settings_tell_nothing_that_is_secret(tmp_path: Path) -> None:
    pipeline = (
        'app = "shop"\n[[tiers]]\nname = "prod"\nsteps = [10, 100]\n'
        'smoke_test = { command = ["/bin/test", "very-secret"] }\n'
        '[[webhooks]]\nname = "chat"\nurl = "https://x:very-secret@hooks.example.com/very-secret?a=very-secret"\n'
        '[[metrics]]\nname = "errors"\n[metrics.http]\nurl = "https://m.example.com/?key=very-secret"\n'
    )
    async with web_world(tmp_path, sizes={"prod": 2}, pipeline=pipeline) as web:
        found = await api(web).get("/api/settings")
        assert found.people is None
        assert [(step.percent, step.smoke_test) for step in found.steps] == [(10.0, True), (100.0, True)]
        assert found.webhooks[0].url == "https://hooks.example.com/…"
        assert (found.metrics[0].name, found.metrics[0].source) == ("errors", "http")
        await web.world.start()
        for path in ("/api/settings", "/api/rollout", "/api/rollouts/1", "/api/tiers"):
            _, said, _ = await api(web, "admin").ask("GET", path)
            assert b"very-secret" not in said
        people = (await api(web, "admin").get("/api/settings")).people
        assert ("admin", "adminer") in {(each.role, each.name) for each in people}


GARBAGE: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 400, "bad_field"),
    "no JSON": (b"{", 400, "bad_field"),
    "not UTF-8": (b'{"reason": "\xff\xfe"}', 400, "bad_field"),
    "a lone surrogate": (b'{"reason": "\\ud800"}', 400, "bad_field"),
    "another type": (b"[]", 400, "bad_field"),
    "null": (b"null", 400, "bad_field"),
    "a number": (b'{"reason": 7}', 400, "bad_field"),
    "no reason": (b"{}", 400, "bad_field"),
    "an empty reason": (b'{"reason": ""}', 400, "bad_field"),
    "a blank reason": ('{"reason": " \\t\\r\\n\N{NO-BREAK SPACE}"}'.encode(), 400, "bad_field"),
    "an unknown name": (b'{"reason": "x", "resaon": "x"}', 400, "bad_field"),
    "too deep": (b'{"reason":' * 5000 + b"1" + b"}" * 5000, 400, "bad_field"),
    "more than one": (b'{"reason": "x"}{"reason": "x"}', 400, "bad_field"),
    "a number out of all bounds": (b'{"reason": 1e999}', 400, "bad_field"),
    "a long number": (b'{"reason": ' + b"9" * 10_000 + b"}", 400, "bad_field"),
    "too long a reason": (json.dumps({"reason": "x" * 4001}).encode(), 400, "bad_field"),
    "too much": (b'{"reason": "' + b"x" * MAX_BODY_BYTES + b'"}', 413, "http_413"),
}


async def test_garbage_is_refused_in_one_shape_and_does_nothing(web: WebWorld) -> None:
    program, before = api(web), await web.everything()
    for name, (data, expected, kind) in GARBAGE.items():
        sent = {"Content-Type": "application/json"}
        status, said, headers = await program.ask("POST", "/api/lock", data=io.BytesIO(data), headers=sent)
        error = msgspec.json.decode(said, type=Error)
        assert (status, error.kind) == (expected, kind), (name, said)
        assert error.message, name
        assert error.next, name
        assert headers["Content-Type"] == "application/json; charset=utf-8", name
        assert await web.everything() == before, name


WRONG: list[tuple[str, str, dict[str, Any], int]] = [
    ("POST", "/api/lock", {"data": {"reason": "x"}}, 415),
    ("POST", "/api/lock", {"data": b'{"reason":"x"}', "headers": {"Content-Type": "text/plain"}}, 415),
    ("POST", "/api/lock?dry=1", {"json": {"reason": "x"}}, 400),
    ("POST", "/api/rollouts/1/act", {"json": {"action": "fly", "reason": "x", "index": 1}}, 400),
    ("POST", "/api/rollouts/1/act", {"json": {"action": "pause", "reason": "x"}}, 400),
    ("POST", "/api/rollouts/1/act", {"json": {"action": "pause", "reason": "x", "index": "1"}}, 400),
    ("POST", "/api/rollouts/1/act", {"json": {"action": "pause", "reason": "x", "index": 2**64}}, 400),
    ("POST", "/api/rollouts/1/act", {"json": {"action": "pause", "reason": "x", "index": 1}}, 404),
    ("POST", "/api/plans", {"json": {"reason": "x"}}, 400),
    ("POST", "/api/plans", {"json": {"reason": "x", "build": "b1", "manifest": "https://x/y.json"}}, 400),
    ("POST", "/api/plans", {"json": {"reason": "x", "manifest": "/etc/passwd"}}, 400),
    ("POST", "/api/plans", {"json": {"reason": "x", "manifest": "file:///etc/passwd"}}, 400),
    ("POST", "/api/plans", {"json": {"reason": "x", "manifest": "http://127.0.0.1:1/x.json"}}, 409),
    ("POST", "/api/plans", {"json": {"reason": "x", "manifest": "http://[/x.json"}}, 409),
    ("POST", "/api/plans", {"json": {"reason": "x", "build": "b1", "first_tier": "moon"}}, 404),
    ("POST", "/api/command/hand-over", {"json": {"to": "ben\n", "reason": "x"}}, 400),
    ("GET", "/api/rollouts?limit=0", {}, 400),
    ("GET", "/api/rollouts?limit=x", {}, 400),
    ("GET", "/api/rollouts?limit=1&limit=2", {}, 400),
    ("GET", "/api/hosts?standing=odd", {}, 400),
    ("GET", "/api/rollout?x=1", {}, 400),
    ("GET", "/api/rollouts/x", {}, 404),
    ("GET", "/api/rollouts/0", {}, 404),
    ("GET", "/api/rollouts/1234567890", {}, 404),
    ("GET", "/api/hosts/prod/a%0Ab", {}, 404),
    ("GET", "/api/nothing", {}, 404),
    ("GET", "/api/lock", {}, 405),
    ("DELETE", "/api/rollouts/1", {}, 405),
    ("GET", "/api/rollout", {"headers": {"Host": "evil.example"}}, 421),
]


async def test_what_is_wrong_is_told_by_its_status(web: WebWorld) -> None:
    program, before = api(web), await web.everything()
    for method, path, facts, expected in WRONG:
        what = (method, path, dict(facts))
        status, said, headers = await program.ask(method, path, **facts)
        assert status == expected, (what, said)
        error = msgspec.json.decode(said, type=Error)
        assert error.message, what
        assert error.next, what
        if expected == 405:
            assert headers["Allow"], what
        assert await web.everything() == before, what


async def test_without_a_token_nothing_is_told_and_the_challenge_says_how(web: WebWorld) -> None:
    for token in ("", "x", web.tokens["deploy"][:-1]):
        status, said, headers = await Api(web.client(), token).ask("GET", "/api/rollout")
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert msgspec.json.decode(said, type=Error).kind == "http_401"


async def test_a_browser_needs_its_word_also_here(web: WebWorld) -> None:
    """A session's cookie alone is not enough: another site's form could send it."""
    client = await web.as_("deploy")
    before = await web.everything()
    answer = await client.post("/api/lock", json={"reason": "x"})
    assert (answer.status, json.loads(answer.text)["kind"]) == (403, "http_403")
    assert await web.everything() == before
    answer = await client.post("/api/lock", json={"reason": "x"}, headers={"X-CSRF-Token": client.csrf})
    assert answer.status == 200


async def test_who_acts_too_often_is_stopped(tmp_path: Path) -> None:
    """In no time at all, however long the machine takes."""
    async with web_world(tmp_path, monotonic=lambda: 1000.0) as web:
        program = api(web)
        statuses = [(await program.refused("/api/command/release"))[0] for _ in range(WRITES_PER_MINUTE + 1)]
        assert statuses[-1] == 429
        assert set(statuses[:-1]) == {409}


async def test_without_consul_reads_are_old_and_deeds_are_refused(web: WebWorld) -> None:
    """What is known stays readable, and says since when it is old; what must be asked or written is 503."""
    await web.world.start()
    await web.shown()
    program = api(web)
    await web.server.aclose()
    status, said, _ = await program.ask("POST", "/api/lock", json={"reason": "x"})
    error = msgspec.json.decode(said, type=Error)
    assert (status, error.kind) == (503, "store_unreachable")
    assert "try again" in error.next
    shown = await program.get("/api/rollout")
    assert shown.rollout.build == "b2"
    assert shown.cut_off_since is not None
    status, said, _ = await program.ask("GET", "/api/audit")
    assert (status, json.loads(said)["kind"]) == (503, "store_unreachable")


async def test_what_the_pages_say_the_api_says(web: WebWorld) -> None:
    """A stale press and a build that is denied: the same words, on a page and here."""
    await web.world.start()
    index = (await web.world.now()).index
    await web.world.desk.guarding.release_command(web.world.origin())
    await web.world.act(ev.PauseRequested(), "bob@desk", reason="looking at errors")
    _, error = await api(web).refused("/api/rollouts/1/act", action="resume", reason="go", index=index)
    client = await web.as_("deploy")
    page = await client.post("/rollouts/1/act", {"action": "resume", "reason": "go", "index": str(index)})
    for line in error.message.splitlines():
        assert line.strip() in page.text
    assert isinstance((await web.world.now()).rollout.phase, st.Paused)


async def test_an_error_of_ours_is_told_in_the_same_shape() -> None:
    """And is in the log with all that is to be known of it; whoever asks is told no more."""

    async def fails(_: Request) -> answers.LatestAnswer:
        raise ZeroDivisionError("very secret")

    async def impossible(_: Request) -> answers.LatestAnswer:
        raise IllegalTransition("cannot be")

    for function, kind in ((fails, "http_500"), (impossible, "illegal_transition")):
        answer = await operation("api_rollout", function).handle(make_mocked_request("GET", "/api/rollout"))
        assert isinstance(answer.body, bytes)
        assert (answer.status, msgspec.json.decode(answer.body, type=Error).kind) == (500, kind)
        assert b"very secret" not in answer.body


def test_the_description_has_every_route_and_every_status() -> None:
    described = openapi("shop")
    routes = {
        (route.method.lower(), re.sub(r"{(\w+):[^}]*}+", r"{\1}", route.path))
        for route in ROUTES
        if "/api/" in route.path
    }
    found = {(method, path) for path, operations in described["paths"].items() for method in operations}
    assert found == routes
    for operations in described["paths"].values():
        for method, facts in operations.items():
            assert facts["summary"]
            assert set(facts["responses"]) - {"200"} <= {str(status) for status in STATUSES}
            assert ("429" in facts["responses"]) == (method == "post")
    planned = described["components"]["schemas"]["PlanAnswer"]
    assert planned["description"].endswith("Nothing was written.")
    assert planned["properties"]["obstacle"]["description"] == "why it could not be started now; null: it could."
    by_name = {each.name: each for each in OPERATIONS}
    assert {route.name for route in ROUTES if route.path.startswith("/api/")} == set(by_name)
    assert by_name["api_override"].route.role is Role.ADMIN


def test_every_answer_is_strict() -> None:
    """So that a key which the description does not have is never sent."""
    for name, kind in vars(answers).items():
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and not name.startswith("_"):
            assert kind.__struct_config__.forbid_unknown_fields, name


def test_the_page_for_programs_has_every_operation_and_status() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "checkpoint-ui.md").read_text()
    rows = re.findall(r"^\| `(GET|POST) (/api/\S+)` \| (\w+) \| .+ \|$", page, re.MULTILINE)
    described = openapi("shop")["paths"]
    assert sorted((method, path) for method, path, _ in rows) == sorted(
        (method.upper(), path) for path, operations in described.items() for method in operations
    )
    for method, path, role in rows:
        assert described[path][method.lower()]["description"] == f"Needs the role {role}."
    statuses = re.findall(r"^\| (\d+) \| (.+) \|$", page.partition("<!-- statuses -->")[2], re.MULTILINE)
    assert {int(status): said for status, said in statuses} == STATUSES
