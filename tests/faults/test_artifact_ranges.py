"""Pulling by ranges from servers that fail in every way: the right error, no child left, and recovery afterwards."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from artifact import ManifestRef, PullSettings, TransientError
from tests.builds import Depot, Entry, File, Packed, Releases, shape_of
from tests.faults.ranged_server import Answer, Fault, Request, serving, well
from tests.listening import listening
from tests.processes import children_of

FAST = PullSettings(connect_timeout_s=2, stall_timeout_s=0.4, rate_window_s=0.3, min_rate_bytes=20_000)

ENTRIES: dict[str, Entry] = {
    **{f"d{number % 5}/f{number}": File(random.Random(number).randbytes(30_000)) for number in range(80)},
    "big": File(random.Random(100).randbytes(5 << 20)),
}


@pytest.fixture(scope="module")
def depot(tmp_path_factory: pytest.TempPathFactory) -> Depot:
    return Depot(tmp_path_factory.mktemp("builds") / "depot")


@pytest.fixture(scope="module")
def build(depot: Depot) -> Packed:
    return depot.pack("1", ENTRIES)


@pytest.fixture(scope="module")
def patched(depot: Depot, build: Packed) -> Packed:
    """The next build, with a patch."""
    return depot.pack("2", {**ENTRIES, "d1/f1": File(b"changed")}, against=build)


@pytest.fixture
def host(tmp_path: Path) -> Releases:
    return Releases(tmp_path / "releases")


def ref_at(build: Packed, *urls: str) -> ManifestRef:
    """The build's reference, at these servers."""
    return msgspec.structs.replace(build.ref, urls=tuple(f"{url}/{build.artifact.name}" for url in urls))


def plain(fault: Callable[[Request, Answer], Answer]) -> Fault:
    """A fault that only changes the answer."""

    async def changed(
        request: Request, answer: Answer, _: asyncio.StreamReader, __: asyncio.StreamWriter
    ) -> Answer | None:
        return fault(request, answer)

    return changed


def status(line: str, *headers: str) -> Fault:
    return plain(lambda *_: Answer(line, b"", headers, 0))


def with_headers(*headers: str) -> Fault:
    return plain(lambda _, answer: replace(answer, headers=headers))


def shifted(request: Request, answer: Answer) -> Answer:
    """The range before the one that was asked for."""
    if not request.start:
        return answer
    return replace(answer, headers=(f"Content-Range: bytes {request.start - 1}-{request.end - 2}/{request.total}",))


def flipped(_: Request, answer: Answer) -> Answer:
    at = len(answer.body) // 2
    return replace(answer, body=answer.body[:at] + bytes([answer.body[at] ^ 1]) + answer.body[at + 1 :])


async def hang(_: Request, __: Answer, reader: asyncio.StreamReader, ___: asyncio.StreamWriter) -> None:
    await reader.read()


async def hang_within(request: Request, _: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(
        f"HTTP/1.1 206 Partial\r\nContent-Range: bytes {request.start}-{request.end - 1}/*\r\n"
        f"Content-Length: {len(request.body)}\r\n\r\n".encode()
        + request.body[: len(request.body) // 2]
    )
    await reader.read()


async def drip(request: Request, _: Answer, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(f"HTTP/1.1 206 P\r\nContent-Range: bytes {request.start}-{request.end - 1}/*\r\n\r\n".encode())
    for byte in request.body:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def endless(request: Request, _: Answer, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(f"HTTP/1.1 206 P\r\nContent-Range: bytes {request.start}-{request.end - 1}/*\r\n\r\n".encode())
    writer.write(request.body + bytes(65536))  # at once: whoever saw the right bytes alone would not be wrong to go
    while True:
        writer.write(bytes(65536))
        await writer.drain()


async def hang_up(_: Request, __: Answer, ___: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def no_http(_: Request, __: Answer, ___: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


FAILING: dict[str, tuple[Fault, str]] = {
    "404": (status("404 Not Found"), "http_404"),
    "401": (status("401 Unauthorized"), "http_401"),
    "403": (status("403 Forbidden"), "http_403"),
    "416": (status("416 Range Not Satisfiable"), "http_416"),
    "500": (status("500 Oops"), "http_500"),
    "503": (status("503 Busy", "Retry-After: 3600"), "http_503"),
    "redirects to itself": (
        plain(lambda request, _: Answer("302 Found", b"", (f"Location: {request.path}",), 0)),
        "bad_redirect",
    ),
    "redirects to a file": (status("302 Found", "Location: file:///etc/passwd"), "bad_redirect"),
    "hangs before the answer": (hang, "stalled"),
    "hangs within the body": (hang_within, "stalled"),
    "drips": (drip, "too_slow"),
    "never ends": (endless, "bad_range"),
    "hangs up": (hang_up, "artifact_unreachable"),
    "is no HTTP server": (no_http, "artifact_unreachable"),
    "gives less than it announces": (plain(lambda _, answer: replace(answer, body=answer.body[:-1])), "truncated"),
    "gives and announces less": (
        plain(lambda _, answer: replace(answer, body=answer.body[:-1], length=len(answer.body) - 1)),
        "truncated",
    ),
    "gives nothing": (plain(lambda _, answer: replace(answer, body=b"", length=0)), "truncated"),
    "gives another range": (plain(shifted), "bad_range"),
    "does not say which range": (with_headers(), "bad_range"),
    "says nonsense of the range": (with_headers("Content-Range: octets 1/2"), "bad_range"),
    "gives other bytes": (plain(flipped), "digest_mismatch"),
}


async def refused(host: Releases, ref: ManifestRef) -> TransientError:
    with pytest.raises(TransientError) as caught:
        await host.pulling("r", ref, settings=FAST)
    assert children_of() == []
    return caught.value


@pytest.mark.parametrize("phase", ["everything", "frames"])
@pytest.mark.parametrize("case", FAILING)
async def test_a_failing_server_is_named_and_the_next_try_goes_on(
    host: Releases, depot: Depot, build: Packed, case: str, phase: str
) -> None:
    """Whether all requests fail or only those for frames: the kind says how; well again, it gives what was missing."""
    fault, kind = FAILING[case]

    async def in_phase(
        request: Request, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Answer | None:
        is_hit = phase == "everything" or not request.path.endswith(".index")
        return await (fault if is_hit else well)(request, answer, reader, writer)

    async with serving(depot.path / "out", in_phase) as server:
        error = await refused(host, ref_at(build, server.url))
        assert error.kind == kind, error
        assert server.url in str(error)
        server.fault = well
        await host.pulling("r", ref_at(build, server.url), is_resumed=True, settings=FAST)
    assert shape_of(host.tree("r")) == build.shape()


def every_second(fault: Fault) -> Fault:
    async def sometimes(
        request: Request, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Answer | None:
        return await (fault if request.number % 2 == 0 else well)(request, answer, reader, writer)

    return sometimes


@pytest.mark.parametrize("case", ["500", "hangs within the body", "hangs up", "gives other bytes", "never ends"])
async def test_a_server_that_fails_every_second_time_gives_the_build(
    host: Releases, depot: Depot, build: Packed, case: str
) -> None:
    async with serving(depot.path / "out", every_second(FAILING[case][0])) as server:
        await host.pulling("r", ref_at(build, server.url), settings=FAST)
    assert shape_of(host.tree("r")) == build.shape()


@pytest.mark.parametrize("step", [1, 997, 65_537, 1_000_003])
async def test_answers_cut_anywhere_are_gone_on_with(host: Releases, depot: Depot, build: Packed, step: int) -> None:
    """Each second answer breaks off after so many bytes; whole frames that came before are not asked for again."""
    cut = plain(lambda request, answer: replace(answer, body=answer.body[: request.number * step % len(answer.body)]))
    async with serving(depot.path / "out", every_second(cut)) as server:
        await host.pulling("r", ref_at(build, server.url), settings=FAST)
        asked = [request for request in server.requests if not request.path.endswith(".index")]
    assert shape_of(host.tree("r")) == build.shape()
    assert len({request.start for request in asked}) > 1


async def test_an_object_that_changes_between_ranges_is_found_out(host: Releases, depot: Depot, build: Packed) -> None:
    """The first ranges are of the build, the later ones of another file of the same size: by their digests."""
    other = random.Random(7).randbytes(build.manifest.size)

    def later(request: Request, answer: Answer) -> Answer:
        if request.path.endswith(".index") or request.number < 4 or request.start is None:
            return answer
        return replace(answer, body=other[request.start : request.end])

    async with serving(depot.path / "out", plain(later)) as server:
        error = await refused(host, ref_at(build, server.url))
        assert error.kind == "digest_mismatch"
        assert "never change one that was published" in str(error)
        server.fault = well
        before = len(server.requests)
        await host.pulling("r", ref_at(build, server.url), is_resumed=True, settings=FAST)
        missing = sum(len(request.body) for request in server.requests[before:] if "index" not in request.path)
    assert shape_of(host.tree("r")) == build.shape()
    assert missing < build.manifest.size


async def test_a_server_without_ranges_gives_the_whole(host: Releases, depot: Depot, build: Packed) -> None:
    """It answers with 200 and everything; the artifact is then taken in one request."""
    out = depot.path / "out"

    def whole(request: Request, _: Answer) -> Answer:
        data = (out / request.path.lstrip("/")).read_bytes()
        return Answer("200 OK", data, (), len(data))

    async with serving(out, plain(whole)) as server:
        await host.pulling("r", ref_at(build, server.url), settings=FAST)
        assert server.requests[-1].path == f"/{build.artifact.name}"
        assert server.requests[-1].start is None
    assert shape_of(host.tree("r")) == build.shape()


@pytest.mark.parametrize("answer", ["404 Not Found", "403 Forbidden", "410 Gone"])
async def test_an_artifact_whose_index_is_missing_is_taken_whole(
    host: Releases, depot: Depot, build: Packed, answer: str
) -> None:
    """Also where a spare is in the directory: that goes first."""
    host.tree("r").mkdir()
    (host.tree("r") / "old").write_bytes(b"old")

    def missing(request: Request, right: Answer) -> Answer:
        return Answer(answer, b"", (), 0) if request.path.endswith(".index") else right

    async with serving(depot.path / "out", plain(missing)) as server:
        await host.pulling("r", ref_at(build, server.url), is_resumed=True, settings=FAST)
    assert shape_of(host.tree("r")) == build.shape()


FIRST: dict[str, Fault | None] = {
    "nobody listens": None,
    "hangs": hang,
    "has nothing": status("404 Not Found"),
    "fails": status("500 Oops"),
    "has other bytes": plain(flipped),
    "breaks off": hang_up,
}


@pytest.mark.parametrize("case", FIRST)
async def test_what_the_first_place_does_not_give_the_second_one_does(
    host: Releases, depot: Depot, build: Packed, case: str
) -> None:
    """By ranges: a place that fails costs requests, not the index."""
    out = depot.path / "out"
    async with serving(out) as good, serving(out, FIRST[case] or well) as bad:
        first = "http://127.0.0.1:1" if FIRST[case] is None else bad.url
        await host.pulling("r", ref_at(build, first, good.url), settings=FAST)
        assert all(request.start is not None for request in good.requests)
    assert shape_of(host.tree("r")) == build.shape()


async def test_a_dead_place_beside_one_without_index_does_not_keep_from_the_whole(
    host: Releases, depot: Depot, build: Packed
) -> None:
    def missing(request: Request, right: Answer) -> Answer:
        return Answer("404 Not Found", b"", (), 0) if request.path.endswith(".index") else right

    async with serving(depot.path / "out", plain(missing)) as server:
        await host.pulling("r", ref_at(build, "http://127.0.0.1:1", server.url), settings=FAST)
    assert shape_of(host.tree("r")) == build.shape()


async def test_plain_http_behind_https_is_a_tls_failure(host: Releases, build: Packed) -> None:
    async def speak_first(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with listening(speak_first) as port:
        error = await refused(host, ref_at(build, f"https://127.0.0.1:{port}"))
    assert error.kind == "tls_failed", error


@pytest.mark.parametrize("case", ["404", "500", "hangs before the answer", "gives other bytes", "drips", "never ends"])
async def test_a_patch_that_cannot_be_had_costs_only_its_saving(
    host: Releases, depot: Depot, build: Packed, patched: Packed, case: str
) -> None:
    """Frames come instead; the index says what they must be."""
    fault = FAILING[case][0]

    async def for_patches(
        request: Request, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Answer | None:
        return await (fault if ".from-" in request.path else well)(request, answer, reader, writer)

    async with serving(depot.path / "out", for_patches) as server:
        await host.pulling("hot", ref_at(build, server.url))
        await host.pulling("r", ref_at(patched, server.url), bases=["hot"], settings=FAST)
        assert any(".from-" in request.path for request in server.requests)
    assert shape_of(host.tree("r")) == patched.shape()


async def test_a_pull_keeps_to_its_rate(host: Releases, depot: Depot, build: Packed) -> None:
    """The limit is over all connections: so many bytes cannot have come in less time."""
    loop = asyncio.get_running_loop()
    settings = msgspec.structs.replace(FAST, max_rate_bytes=4 << 20)
    async with serving(depot.path / "out") as server:
        began_s = loop.time()
        received = await host.pulling("r", ref_at(build, server.url), settings=settings)
        took_s = loop.time() - began_s
    assert shape_of(host.tree("r")) == build.shape()
    assert took_s >= received / settings.max_rate_bytes - 0.3
