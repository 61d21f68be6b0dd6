"""Where an export is written: beside its place first, so that it is there whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from maskcube.disk import Lock, exchange, make_folder
from maskcube.errors import InvalidOption, MaskcubeError, StoreExists
from maskcube.paths import folder_path, partial_path
from maskcube.provenance import generator

__all__ = ["REPORT", "new_file", "new_folder", "to_json", "write_list"]

REPORT = "maskcube-export.json"
"""The report in a folder of an export; only a folder with one is ever replaced or deleted."""

_GROUP = "zarr.json"
"""What every folder of a store has, and that of each of its arrays."""

_HEAD_BYTES = 256

_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
"""What ends a line for some readers of JSON lines, and only stands in texts."""


@contextmanager
def new_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a folder to fill, which gets its name when all is done; else nothing is left of it.

    Parameters
    ----------
    path : str or pathlib.Path
        What it will be called, on this machine.
    overwrite : bool
        Replace the folder of an earlier export.

    Raises
    ------
    StoreExists
        When something is there, or another process writes to the same place.
    InvalidOption
        When `path` is a URL.
    """
    target = _target(path)
    partial = partial_path(target)
    with _locked(target):
        is_ours = _is_export(target)
        if os.path.lexists(target) and not (overwrite and is_ours):
            raise _taken(target, "no folder of an export", is_ours=is_ours)
        if os.path.lexists(partial) and not (_is_export(partial) or _is_empty(partial)):
            raise StoreExists(f"{partial} is in the way, and no unfinished export: delete it")
        _clear(partial)
        partial.mkdir()
        try:
            (partial / REPORT).write_text(to_json({"generator": generator()}))
            yield partial
            _put_in_place(partial, target)
        finally:
            _clear(partial)


@contextmanager
def new_file(path: str | Path, *, overwrite: bool = False) -> Iterator[TextIO]:
    """Give a text file to write, which gets its name when all is done; else nothing is left of it.

    Parameters
    ----------
    path : str or pathlib.Path
        What it will be called, on this machine.
    overwrite : bool
        Replace the file of an earlier export.

    Raises
    ------
    StoreExists
        When something is there, or another process writes to the same place.
    InvalidOption
        When `path` is a URL.
    """
    target = _target(path)
    partial = partial_path(target)
    with _locked(target):
        is_ours = _is_ours(target)
        if os.path.lexists(target) and not (overwrite and is_ours):
            raise _taken(target, "no file of an export", is_ours=is_ours)
        if os.path.lexists(partial) and not _is_file(partial):
            raise StoreExists(f"{partial} is in the way, and no unfinished export: delete it")
        try:
            with partial.open("w", encoding="utf-8", newline="\n") as file:
                yield file
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


def to_json(value: object) -> str:
    """Return a value as JSON on one line; raises where it has NaN or what JSON does not know."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).translate(_LINE_ENDS)


def write_list(file: TextIO, lines: Iterable[str]) -> None:
    """Write a list, one element a line."""
    separator = "[\n"
    for line in lines:
        file.write(separator + line)
        separator = ",\n"
    file.write("[]" if separator == "[\n" else "\n]")


def _target(path: str | Path) -> Path:
    found = folder_path(path)
    if found is None:
        raise InvalidOption(f"an export is written on this machine, not to {str(path)!r}")
    if not found.name:
        raise InvalidOption(f"{str(path)!r} is no name for an export")
    # What is not of a store is in its way there, and must not replace what is.
    place = Path(os.path.realpath(found.parent)) / found.name
    groups = [folder for folder in place.parents if (folder / _GROUP).is_file()]
    if groups:
        raise InvalidOption(f"{str(path)!r} is inside of {groups[0]}, a Zarr group: choose another")
    return found


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    make_folder(target.parent)
    lock = Lock(target.with_name(f"{target.name}.lock"), str(target))
    lock.acquire()
    try:
        yield
    except OSError as error:
        if isinstance(error, MaskcubeError) or error.errno is None:
            raise
        told = f"{error.strerror}: {target} is not written, and nothing is left of it"
        raise OSError(error.errno, told) from error
    finally:
        lock.release()


def _is_export(folder: Path) -> bool:
    return not folder.is_symlink() and (folder / REPORT).is_file()


def _is_empty(folder: Path) -> bool:
    """Whether it is a folder that an export has made, and not begun to fill."""
    return folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())


def _is_file(path: Path) -> bool:
    """Whether it is a file itself: no link, no device and no pipe."""
    return path.is_file() and not path.is_symlink()


def _is_ours(path: Path) -> bool:
    """Whether a file looks like one that an export wrote: a list, an object of ours, or nothing."""
    if not _is_file(path):
        return False
    with path.open("rb") as opened:
        head = opened.read(_HEAD_BYTES)
    is_object = head.startswith(b"{") and b'"contributor": "maskcube ' in head
    return is_object or head[:1] in (b"", b"[")


def _clear(folder: Path) -> None:
    """Delete an unfinished export; what says that it is one goes last, should this be killed."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != REPORT:
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _taken(target: Path, what: str, *, is_ours: bool) -> StoreExists:
    if not is_ours:
        return StoreExists(f"{target} is {what}, and is not replaced: delete it, or choose another")
    return StoreExists(f"{target} exists; overwrite=True would replace it")


def _put_in_place(partial: Path, target: Path) -> None:
    if not target.exists():
        partial.rename(target)
    elif not exchange(partial, target):
        # A system that cannot exchange two folders: for a moment there is none.
        _clear(target)
        partial.rename(target)
