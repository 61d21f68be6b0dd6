"""The CSV of the source: one row for each mask, read without guessing.

pandas' defaults turn the nouns "NA" and "nan" into missing values, "007" into 7, and shift all
columns when a row has one comma too many. Here each row's fields are counted and each column is
converted by its own rule; what does not fit is a fault with its line number.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from maskcube.errors import listed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "read_metadata"]

_MOST_BYTES = 2**28
"""Largest CSV that is read: that of a million masks. It is held in memory."""

_MOST_SHOWN = 80
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


def read_metadata(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return the table of a CSV and every fault in it.

    Parameters
    ----------
    path : pathlib.Path
        The CSV: UTF-8 with or without byte order mark, comma-separated.

    Returns
    -------
    pandas.DataFrame
        The rows without fault, in the order of the file, indexed by their line number.
        Texts are kept as they are spelt; a missing number is NaN.
    list of str
        The faults, one sentence for each kind, with line numbers. Empty when all is well.
    """
    faults: list[str] = []
    records: list[list[str]] = []
    lines: list[int] = []
    header: list[str] = []
    try:
        with _opened(path) as file:
            rows = _numbered(csv.reader(file, strict=True), faults)
            header = next(rows, (1, []))[1]
            if not faults:
                faults += _header_faults(header)
            if not faults:
                faults += _keep_whole_rows(rows, records, lines)
    except OSError as error:
        faults.append(f"cannot be read: {error.strerror or error}")
    if not records and not faults:
        faults.append("has a header but no rows")
    table, converted = _convert(header, records, lines)
    return table, faults + converted


def _opened(path: Path) -> TextIO:
    """Open the CSV; bytes that are not UTF-8 become surrogates, and then a fault of their row."""
    if path.stat().st_size > _MOST_BYTES:
        raise OSError(f"it is larger than {_MOST_BYTES // 2**20} MiB")
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


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
    if not all(_is_utf8(name) and "\0" not in name for name in header):
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


def _keep_whole_rows(
    rows: Iterator[tuple[int, list[str]]], records: list[list[str]], lines: list[int]
) -> list[str]:
    """Append the rows with as many fields as there are columns; return faults for the others."""
    short, nul, undecoded = [], [], []
    for line, record in rows:
        if len(record) != len(COLUMNS):
            short.append((line, len(record)))
        elif any("\0" in field for field in record):
            nul.append(line)
        elif not all(map(_is_utf8, record)):
            undecoded.append(line)
        else:
            records.append(record)
            lines.append(line)
    faults = []
    if short:
        faults.append(
            f"rows without exactly {len(COLUMNS)} fields, as (line, fields): {listed(short)}"
        )
    if nul:
        faults.append(f"rows with a NUL character, in lines: {listed(nul)}")
    if undecoded:
        faults.append(f"rows that are not UTF-8 text, in lines: {listed(undecoded)}")
    return faults


def _is_utf8(field: str) -> bool:
    return field.isascii() or not any("\ud800" <= character <= "\udfff" for character in field)


def _shortened(field: str) -> str:
    return field if len(field) <= _MOST_SHOWN else f"{field[:_MOST_SHOWN]}..."


def _convert(
    header: list[str], records: list[list[str]], lines: list[int]
) -> tuple[pd.DataFrame, list[str]]:
    """Convert the records column by column; rows with a fault are left out of the table."""
    import pandas as pd

    columns = dict(zip(header, zip(*records, strict=True), strict=False)) if records else {}
    faults: list[str] = []
    bad: set[int] = set()
    converted = {}
    for name, (rule, dtype, meaning) in COLUMNS.items():
        values, wrong = _convert_column(columns.get(name, ()), rule)
        if wrong:
            at = [(lines[position], _shortened(columns[name][position])) for position in wrong]
            faults.append(f"column {name!r} must be {meaning}; as (line, found): {listed(at)}")
            bad.update(wrong)
        converted[name] = np.array(values, dtype=dtype)
    table = pd.DataFrame(converted, index=pd.Index(lines, name="line"))
    return table.drop(index=[lines[position] for position in bad]), faults


def _convert_column(
    fields: tuple[str, ...], rule: Callable[[str], Any]
) -> tuple[list[Any], list[int]]:
    """Return the converted fields and the positions of those that could not be converted."""
    values: list[Any] = []
    wrong: list[int] = []
    for position, field in enumerate(fields):
        try:
            values.append(rule(field))
        except (ValueError, KeyError):
            wrong.append(position)
            values.append(rule("0"))
    return values, wrong
