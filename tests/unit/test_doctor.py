"""What `hotcold doctor` finds: each trap set up for real, and told from a host where all is well."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner

from agent.config import parse_settings
from artifact import IndexRef, ManifestRef
from fleet import ConsulSettings, ConsulStore, Order, encode
from fleet.devserver import DevServer
from fleet.keys import tier_key
from hotcold.doctor.account import judge_unit, look_at_access, look_at_permissions
from hotcold.doctor.artifacts import look_at_artifacts
from hotcold.doctor.clock import judge_clock, look_at_clock
from hotcold.doctor.consul import look_at_consul
from hotcold.doctor.disk import look_at_exchange, look_at_layout, look_at_space
from hotcold.doctor.finding import Finding
from hotcold.doctor.nginx import look_at_nginx
from hotcold.doctor.patient import Patient
from hotcold.doctor.php import look_at_php
from hotcold.doctor.programs import look_at_gauges, look_at_programs, look_at_settings
from hotcold.doctor.rounds import Check, Rounds
from hotcold.main import cli
from swapper.kernel import LinuxKernel
from tests.consul_process import free_ports

Make = Callable[..., Patient]
NOBODY = 65534


@pytest.fixture
def patient(tmp_path: Path) -> Make:
    """A host in `tmp_path`, with more configuration where it is given."""

    def make(extra: str = "", *, consul: str = "http://127.0.0.1:1", root: Path | None = None) -> Patient:
        root = root or tmp_path / "root"
        root.mkdir(exist_ok=True)
        text = (
            f'app = "shop"\ntier = "prod"\nhost = "web-1"\nroot = "{root}"\nstate_dir = "{tmp_path / "state"}"\n'
            f'socket = "{tmp_path / "s"}"\n{extra}\n[consul]\naddress = "{consul}"\n'
        )
        path = tmp_path / "shop.toml"
        path.write_text(text)
        return Patient(path, parse_settings(text, {}), tmp_path / "etc", patience_s=5.0)

    return make


def levels(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    return [(finding.check, finding.level) for finding in findings]


# --- the rounds -------------------------------------------------------------------------------------------------------


def test_a_check_that_hangs_or_breaks_does_not_hold_up_the_others() -> None:
    """Each has its own thread and deadline; what is raised is told, not thrown."""
    end = threading.Event()

    def hang() -> Sequence[Finding]:
        end.wait()
        return ()

    def break_down() -> Sequence[Finding]:
        raise KeyError("x")

    def forbidden() -> Sequence[Finding]:
        raise PermissionError(13, "Permission denied", "/x")

    checks = [
        Check("hang", hang),
        Check("broken", break_down),
        Check("forbidden", forbidden),
        Check("well", lambda: [Finding("well", "ok", "fine")]),
    ]
    rounds = Rounds(checks, deadline_s=8)
    found = [finding for findings in rounds.run() for finding in findings]
    end.set()
    assert levels(found) == [("hang", "wrong"), ("broken", "unknown"), ("forbidden", "unknown"), ("well", "ok")]
    assert rounds.is_stuck
    assert "no answer within 8 s" in found[0].message
    assert "report it" in found[1].remedy
    well = Rounds(checks[-1:], deadline_s=60)
    assert len(list(well.run())) == 1
    assert not well.is_stuck


# --- disk -------------------------------------------------------------------------------------------------------------


def test_exchange_and_copies_are_tried_and_nothing_is_left(patient: Make) -> None:
    sick = patient()
    found = look_at_exchange(sick)
    assert [finding.check for finding in found] == ["exchange", "copies"]
    assert (found[0].level, "in one step" in found[0].message) in {("ok", True), ("warning", False)}
    assert list(sick.settings.identity.layout.root.iterdir()) == []


class WithoutExchange(LinuxKernel):
    """A file system that does not know the call."""

    number = errno.EINVAL

    def exchange(self, first: str, second: str, *, dir_fd: int) -> None:  # noqa: ARG002 - the seam's
        raise OSError(self.number, os.strerror(self.number))


def test_a_file_system_without_exchange_is_a_warning_and_one_that_fails_is_wrong(patient: Make) -> None:
    """The agent has another way for the one, and none for the other."""
    sick, kernel = patient(), WithoutExchange()
    finding, _ = look_at_exchange(sick, kernel)
    assert finding.level == "warning"
    assert "hot changes first, then cold" in finding.message
    kernel.number = errno.EROFS
    [finding] = look_at_exchange(sick, kernel)
    assert (finding.level, "Read-only" in finding.message) == ("wrong", True)
    assert list(sick.settings.identity.layout.root.iterdir()) == []


def test_space_is_told_of_root_and_state(patient: Make) -> None:
    [space] = look_at_space(patient())
    assert re.search(r"root: [\d.]+ \w+ of [\d.]+ \w+ free", space.message)


def test_links_that_are_none_and_lead_astray_are_named(patient: Make) -> None:
    sick = patient()
    layout = sick.settings.identity.layout
    assert levels(look_at_layout(sick)) == [("layout", "ok")]
    (layout.releases / "b1~1").mkdir(parents=True)
    layout.hot.symlink_to("releases/b1~1")
    layout.cold.mkdir()
    [finding] = look_at_layout(sick)
    assert finding.level == "wrong"
    assert f"{layout.cold} is no link" in finding.message
    layout.cold.rmdir()
    layout.cold.symlink_to("elsewhere")
    assert "no release of hotcold" in look_at_layout(sick)[0].message
    layout.cold.unlink()
    (layout.releases / "b1~1").rmdir()
    assert "not there" in look_at_layout(sick)[0].message
    layout.hot.unlink()
    layout.releases.rmdir()
    layout.root.rmdir()
    [finding] = look_at_layout(sick)
    assert "install -d" in finding.remedy


# --- the agent's user -------------------------------------------------------------------------------------------------


def test_where_the_agents_user_may_not_write_is_named(patient: Make, open_path: Path) -> None:
    """Judged as that user, who is told from the socket; here it is ours, and root may write anywhere."""
    well = patient(root=open_path / "root")
    well.settings.identity.layout.state_dir.mkdir()
    assert levels(look_at_permissions(well)) == [("permissions", "ok")]
    (open_path / "root").chmod(0o750)
    assert "workers of other users cannot serve" in look_at_permissions(well)[0].message
    well.config_path.chmod(0o666)
    assert ("permissions", "wrong") in levels(look_at_permissions(well))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="listens as another user, which needs root")
def test_the_user_who_answers_at_the_socket_is_the_one_who_is_judged(patient: Make, open_path: Path) -> None:
    """A root that belongs to root is of no use to an agent that is somebody else."""
    sick = patient(root=open_path / "root")
    listen = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX, fileno=0); s.listen(); print(flush=True); sys.stdin = None; os.read(1, 1)\n"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(sick.settings.identity.socket))
        left, right = socket.socketpair()
        with closing(left), closing(right):
            process = subprocess.Popen([sys.executable, "-I", "-c", listen], stdin=listener, stdout=right)
            right.close()
            assert left.recv(1) == b"\n"
            user = sick.agent_user()
            assert (user.uid, user.gid) == (NOBODY, NOBODY)
            found = look_at_permissions(sick)
            left.close()
            process.wait(timeout=60)
    [finding] = [each for each in found if str(open_path / "root") in each.message]
    assert finding.level == "wrong"
    assert "may not write in" in finding.message
    assert "chown" in finding.remedy


def test_a_unit_that_may_not_write_in_the_root_is_told(patient: Make, tmp_path: Path) -> None:
    sick = patient()
    shown = {"LoadState": "loaded", "ActiveState": "active", "User": "hotcold", "ReadWritePaths": "/srv/shop /run/x"}
    [finding] = judge_unit(sick, shown)
    assert finding.level == "wrong"
    assert f"ReadWritePaths={tmp_path / 'root'}" in finding.remedy
    assert levels(judge_unit(sick, shown | {"ReadWritePaths": f"-{tmp_path}"})) == [("unit", "ok")]
    [finding] = judge_unit(sick, shown | {"ReadWritePaths": str(tmp_path), "ActiveState": "failed"})
    assert (finding.level, "journalctl" in finding.remedy) == ("warning", True)
    assert "hotcold install" in judge_unit(sick, {"LoadState": "not-found"})[0].remedy


def test_a_group_that_is_not_there_is_told(patient: Make) -> None:
    [finding] = look_at_access(patient('[access]\nwrite_group = "no-such-group"'))
    assert (finding.level, finding.remedy) == ("wrong", "groupadd no-such-group; or correct the name")
    assert levels(look_at_access(patient())) == [("access", "ok")]


# --- the configuration ------------------------------------------------------------------------------------------------


def test_programs_and_users_that_are_not_there_are_told(patient: Make) -> None:
    sick = patient(
        '[hooks.staged]\nargv = ["/no/such/hook"]\n[hooks.proved]\nargv = ["true"]\n'
        '[probe]\ncommand = ["no-such-probe"]\n'
        '[drain]\nworkers = [{ user = "no-such-user" }, { user = "0" }]'
    )
    messages = [finding.message for finding in look_at_programs(sick)]
    assert len(messages) == 3
    assert "hooks.staged: /no/such/hook" in messages[0]
    assert "probe: no-such-probe" in messages[1]
    assert "no user 'no-such-user'" in messages[2]
    assert levels(look_at_programs(patient('[hooks.proved]\nargv = ["true"]'))) == [("programs", "ok")]


def test_a_host_without_a_probe_is_warned(patient: Make) -> None:
    assert ("probe", "warning") in levels(look_at_settings(patient()))
    assert ("probe", "warning") not in levels(look_at_settings(patient('[probe]\ncommand = ["true"]')))


def test_gauges_that_do_not_answer_are_told_and_commands_are_not_run(patient: Make, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    sick = patient(
        f'[[drain.gauges]]\nurl = "http://127.0.0.1:{port}/x"\n'
        f'[[drain.gauges]]\ncommand = ["touch", "{tmp_path / "ran"}"]\n'
    )
    [finding] = look_at_gauges(sick)
    assert finding.level == "wrong"
    assert "cannot be asked" in finding.message
    assert not (tmp_path / "ran").exists()
    assert look_at_gauges(patient()) == []


# --- nginx and PHP ----------------------------------------------------------------------------------------------------

SERVER = """
user www-data;
http {{
    include mime.types; # not there
    {around}
    server {{
        listen 80;
        root "{root}/hot/public";
        location / {{ try_files $uri /index.php; }}
        location ~ \\.php$ {{
            include snippets/*.conf;
            {inside}
            fastcgi_pass unix:/run/php/fpm.sock;
        }}
    }}
    server {{ root /var/www/html; open_file_cache max=1000; location ~ \\.php$ {{
        fastcgi_pass x; fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name; }} }}
}}
"""
DEBIAN = (
    "fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;\nfastcgi_param QUERY_STRING $query_string;\n"
)
RIGHT = "fastcgi_param SCRIPT_FILENAME $realpath_root$fastcgi_script_name;"


@pytest.fixture
def nginx(patient: Make, tmp_path: Path) -> Callable[..., Sequence[Finding]]:
    def look(*, around: str = "", inside: str = "") -> Sequence[Finding]:
        directory = tmp_path / "etc" / "nginx"
        (directory / "snippets").mkdir(parents=True, exist_ok=True)
        (directory / "mime.types").touch()
        (directory / "snippets" / "fastcgi.conf").write_text(DEBIAN)
        text = SERVER.format(around=around, inside=inside, root=tmp_path / "root")
        (directory / "nginx.conf").write_text(text)
        return look_at_nginx(patient())

    return look


def test_nginx_that_hands_out_the_resolved_path_is_well(nginx: Callable[..., Sequence[Finding]]) -> None:
    """The last parameter of a name counts; another server's traps are not ours."""
    [finding] = nginx(inside=RIGHT)
    assert finding.level == "ok", finding


@pytest.mark.parametrize(
    ("around", "inside", "words"),
    [
        ("", "", "snippets/fastcgi.conf:1: SCRIPT_FILENAME is $document_root$fastcgi_script_name"),
        ("", "fastcgi_param SCRIPT_FILENAME '{root}/hot/index.php';", "nginx.conf:12: SCRIPT_FILENAME is"),
        ("open_file_cache max=1000 inactive=20s;", RIGHT, "nginx.conf:5: open_file_cache"),
        ("", f"{RIGHT} open_file_cache\n max=10;", "open_file_cache keeps what it found"),
    ],
)
def test_nginx_traps_are_found_where_they_stand(
    nginx: Callable[..., Sequence[Finding]], tmp_path: Path, around: str, inside: str, words: str
) -> None:
    [finding] = nginx(around=around, inside=inside.replace("{root}", str(tmp_path / "root")))
    assert finding.level == "wrong"
    assert words in finding.message
    assert finding.remedy


def test_a_root_by_another_name_is_recognised_and_a_likeness_is_not(patient: Make, tmp_path: Path) -> None:
    """What a link leads to counts, not how names look."""
    sick = patient()
    (tmp_path / "www").symlink_to(tmp_path / "root")
    (tmp_path / "etc" / "nginx").mkdir(parents=True)
    conf = tmp_path / "etc" / "nginx" / "nginx.conf"
    for root, level in (
        (tmp_path / "www" / "hot" / "public", "wrong"),
        (tmp_path / "root" / "hotels" / "hot", "ok"),
        (tmp_path / "hot", "ok"),
    ):
        conf.write_text(f"http {{ server {{ root {root}; open_file_cache max=9; }} }}")
        assert levels(look_at_nginx(sick)) == [("nginx", level)], root
    conf.write_text(f"server {{ root {tmp_path}/root/hot/$host; open_file_cache max=9; }}")
    assert levels(look_at_nginx(sick)) == [("nginx", "wrong")]


def test_an_app_that_nginx_does_not_serve_is_not_judged(patient: Make, tmp_path: Path) -> None:
    assert look_at_nginx(patient()) == [], "no nginx here"
    (tmp_path / "etc" / "nginx").mkdir(parents=True)
    (tmp_path / "etc" / "nginx" / "nginx.conf").write_text("http { open_file_cache max=9; server { root /var/www; } }")
    assert levels(look_at_nginx(patient())) == [("nginx", "ok")]


@pytest.fixture
def php(patient: Make, tmp_path: Path) -> Callable[..., Sequence[Finding]]:
    def look(ini: str = "", *, pool: str = "", extra: str = "") -> Sequence[Finding]:
        directory = tmp_path / "etc" / "php" / "8.2" / "fpm"
        for part in ("conf.d", "pool.d"):
            (directory / part).mkdir(parents=True, exist_ok=True)
        (directory / "php.ini").write_text("[opcache]\n;opcache.use_cwd = 0\nopcache.enable=1\n")
        (directory / "conf.d" / "99-site.ini").write_text(ini)
        (directory / "pool.d" / "www.conf").write_text(f"[www]\nuser = www-data\n{pool}\n")
        return look_at_php(patient('[drain]\nworkers = [{ executable = "php-fpm8.2" }]\n' + extra))

    return look


RELOAD = '[hooks.after_swap]\nargv = ["true"]\n'


@pytest.mark.parametrize(
    ("ini", "pool", "level", "words"),
    [
        ("opcache.preload = /srv/shop/hot/preload.php", "", "wrong", "opcache.preload"),
        ("opcache.use_cwd = Off ; for speed", "", "wrong", "opcache.use_cwd"),
        ("opcache.validate_timestamps=0", "", "warning", "opcache.validate_timestamps"),
        ("", "php_admin_flag[opcache.validate_timestamps] = off", "warning", "opcache.validate_timestamps"),
        ("realpath_cache_ttl = 3600", "", "warning", "realpath_cache_ttl = 3600"),
    ],
)
def test_php_traps_are_found(
    php: Callable[..., Sequence[Finding]], ini: str, pool: str, level: str, words: str
) -> None:
    """A hook that reloads PHP-FPM after each swap takes away all of them but one, which nothing mends."""
    [finding] = php(ini, pool=pool)
    assert finding.level == level
    assert words in finding.message
    after = levels(php(ini, pool=pool, extra=RELOAD))
    assert after == [("php", "wrong" if "use_cwd" in words else "ok")]


def test_php_as_it_comes_is_well(php: Callable[..., Sequence[Finding]]) -> None:
    assert levels(php()) == [("php", "ok")]
    assert levels(php("opcache.enable = 0\nopcache.use_cwd = 0")) == [("php", "ok")]


def test_php_that_the_app_does_not_use_is_not_judged(patient: Make, tmp_path: Path) -> None:
    assert look_at_php(patient()) == []
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "php.ini").write_text("opcache.use_cwd=0\n")
    assert levels(look_at_php(patient())) == [("php", "ok")]


# --- Consul, artifacts, clock -----------------------------------------------------------------------------------------


def in_thread(work: Callable[[Patient], Sequence[Finding]], sick: Patient) -> Sequence[Finding]:
    """As the rounds do it: a check has a loop of its own."""
    [(findings)] = Rounds([Check("check", lambda: work(sick))], deadline_s=60).run()
    return findings


class Server:
    """An artifact server; `date` None: the right one."""

    def __init__(self) -> None:
        self.knows_ranges = True
        self.date: datetime | None = None
        self.address = ""

    async def answer(self, request: web.Request) -> web.Response:
        date = format_datetime(self.date or datetime.now(UTC), usegmt=True)
        if request.path == "/gone.tar" or request.path.endswith(".index"):
            return web.Response(status=404, headers={"Date": date})
        if self.knows_ranges and "Range" in request.headers:
            headers = {"Content-Range": "bytes 1-1/9", "Date": date}
            return web.Response(status=206, body=b"x", headers=headers)
        return web.Response(body=b"123456789", headers={"Date": date})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    application = web.Application()
    application.router.add_get("/{name}", server.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
async def dev_store() -> AsyncIterator[DevServer]:
    async with DevServer() as store:
        yield store


async def ordered(address: str, *urls: str, index: IndexRef | None = None) -> None:
    kind = "tar" if index is None else "tar.zst"
    build = ManifestRef(id="b1", urls=urls, digest="sha256:" + "0" * 64, size=9, format=kind, index=index)
    order = Order(v=1, app="shop", tier="prod", serial=1, build=build)
    async with ConsulStore(ConsulSettings(address=address)) as store:
        await store.put(tier_key("shop", "prod"), encode(order))


async def look(work: Callable[[Patient], Sequence[Finding]], sick: Patient) -> Sequence[Finding]:
    return await asyncio.get_running_loop().run_in_executor(None, in_thread, work, sick)


async def test_a_store_without_rules_asks_for_no_rights(patient: Make, dev_store: DevServer) -> None:
    found = await look(look_at_consul, patient(consul=dev_store.address))
    assert levels(found) == [("consul", "ok"), ("rights", "ok")]


async def test_a_dead_consul_is_told_and_stops_nothing(patient: Make) -> None:
    (port,) = free_ports(1)
    sick = patient(consul=f"http://127.0.0.1:{port}")
    assert levels(await look(look_at_consul, sick)) == [("consul", "wrong"), ("rights", "unknown")]
    assert levels(await look(look_at_artifacts, sick)) == [("artifacts", "unknown")]


async def test_places_of_the_order_are_asked_for_a_part(patient: Make, dev_store: DevServer, server: Server) -> None:
    """Each place has its line: one that has it, one that knows no ranges, one that lost it."""
    sick = patient(consul=dev_store.address)
    assert levels(await look(look_at_artifacts, sick)) == [("artifacts", "unknown")]
    await ordered(dev_store.address, f"{server.address}/b1.tar", f"{server.address}/gone.tar", "file:///no/such.tar")
    well, gone, absent = await look(look_at_artifacts, sick)
    assert (well.level, gone.level, absent.level) == ("ok", "wrong", "wrong")
    assert "404" in gone.message
    assert "upload it there" in gone.remedy
    await ordered(
        dev_store.address, f"{server.address}/no-index.tar", index=IndexRef(digest="sha256:" + "1" * 64, size=9)
    )
    [without_index] = await look(look_at_artifacts, sick)
    assert without_index.level == "warning"
    assert "only whole" in without_index.message
    assert ".index" in without_index.remedy
    server.knows_ranges = False
    first, *_ = await look(look_at_artifacts, sick)
    assert first.level == "warning"
    assert "only whole" in first.message


async def test_a_clock_that_is_wrong_is_told(patient: Make, dev_store: DevServer, server: Server) -> None:
    """By the artifact server's `Date`, also where that one only says that there is no such file."""
    sick = patient(consul=dev_store.address)
    await ordered(dev_store.address, f"{server.address}/gone.tar")
    server.date = datetime.now(UTC) + timedelta(hours=1)
    [finding] = await look(look_at_clock, sick)
    assert finding.level == "wrong"
    assert f"s behind {server.address}" in finding.message


@pytest.mark.parametrize(
    ("offsets_s", "says", "level", "words"),
    [
        ([("https://a.example", 0.4)], "", "ok", "within 5 s of https://a.example"),
        ([("https://a.example", 0.4)], "no", "warning", "not synchronised"),
        ([("https://a.example", -9.0)], "yes", "warning", "9 s behind https://a.example"),
        (
            [("https://a.example", 1.0), ("https://b.example", 300.0)],
            "yes",
            "wrong",
            "300 s ahead of https://b.example",
        ),
        ([("http://127.0.0.1:8500", 0.0)], "yes", "ok", "no other host"),
        ([], "", "unknown", "no other host"),
    ],
)
def test_what_differences_of_clocks_mean(offsets_s: list[tuple[str, float]], says: str, level: str, words: str) -> None:
    finding = judge_clock(offsets_s, is_synchronised={"yes": True, "no": False, "": None}[says])
    assert finding.level == level
    assert words in finding.message


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(patient: Make, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    sick = patient('[probe]\ncommand = ["true"]')

    def go(*arguments: str) -> tuple[int, str]:
        words = [
            "doctor",
            "--config",
            str(sick.config_path),
            "--etc",
            str(tmp_path / "etc"),
            "--timeout",
            "60",
            *arguments,
        ]
        result = CliRunner().invoke(cli, words)
        return result.exit_code, result.output

    return go


def test_the_command_tells_one_line_each_and_exits_by_what_is_wrong(run: Callable[..., tuple[int, str]]) -> None:
    """Marks tell warnings from what is wrong; JSON has the same findings."""
    code, output = run()
    *lines, summary = output.splitlines()
    assert code == 1
    assert re.match(r"1 wrong, \d+ warnings?", summary), output
    assert all(re.match(r"[✓!✗?] \w+ +\S", line) for line in lines)
    assert [line.split()[1] for line in lines if line.startswith("✗")] == ["consul"]
    code, output = run("--json")
    said = json.loads(output)
    assert (code, said["ok"]) == (1, False)
    assert [finding["check"] for finding in said["findings"]] == [line.split()[1] for line in lines]


def test_a_configuration_that_is_wrong_is_the_only_line(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("app = 3")
    result = CliRunner().invoke(cli, ["doctor", "--config", str(tmp_path / "x.toml")])
    assert result.exit_code == 1
    assert result.stdout.startswith("✗ config ")
    assert len(result.stdout.splitlines()) == 2


def test_which_configuration_is_meant_must_be_clear() -> None:
    result = CliRunner().invoke(cli, ["doctor", "--app", "shop", "--config", "/x.toml"])
    assert result.exit_code == 2
    assert "not both" in result.stderr
