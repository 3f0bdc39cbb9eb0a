"""Owns how hostile archives are made, byte by byte where no sound program would make them; deterministic.

What is hostile about them is said by `tars`, `zips`, `streams` and `bombs`; what must happen, by `case`.
"""

from __future__ import annotations

import io
import struct
import tarfile
import warnings
import zipfile

END = bytes(1024)
BLOCK = tarfile.BLOCKSIZE
EPOCH = (2026, 11, 23, 12, 0, 0)


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", *, link: str = "", mode: int = 0o644
) -> bytes:
    """One entry as GNU tar writes it."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(content)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + padded(content)


def symlink(name: str, target: str) -> bytes:
    return entry(name, tarfile.SYMTYPE, link=target)


def hard_link(name: str, target: str) -> bytes:
    return entry(name, tarfile.LNKTYPE, link=target)


def directory(name: str) -> bytes:
    return entry(name, tarfile.DIRTYPE, mode=0o755)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def raw_header(name: bytes, kind: bytes = tarfile.REGTYPE, size: int | bytes = 0, **fields: bytes) -> bytes:
    """A header with a right checksum and whatever else; `fields` overrides single ones.

    Args:
        name: as it stands in the first field.
        kind: of the entry.
        size: in octal; bytes stand as they are.
        fields: of `mode`, `uid`, `gid`, `mtime`, `link`, `magic`, `prefix`.
    """
    values = {
        "name": name,
        "mode": b"0000644\0",
        "uid": b"0000000\0",
        "gid": b"0000000\0",
        "size": b"%011o\0" % size if isinstance(size, int) else size,
        "mtime": b"00000000000\0",
        "checksum": b" " * 8,
        "kind": kind,
        "link": b"",
        "magic": b"ustar\x0000",
        "user": b"",
        "group": b"",
        "devices": b"0000000\x000000000\0",
        "prefix": b"",
    } | fields
    return summed(struct.pack("100s8s8s8s12s12s8s1s100s8s32s32s16s155s12x", *values.values()))


def summed(header: bytes) -> bytes:
    """The header with the checksum that it should have."""
    block = bytearray(header)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records: dict[str, str] | bytes, kind: bytes = tarfile.XHDTYPE, size: int | None = None) -> bytes:
    """An extended header; bytes are its content as they are, whatever `size` says."""
    content = records if isinstance(records, bytes) else b"".join(map(record, records, records.values()))
    return raw_header(b"pax", kind, len(content) if size is None else size) + padded(content)


def record(key: str, value: str) -> bytes:
    """One record of an extended header, with its length, which counts itself."""
    rest = f" {key}={value}\n".encode("utf-8", "surrogateescape")
    length = len(rest)
    while length != len(str(length)) + len(rest):
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def long_name(name: bytes, kind: bytes = tarfile.GNUTYPE_LONGNAME) -> bytes:
    return raw_header(b"././@LongLink", kind, len(name)) + padded(name)


def base256(number: int, size: int = 12) -> bytes:
    """A number as GNU tar writes those that octal digits cannot say."""
    return (number & ((1 << (8 * size)) - 1) | 1 << (8 * size - 1)).to_bytes(size, "big")


def zip_of(*entries: tuple[str, int, bytes], method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    """A zip of `(name, unix mode, content)`."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore", UserWarning)  # of names that come twice
        for name, mode, content in entries:
            info = zipfile.ZipInfo("placeholder", EPOCH)
            info.filename = info.orig_filename = name
            info.create_system = 3
            info.external_attr = mode << 16
            info.compress_type = method
            archive.writestr(info, content)
        archive.comment = comment
    return buffer.getvalue()


CENTRAL, LOCAL, EOCD = b"PK\1\2", b"PK\3\4", b"PK\5\6"


def changed(data: bytes, signature: bytes, offset: int, layout: str, *values: int | bytes) -> bytes:
    """A zip with other values at an offset behind the first record of a kind."""
    changed_data = bytearray(data)
    struct.pack_into(layout, changed_data, data.index(signature) + offset, *values)
    return bytes(changed_data)


def with_extra(data: bytes, extra: bytes) -> bytes:
    """A zip of one entry with an extra field in its central directory."""
    at = data.index(CENTRAL)
    name_bytes = struct.unpack_from("<H", data, at + 28)[0]
    end = data.rindex(EOCD)
    longer = bytearray(data[: at + 46 + name_bytes] + extra + data[at + 46 + name_bytes :])
    struct.pack_into("<H", longer, at + 30, len(extra))
    struct.pack_into("<L", longer, end + len(extra) + 12, end - at + len(extra))
    return bytes(longer)
