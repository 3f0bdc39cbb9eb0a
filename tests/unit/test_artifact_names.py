"""Which names and link targets an archive may contain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact.errors import ArtifactRejected
from artifact.names import NameTable

COMPONENT = "c" * 255


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a", ("a",)),
        ("./a", ("a",)),
        ("a/./b/", ("a", "b")),
        ("-rf", ("-rf",)),
        ("two\nlines", ("two\nlines",)),
        ("...", ("...",)),
        ("a\\b", ("a\\b",)),
        (COMPONENT, (COMPONENT,)),
        ("\udcff\udcfe", ("\udcff\udcfe",)),
        ("/".join(["d" * 255] * 16), ("d" * 255,) * 16),
    ],
)
def test_a_name_that_linux_can_hold_is_split_into_components(name: str, parts: tuple[str, ...]) -> None:
    assert NameTable().add_directory(name) == parts


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "empty name"),
        ("/etc/passwd", "absolute"),
        ("//a", "absolute"),
        ("..", "climbs"),
        ("a/../b", "climbs"),
        ("a/..", "climbs"),
        ("a//b", "empty component"),
        ("a//", "empty component"),
        ("a\0b", "NUL"),
        ("é" * 128, "longer than 255"),
        ("\udcff" * 256, "longer than 255"),
        ("/".join(["d" * 240] * 18), "longer than 4096"),
        (".", "root"),
    ],
)
def test_a_file_name_that_no_host_may_create_is_refused_by_name(name: str, problem: str) -> None:
    with pytest.raises(ArtifactRejected, match=problem) as caught:
        NameTable().add_file(name)
    assert ascii(name[:60])[:-1] in str(caught.value)
    assert caught.value.kind == "archive_hostile"


def test_messages_show_control_characters_escaped() -> None:
    """A name cannot forge log lines or terminal sequences."""
    with pytest.raises(ArtifactRejected) as caught:
        NameTable().add_file("/\x1b[31m\nERROR \udcff")
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("second", ["file", "directory", "symlink", "hard link"])
@pytest.mark.parametrize("first", ["file", "directory", "symlink"])
def test_a_name_listed_twice_is_refused_whatever_its_types(first: str, second: str) -> None:
    table = NameTable()
    table.add_file("target")
    add = {
        "file": table.add_file,
        "directory": table.add_directory,
        "symlink": lambda name: table.add_symlink(name, "target"),
        "hard link": lambda name: table.add_hard_link(name, "target"),
    }
    add[first]("twice")
    with pytest.raises(ArtifactRejected, match=r"'\./twice' is listed as"):
        add[second]("./twice")


def test_the_root_may_be_listed_once() -> None:
    table = NameTable()
    assert table.add_directory("./") == ()
    assert len(table) == 0
    with pytest.raises(ArtifactRejected, match="twice"):
        table.add_directory(".")


def test_a_directory_may_be_listed_after_the_files_in_it_once() -> None:
    table = NameTable()
    table.add_file("d/f")
    assert table.add_directory("d") == ("d",)
    with pytest.raises(ArtifactRejected, match="'d/' is listed"):
        table.add_directory("d/")


@pytest.mark.parametrize("kind", ["file", "symlink"])
def test_a_path_through_a_file_or_link_of_the_archive_is_refused_in_both_orders(kind: str) -> None:
    def add(table: NameTable) -> None:
        if kind == "file":
            table.add_file("way")
        else:
            table.add_symlink("way", "elsewhere")

    before, after = NameTable(), NameTable()
    add(before)
    with pytest.raises(ArtifactRejected, match=r"'way/deep/f' lies below 'way'"):
        before.add_file("way/deep/f")
    after.add_file("way/deep/f")
    with pytest.raises(ArtifactRejected, match="'way' is listed as"):
        add(after)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Readme", "README"),
        ("lib/A/x", "lib/a/y"),
        ("lib/a/x", "lib/A/y"),
        ("caf\u00e9", "cafe\u0301"),
        ("stra\u00dfe", "STRASSE"),
        ("\u212a", "k"),
    ],
)
def test_names_that_differ_only_by_case_or_unicode_form_are_refused_unless_allowed(first: str, second: str) -> None:
    table = NameTable()
    table.add_file(first)
    with pytest.raises(ArtifactRejected, match="differs from"):
        table.add_file(second)
    allowing = NameTable(allow_case_collisions=True)
    allowing.add_file(first)
    allowing.add_file(second)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("l", "f"),
        ("l", "./d/../f"),
        ("d/l", "../f"),
        ("d/l", ".."),
        ("l", "."),
        ("l", "nothing/there"),
        ("l", "d//f"),
    ],
)
def test_a_link_that_stays_inside_is_accepted_even_to_nothing(path: str, target: str) -> None:
    table = NameTable()
    table.add_file("f")
    table.add_directory("d")
    table.add_symlink(path, target)
    table.check_links()


@pytest.mark.parametrize("target", ["/", "/etc/passwd", "", "a\0b", "x/" * 2048, "x" * 256])
def test_an_impossible_link_target_is_refused_at_once(target: str) -> None:
    with pytest.raises(ArtifactRejected, match="'l' is a symbolic link"):
        NameTable().add_symlink("l", target)


@pytest.mark.parametrize(
    ("links", "culprit"),
    [
        ({"l": ".."}, "l"),
        ({"d/l": "../.."}, "d/l"),
        ({"l": "missing/../../out"}, "l"),
        ({"d/up": "..", "l": "d/up/.."}, "l"),
        ({"d/e/near": "..", "l": "d/e/near/../../out"}, "l"),
        ({"a": "b", "b": "a"}, "a"),
        ({"self": "self/x"}, "self"),
    ],
)
def test_links_are_followed_through_the_archives_own_links(links: dict[str, str], culprit: str) -> None:
    table = NameTable()
    for path, target in links.items():
        table.add_symlink(path, target)
    with pytest.raises(ArtifactRejected, match=f"'{culprit}' is a symbolic link to .*(leads out|in circles)"):
        table.check_links()


def test_a_chain_of_forty_links_is_followed_and_one_more_is_not() -> None:
    table = NameTable()
    table.add_file("l0")
    for number in range(1, 41):
        table.add_symlink(f"l{number}", f"l{number - 1}")
    table.check_links()
    table.add_symlink("l41", "l40")
    with pytest.raises(ArtifactRejected, match=r"'l41'.*circles"):
        table.check_links()


@pytest.mark.parametrize("target", ["later", "d", "link", "../f", "/f", "", "f/.."])
def test_a_hard_link_to_anything_but_an_earlier_file_is_refused(target: str) -> None:
    table = NameTable()
    table.add_file("f")
    table.add_directory("d")
    table.add_symlink("link", "f")
    with pytest.raises(ArtifactRejected, match="'hard'"):
        table.add_hard_link("hard", target)
    assert table.add_hard_link("hard", "./f") == (("hard",), ("f",))
    assert table.add_hard_link("harder", "hard") == (("harder",), ("hard",))


@given(st.lists(st.text(alphabet="aA.é/\0\udcff", max_size=8), max_size=8))
def test_accepted_names_are_always_plain_components(names: list[str]) -> None:
    table = NameTable()
    for name in names:
        try:
            parts = table.add_file(name)
        except ArtifactRejected:
            continue
        assert parts
        assert not any(part in ("", ".", "..") or "/" in part or "\0" in part for part in parts)
