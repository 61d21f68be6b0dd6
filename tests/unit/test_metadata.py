"""The CSV of the source: what is kept as it is spelt, and what is refused, on which line."""

from __future__ import annotations

import csv
import io
import math
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reference import COLUMNS

from maskcube.metadata import read_metadata

HEADER = ",".join(COLUMNS)
FIELDS = dict(
    zip(COLUMNS, ["0", "a.jpg", "hand", "0", "0.5", "1", "2", "3", "4", "1", "f.png"], strict=True)
)
TOO_LONG = f"field larger than field limit ({csv.field_size_limit()})"
Read = Callable[..., tuple[pd.DataFrame, list[str]]]


def record(row: int | str = 0, /, **fields: str) -> str:
    """Return a line of the CSV; a field is taken as it is, quotation marks included."""
    return ",".join({**FIELDS, "mask_row": str(row), **fields}.values())


def table_of(*records: str) -> str:
    return "\n".join([HEADER, *records]) + "\n"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a CSV, given as its records or as all of its bytes, and read it."""

    def write_and_read(*content: str | bytes) -> tuple[pd.DataFrame, list[str]]:
        path = tmp_path / "table.csv"
        records = [item for item in content if isinstance(item, str)]
        path.write_bytes(
            b"".join(item for item in content if isinstance(item, bytes))
            or table_of(*records).encode()
        )
        return read_metadata(path)

    return write_and_read


def test_every_column_has_its_dtype(read: Read) -> None:
    table, faults = read(record(7, score="", box_x1="nan", localized="0"))
    assert not faults
    assert list(table.columns) == COLUMNS
    dtypes = {name: table[name].to_numpy().dtype for name in COLUMNS}
    assert all(dtypes[name] == np.int64 for name in ("mask_row", "instance_id"))
    assert all(dtypes[name] == np.float64 for name in ("score", "box_x0", "box_y1"))
    assert dtypes["localized"] == np.int8
    assert table.iloc[0].dropna().to_dict() == {
        "mask_row": 7,
        "image_name": "a.jpg",
        "noun": "hand",
        "instance_id": 0,
        "box_x0": 1.0,
        "box_y0": 2.0,
        "box_y1": 4.0,
        "localized": 0,
        "mask_file": "f.png",
    }


class TestSpelling:
    """What pandas would change is kept."""

    @pytest.mark.parametrize("column", ["image_name", "noun", "mask_file"])
    @pytest.mark.parametrize(
        "text",
        [
            *["nan", "NaN", "NA", "N/A", "None", "none", "null", "NULL", "#N/A", "<NA>", "-nan"],
            *["007", "1e3", "0x1F", "1_000", "+1", "-0", "1.50", "inf", "True", "false"],
            *[" hand", "hand ", " ", "\t", "#hand", "'hand'", 'a 5" pipe', "a\\nb", "\\", ";"],
            *["crème brûlée", "cre\u0300me", "手", "👩‍🚀 suit", "\ufeffhand", "\u202eabc\u200b"],
            *["../hand", "/etc/passwd", "CON", "a/b", "=1+1", "\x1b[31m", "\x01", "x" * 100_000],
        ],
        ids=lambda text: ascii(text[:20]),
    )
    def test_a_text_is_kept(self, read: Read, column: str, text: str) -> None:
        table, faults = read(record(**{column: text}))
        assert not faults
        assert table[column].tolist() == [text]
        assert type(table[column].iloc[0]) is str

    @pytest.mark.parametrize(
        "text",
        ["a,b", 'a "b" c', '"', "a\nb", "a\r\nb", "\n", ",", '",\n"', "ä,\n\n\n,ä"],
        ids=ascii,
    )
    def test_a_quoted_text_is_kept(self, read: Read, text: str) -> None:
        escaped = text.replace('"', '""')
        table, faults = read(record(0, noun=f'"{escaped}"'), record(1, noun="hand"))
        assert not faults
        assert table["noun"].tolist() == [text, "hand"]

    def test_an_empty_mask_file_is_kept(self, read: Read) -> None:
        table, faults = read(record(mask_file=""), record(1, mask_file='""'))
        assert not faults
        assert table["mask_file"].tolist() == ["", ""]

    def test_nouns_are_not_merged(self, read: Read) -> None:
        """Composed and decomposed, upper and lower case, are different labels."""
        nouns = ["\u00e9", "e\u0301", "E\u0301", "nan", "NaN", "1", "01", "1.0"]
        table, faults = read(*(record(row, noun=noun) for row, noun in enumerate(nouns)))
        assert not faults
        assert table["noun"].tolist() == nouns


class TestForm:
    """How the file may be written."""

    RECORDS = table_of(record(0, noun="crème"), record(1, noun='"a\nb"'), record(2))

    @pytest.mark.parametrize(
        "data",
        [
            RECORDS.encode(),
            RECORDS.encode("utf-8-sig"),
            RECORDS.removesuffix("\n").encode(),
            RECORDS.replace("mask_row", '"mask_row"').encode("utf-8-sig"),
            (RECORDS + "\n\n").encode(),
            ("\n\n" + RECORDS).encode(),
            RECORDS.replace(f"\n{record(2)}", f"\n\n\n{record(2)}").encode(),
        ],
        ids=["plain", "BOM", "no last newline", "BOM and quotes", "end", "begin", "middle"],
    )
    def test_is_read(self, read: Read, data: bytes) -> None:
        table, faults = read(data)
        assert not faults
        assert table["noun"].tolist() == ["crème", "a\nb", "hand"]

    @pytest.mark.parametrize("newline", ["\r\n", "\r"], ids=ascii)
    def test_other_line_ends(self, read: Read, newline: str) -> None:
        records = table_of(record(0), record(1, mask_file=""), record(2, score="x"))
        table, faults = read(records.replace("\n", newline).encode())
        assert table["mask_file"].tolist() == ["f.png", ""]
        assert faults == [
            "column 'score' must be a finite number, or empty; as (line, found): (4, 'x')"
        ]

    def test_columns_may_come_in_any_order(self, read: Read) -> None:
        expected, _ = read(record(0), record(1, noun="nan"))
        turned = [",".join(line.split(",")[::-1]) for line in (HEADER, record(0))]
        turned.append(",".join(record(1, noun="nan").split(",")[::-1]))
        table, faults = read("\n".join(turned).encode())
        assert not faults
        pd.testing.assert_frame_equal(table, expected)

    def test_rows_stay_in_the_order_of_the_file_under_their_lines(self, read: Read) -> None:
        table, faults = read(record(5), "", record(0, noun='"a\n\nb"'), record(3))
        assert not faults
        assert table["mask_row"].tolist() == [5, 0, 3]
        assert table.index.tolist() == [2, 4, 7]

    @pytest.mark.parametrize("seed", range(5))
    def test_what_the_csv_module_writes_is_what_is_read(self, read: Read, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - no secret
        letters = ["a", '"', ",", "\n", "\r\n", "'", ";", " ", "é", "🐍", "0", "nan", "\\"]
        texts = ["x" + "".join(chance.choices(letters, k=chance.randrange(9))) for _ in range(60)]
        file = io.StringIO()
        writer = csv.writer(file, lineterminator=chance.choice(["\n", "\r\n"]))
        writer.writerow(COLUMNS)
        for row, text in enumerate(texts):
            writer.writerow({**FIELDS, "mask_row": row, "noun": text, "mask_file": text}.values())
        table, faults = read(file.getvalue().encode())
        assert not faults
        assert table["noun"].tolist() == texts
        assert table["mask_file"].tolist() == texts


class TestNumbers:
    @pytest.mark.parametrize(
        ("field", "expected"),
        [
            *[("", math.nan), ("nan", math.nan), ("NaN", math.nan), ("0", 0.0), ("-0.0", -0.0)],
            *[("1", 1.0), ("+.5", 0.5), ("5.", 5.0), ("1e-3", 0.001), ("1E3", 1000.0)],
            *[("0.1", 0.1), ("0.30000000000000004", 0.1 + 0.2), ("5e-324", 5e-324), ("007", 7.0)],
        ],
    )
    @pytest.mark.parametrize("column", ["score", "box_x0", "box_y1"])
    def test_a_number(self, read: Read, column: str, field: str, expected: float) -> None:
        table, faults = read(record(**{column: field}))
        assert not faults
        np.testing.assert_array_equal(table[column], [expected])
        assert math.copysign(1, table[column].iloc[0]) == math.copysign(1, expected)

    @pytest.mark.parametrize(
        "field",
        [
            *["abc", "inf", "-inf", "Infinity", "1e999", "1_0", "1,5", " 1", "1 ", "\t1", "1\n"],
            *["NA", "null", "None", "-nan", "+nan", "nan()", "0x1", "1e", "--1", "1.2.3", "e", "."],
            *["\u0661", "\uff11", "1\u00a0", "0.5%", "½"],
        ],
        ids=ascii,
    )
    def test_no_number(self, read: Read, field: str) -> None:
        table, faults = read(record(), record(1, score=f'"{field}"'))
        assert faults == [
            f"column 'score' must be a finite number, or empty; as (line, found): (3, {field!r})"
        ]
        assert table["mask_row"].tolist() == [0]

    @pytest.mark.parametrize("column", ["mask_row", "instance_id"])
    @pytest.mark.parametrize(
        ("field", "expected"),
        [
            *[("0", 0), ("-1", -1), ("+1", 1), ("007", 7), ("-0", 0)],
            *[(str(2**63 - 1), 2**63 - 1), (str(-(2**63)), -(2**63))],
        ],
    )
    def test_an_integer(self, read: Read, column: str, field: str, expected: int) -> None:
        table, faults = read(record(**{column: field}))
        assert not faults
        assert table[column].tolist() == [expected]

    @pytest.mark.parametrize("column", ["mask_row", "instance_id"])
    @pytest.mark.parametrize(
        "field",
        [
            *["", "1.5", "1.0", "x", "nan", "1e3", "0x1", "1_0", " 1", "1 ", "1\n", "True", "-"],
            *[str(2**63), str(-(2**63) - 1), "99999999999999999999", "\u0661", "\uff11", "²"],
        ],
        ids=ascii,
    )
    def test_no_integer(self, read: Read, column: str, field: str) -> None:
        table, faults = read(record(), record(1, **{column: f'"{field}"'}))
        assert faults == [f"column {column!r} must be an integer; as (line, found): (3, {field!r})"]
        assert len(table) == 1

    @pytest.mark.parametrize(
        ("field", "expected"),
        [("0", 0), ("1", 1), ("0.0", 0), ("1.0", 1), ("False", 0), ("True", 1)],
    )
    def test_localized(self, read: Read, field: str, expected: int) -> None:
        table, faults = read(record(localized=field))
        assert not faults
        assert table["localized"].tolist() == [expected]

    @pytest.mark.parametrize("field", ["2", "-1", "", "nan", "0.5", "yes", "1 ", "257", "\uff11"])
    def test_not_localized(self, read: Read, field: str) -> None:
        _, faults = read(record(localized=field))
        assert faults == [f"column 'localized' must be 0 or 1; as (line, found): (2, {field!r})"]

    def test_a_very_long_number_is_refused_quickly_and_shortly(self, read: Read) -> None:
        long = "1" * 100_000
        started = time.monotonic()
        _, faults = read(record(long), record(1, score=long), record(2, score=f"{long}x"))
        assert time.monotonic() - started < 2
        assert len(faults) == 2
        assert all(len(fault) < 400 for fault in faults)


class TestHeader:
    @pytest.mark.parametrize("name", COLUMNS)
    def test_a_column_missing(self, read: Read, name: str) -> None:
        lines = pd.read_csv(io.StringIO(table_of(record())), dtype=str).drop(columns=name)
        table, faults = read(lines.to_csv(index=False).encode())
        assert faults == [f"columns missing: {name!r}"]
        assert table.empty

    @pytest.mark.parametrize(
        ("header", "expected"),
        [
            (HEADER + ",noun", ["columns more than once: 'noun'"]),
            (HEADER + ",extra", ["columns not known: 'extra'"]),
            ("," + HEADER, ["columns not known: ''"]),
            (HEADER + ",", ["columns not known: ''"]),
            (
                HEADER.replace("noun", "Noun"),
                ["columns missing: 'noun'", "columns not known: 'Noun'"],
            ),
            (
                HEADER.replace("noun", " noun"),
                ["columns missing: 'noun'", "columns not known: ' noun'"],
            ),
            (
                HEADER.replace("noun", "score"),
                ["columns missing: 'noun'", "columns more than once: 'score'"],
            ),
        ],
        ids=["twice", "extra", "index", "comma", "case", "blank", "twice and missing"],
    )
    def test_other_columns(self, read: Read, header: str, expected: list[str]) -> None:
        table, faults = read(f"{header}\n{record()}\n".encode())
        assert faults == expected
        assert table.empty

    def test_no_header(self, read: Read) -> None:
        _, faults = read(f"{record()}\n{record(1)}\n".encode())
        assert faults[0].startswith("columns missing: 'mask_row', 'image_name', 'noun'")
        assert faults[1].startswith("columns not known: '0', 'a.jpg', 'hand', '0', '0.5'")

    @pytest.mark.parametrize("separator", [";", "\t", "|"])
    def test_another_separator(self, read: Read, separator: str) -> None:
        _, faults = read(table_of(record()).replace(",", separator).encode())
        assert faults[0].endswith("'box_x1', ... (11 in all)")
        assert faults[1] == f"columns not known: {HEADER.replace(',', separator)[:80] + '...'!r}"

    @pytest.mark.parametrize("data", [b"\n", b"\r\n\r\n", b"\xef\xbb\xbf"], ids=ascii)
    def test_empty(self, read: Read, data: bytes) -> None:
        table, faults = read(data)
        assert faults == ["is empty"]
        assert table.empty
        assert list(table.columns) == COLUMNS

    def test_no_byte(self, tmp_path: Path) -> None:
        (tmp_path / "table.csv").touch()
        assert read_metadata(tmp_path / "table.csv")[1] == ["is empty"]

    @pytest.mark.parametrize("end", ["", "\n", "\n\n"], ids=ascii)
    def test_header_only(self, read: Read, end: str) -> None:
        table, faults = read((HEADER + end).encode())
        assert faults == ["has a header but no rows"]
        assert table.empty

    @pytest.mark.parametrize(
        "header",
        [
            ",".join(f"column{number}" for number in range(200_000)),
            "," * 500_000,
            HEADER.replace("noun", "n" * 100_000),
            HEADER.replace("noun", "n" * 1_000_000),
            f'"{HEADER}' + "\n" * 200_000,
        ],
        ids=["names", "commas", "long name", "longer name", "open quote"],
    )
    def test_a_huge_header_gives_a_short_message(self, read: Read, header: str) -> None:
        started = time.monotonic()
        table, faults = read(f"{header}\n{record()}\n".encode())
        assert time.monotonic() - started < 5
        assert table.empty
        assert 1 <= len(faults) <= 2
        assert len("".join(faults)) < 1000


class TestRows:
    """Rows with a fault are named by the line on which they begin."""

    @pytest.mark.parametrize(
        ("bad", "fields"),
        [
            ("1,a.jpg,hand", 3),
            (record(1) + ",", 12),
            (record(1, noun="a,b"), 12),
            (record(1, mask_file="") + ",,,", 14),
            (record(1).removesuffix(",f.png"), 10),
            (" ", 1),
            ('""', 1),
            (record(1).replace(",", ";"), 1),
        ],
        ids=["short", "comma", "shifted", "long", "one less", "blank", "quotes", "semicolons"],
    )
    def test_other_numbers_of_fields(self, read: Read, bad: str, fields: int) -> None:
        table, faults = read(record(0, noun='"a\nb\nc"'), "", bad, record(2))
        assert faults == [f"rows without exactly 11 fields, as (line, fields): (6, {fields})"]
        assert table["mask_row"].tolist() == [0, 2]
        assert table.index.tolist() == [2, 7]

    @pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=ascii)
    def test_lines_are_counted_through_quoted_newlines(self, read: Read, newline: str) -> None:
        records = [record(0, noun='"a\n\n"'), record(1, mask_file='"\n"'), record(2), "1,2"]
        _, faults = read(table_of(*records).replace("\n", newline).encode())
        assert faults == ["rows without exactly 11 fields, as (line, fields): (8, 2)"]

    @pytest.mark.parametrize(
        ("content", "fault"),
        [
            (
                [record(), record(1, noun='"hand')],
                "line 3 is broken: unexpected end of data; is a quotation mark missing?",
            ),
            (
                [record(0, noun='"a\nb"'), record(1, noun='"hand"s')],
                "line 4 is broken: ',' expected after '\"'; is a quotation mark missing?",
            ),
            (
                [record(0), record(1, noun='"hand'), *(record(row) for row in range(2, 4000))],
                f"line 3 is broken: {TOO_LONG}; is a quotation mark missing?",
            ),
            (
                [record(0), record(1, noun="x" * 200_000)],
                f"line 3 is broken: {TOO_LONG}; is a quotation mark missing?",
            ),
        ],
        ids=["at the end", "after a quote", "the rest of the file", "a long field"],
    )
    def test_an_unclosed_quote(self, read: Read, content: list[str], fault: str) -> None:
        table, faults = read(*content)
        assert faults == [fault]
        assert table["mask_row"].tolist() == [0]

    @pytest.mark.parametrize("column", ["image_name", "noun"])
    def test_an_empty_name(self, read: Read, column: str) -> None:
        table, faults = read(record(), record(1, **{column: ""}), record(2, **{column: '""'}))
        assert faults == [f"column {column!r} must be a name; as (line, found): (3, ''), (4, '')"]
        assert table["mask_row"].tolist() == [0]

    @pytest.mark.parametrize("column", ["noun", "mask_file", "mask_row"])
    def test_nul(self, read: Read, column: str) -> None:
        table, faults = read(record(), record(1, **{column: "a\0b"}))
        assert faults == ["rows with a NUL character, in lines: 3"]
        assert len(table) == 1

    def test_at_most_eight_are_shown(self, read: Read) -> None:
        _, faults = read(*(record(row, score="x") for row in range(9_999)), "1,2")
        assert len(faults) == 2
        assert faults[0] == "rows without exactly 11 fields, as (line, fields): (10001, 2)"
        assert faults[1].endswith("(8, 'x'), (9, 'x'), ... (9,999 in all)")
        assert faults[1].count("'x'") == 8


class TestEncoding:
    def test_every_line_that_is_not_utf_8_is_named(self, read: Read) -> None:
        """However far into the file, though it is decoded many lines at a time."""
        records = [record(row, noun="crème" if row in {3, 900} else "hand") for row in range(1000)]
        table, faults = read(table_of(*records).encode("latin-1"))
        assert faults == ["rows that are not UTF-8 text, in lines: 5, 902"]
        assert len(table) == 998

    @pytest.mark.parametrize(
        "noun",
        [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80"],
        ids=["no such byte", "cut off", "surrogate", "overlong", "beyond Unicode"],
    )
    def test_bad_utf_8(self, read: Read, noun: bytes) -> None:
        table, faults = read(table_of(record(0), record(1, noun="@")).encode().replace(b"@", noun))
        assert faults == ["rows that are not UTF-8 text, in lines: 3"]
        assert table["mask_row"].tolist() == [0]

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    def test_other_encodings(self, read: Read, encoding: str) -> None:
        table, faults = read(table_of(record(), record(1)).encode(encoding))
        assert faults == ["is not UTF-8 text"]
        assert table.empty

    @pytest.mark.parametrize(
        "data",
        [b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 50, b"PK\x03\x04" + bytes(100), bytes(300_000)],
        ids=["HDF5", "ZIP", "zeros"],
    )
    def test_no_text_at_all(self, read: Read, data: bytes) -> None:
        table, faults = read(data)
        assert len(faults) == 1
        assert table.empty


def test_every_fault_is_told_at_once(read: Read) -> None:
    data = table_of(
        record(0),
        record("1.5", score="inf"),
        "1,2,3",
        record(3, noun="", localized="maybe"),
        record(4, noun="a\0b"),
        record(5, noun='"a\nb"', box_y0="?"),
        record(6, noun="@"),
        record(7),
        record(8, noun='"open'),
    )
    table, faults = read(data.encode().replace(b"@", b"\xff"))
    assert faults == [
        "line 11 is broken: unexpected end of data; is a quotation mark missing?",
        "rows without exactly 11 fields, as (line, fields): (4, 3)",
        "rows with a NUL character, in lines: 6",
        "rows that are not UTF-8 text, in lines: 9",
        "column 'mask_row' must be an integer; as (line, found): (3, '1.5')",
        "column 'noun' must be a name; as (line, found): (5, '')",
        "column 'score' must be a finite number, or empty; as (line, found): (3, 'inf')",
        "column 'box_y0' must be a finite number, or empty; as (line, found): (7, '?')",
        "column 'localized' must be 0 or 1; as (line, found): (5, 'maybe')",
    ]
    assert table.index.tolist() == [2, 10]


@pytest.mark.parametrize("size", [2**28 + 1, 2**40])
def test_a_huge_file_is_not_read(tmp_path: Path, size: int) -> None:
    """It has holes: a few bytes of an archive can become a terabyte of zeros."""
    path = tmp_path / "table.csv"
    path.write_text(table_of(record()))
    os.truncate(path, size)
    table, faults = read_metadata(path)
    assert faults == ["cannot be read: it is larger than 256 MiB"]
    assert table.empty


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    table, faults = read_metadata(tmp_path / "nothing.csv")
    assert faults == ["cannot be read: No such file or directory"]
    assert table.empty
