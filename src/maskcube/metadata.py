"""The CSV of the source: one row for each mask, read without guessing.

pandas' defaults turn the nouns "NA" and "nan" into missing values, "007" into 7, and shift all
columns when a row has one comma too many. Here each row's fields are counted and each column is
converted by its own rule; what does not fit is a fault with its line number.
"""

from __future__ import annotations

import csv
import io
import math
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import numpy as np

from maskcube.errors import listed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "MOST_CSV_BYTES", "MOST_ROWS", "is_utf8", "read_metadata"]

MOST_ROWS = 2**20
"""Most masks of a source. What is known of them is held in memory, some 400 bytes each."""

MOST_CSV_BYTES = 2**28
"""Largest CSV that is read: that of as many masks."""

_MOST_LINE = 2**20
"""Longest line: the csv module and the decoder would hold any several times."""

_MOST_LINES = 8 * MOST_ROWS
"""Most lines: there are blank ones, and texts of several."""

_MOST_SHOWN = 80
_MOST_LISTED = 8
_MISSING = frozenset({"", "nan", "NaN", "NAN"})
_NUMERALS = frozenset("0123456789+-.eE")
_FLAGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "False": 0, "True": 1}
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)


def _text(field: str) -> str:
    return field


def _name(field: str) -> str:
    if not field:
        raise ValueError
    return field


def _integer(field: str) -> int:
    if not _INTEGER.fullmatch(field) or not -(2**63) <= int(field) < 2**63:
        raise ValueError
    return int(field)


def _number(field: str) -> float:
    if field in _MISSING:
        return math.nan
    number = float(field)
    # float() takes far more for a number: underscores, blanks, "infinity", digits of any script.
    if not _NUMERALS.issuperset(field) or not math.isfinite(number):
        raise ValueError
    return number


def _flag(field: str) -> int:
    return _FLAGS[field]


Rule = tuple[Callable[[str], Any], Any, str]

_NAME: Rule = (_name, object, "a name")
_NUMBER: Rule = (_number, np.float64, "a finite number, or empty")
_COUNT: Rule = (_integer, np.int64, "an integer")

COLUMNS: dict[str, Rule] = {
    "mask_row": _COUNT,
    "image_name": _NAME,
    "noun": _NAME,
    "instance_id": _COUNT,
    "score": _NUMBER,
    "box_x0": _NUMBER,
    "box_y0": _NUMBER,
    "box_x1": _NUMBER,
    "box_y1": _NUMBER,
    "localized": (_flag, np.int8, "0 or 1"),
    "mask_file": (_text, object, "a text"),
}
"""Columns of the CSV: how a field is converted, to which dtype, and what it must be."""


def read_metadata(given: Path | io.RawIOBase) -> tuple[pd.DataFrame, list[str]]:
    """Return the table of a CSV and every fault in it.

    Parameters
    ----------
    given : pathlib.Path or io.RawIOBase
        The CSV, or its bytes: UTF-8 with or without byte order mark, comma-separated.

    Returns
    -------
    pandas.DataFrame
        The rows without fault, in the order of the file, indexed by their line number.
        Texts are kept as they are spelt; a missing number is NaN.
    list of str
        The faults, one sentence for each kind, with line numbers. Empty when all is well.
    """
    table = _Table()
    faults: list[str] = []
    try:
        with _opened(given) as file:
            rows = _numbered(csv.reader(_lines(file), strict=True), faults)
            header = next(rows, (1, []))[1]
            if not faults:
                faults += _header_faults(header)
            if not faults:
                table.fill(header, rows)
    except OSError as error:
        faults.append(f"cannot be read: {error.strerror or error}")
    faults += table.faults()
    if not len(table.lines) and not faults:
        faults.append("has a header but no rows")
    return table.frame(), faults


def _opened(given: Path | io.RawIOBase) -> TextIO:
    """Open the CSV; bytes that are not UTF-8 become surrogates, and then a fault of their row."""
    how: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
    if isinstance(given, io.RawIOBase):
        return io.TextIOWrapper(io.BufferedReader(given), **how)
    if given.stat().st_size > MOST_CSV_BYTES:
        raise OSError(f"it is larger than {MOST_CSV_BYTES // 2**20} MiB")
    return cast("TextIO", given.open(**how))


def _lines(file: TextIO) -> Iterator[str]:
    """Yield the lines of a text; raises `csv.Error` at one that no table can have."""
    for _ in range(_MOST_LINES):
        line = file.readline(_MOST_LINE)
        if len(line) == _MOST_LINE:
            raise csv.Error(f"it is longer than {_MOST_LINE:,} characters")
        if not line:
            return
        yield line
    raise csv.Error(f"the table has more than {_MOST_LINES:,} lines")


def _numbered(
    reader: Any,  # noqa: ANN401 - csv's is private
    faults: list[str],
) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that is not blank with the number of the line on which it begins.

    The last one is that before a record which the csv module cannot read: a fault.
    """
    line = 1
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            faults.append(f"line {line} is broken: {error}; is a quotation mark missing?")
            return
        if record:
            yield line, record
        line = reader.line_num + 1


def _header_faults(header: list[str]) -> list[str]:
    if not header:
        return ["is empty"]
    if not all(is_utf8(name) and "\0" not in name for name in header):
        return ["is not UTF-8 text"]
    missing = [name for name in COLUMNS if name not in header]
    unknown = [name for name in header if name not in COLUMNS]
    twice = [name for name in COLUMNS if header.count(name) > 1]
    found = [
        ("columns missing", missing),
        ("columns not known", [_shortened(name) for name in unknown]),
        ("columns more than once", twice),
    ]
    return [f"{what}: {listed(names)}" for what, names in found if names]


class _Found:
    """What was found wrong: how often, and the first few."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[object] = []

    def add(self, item: object) -> None:
        self.count += 1
        if len(self._first) < _MOST_LISTED:
            self._first.append(item)

    def __str__(self) -> str:
        more = f", ... ({self.count:,} in all)" if self.count > _MOST_LISTED else ""
        return f"{listed(self._first)}{more}"


class _Table:
    """The rows without fault, column by column, and what is wrong with the others."""

    def __init__(self) -> None:
        self.lines = array("q")
        self._columns: dict[str, Any] = {
            name: [] if dtype is object else array(np.dtype(dtype).char)
            for name, (_, dtype, _) in COLUMNS.items()
        }
        # Many rows have the same image or noun: none needs a copy of its own.
        self._names: dict[str, str] = {}
        self._short, self._nul, self._undecoded = _Found(), _Found(), _Found()
        self._wrong = {name: _Found() for name in COLUMNS}
        self._too_many = False

    def fill(self, header: list[str], rows: Iterable[tuple[int, list[str]]]) -> None:
        """Take the rows under a header of all columns."""
        rules = [(self._columns[name], COLUMNS[name][0], self._wrong[name]) for name in header]
        for n_rows, (line, record) in enumerate(rows):
            if n_rows == MOST_ROWS:
                self._too_many = True
                return
            if len(record) != len(COLUMNS):
                self._short.add((line, len(record)))
            elif any("\0" in field for field in record):
                self._nul.add(line)
            elif not all(map(is_utf8, record)):
                self._undecoded.add(line)
            else:
                self._take(line, record, rules)

    def _take(
        self, line: int, record: list[str], rules: list[tuple[Any, Callable[[str], Any], _Found]]
    ) -> None:
        """Append a row to the columns, unless one of its fields cannot be converted."""
        values = []
        for field, (_, rule, wrong) in zip(record, rules, strict=True):
            try:
                values.append(rule(field))
            except (ValueError, KeyError):
                wrong.add((line, _shortened(field)))
        if len(values) == len(rules):
            self.lines.append(line)
            for value, (column, rule, _) in zip(values, rules, strict=True):
                column.append(self._names.setdefault(value, value) if rule is _name else value)

    def faults(self) -> list[str]:
        """Return the faults of the rows, one sentence for each kind."""
        found = [
            (f"rows without exactly {len(COLUMNS)} fields, as (line, fields)", self._short),
            ("rows with a NUL character, in lines", self._nul),
            ("rows that are not UTF-8 text, in lines", self._undecoded),
            *(
                (f"column {name!r} must be {COLUMNS[name][2]}; as (line, found)", wrong)
                for name, wrong in self._wrong.items()
            ),
        ]
        faults = [f"{what}: {rows}" for what, rows in found if rows.count]
        if self._too_many:
            faults.insert(0, f"has more than {MOST_ROWS:,} rows")
        return faults

    def frame(self) -> pd.DataFrame:
        """Return the rows without fault."""
        import pandas as pd

        columns = {
            name: np.array(self._columns[name], dtype=dtype)
            for name, (_, dtype, _) in COLUMNS.items()
        }
        return pd.DataFrame(columns, index=pd.Index(np.array(self.lines, np.int64), name="line"))


def is_utf8(field: str) -> bool:
    """Whether a text can be written as UTF-8: it has no half of a pair of surrogates."""
    return field.isascii() or not any("\ud800" <= character <= "\udfff" for character in field)


def _shortened(field: str) -> str:
    return field if len(field) <= _MOST_SHOWN else f"{field[:_MOST_SHOWN]}..."
