"""Names from data as file names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskcube.formats.names import file_names

HOSTILE = [
    "../../etc/passwd",
    "/absolute",
    "a/b",
    "a\\b",
    "C:\\x",
    "..",
    ".",
    ".hidden",
    "-rf",
    "",
    " ",
    "CON",
    "con.jpg",
    "nul.tar.gz",
    "x" * 300,
    "x" * 301,
    "naïve",
    "nai\u0308ve",
    "名",
    "a\0b",
    "a\nb",
    "trailing.",
    "trailing ",
    "\ud800",
    "*?<>|:",
]


def test_a_plain_name_stays() -> None:
    assert file_names(["shared_12rep_LAION_cluster_1003_i0.jpg", "b-2"], ".png") == {
        "shared_12rep_LAION_cluster_1003_i0.jpg": "shared_12rep_LAION_cluster_1003_i0.png",
        "b-2": "b-2.png",
    }


def test_hostile_names_stay_in_their_folder(tmp_path: Path) -> None:
    found = file_names(HOSTILE, ".png")
    assert len({name.lower() for name in found.values()}) == len(HOSTILE)
    for name in found.values():
        path = tmp_path / name
        path.write_bytes(b"")
        assert path.parent == tmp_path
        assert name.isascii()
        assert len(name) <= 200
        assert name.removesuffix(".png").lower() not in {"con", "nul", "aux"}
        assert "." not in name.removesuffix(".png")


def test_names_that_differ_in_case_only() -> None:
    found = file_names(["Hand.jpg", "hand.jpg", "hand.png", "foot"], ".png")
    assert len({name.lower() for name in found.values()}) == 4
    assert found["foot"] == "foot.png"


def test_a_name_does_not_depend_on_the_order() -> None:
    names = ["Hand", "hand", "a/b", "c"]
    assert file_names(names, ".png") == file_names(names[::-1], ".png")


def test_a_name_that_looks_like_one_with_a_checksum() -> None:
    marked = file_names(["a/b"], "")["a/b"]
    found = file_names(["a/b", marked, marked.upper()], "")
    assert len({name.lower() for name in found.values()}) == 3


def test_names_that_were_made_to_be_those_of_others() -> None:
    names = ["../b", "b-95cd906910"]
    for name in tuple(names):
        checksum = hashlib.sha256(name.encode()).hexdigest()
        names += [f"b-{checksum}", f"b-95cd906910-{checksum}", checksum, checksum[:10]]
    found = file_names(names, ".png")
    assert len({name.lower() for name in found.values()}) == len(names)
    # A checksum of ten digits is that of another name too, which can be found in a second.
    same = [f"{'x' * 120}{number}" for number in (1, 2)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("maskcube.formats.names._DIGITS", 0)
        found = file_names(same, ".png")
    assert len(set(found.values())) == 2
    assert max(map(len, found.values())) <= 120


@given(st.lists(st.text(max_size=12), unique=True), st.sampled_from(["", ".png"]))
def test_any_names(names: list[str], suffix: str) -> None:
    found = file_names(names, suffix)
    assert list(found) == names
    assert len({name.lower() for name in found.values()}) == len(names)


@pytest.mark.parametrize("name", ["a.JPG", "a.jpeg", "a.webp", "a.tiff"])
def test_the_suffix_of_a_picture_goes(name: str) -> None:
    assert file_names([name], ".png") == {name: "a.png"}
