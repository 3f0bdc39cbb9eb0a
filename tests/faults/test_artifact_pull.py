"""Pulling from real servers that fail in every way, and the two processes that must never outlive their task."""

import asyncio
import gzip
import hashlib
import io
import os
import shutil
import signal
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import psutil
import pytest

from artifact.errors import ArtifactRejected, ConfigError, HotcoldError, TransientError
from artifact.manifest import ManifestRef
from artifact.pull import Limits, Progress, PullSettings, pull
from artifact.pullwire import Spec
from tests.listening import listening
from tests.processes import children_of

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

FAST = PullSettings(connect_timeout_s=2, stall_timeout_s=0.5, rate_window_s=0.4, min_rate_bytes=10_000)


def make_tar(*names: str, size: int = 1000, link: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(os.urandom(size)))
        if link is not None:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            archive.addfile(info)
    return buffer.getvalue()


GOOD = make_tar("a", "d/b", size=200_000)
LINKED = make_tar("a", size=200_000, link="a")


def reference(*urls: str, data: bytes = GOOD, archive_format: str = "tar") -> ManifestRef:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return ManifestRef(id="build-1", urls=urls, digest=digest, size=len(data), format=archive_format)


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """A server on 127.0.0.1 that reads each request's head and leaves the rest to `answer`."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await answer(reader, writer)

    async with listening(handle) as port:
        yield f"http://127.0.0.1:{port}/artifact.tar"


def plain(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> Answer:
    """Answers with `body`, announcing its length or another one; -1: none."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        announced = [] if length == -1 else [f"Content-Length: {len(body) if length is None else length}"]
        writer.write("\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *announced, *headers, "", ""]).encode())
        writer.write(body)
        await writer.drain()

    return answer


async def hang_before(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def hang_within(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + GOOD[:1000])
    await reader.read()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    for byte in GOOD:
        writer.write(bytes([byte]))
        await writer.drain()
        with suppress(TimeoutError):
            if await asyncio.wait_for(reader.read(1), 0.02) == b"":
                return


async def broken_chunks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + GOOD[:1000] + b"\r\nnonsense\r\n")


async def cut_chunks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + GOOD[:1000] + b"\r\n")


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def no_http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


def endless(count: list[int]) -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + GOOD)
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            count[0] += 65536

    return answer


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.fixture
def into(tmp_path: Path) -> Path:
    path = tmp_path / "releases" / "new"
    path.mkdir(parents=True)
    return path


def pullers() -> list[psutil.Process]:
    """The processes of a pull: the one that fetches, then the one that opens; those that have not been reaped."""
    return children_of()


async def both(parent: psutil.Process | None = None) -> list[psutil.Process]:
    """The two processes of a pull under way, once both are at work."""
    root = parent or psutil.Process()

    def found() -> list[psutil.Process]:
        return children_of(root)

    await until(lambda: len(found()) == 2 and "artifact.opener" in found()[1].cmdline(), "a puller and an opener")
    return found()


def files(into: Path) -> set[str]:
    return {str(path.relative_to(into)) for path in into.rglob("*") if not path.is_dir()}


def links(into: Path) -> set[Path]:
    return {path for path in into.rglob("*") if path.is_symlink()}


def size_bytes(into: Path) -> int:
    return sum(path.stat().st_size for path in into.rglob("*") if path.is_file())


def clear(into: Path) -> None:
    shutil.rmtree(into)
    into.mkdir()


async def failure(
    ref: ManifestRef, into: Path, expected: type[HotcoldError] = TransientError, settings: PullSettings = FAST
) -> HotcoldError:
    with pytest.raises(expected) as caught:
        await pull(ref, into, settings=settings, on_progress=lambda _: None)
    assert pullers() == []
    return caught.value


FAILING: dict[str, tuple[Answer, str, str]] = {
    "404": (plain(b"", status="404 Not Found"), "http_404", "upload the artifact"),
    "403": (plain(b"", status="403 Forbidden"), "http_403", "let this host read it"),
    "500": (plain(b"", status="500 Oops"), "http_500", "look at the server"),
    "part only": (plain(GOOD, status="206 Partial Content"), "http_206", "a plain 200"),
    "hangs before the answer": (hang_before, "stalled", "silent for 0.5 s"),
    "hangs within the body": (hang_within, "stalled", "silent for 0.5 s"),
    "drips": (drip, "too_slow", "less than 10000 bytes per second"),
    "announces less": (plain(GOOD[:-1]), "size_mismatch", f"expected {len(GOOD)} bytes, got {len(GOOD) - 1} bytes"),
    "announces more": (plain(GOOD + b"x"), "size_mismatch", f"got {len(GOOD) + 1} bytes"),
    "breaks off": (plain(GOOD[:5000], length=len(GOOD)), "truncated", "broke off"),
    "ends early": (plain(GOOD[:5000], length=-1), "truncated", f"ended after 5000 of {len(GOOD)} bytes"),
    "sends more": (plain(GOOD + b"x", length=-1), "size_mismatch", "got more"),
    "breaks chunks": (broken_chunks, "artifact_unreachable", "Invalid character in chunk size"),
    "cuts chunks": (cut_chunks, "truncated", "broke off"),
    "flips a bit of a file": (plain(flipped(GOOD, 5000)), "digest_mismatch", "got sha256:"),
    "flips a bit of a header": (plain(flipped(GOOD, 5)), "digest_mismatch", "got sha256:"),
    "sends another file": (plain(bytes(len(GOOD))), "digest_mismatch", "got sha256:"),
    "hangs up": (hang_up, "artifact_unreachable", "broke off"),
    "is no HTTP server": (no_http, "artifact_unreachable", "no sound HTTP"),
    "redirects to itself": (
        plain(b"", "Location: /artifact.tar", status="302 Found"),
        "bad_redirect",
        "at most 5 redirects",
    ),
    "redirects to a file": (
        plain(b"", "Location: file:///etc/passwd", status="302 Found"),
        "bad_redirect",
        "to http or https",
    ),
}


@pytest.mark.parametrize("case", FAILING)
async def test_a_failing_server_is_named_with_what_to_do(into: Path, case: str) -> None:
    """The kind says what happened, the message where and what to do; no child is left."""
    answer, kind, message = FAILING[case]
    async with serving(answer) as url:
        error = await failure(reference(url), into)
    assert error.kind == kind, error
    assert url in str(error)
    assert message in str(error)
    assert size_bytes(into) <= len(GOOD)


async def test_a_wrong_digest_gets_no_links(into: Path) -> None:
    """The archive is sound to its end, and yet nothing of it is finished."""
    wrong = flipped(LINKED, 5000)
    async with serving(plain(wrong)) as url:
        assert (await failure(reference(url, data=LINKED), into)).kind == "digest_mismatch"
        assert links(into) == set()
        clear(into)
        await pull(reference(url, data=wrong), into, settings=FAST, on_progress=lambda _: None)
    assert links(into) == {into / "link"}


async def test_a_server_that_never_stops_sending_is_left_at_the_first_byte_too_many(into: Path) -> None:
    count = [0]
    async with serving(endless(count)) as url:
        error = await failure(reference(url), into)
    assert error.kind == "size_mismatch"
    assert count[0] < 64 << 20
    assert size_bytes(into) <= len(GOOD)


async def test_a_refused_connection_and_an_unknown_name_are_told_apart(into: Path) -> None:
    async with serving(hang_up) as url:
        gone = url
    assert (await failure(reference(gone), into)).kind == "connect_failed"
    assert (await failure(reference("http://nowhere.invalid/x.tar"), into)).kind == "dns_failed"


async def test_plain_http_behind_https_is_a_tls_failure(into: Path) -> None:
    async def speak_first(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with listening(speak_first) as port:
        error = await failure(reference(f"https://127.0.0.1:{port}/x"), into)
    assert error.kind == "tls_failed", error


async def test_a_ca_file_that_cannot_be_read_is_the_operators_to_mend(into: Path) -> None:
    settings = PullSettings(ca_cert="/nowhere/ca.pem")
    error = await failure(reference("https://127.0.0.1:1/x"), into, ConfigError, settings)
    assert "'/nowhere/ca.pem'" in str(error)


@pytest.mark.parametrize("path", ["missing.tar", "directory", "fifo"])
async def test_a_file_url_that_is_no_artifact_fails_at_once(into: Path, tmp_path: Path, path: str) -> None:
    """A fifo would block an open for ever."""
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    url = (tmp_path / path).as_uri()
    error = await failure(reference(url), into)
    assert error.kind == "artifact_unreachable"
    assert url in str(error)


async def test_secrets_in_urls_are_not_repeated(into: Path) -> None:
    """Errors travel into reports that everybody reads."""
    async with serving(plain(b"", status="403 Forbidden")) as url:
        secret = url.replace("127.0.0.1", "user:password@127.0.0.1") + "?X-Signature=s3cret"
        error = await failure(reference(secret), into)
    assert "password" not in str(error)
    assert "s3cret" not in str(error)
    assert url in str(error)


async def test_the_next_url_gets_an_empty_directory(into: Path) -> None:
    """What the first, wrong one left is gone; each kind of failure costs one url only."""
    wrong = make_tar("wrong", "d/b/wrong-too", size=250_000)
    async with serving(plain(wrong, length=-1)) as first, serving(plain(GOOD)) as second:
        await pull(reference(first, second), into, settings=FAST, on_progress=lambda _: None)
    assert files(into) == {"a", "d/b"}
    assert pullers() == []


async def test_what_a_wrong_url_left_is_removed_however_deep_it_is(into: Path) -> None:
    """Deeper than a stack: nobody has judged it when it is removed."""
    deep = make_tar("a", "/".join(["d"] * 2000), "d/e/f", size=170_000)
    good = make_tar("a", "d", "e", size=170_000)
    deep += bytes(len(good) - len(deep))
    async with serving(plain(deep, length=-1)) as first, serving(plain(good)) as second:
        await pull(reference(first, second, data=good), into, settings=FAST, on_progress=lambda _: None)
    assert files(into) == {"a", "d", "e"}


async def test_when_all_urls_fail_each_is_named(into: Path) -> None:
    async with serving(plain(b"", status="404 Gone")) as first, serving(plain(flipped(GOOD, 5000))) as second:
        error = await failure(reference(first, second), into)
    assert error.kind == "artifact_unreachable"
    assert f"{first} answered 404" in str(error)
    assert f"{second} gave other bytes" in str(error)


async def test_a_hostile_archive_is_rejected_when_its_digest_is_right_and_no_other_url_is_asked(into: Path) -> None:
    hostile = make_tar("a", "../evil", "b", size=100_000)
    asked = []

    async def second_answer(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        asked.append(1)

    async with serving(plain(hostile)) as first, serving(second_answer) as second:
        error = await failure(reference(first, second, data=hostile), into, ArtifactRejected)
    assert error.kind == "archive_hostile"
    assert "'../evil'" in str(error)
    assert asked == []
    assert files(into) == {"a"}
    assert not (into.parent / "evil").exists()


async def test_a_hostile_archive_with_a_wrong_digest_is_that_urls_fault(into: Path) -> None:
    """A tampered copy on one mirror does not condemn the build."""
    hostile = make_tar("../evil", "a", size=200_000)
    assert len(hostile) == len(GOOD)
    async with serving(plain(hostile)) as first:
        error = await failure(reference(first), into)
        assert error.kind == "digest_mismatch"
        clear(into)
        async with serving(plain(GOOD)) as second:
            await pull(reference(first, second), into, settings=FAST, on_progress=lambda _: None)
    assert files(into) == {"a", "d/b"}
    assert not (into.parent / "evil").exists()


async def test_limits_reach_the_child(into: Path) -> None:
    settings = PullSettings(limits=Limits(max_files=2))
    async with serving(plain(GOOD)) as url:
        error = await failure(reference(url), into, ArtifactRejected, settings)
    assert error.kind == "archive_too_big"


async def test_a_server_that_labels_a_gzip_file_as_encoded_does_not_break_the_digest(into: Path) -> None:
    packed = gzip.compress(GOOD)
    async with serving(plain(packed, "Content-Encoding: gzip")) as url:
        ref = reference(url, data=packed, archive_format="tar.gz")
        await pull(ref, into, settings=FAST, on_progress=lambda _: None)
    assert files(into) == {"a", "d/b"}


async def test_redirects_are_followed(into: Path) -> None:
    async with serving(plain(GOOD)) as good, serving(plain(b"", f"Location: {good}", status="307 Moved")) as first:
        await pull(reference(first), into, settings=FAST, on_progress=lambda _: None)
    assert files(into) == {"a", "d/b"}


async def test_progress_rises_to_the_total(into: Path) -> None:
    seen: list[Progress] = []
    async with serving(plain(GOOD)) as url:
        await pull(reference(url), into, settings=FAST, on_progress=seen.append)
    assert [progress.bytes_done for progress in seen] == sorted(progress.bytes_done for progress in seen)
    assert seen[-1] == Progress(bytes_done=len(GOOD), bytes_total=len(GOOD), files_done=2, url=url)


async def test_a_directory_that_is_not_empty_or_missing_is_refused_untouched(into: Path) -> None:
    (into / "precious").write_text("mine")
    error = await failure(reference("http://127.0.0.1:1/x"), into, ConfigError)
    assert error.kind == "not_empty"
    assert (into / "precious").read_text() == "mine"
    assert "No such file" in str(await failure(reference("http://127.0.0.1:1/x"), into / "missing", ConfigError))


def is_at_work(process: psutil.Process) -> bool:
    """Whether it has memory left to run code in, which a process gives up before it closes its files and is reaped."""
    try:
        Path(f"/proc/{process.pid}/exe").readlink()
    except OSError:
        return False
    return process.is_running()


async def until(condition: Callable[[], bool], what: str) -> None:
    """Poll, for processes and kernels tell nobody."""
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s, f"in vain: {what}"
        await asyncio.sleep(0.01)


async def test_cancel_returns_after_both_processes_are_dead(into: Path) -> None:
    """Even a second cancel, while they are reaped, does not return before."""
    started = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        started.set()
        await hang_within(reader, writer)

    async with serving(answer) as url:
        settings = PullSettings(stall_timeout_s=60)
        task = asyncio.create_task(pull(reference(url), into, settings=settings, on_progress=lambda _: None))
        await started.wait()
        children = await both()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not any(is_at_work(child) for child in children)
    assert pullers() == []


async def test_cancel_at_the_very_start_leaves_no_child(into: Path) -> None:
    for turns in range(6):
        task = asyncio.create_task(
            pull(reference("http://127.0.0.1:1/x"), into, settings=FAST, on_progress=lambda _: None)
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pullers() == []


async def test_an_error_in_the_callers_callback_ends_the_child(into: Path) -> None:
    def fail(_: Progress) -> None:
        raise ZeroDivisionError

    async with serving(plain(GOOD)) as url:
        with pytest.raises(ZeroDivisionError):
            await pull(reference(url), into, settings=FAST, on_progress=fail)
    assert pullers() == []


@pytest.mark.parametrize("kind", ["puller_died", "opener_died"])
async def test_a_process_that_is_killed_is_a_passing_failure_that_says_how(into: Path, kind: str) -> None:
    """The out-of-memory killer, for one. Whether other bytes could have helped is known at the end of the artifact."""
    killed = asyncio.Event()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + GOOD[:1000])
        await killed.wait()
        writer.write(GOOD[1000:])

    async with serving(answer) as url:
        settings = PullSettings(stall_timeout_s=60)
        task = asyncio.create_task(pull(reference(url), into, settings=settings, on_progress=lambda _: None))
        fetching, opening = await both()
        {"puller_died": fetching, "opener_died": opening}[kind].kill()
        killed.set()
        with pytest.raises(TransientError, match="signal 9") as caught:
            await task
    assert caught.value.kind == kind
    assert not any(is_at_work(child) for child in (fetching, opening))
    assert pullers() == []


PARENT = """
import asyncio, sys
from pathlib import Path
import msgspec
from artifact.manifest import ManifestRef
from artifact.pull import PullSettings, pull
ref = msgspec.json.decode(sys.argv[1], type=ManifestRef)
asyncio.run(pull(ref, Path(sys.argv[2]), settings=PullSettings(), on_progress=lambda _: None))
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
async def test_both_processes_die_with_their_parent(into: Path, sign: signal.Signals) -> None:
    """kill -9 of the agent leaves no process that fills a directory which the next agent removes."""
    started = asyncio.Event()
    gone = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        started.set()
        try:
            await hang_within(reader, writer)
        finally:
            gone.set()  # also where the kernel resets the connection, because bytes lay unread

    async with serving(answer) as url:
        ref = reference(url)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PARENT, msgspec.json.encode(ref).decode(), str(into)
        )
        await started.wait()
        children = await both(psutil.Process(process.pid))
        process.send_signal(sign)
        await process.wait()
        await until(lambda: not any(is_at_work(child) for child in children), "the children's death")
        await asyncio.wait_for(gone.wait(), 10)


async def test_both_processes_die_when_the_pullers_stdin_ends(into: Path) -> None:
    """The second way, where the kernel's signal reaches nobody: the parent's end of the pipe closes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "artifact.puller",
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    async with serving(hang_before) as url:
        settings = PullSettings(stall_timeout_s=60)
        spec = Spec(ref=reference(url), into=str(into), settings=settings, parent_pid=os.getpid())
        process.stdin.write(msgspec.json.encode(spec) + b"\n")
        await process.stdin.drain()
        _, opening = await both()
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 20) == 1
        await until(lambda: not is_at_work(opening), "the opener's death")
