"""The report: tables of GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.contest import Record

__all__ = ["heading", "table"]


def heading(report: Record) -> str:
    """Return what was measured on which machine."""
    machine, data = report["machine"], report["data"]
    versions = ", ".join(f"{name} {found}" for name, found in machine["versions"].items() if found)
    return (
        f"{data['n_masks']:,} masks of {data['height']} x {data['width']} pixels "
        f"({data['source']}); {machine['n_cores']} cores ({machine['processor']}), "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}; {machine['date']}, "
        f"Python {machine['python']}, {versions}. Medians of interleaved repetitions, warm cache; "
        "a ratio above 1 is slower, or larger, than ours.\n"
    )


def table(record: Record) -> str:
    """Return the table of one contest."""
    shown = {
        key: column
        for key, column in _COLUMNS.items()
        if any(row.get(key) is not None for row in record["rows"])
    }
    head = ["", *(title for title, _ in shown.values()), "measured"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in record["rows"]:
        cells = [
            "" if row.get(key) is None else written(row[key]) for key, (_, written) in shown.items()
        ]
        lines.append([_name(row), *cells, _measured(row)])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    note = f"{record['note']}\n\n" if record["note"] else ""
    return f"### {record['title']}\n\n{note}{body}\n"


def _name(row: Record) -> str:
    name = f"**{row['peer']}**" if row["kind"] == "ours" else row["peer"]
    return name if row["agrees"] is not False else f"{name} (**another answer**)"


def _measured(row: Record) -> str:
    if row["status"] != "ok":
        return str(row["status"]).replace("|", "/")
    times = row.get("times_s")
    if times is None:
        return ""
    asked = "" if row["n_questions"] == 1 else f" x {row['n_questions']}"
    return f"{len(times)}{asked}"


def _duration(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1 or unit == "µs":
            return f"{_three_digits(seconds * factor)} {unit}"
    raise AssertionError


def _three_digits(value: float) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def _memory(n_bytes: float) -> str:
    return f"{n_bytes / 2**20:,.0f} MiB"


_COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "median_s": ("median", _duration),
    "n_requests": ("requests", "{:,}".format),
    "bytes_down": ("bytes down", "{:,}".format),
    "bytes_up": ("bytes up", "{:,}".format),
    "masks_a_second": ("masks/s", "{:,.0f}".format),
    "cpu_s": ("CPU", _duration),
    "peak_bytes": ("peak memory", _memory),
    "predicted_s": ("predicted", _duration),
    "off": ("off by", "{:+.0%}".format),
    "limit": ("takes longest", str),
    "parts": ("seconds", str),
    "bytes": ("bytes", "{:,}".format),
    "bytes_a_mask": ("bytes a mask", "{:,.0f}".format),
    "n_files": ("files", "{:,}".format),
    "ratio": ("ratio to ours", _three_digits),
}
