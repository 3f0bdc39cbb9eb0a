"""The page of formats is enough to write a reader: here is one, by the page's words, without any code of ours."""

import hashlib
import struct
from pathlib import Path

import msgspec
import pytest
import zstandard

from tests.builds import Depot, Directory, Entry, File, Link, Packed, Releases, Shape

OLD: dict[str, Entry] = {
    "bin/run": File(b"#!/bin/sh\n", 0o755),
    "big": File(bytes(range(256)) * (9 << 12)),
    "empty": Directory(0o700),
    "lib/a": File(b"a" * 100_000),
    "lib/link": Link("a"),
    "lib/none": File(),
    "z" * 200: File(b"z", mtime_s=-5),
}
NEW: dict[str, Entry] = {**OLD, "lib/a": File(b"a" * 99_999 + b"b"), "lib/new": File(b"new")}


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def decompressed(data: bytes, most: int, dictionary: bytes = b"") -> bytes:
    size = zstandard.frame_content_size(data)
    assert 0 <= size <= most
    raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    return zstandard.ZstdDecompressor(dict_data=raw, max_window_size=64 << 20).decompress(data)


def numbers(data: bytes) -> list[int]:
    return [number for (number,) in struct.iter_unpack("<I", data)]


class Reader:
    """Reads a build by its manifest, as a program of somebody else would."""

    def __init__(self, document: Path) -> None:
        manifest = msgspec.json.decode(document.read_bytes())
        artifact = document.parent / manifest["urls"][0]
        self.index = manifest["index"]
        self.data = artifact.read_bytes()
        file = artifact.with_name(artifact.name + ".index").read_bytes()
        self.root = file[: self.index["size"]]
        assert f"sha256:{sha256(self.root).hex()}" == self.index["digest"]
        version, self.entries, self.content_bytes, frames, plain, buckets, digests = msgspec.msgpack.decode(self.root)
        assert version == 1
        self.frame_sizes, self.plain_sizes, bucket_sizes = numbers(frames), numbers(plain), numbers(buckets)
        assert sum(self.frame_sizes) == len(self.data) == manifest["size"]
        self.digests = [digests[at : at + 32] for at in range(0, len(digests), 32)]
        self.buckets, at = [], len(self.root)
        for size, digest in zip(bucket_sizes, self.digests, strict=True):
            assert sha256(file[at : at + size]) == digest
            self.buckets.append(file[at : at + size])
            at += size
        assert at == len(file)

    def rows(self, bucket: bytes) -> tuple[bytes, list[tuple[bytes, int, int, int, int, bytes, int, bytes]]]:
        frame, rows = msgspec.msgpack.decode(decompressed(bucket, 16 << 20))
        return frame, rows

    def frame(self, number: int) -> bytes:
        at = sum(self.frame_sizes[:number])
        data = self.data[at : at + self.frame_sizes[number]]
        assert sha256(data) == self.rows(self.buckets[number])[0]
        plain = decompressed(data, 8 << 20)
        assert len(plain) == self.plain_sizes[number]
        return plain

    def tree(self) -> Shape:
        """Every entry, as `shape_of` shows a tree."""
        found: Shape = {}
        total = 0
        for number, bucket in enumerate(self.buckets):
            for path, kind, mode, mtime_s, size, digest, offset, target in self.rows(bucket)[1]:
                content = None
                if kind == 0:
                    content, frame = self.frame(number)[offset : offset + size], number
                    while len(content) < size:
                        frame += 1
                        content += self.frame(frame)[: size - len(content)]
                    assert sha256(content) == digest
                    total += size
                else:
                    assert (size, digest) == (0, bytes(32))
                found[path] = ((0o100000, 0o040000, 0o120000)[kind] | mode, mtime_s, target if kind == 2 else content)
        assert (len(found), total) == (self.entries, self.content_bytes)
        return found


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "depot")


def test_a_reader_by_the_page_reads_an_artifact(depot: Depot) -> None:
    build = depot.pack("1", OLD)
    reader = Reader(build.document)
    assert reader.tree() == build.shape()
    assert len(reader.frame_sizes) > 4
    assert reader.frame(len(reader.frame_sizes) - 1) == bytes(1024)
    joined = b"".join(reader.frame(number) for number in range(len(reader.frame_sizes)))
    plain = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(reader.data)
    assert joined == plain
    assert joined[257:262] == b"ustar"


def test_a_reader_by_the_page_uses_a_patch(depot: Depot) -> None:
    """Root, buckets and every changed file come out of it and the base, and are what the index says."""
    old = depot.pack("1", OLD)
    new = depot.pack("2", NEW, against=old)
    before, after = Reader(old.document), Reader(new.document)
    [reference] = after.index["patches"]
    assert reference["base"] == before.index["digest"]
    name = f"{new.artifact.name}.from-{reference['base'].removeprefix('sha256:')[:16]}"
    data = (depot.path / "out" / name).read_bytes()
    assert len(data) == reference["size"] < len(after.data) / 2
    assert data[:16] == b"hotcold patch 1\n"
    (head_bytes,) = struct.unpack("<Q", data[16:24])
    base, root, buckets, files = msgspec.msgpack.decode(data[24 : 24 + head_bytes])
    assert base == sha256(before.root)
    assert decompressed(root, 64 << 20, before.root) == after.root
    assert [digest for digest in after.digests if digest not in before.digests] == [sha256(each) for _, each in buckets]
    assert all(after.buckets[number] == bucket for number, bucket in buckets)
    contents, at = before.tree(), 24 + head_bytes
    patched = {}
    for bucket, row, has_base, size in files:
        path, _, _, _, length, digest, _, _ = after.rows(after.buckets[bucket])[1][row]
        dictionary = (contents[path][2] or b"") if has_base else b""
        patched[path] = decompressed(data[at : at + size], length, dictionary)
        assert sha256(patched[path]) == digest
        at += size
    assert at == len(data)
    assert patched.keys() == {b"lib/a", b"lib/new"}


def test_a_table_is_as_the_page_says(depot: Depot, tmp_path: Path) -> None:
    host, build = Releases(tmp_path / "releases"), depot.pack("1", OLD)
    host.pull("r", build.ref)
    assert_table(host.table("r").read_bytes(), host.tree("r"), build)


def assert_table(data: bytes, tree: Path, build: Packed) -> None:
    reader = Reader(build.document)
    assert data[:16] == b"hotcold table 1\n"
    assert data[16:87].decode() == reader.index["digest"]
    (index_bytes,) = struct.unpack("<Q", data[87:95])
    first, second = data[127 : 127 + index_bytes], data[127 + index_bytes :]
    assert sha256(second) == data[95:127]
    assert msgspec.msgpack.decode(first) == [1, reader.root, reader.buckets]
    written_ns, starts, joined, stats, links = msgspec.msgpack.decode(second)
    paths = joined.split(b"\0")
    assert paths == [row[0] for bucket in reader.buckets for row in reader.rows(bucket)[1]]
    assert starts[-1] == len(paths)
    assert [row[0] for row in reader.rows(reader.buckets[1])[1]] == paths[starts[1] : starts[2]]
    assert links == {b"lib/link": b"a"}
    for path, numbers_of in zip(paths, struct.iter_unpack("<4Q", stats), strict=True):
        found = (tree / path.decode()).lstat()
        signed = numbers_of[2] - (1 << 64 if numbers_of[2] >> 63 else 0)
        assert (numbers_of[0], numbers_of[1], signed, numbers_of[3]) == (
            found.st_ino,
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
        )
        assert found.st_ctime_ns < written_ns
