"""Secret keys: locked by a password, made once, readable by their owner alone."""

from __future__ import annotations

import stat
import struct
import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path

import pytest

from artifact import ConfigError, HotcoldError
from artifact.keyfiles import read_secret_key, write_key_pair
from artifact.minisign import PublicKey, read_key_text
from artifact.secretkey import Cost, LockedKey, SecretKey

KEY = SecretKey(b"\x01key-one", bytes(range(32)))
CHEAP = Cost(operations=32768, memory_bytes=2**20)


def rewritten(text: str, at: int, data: bytes) -> str:
    """A key file with other bytes at one place."""
    comment, line, _ = text.split("\n")
    packed = b64decode(line)
    return f"{comment}\n{b64encode(packed[:at] + data + packed[at + len(data) :]).decode()}\n"


def test_new_keys_differ() -> None:
    one, other = SecretKey.generate(), SecretKey.generate()
    assert one.key != other.key
    assert one.seed != other.seed
    assert "seed" not in repr(one)


def test_a_locked_key_opens_with_its_password_alone() -> None:
    text = KEY.text(b"correct horse", CHEAP)
    locked = LockedKey.parse(text)
    assert text.startswith("untrusted comment: minisign encrypted secret key\nRWRTY0Iy")
    assert (locked.is_locked, locked.cost) == (True, CHEAP)
    assert locked.unlock(b"correct horse") == KEY
    with pytest.raises(ValueError, match="wrong password"):
        locked.unlock(b"correct horse ")


def test_locking_twice_gives_other_bytes() -> None:
    """The salt is new each time, and the id is locked, too."""
    one, other = KEY.text(b"x", CHEAP), KEY.text(b"x", CHEAP)
    assert one != other
    assert KEY.key not in b64decode(one.split("\n")[1])


def test_the_default_cost_is_128_mib() -> None:
    """Enough to make guessing dear, little enough for a small machine that signs."""
    locked = LockedKey.parse(KEY.text(b"x"))
    assert locked.cost == Cost(operations=2**22, memory_bytes=2**27)
    assert locked.unlock(b"x") == KEY


def test_a_key_without_a_password_needs_none() -> None:
    text = KEY.text(None)
    assert text.startswith("untrusted comment: minisign secret key\nRWQAAEIy")
    assert LockedKey.parse(text).unlock(b"whatever") == KEY


def test_a_damaged_key_does_not_sign() -> None:
    """A seed that does not give the public part would make signatures that nobody accepts."""
    text = rewritten(KEY.text(None), 54 + 8, b"\xff")
    with pytest.raises(ValueError, match="the file is damaged"):
        LockedKey.parse(text).unlock(b"")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a file has two lines"),
        (KEY.public.text(), "a line has 42 bytes instead of 158"),
        (KEY.text(None).replace("untrusted comment: ", ""), "a file has two lines"),
        (rewritten(KEY.text(None), 0, b"ED"), "of a kind that this hotcold does not know"),
        (rewritten(KEY.text(None), 2, b"Ar"), "of a kind that this hotcold does not know"),
        (rewritten(KEY.text(None), 4, b"B3"), "of a kind that this hotcold does not know"),
        (
            rewritten(KEY.text(b"x", CHEAP), 38, struct.pack("<Q", 2**40)),
            "unlocking it would take 1 MiB and 1099511627776",
        ),
        (rewritten(KEY.text(b"x", CHEAP), 46, struct.pack("<Q", 2**63)), "unlocking it would take 8796093022208 MiB"),
    ],
)
def test_what_is_no_secret_key(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LockedKey.parse(text)


LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from artifact.keyfiles import read_secret_key
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, used + 2**24))
try:
    read_secret_key(Path(sys.argv[1]), lambda: b"x")
except Exception as error:
    print(error.kind, error)
"""


def test_too_little_memory_is_said_so(tmp_path: Path) -> None:
    """A container that signs may have less than the key asks for."""
    path = tmp_path / "ci.key"
    path.write_text(KEY.text(b"x"))
    run = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout == (
        "out_of_memory the password of the key cannot be used: that takes 128 MiB of memory for a moment\n"
    )


# --- files ------------------------------------------------------------------------------------------------------------


def write(directory: Path) -> tuple[Path, Path]:
    secret, public = directory / "ci.key", directory / "ci.pub"
    write_key_pair(KEY, secret=secret, public=public, password=None)
    return secret, public


def test_the_secret_file_is_its_owners(tmp_path: Path) -> None:
    """Whatever the umask says, and from its first moment."""
    secret, public = write(tmp_path)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    assert read_secret_key(secret, lambda: b"") == KEY
    assert PublicKey.parse(read_key_text(public)) == KEY.public


@pytest.mark.parametrize("name", ["ci.key", "ci.pub"])
def test_no_key_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(ConfigError, match="exists: a key that was lost cannot be made again") as caught:
        write(tmp_path)
    assert caught.value.kind == "key_exists"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "precious")]


def test_a_dangling_link_is_not_followed(tmp_path: Path) -> None:
    """It would put the secret where nobody looks."""
    (tmp_path / "ci.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"ci\.key exists"):
        write(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_no_secret_is_left_without_its_public_key(tmp_path: Path) -> None:
    """Half a pair is none."""
    with pytest.raises(HotcoldError, match="creating nowhere"):
        write_key_pair(KEY, secret=tmp_path / "ci.key", public=tmp_path / "no" / "nowhere", password=None)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_we_may_not_write_is_named() -> None:
    with pytest.raises(HotcoldError, match=r"creating ci\.key in /proc"):
        write(Path("/proc"))


def test_the_password_is_asked_for_only_if_it_is_needed(tmp_path: Path) -> None:
    asked: list[None] = []

    def password() -> bytes:
        asked.append(None)
        return b"x"

    open_, locked = tmp_path / "open", tmp_path / "locked"
    open_.write_text(KEY.text(None))
    locked.write_text(KEY.text(b"x", CHEAP))
    assert read_secret_key(open_, password) == KEY
    assert asked == []
    assert read_secret_key(locked, password) == KEY
    assert asked == [None]


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (None, "key_unreadable", "cannot be read as a key: No such file or directory"),
        (b"\xff", "key_unreadable", "cannot be read as a key: it is not UTF-8"),
        (bytes(100_000), "key_unreadable", "cannot be read as a key: it is too large for one"),
        (b"junk", "key_invalid", "it is no minisign secret key: a file has two lines"),
        (KEY.text(b"x", CHEAP).encode(), "key_password", "wrong password"),
        (rewritten(KEY.text(None), 62, b"\xff").encode(), "key_invalid", "the file is damaged"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, content: bytes | None, kind: str, message: str) -> None:
    """With the file's name, and without its contents."""
    path = tmp_path / "ci.key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_secret_key(path, lambda: b"wrong")
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert caught.value.kind == kind
