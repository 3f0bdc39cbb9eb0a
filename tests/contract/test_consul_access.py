"""How a real Consul is reached: access rules, TLS with certificates on both sides, Unix sockets, tokens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from agent.config import parse_settings
from artifact import ConfigError
from checkpoint.archiving import Archivist
from checkpoint.audit import Record
from checkpoint.audit_reading import read_chain
from checkpoint.insisting import Insistence
from checkpoint.rollout.events import Origin, RollbackRequested
from checkpoint.writing import Writer
from fleet import CheckUnchanged, ConsulStore, Put, Service, StoreRefused, StoreUnreachable, consul_settings
from fleet.acl import admin_rules, agent_rights, agent_rules, commander_rules, engine_rules
from fleet.keys import leader_prefix
from fleet.rights import Examination
from fleet.settings import ConsulSettings
from fleet.store import Store
from hotcold.doctor.consul import look_at_consul
from hotcold.doctor.patient import Patient
from tests.consul_process import NO_CONSUL, ConsulDev, ConsulServer, find_consul, free_ports, get
from tests.rollout_world import Fleet, RolloutWorld

pytestmark = pytest.mark.consul

MASTER = str(uuid.uuid4())


def call(consul: ConsulServer, path: str, body: dict | None = None) -> dict:
    data, method = (None, "GET") if body is None else (json.dumps(body).encode(), "PUT")
    request = urllib.request.Request(f"{consul.address}{path}", data, {"X-Consul-Token": MASTER}, method=method)
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


@pytest.fixture(scope="module")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulServer]:
    if find_consul() is None:
        pytest.skip(NO_CONSUL)
    acl = f'acl {{ enabled = true default_policy = "deny" tokens {{ master = "{MASTER}" agent = "{MASTER}" }} }}'
    consul = ConsulDev(tmp_path_factory.mktemp("acl"), f"-hcl={acl}")
    consul.token = MASTER  # Without one it would never see a node, and so never be ready.
    with consul:
        yield consul


@pytest.fixture(scope="module")
def token(consul: ConsulServer) -> str:
    """That of an agent with the least rights."""
    node = call(consul, "/v1/agent/self")["Config"]["NodeName"]
    return token_with(consul, "agent", agent_rules("web", "prod", "h1", node))


def token_with(consul: ConsulServer, name: str, rules: str) -> str:
    call(consul, "/v1/acl/policy", {"Name": name, "Rules": rules})
    token: str = call(consul, "/v1/acl/token", {"Policies": [{"Name": name}]})["SecretID"]
    return token


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    binary = find_consul()
    if binary is None:
        pytest.skip(NO_CONSUL)
    directory = tmp_path_factory.mktemp("tls")
    for arguments in (
        ["ca", "create"],
        ["cert", "create", "-server", "-additional-ipaddress=127.0.0.1"],
        ["cert", "create", "-client"],
        ["ca", "create", "-domain=other"],
    ):
        subprocess.run([binary, "tls", *arguments], cwd=directory, check=True, capture_output=True)
    return directory


@pytest.fixture(scope="module")
def tls_address(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    (port,) = free_ports(1)
    config = (
        f'ca_file = "{files}/consul-agent-ca.pem" cert_file = "{files}/dc1-server-consul-0.pem" '
        f'key_file = "{files}/dc1-server-consul-0-key.pem" verify_incoming_https = true ports {{ https = {port} }}'
    )
    with ConsulDev(tmp_path_factory.mktemp("consul-tls"), f"-hcl={config}"):
        yield f"https://127.0.0.1:{port}"


class TestAccessRules:
    """With everything denied by default, an agent's token lets it do its work and nothing else."""

    async def test_an_agent_can_do_its_work(self, consul: ConsulServer, token: str) -> None:
        service = Service(id="hotcold-web-prod-h1", name="hotcold-web", ttl_s=30)
        settings = consul_settings({"CONSUL_HTTP_ADDR": consul.address, "CONSUL_HTTP_TOKEN": token})
        async with ConsulStore(settings) as store:
            assert await store.read("hotcold/web/tiers/prod") is None
            assert await store.put("hotcold/web/hosts/prod/h1", b"{}")
            assert await store.transact([Put("hotcold/web/hosts/prod/h1", b"{}")])
            slot = await store.acquire_slot("hotcold/web/slots/prod/", 1, holder="h1")
            assert slot is not None
            await store.renew_slot(slot)
            await store.release_slot(slot)
            await store.pass_check(service, "steady")
            await store.set_maintenance(service.id, on=True)
            await store.set_maintenance(service.id, on=False)
            await store.deregister(service)

    @pytest.mark.parametrize(
        ("operation", "rule"),
        [
            (lambda store: store.read("hotcold/web/tiers/staging"), 'key "hotcold/web/tiers/staging"'),
            (
                lambda store: store.put("hotcold/web/tiers/prod", b""),
                'key "hotcold/web/tiers/prod" { policy = "write" }',
            ),
            (lambda store: store.delete("hotcold/web/tiers/prod"), 'key "hotcold/web/tiers/prod" { policy = "write" }'),
            (
                lambda store: store.transact(
                    [Put("hotcold/web/hosts/prod/h1", b""), Put("hotcold/web/tiers/prod", b"")]
                ),
                'key "hotcold/web/tiers/prod" { policy = "write" }',
            ),
            (
                lambda store: store.transact([CheckUnchanged("hotcold/web/tiers/staging", 0)]),
                'key "hotcold/web/tiers/staging" { policy = "read" }',
            ),
            (lambda store: store.register(Service(id="x", name="other", ttl_s=30)), 'service "'),
        ],
    )
    async def test_what_an_agent_may_not_do_is_refused_with_the_rule_that_it_lacks(
        self, consul: ConsulServer, token: str, operation: object, rule: str
    ) -> None:
        settings = consul_settings({"CONSUL_HTTP_ADDR": consul.address, "CONSUL_HTTP_TOKEN": token})
        async with ConsulStore(settings) as store:
            with pytest.raises(StoreRefused) as caught:
                await operation(store)
            assert caught.value.kind == "store_denied"
            assert rule in str(caught.value)
            assert token not in str(caught.value)
            assert store.contact.error is None, "it was reached"

    async def test_a_commander_can_do_its_work_and_not_an_agents(self, consul: ConsulServer) -> None:
        token = token_with(consul, "commander", commander_rules("web"))
        settings = consul_settings({"CONSUL_HTTP_ADDR": consul.address, "CONSUL_HTTP_TOKEN": token})
        async with ConsulStore(settings) as store:
            assert await store.put("hotcold/web/tiers/prod", b"{}", cas=0)
            assert [entry.key for entry in await store.read_prefix("hotcold/web/tiers/")] == ["hotcold/web/tiers/prod"]
            await store.read_prefix("hotcold/web/hosts/")
            await store.read_prefix("hotcold/web/slots/prod/")
            async with contextlib.aclosing(store.watch_prefix("hotcold/web/hosts/")) as changes:
                await anext(changes)
            await store.services("hotcold-web")
            assert await store.delete("hotcold/web/tiers/prod")
            for refused in (
                store.put("hotcold/web/hosts/prod/h1", b""),
                store.put("hotcold/other/tiers/prod", b""),
                store.register(Service(id="x", name="hotcold-web", ttl_s=30)),
            ):
                with pytest.raises(StoreRefused):
                    await refused

    async def test_an_engine_and_its_commander_need_no_more_than_their_rules(self, consul: ConsulServer) -> None:
        """A whole rollout, with the tokens that the printed rules give: and a commander cannot lead."""
        node = call(consul, "/v1/agent/self")["Config"]["NodeName"]
        rules = {"engine": engine_rules("shop", node), "shop-commander": commander_rules("shop")}
        tokens = {name: token_with(consul, name, text) for name, text in rules.items()}
        stores = {
            name: ConsulStore(consul_settings({"CONSUL_HTTP_ADDR": consul.address, "CONSUL_HTTP_TOKEN": token}))
            for name, token in {**tokens, "hosts": MASTER}.items()
        }
        try:
            world = RolloutWorld(stores["hosts"], Fleet(stores["hosts"]))
            await world.order_everywhere()
            world.desk, world.engine = world.new_desk(stores["shop-commander"]), world.new_engine(stores["engine"])
            await world.start()
            slot = await stores["engine"].acquire_slot(leader_prefix("shop"), 1, holder="engine")
            assert slot is not None
            await stores["engine"].release_slot(slot)
            with pytest.raises(StoreRefused):
                await stores["shop-commander"].acquire_slot(leader_prefix("shop"), 1, holder="x")
            ended = await world.until_ended()
            assert ended.rollout.phase_name == "finished"
            assert (await world.act(RollbackRequested())).is_done
        finally:
            for each in stores.values():
                await each.aclose()

    async def test_only_an_admin_archives_the_audit(self, consul: ConsulServer, tmp_path: Path) -> None:
        """A commander and an engine may write records, but not where the audit begins: nothing is removed for them."""
        node = call(consul, "/v1/agent/self")["Config"]["NodeName"]
        engine = engine_rules("arc", node)
        rules = {"a-commander": commander_rules("arc"), "an-engine": engine, "admin": admin_rules("arc")}
        now = datetime(2026, 11, 23, tzinfo=UTC)
        for name, text in rules.items():
            settings = consul_settings(
                {"CONSUL_HTTP_ADDR": consul.address, "CONSUL_HTTP_TOKEN": token_with(consul, name, text)}
            )
            async with ConsulStore(settings) as store:
                insistence = Insistence(asyncio.sleep)
                note = Record(v=1, number=0, at=now, by=name, via="cli", what="locked", message="locked: x")
                assert await Writer(store, "arc", insistence).write([], [note, note])
                archivist = Archivist(store, "arc", insistence, asyncio.sleep)
                later = now + timedelta(days=9)
                origin = Origin(by=name, via="cli", reason="", at=later)
                before = await read_chain(store, "arc")
                work = archivist.archive(tmp_path / name, later - timedelta(days=2), origin)
                if name != "admin":
                    with pytest.raises(StoreRefused) as caught:
                        await work
                    assert caught.value.kind == "store_denied"
                    assert await read_chain(store, "arc") == before
                    continue
                done = await work
                assert done is not None
                assert (done.first, done.last, done.removed_count) == (1, 5, 5)

    async def test_an_unknown_token_is_refused(self, consul: ConsulServer) -> None:
        settings = consul_settings({"CONSUL_HTTP_ADDR": consul.address, "CONSUL_HTTP_TOKEN": str(uuid.uuid4())})
        async with ConsulStore(settings) as store:
            with pytest.raises(StoreRefused, match="ACL not found"):
                await store.read("hotcold/web/tiers/prod")


class TestExamination:
    """What a token may do is found out, and nothing is changed by it."""

    def settings(self, consul: ConsulServer, token: str) -> ConsulSettings:
        return consul_settings({"CONSUL_HTTP_ADDR": consul.address, "CONSUL_HTTP_TOKEN": token})

    async def test_a_token_with_the_least_rights_lacks_none(self, consul: ConsulServer, token: str) -> None:
        node = call(consul, "/v1/agent/self")["Config"]["NodeName"]
        before = get(f"{consul.address}/v1/kv/hotcold/?recurse", MASTER)
        async with Examination(self.settings(consul, token), grace_s=20) as examination:
            health = await examination.health()
            assert health.leader
            assert parsedate_to_datetime(health.date)
            assert await examination.missing(agent_rights("web", "prod", "h1", node)) == ()
            # The node's name is not known to who asks: then a session is tried, and is gone again.
            assert await examination.missing(agent_rights("web", "prod", "h1", "another-name")) == ()
        assert [each for each in call(consul, "/v1/session/list") if each["Name"] == "hotcold doctor"] == []
        assert get(f"{consul.address}/v1/kv/hotcold/?recurse", MASTER) == before

    @pytest.mark.parametrize("number", range(5))
    async def test_each_right_that_is_missing_is_named(self, consul: ConsulServer, number: int) -> None:
        node = call(consul, "/v1/agent/self")["Config"]["NodeName"]
        rights = agent_rights("web", "prod", "h1", node)
        rules = "".join(f"{right.rule}\n" for right in rights if right != rights[number])
        lacking = token_with(consul, f"without-{number}", rules)
        async with Examination(self.settings(consul, lacking), grace_s=20) as examination:
            assert await examination.missing(rights) == (rights[number],)

    async def test_doctor_names_the_line_that_is_missing(self, consul: ConsulServer, tmp_path: Path) -> None:
        """With the token of the configuration, and the command that prints all lines."""
        rights = agent_rights("web", "prod", "h1", "n")
        token = token_with(
            consul, "no-reports", "".join(f"{right.rule}\n" for right in rights if "hosts" not in right.rule)
        )
        text = (
            f'app = "web"\ntier = "prod"\nhost = "h1"\nroot = "{tmp_path}"\n'
            f'[consul]\naddress = "{consul.address}"\ntoken = "{token}"\n'
        )
        patient = Patient(tmp_path / "x.toml", parse_settings(text, {}), tmp_path, patience_s=20)
        well, rights_found = await asyncio.get_running_loop().run_in_executor(None, look_at_consul, patient)
        assert (well.level, rights_found.level) == ("ok", "wrong")
        assert "report what this host does" in rights_found.message
        assert 'key "hotcold/web/hosts/prod/h1" { policy = "write" }' in rights_found.message
        assert "tiers" not in rights_found.message
        assert "hotcold acl-policy --app web --tier prod --host h1" in rights_found.remedy
        assert token not in str((well, rights_found))

    async def test_a_token_that_nobody_knows_is_refused(self, consul: ConsulServer) -> None:
        async with Examination(self.settings(consul, str(uuid.uuid4())), grace_s=20) as examination:
            with pytest.raises(StoreRefused, match="ACL not found"):
                await examination.missing(agent_rights("web", "prod", "h1", "n"))

    async def test_a_consul_without_rules_asks_for_none(self, consul_dev: ConsulDev) -> None:
        async with Examination(consul_settings({}, {"address": consul_dev.address}), grace_s=20) as examination:
            assert await examination.missing(agent_rights("web", "prod", "h1", "n")) is None


class TestTls:
    """The server asks for a client certificate and has one of its own authority."""

    @pytest.fixture
    def env(self, files: Path, tls_address: str) -> dict[str, str]:
        return {
            "CONSUL_HTTP_ADDR": tls_address,
            "CONSUL_CACERT": f"{files}/consul-agent-ca.pem",
            "CONSUL_CLIENT_CERT": f"{files}/dc1-client-consul-0.pem",
            "CONSUL_CLIENT_KEY": f"{files}/dc1-client-consul-0-key.pem",
        }

    async def read(self, env: dict[str, str]) -> None:
        async with ConsulStore(consul_settings(env)) as store:
            assert await store.read("key") is None

    async def test_with_the_right_files_it_works(self, env: dict[str, str]) -> None:
        await self.read(env)

    async def test_the_name_in_the_certificate_can_be_given(self, env: dict[str, str]) -> None:
        await self.read(env | {"CONSUL_TLS_SERVER_NAME": "server.dc1.consul"})
        with pytest.raises(StoreUnreachable, match="certificate"):
            await self.read(env | {"CONSUL_TLS_SERVER_NAME": "elsewhere.example"})

    async def test_a_directory_of_authorities_needs_no_special_file_names(
        self, env: dict[str, str], files: Path, tmp_path: Path
    ) -> None:
        shutil.copy(files / "other-agent-ca.pem", tmp_path)
        shutil.copy(files / "consul-agent-ca.pem", tmp_path)
        await self.read({**env, "CONSUL_CACERT": "", "CONSUL_CAPATH": str(tmp_path)})

    async def test_an_unverified_server_still_gets_our_certificate(self, env: dict[str, str]) -> None:
        await self.read({**env, "CONSUL_CACERT": "", "CONSUL_HTTP_SSL_VERIFY": "0"})

    @pytest.mark.parametrize(
        "change",
        [
            {"CONSUL_CACERT": ""},
            {"CONSUL_CACERT": "{files}/other-agent-ca.pem"},
            {"CONSUL_CLIENT_CERT": "", "CONSUL_CLIENT_KEY": ""},
        ],
    )
    async def test_a_missing_or_wrong_certificate_connects_to_nothing(
        self, env: dict[str, str], files: Path, change: dict[str, str]
    ) -> None:
        with pytest.raises(StoreUnreachable):
            await self.read(env | {name: text.format(files=files) for name, text in change.items()})

    @pytest.mark.parametrize("name", ["CONSUL_CACERT", "CONSUL_CAPATH", "CONSUL_CLIENT_CERT", "CONSUL_CLIENT_KEY"])
    @pytest.mark.parametrize("broken", ["missing", "empty"])
    async def test_a_file_that_cannot_be_used_is_named(
        self, env: dict[str, str], tmp_path: Path, name: str, broken: str
    ) -> None:
        path = tmp_path / "broken"
        if broken == "empty":
            path.mkdir() if name == "CONSUL_CAPATH" else path.write_text("")
        changed = {**env, name: str(path)} | ({"CONSUL_CACERT": ""} if name == "CONSUL_CAPATH" else {})
        with pytest.raises(ConfigError, match=str(path)) as caught:
            await ConsulStore(consul_settings(changed)).open()
        assert caught.value.kind == "tls_files"


@pytest.mark.usefixtures("consul_binary")
async def test_a_unix_socket_works(tmp_path: Path) -> None:
    # Not below tmp_path: a socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory() as directory:
        socket = f"{directory}/consul.sock"
        with ConsulDev(tmp_path, f'-hcl=addresses {{ http = "127.0.0.1 unix://{socket}" }}'):
            async with ConsulStore(consul_settings({"CONSUL_HTTP_ADDR": f"unix://{socket}"})) as store:
                typed: Store = store
                assert await typed.put("key", b"1")
                entry = await typed.read("key")
                assert entry is not None
                assert entry.value == b"1"
