"""Texts: as the codec stores them, one array, one text, or distinct ones with codes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd

from maskcube.codec import DamagedBytes, checksum
from maskcube.texts import Texts


def _raw(*texts: str) -> bytes:
    return bytes(VLenUTF8().encode(np.array(texts, object)))


def _piece(raw: bytes) -> bytes:
    frame = bytes(Zstd(level=3).encode(raw))
    return frame + checksum(frame).to_bytes(4, "little")


def _check(texts: list[str]) -> None:
    found = Texts(_piece(_raw(*texts)), len(texts))
    assert len(found) == len(texts)
    assert found.array().tolist() == texts
    assert found.array().dtype == np.dtypes.StringDType()
    assert [found[row] for row in range(len(texts))] == texts
    labels, codes = found.factorized()
    assert labels == sorted(set(texts))
    assert [labels[code] for code in codes] == texts
    assert codes.dtype == np.min_scalar_type(max(len(labels) - 1, 0))


@pytest.mark.parametrize(
    "texts",
    [
        ["", "nan", "crème brûlée", "\N{GRINNING FACE}", "a" * 100_000],
        ["hand"],
        ["a", "a", "b", "a"],
        ["a\0b", "a\0\0\0", "a", "a"],
        ["x" * 255, "x" * 254, "x" * 256],
        ["x" * 255, "x" * 254, "x" * 8, "x" * 7, "x" * 255],
        ["\x01", "\x01\x02", "\x01"],
        [],
        [f"{row // 3}.jpg" for row in range(10_000)],
        [str(row * 7 % 10_007) for row in range(9_000)],
    ],
    ids=[
        "unlike",
        "one",
        "plain",
        "NUL",
        "long",
        "widest",
        "like lengths",
        "none",
        "runs over blocks",
        "all distinct",
    ],
)
def test_texts_come_back(texts: list[str]) -> None:
    _check(texts)


@given(st.lists(st.sampled_from(["a", "ab", "\x01", "\x02\x01", "é"]) | st.text(max_size=20)))
def test_any_texts_come_back(texts: list[str]) -> None:
    _check(texts)


def test_texts_of_one_hash_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskcube.texts._FACTOR", np.uint64(0))
    _check(["hand", "cup", "hand", "face of a person", "cup"])


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (_piece(_raw("a", "b")), "holds 2 texts, expected 3"),
        (_piece((2**31).to_bytes(4, "little") + bytes(8)), "holds 2,147,483,648 texts"),
        (_piece(_raw("a", "b", "c")[:-1]), "holds no texts"),
        (_piece(_raw("a", "b", "c") + b"d"), "holds no texts"),
        (_piece(_raw("a", "b", "c")[:-1] + b"\xff"), "holds no texts"),
        (_piece(_raw("a", "b", "c")[:4]), "holds no texts"),
        (_piece(_raw("a", "b", "c").replace(b"\x01\0\0\0b", b"\x02\0\0\0b")), "holds no texts"),
        (_piece(b""), "invalid input data"),
        (_piece(bytes(2**28 + 1)), "at most 268,435,456"),
        (_piece(_raw("a", "b", "c"))[:-1] + b"x", "crc32c differs"),
    ],
    ids=[
        "fewer",
        "billions",
        "cut",
        "longer",
        "no UTF-8",
        "empty",
        "wrong length",
        "no bytes",
        "bomb",
        "flipped",
    ],
)
@pytest.mark.parametrize("read", [Texts.array, Texts.factorized, lambda texts: texts[2]])
def test_what_is_not_so_many_texts_is_damage(data: bytes, match: str, read: object) -> None:
    with pytest.raises(DamagedBytes, match=match):
        read(Texts(data, 3))  # type: ignore[operator]


def test_no_frame_is_damage() -> None:
    with pytest.raises(DamagedBytes, match="decodes to None bytes"):
        Texts(b"no zstd" + checksum(b"no zstd").to_bytes(4, "little"), 3)
