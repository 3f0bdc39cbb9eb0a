"""Indexes whose digest is right and that lie, in every field: refused, and nothing outside of the tree is touched.

Each lie is told to a host that has nothing, and to one whose tree holds the true build, where most rows are not looked
at again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from artifact import ArtifactRejected, HotcoldError, ManifestRef, PullSettings
from artifact.index import (
    DIGEST_BYTES,
    MAX_BUCKET_BYTES,
    MAX_FRAME_BYTES,
    MAX_ROOT_BYTES,
    Bucket,
    Kind,
    Row,
    decode_bucket,
    decode_root,
    digest_of,
    encode_root,
)
from artifact.limits import Limits
from artifact.manifest import IndexRef
from tests.builds import SETTINGS, Depot, Directory, Entry, File, Link, Packed, Releases, shape_of

TRUE: dict[str, Entry] = {
    "a": File(b"a" * 100),
    "b": File(b"b" * 2000, 0o755),
    "big": File(bytes(range(256)) * (5 << 12)),
    "d": Directory(),
    "d/e": File(b"e"),
    "d/f/g": File(b"g"),
    "l": Link("d"),
    "z": File(b"z"),
}


@dataclass
class Index:
    """An index before it is encoded; rows as lists, so that anything can stand in them."""

    frames: list[bytes]
    rows: list[list[list[object]]]
    frame_sizes: list[int]
    plain_sizes: list[int]
    bucket_sizes: list[int] | None = None
    digests: list[bytes] | None = None
    entries: int | None = None
    content_bytes: int | None = None
    version: int = 1
    root_size: int | None = None

    def row(self, path: bytes) -> list[object]:
        """The row of a path."""
        return next(row for rows in self.rows for row in rows if row[0] == path)

    def add(self, path: bytes, *, to: bytes = b"z", **fields: object) -> None:
        """Add a row behind another one, an empty file unless the fields say otherwise."""
        row: dict[str, object] = {
            "kind": Kind.FILE,
            "mode": 0o644,
            "mtime_s": 0,
            "size": 0,
            "digest": hashlib.sha256(b"").digest(),
            "offset": 0,
            "target": b"",
            **fields,
        }
        rows = next(rows for rows in self.rows if any(row[0] == to for row in rows))
        rows.append([path, *row.values()])

    def remove(self, path: bytes) -> None:
        """Remove a row."""
        for rows in self.rows:
            rows[:] = [row for row in rows if row[0] != path]

    def encoded(self) -> tuple[bytes, bytes]:
        """The root's bytes, and those of the buckets."""
        buckets = [
            zstandard.ZstdCompressor(write_content_size=True).compress(msgspec.msgpack.encode([frame, rows]))
            for frame, rows in zip(self.frames, self.rows, strict=True)
        ]
        rows = [row for rows in self.rows for row in rows]
        root = encode_root(
            entries=len(rows) if self.entries is None else self.entries,
            content_bytes=sum(row[SIZE] for row in rows if len(row) > SIZE and isinstance(row[SIZE], int))
            if self.content_bytes is None
            else self.content_bytes,
            frame_sizes=self.frame_sizes,
            plain_sizes=self.plain_sizes,
            bucket_sizes=self.bucket_sizes or [len(bucket) for bucket in buckets],
            digests=self.digests or [hashlib.sha256(bucket).digest() for bucket in buckets],
        )
        document = msgspec.msgpack.decode(root)
        document[0] = self.version
        return msgspec.msgpack.encode(document), b"".join(buckets)


def index_of(build: Packed) -> Index:
    """The build's true index."""
    root, buckets = build.root(), build.buckets()
    return Index(
        [bucket.frame for bucket in buckets],
        [[list(msgspec.structs.astuple(row)) for row in bucket.rows] for bucket in buckets],
        list(root.frame_sizes),
        list(root.plain_sizes),
    )


def published(build: Packed, index: Index, ref: ManifestRef | None = None) -> ManifestRef:
    """Put the index in the place of the build's own, and refer to it."""
    root, buckets = index.encoded()
    build.index.write_bytes(root + buckets)
    size = len(root) if index.root_size is None else index.root_size
    return msgspec.structs.replace(ref or build.ref, index=IndexRef(digest=digest_of(root), size=size))


ZEROS = bytes(DIGEST_BYTES)
PATH, KIND, MODE, MTIME, SIZE, DIGEST, OFFSET, TARGET = range(8)


def field(path: bytes, at: int, value: object) -> Callable[[Index], None]:
    """A row with another value in one field."""

    def lie(index: Index) -> None:
        index.row(path)[at] = value

    return lie


def added(path: bytes, **fields: object) -> Callable[[Index], None]:
    """A row more."""
    return lambda index: index.add(path, **fields)


def swapped(name: str) -> Callable[[Index], None]:
    """The first two of a list change places."""

    def lie(index: Index) -> None:
        values = getattr(index, name)
        values[0], values[1] = values[1], values[0]

    return lie


def sized(name: str, size: int, at: int = 0) -> Callable[[Index], None]:
    """Another size in a list of the root."""

    def lie(index: Index) -> None:
        if name == "bucket_sizes":
            index.bucket_sizes = list(decode_root(index.encoded()[0]).bucket_sizes)
        getattr(index, name)[at] = size

    return lie


def both(*lies: Callable[[Index], None]) -> Callable[[Index], None]:
    """Several lies at once."""

    def lie(index: Index) -> None:
        for each in lies:
            each(index)

    return lie


def set_to(**values: object) -> Callable[[Index], None]:
    """Other values in the root."""

    def lie(index: Index) -> None:
        for name, value in values.items():
            setattr(index, name, value)

    return lie


def without_end(index: Index) -> None:
    """The last frame is missing."""
    for values in (index.frames, index.rows, index.frame_sizes, index.plain_sizes):
        values.pop()


def empty_frame(index: Index) -> None:
    """A frame without bytes; what it loses, another one has more."""
    index.frame_sizes[1] += index.frame_sizes[0]
    index.frame_sizes[0] = 0


def shared_frame(index: Index) -> None:
    """A second file begins in the frame of one that goes on in the next."""
    index.add(b"evil", to=b"big", size=5 << 20, offset=512, digest=index.row(b"big")[DIGEST])


HOSTILE: dict[str, Callable[[Index], None]] = {
    "path climbs": added(b"../evil"),
    "path climbs in its middle": added(b"d/../../evil"),
    "path is absolute": added(b"/tmp/hotcold-evil"),
    "path is the root": added(b"."),
    "path is the parent": added(b".."),
    "path is a directory climbing": added(b"d/..", kind=Kind.DIRECTORY),
    "path begins here": added(b"./evil"),
    "path has an empty component": added(b"d//evil"),
    "path ends with a slash": added(b"evil/"),
    "path has a NUL": added(b"ev\0il"),
    "component is too long": added(b"x" * 256),
    "component within is too long": added(b"d/" + b"x" * 256 + b"/y"),
    "path differs by case": added(b"A"),
    "path differs by Unicode form": both(added("é".encode()), added("e\u0301".encode())),
    "path differs by what only Unicode folds": both(added("\u017f".encode()), added(b"S")),
    "link out of the tree": added(b"evil", kind=Kind.SYMLINK, target=b"../evil"),
    "link out of the tree by another": added(b"evil", kind=Kind.SYMLINK, target=b"l/../../evil"),
    "link is absolute": added(b"evil", kind=Kind.SYMLINK, target=b"/etc"),
    "link to nothing": added(b"evil", kind=Kind.SYMLINK, target=b""),
    "link with NUL": added(b"evil", kind=Kind.SYMLINK, target=b"a\0b"),
    "link in circles": added(b"evil", kind=Kind.SYMLINK, target=b"evil"),
    "link that was fine aims outside": field(b"l", TARGET, b"../x"),
}
BROKEN: dict[str, Callable[[Index], None]] = {
    "path listed twice": added(b"z"),
    "path listed twice, apart": added(b"a"),
    "path listed twice as a directory": added(b"d", kind=Kind.DIRECTORY),
    "directory listed twice, once as a link": added(b"d", kind=Kind.SYMLINK, target=b"a"),
    "file below a file": added(b"z/evil"),
    "directory below a file": added(b"z/evil", kind=Kind.DIRECTORY),
    "file through a link": added(b"l/evil"),
    "directory through a link": added(b"l/evil", kind=Kind.DIRECTORY),
    "link through a link": added(b"l/evil", kind=Kind.SYMLINK, target=b"e"),
    "file in a directory that is not listed": added(b"nowhere/evil"),
    "directory is missing": lambda index: index.remove(b"d/f"),
    "directory is a file": both(field(b"d/f", KIND, Kind.FILE), field(b"d/f", DIGEST, hashlib.sha256(b"").digest())),
    "directory is a link": both(field(b"d/f", KIND, Kind.SYMLINK), field(b"d/f", TARGET, b"e")),
    "path is empty": added(b""),
    "path is longer than any": added(b"/".join([b"x" * 100] * 41)),
    "path is a number": field(b"a", PATH, 7),
    "kind is unknown": field(b"a", KIND, 3),
    "kind is negative": field(b"a", KIND, -1),
    "mode has setuid": field(b"a", MODE, 0o4755),
    "mode is negative": field(b"a", MODE, -1),
    "time is before all": field(b"a", MTIME, -(1 << 40)),
    "time is after all": field(b"a", MTIME, 1 << 40),
    "size is negative": field(b"a", SIZE, -1),
    "size is huge": field(b"a", SIZE, 1 << 60),
    "size is too large": field(b"a", SIZE, 101),
    "size is too small": field(b"a", SIZE, 99),
    "size goes on behind the end": field(b"z", SIZE, 1 << 20),
    "big file is longer": field(b"big", SIZE, (5 << 20) + 1),
    "big file is shorter": field(b"big", SIZE, (5 << 20) - 1),
    "digest is another": field(b"a", DIGEST, ZEROS),
    "digest of a big file is another": field(b"big", DIGEST, ZEROS),
    "digest is too short": field(b"a", DIGEST, ZEROS[1:]),
    "offset is another": field(b"a", OFFSET, 511),
    "offset is behind the frame": field(b"a", OFFSET, 1 << 40),
    "offset of a big file is another": field(b"big", OFFSET, 0),
    "offset of a big file is behind its frame": field(b"big", OFFSET, (4 << 20) + 600),
    "offset is negative": field(b"a", OFFSET, -1),
    "row has too few fields": lambda index: index.rows[0].append([b"x", 0]),
    "row is no row": lambda index: index.rows[0].append([7]),
    "version is another": set_to(version=2),
    "entries are more": set_to(entries=100),
    "entries are fewer": set_to(entries=1),
    "entries are none": set_to(entries=0),
    "content is less": set_to(content_bytes=1),
    "content is negative": set_to(content_bytes=-1),
    "frames change places": swapped("frames"),
    "frame sizes change places": swapped("frame_sizes"),
    "frame has no bytes": empty_frame,
    "frame is longer than the artifact": sized("frame_sizes", (1 << 32) - 1),
    "frame is shorter": sized("frame_sizes", 20),
    "frame gives more": sized("plain_sizes", MAX_FRAME_BYTES),
    "frame gives too much": sized("plain_sizes", MAX_FRAME_BYTES + 1),
    "frame gives nothing": sized("plain_sizes", 0),
    "bucket has no bytes": sized("bucket_sizes", 0),
    "bucket has too many bytes": sized("bucket_sizes", MAX_BUCKET_BYTES * 2),
    "last frame is missing": without_end,
    "too few digests": set_to(digests=[ZEROS]),
    "root is too large": set_to(root_size=MAX_ROOT_BYTES + 1),
    "it is empty": lambda index: [rows.clear() for rows in index.rows] and None,
}
"""What no tree can be made from."""

OF_THE_PLACE = {"frames change places", "frame sizes change places"}
"""Here a frame is not what its bucket says, which looks like another artifact in that place: the place is to blame."""
UNSEEN = [
    "offset is another",
    "offset is behind the frame",
    "offset of a big file is another",
    "offset of a big file is behind its frame",
    "frames change places",
    "frame sizes change places",
    "frame gives more",
    "frame gives nothing",
    "content is less",
]
"""What nobody asks for who has all files."""


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "depot")


@pytest.fixture
def host(tmp_path: Path) -> Releases:
    return Releases(tmp_path / "releases")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[None]:
    """Whatever is beside the releases stays as it is, and nothing appears there."""
    evil = Path("/tmp/hotcold-evil")
    assert not evil.exists()
    (tmp_path / "evil-bait").write_bytes(b"bait")
    yield
    assert not evil.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depot", "evil-bait", "releases"]
    assert sorted(path.name for path in (tmp_path / "releases").iterdir()) == ["r2", "tables"]


def refusal(host: Releases, ref: ManifestRef, settings: PullSettings = SETTINGS, own: str | None = None) -> str:
    """The kind with which a pull is refused."""
    with pytest.raises(HotcoldError) as caught:
        host.pull("r2", ref, own=own, settings=settings)
    assert isinstance(caught.value, ArtifactRejected) == (caught.value.kind != "digest_mismatch")
    return caught.value.kind


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("case", [*HOSTILE, *BROKEN])
def test_a_lie_is_refused(host: Releases, depot: Depot, case: str) -> None:
    build = depot.pack("1", TRUE)
    index = index_of(build)
    (HOSTILE | BROKEN)[case](index)
    kind = "digest_mismatch" if case in OF_THE_PLACE else "archive_hostile" if case in HOSTILE else "index_broken"
    assert refusal(host, published(build, index)) == kind


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("case", [*HOSTILE, *(case for case in BROKEN if case not in UNSEEN)])
def test_a_lie_is_refused_by_a_host_that_has_the_truth(host: Releases, depot: Depot, case: str) -> None:
    """Few rows are new there, so few are looked at; the lie is among them, or is one of the whole."""
    build = depot.pack("1", TRUE)
    host.pull("r1", build.ref)
    host.settle("r1")
    host.take_over("r1", "r2")
    index = index_of(build)
    (HOSTILE | BROKEN)[case](index)
    kind = "archive_hostile" if case in HOSTILE else "index_broken"
    assert refusal(host, published(build, index), own="r1") == kind


@pytest.mark.parametrize("case", UNSEEN)
def test_a_lie_about_what_is_not_needed_does_no_harm(host: Releases, depot: Depot, case: str) -> None:
    build = depot.pack("1", TRUE)
    host.pull("r1", build.ref)
    host.settle("r1")
    host.take_over("r1", "r2")
    index = index_of(build)
    BROKEN[case](index)
    host.pull("r2", published(build, index), own="r1")
    assert shape_of(host.tree("r2")) == shape_of(build.tree)


@pytest.mark.parametrize(
    ("limits", "lie"),
    [
        (Limits(max_files=8), set_to()),
        (Limits(max_bytes=(5 << 20) + 2000), set_to()),
        (Limits(max_bytes=1 << 40), field(b"a", SIZE, 1 << 47)),
    ],
    ids=["files", "bytes", "bytes that are not there"],
)
def test_more_than_the_limits_allow_is_refused_before_anything_is_made(
    host: Releases, depot: Depot, limits: Limits, lie: Callable[[Index], None]
) -> None:
    build = depot.pack("1", TRUE)
    index = index_of(build)
    lie(index)
    settings = msgspec.structs.replace(SETTINGS, limits=limits)
    assert refusal(host, published(build, index), settings) == "archive_too_big"
    assert list(host.tree("r2").iterdir()) == []


def test_the_limits_themselves_are_allowed(host: Releases, depot: Depot) -> None:
    build = depot.pack("1", TRUE)
    limits = Limits(max_files=9, max_bytes=build.root().content_bytes)
    host.pull("r2", build.ref, settings=msgspec.structs.replace(SETTINGS, limits=limits))
    assert shape_of(host.tree("r2")) == shape_of(build.tree)


def test_two_files_that_share_frames_that_go_on_are_refused(host: Releases, depot: Depot) -> None:
    """A reader holds one frame at a time."""
    build = depot.pack("1", TRUE)
    index = index_of(build)
    shared_frame(index)
    assert refusal(host, published(build, index)) == "index_broken"


def test_names_that_differ_by_case_are_accepted_where_that_is_allowed(host: Releases, depot: Depot) -> None:
    build = depot.pack("1", TRUE)
    index = index_of(build)
    index.add(b"A")
    index.add("é".encode())
    index.add("e\u0301".encode())
    settings = msgspec.structs.replace(SETTINGS, limits=Limits(allow_case_collisions=True))
    host.pull("r2", published(build, index), settings=settings)
    assert shape_of(host.tree("r2")).keys() == shape_of(build.tree).keys() | {b"A", "é".encode(), "e\u0301".encode()}


def test_a_root_that_is_not_the_one_of_the_order_is_the_places_fault(host: Releases, depot: Depot) -> None:
    """Its digest was ordered: other bytes are never looked into, and another place may have the right ones."""
    build = depot.pack("1", TRUE)
    true = build.ref
    index = index_of(build)
    index.add(b"../evil")
    published(build, index)
    assert refusal(host, true) == "digest_mismatch"
    assert list(host.tree("r2").iterdir()) == []


@given(at=st.integers(min_value=0), bit=st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_any_flipped_bit_of_a_root_or_a_bucket_is_refused_by_its_decoder(at: int, bit: int) -> None:
    """Even where its digest was made to fit, decoding ends in one of our errors, or in numbers that are in range."""
    row = Row(path=b"a/b", kind=0, mode=0o644, mtime_s=5, size=9, digest=ZEROS, offset=512)
    plain = bytearray(msgspec.msgpack.encode(Bucket(ZEROS, [row, row])))
    plain[at % len(plain)] ^= 1 << bit
    data = zstandard.ZstdCompressor().compress(bytes(plain))
    with suppress(ArtifactRejected):
        for decoded in decode_bucket(data, hashlib.sha256(data).digest()).rows:
            assert 0 <= decoded.kind <= 2
            assert 0 <= decoded.mode <= 0o777
            assert len(decoded.path) in range(1, 4097)
    root = bytearray(
        encode_root(
            entries=2,
            content_bytes=18,
            frame_sizes=[9, 8],
            plain_sizes=[9, 9],
            bucket_sizes=[7, 6],
            digests=[ZEROS] * 2,
        )
    )
    root[at % len(root)] ^= 1 << bit
    with suppress(ArtifactRejected):
        found = decode_root(bytes(root), artifact_bytes=17)
        assert len(found.frame_sizes) == len(found.plain_sizes) == len(found.bucket_sizes) == len(found)
        assert sum(found.frame_sizes) == 17


@pytest.mark.parametrize("data", [b"", b"\x28\xb5\x2f\xfd", zstandard.ZstdCompressor().compress(b"")])
def test_a_bucket_that_is_none_is_broken_and_one_with_another_digest_the_places_fault(data: bytes) -> None:
    with pytest.raises(ArtifactRejected) as caught:
        decode_bucket(data, hashlib.sha256(data).digest())
    assert caught.value.kind == "index_broken"
    with pytest.raises(ValueError, match="other bytes"):
        decode_bucket(data, ZEROS)


def test_a_bucket_that_would_fill_the_memory_is_not_decompressed() -> None:
    data = zstandard.ZstdCompressor().compress(bytes(MAX_BUCKET_BYTES + 1))
    with pytest.raises(ArtifactRejected, match="larger than"):
        decode_bucket(data, hashlib.sha256(data).digest())
