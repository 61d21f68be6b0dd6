"""Paths on this machine, and what only looks like one."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from maskcube.access import SCHEMES, scheme_of
from maskcube.errors import InvalidOption

__all__ = ["folder_path", "of_file_url", "partial_path", "refuse_url"]


def folder_path(store: object) -> Path | None:
    """Return the local path that `store` names; None when it is not a folder on this machine."""
    if not isinstance(store, str | os.PathLike):
        return None
    text = of_file_url(os.fspath(store))
    if "://" in text or text.endswith(".zip"):
        return None
    if "\0" in text:
        raise InvalidOption(f"store={text!r} is no path: it contains NUL")
    refuse_url(text)
    try:
        # Absolute: a worker, or the process itself later, may stand in another folder.
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise InvalidOption(f"store={text!r}: {error}") from error


def refuse_url(path: str | os.PathLike[str]) -> None:
    """Raise `InvalidOption` where a path on this machine is wanted and a URL was meant."""
    text = os.fspath(path)
    scheme, colon, _ = text.partition(":")
    if colon and scheme.lower() in SCHEMES:
        raise InvalidOption(
            f"{text!r} is no path on this machine; where a URL may stand, give it as a text that"
            f" begins with {scheme.lower()}:// (a pathlib.Path takes a slash away)"
        )


def of_file_url(text: str) -> str:
    """Return the path of a URL ``file://``; whatever else it is, as it is."""
    if scheme_of(text) != "file":
        return text
    parts = urlsplit(text)
    if parts.netloc not in {"", "localhost"} or not parts.path:
        raise InvalidOption(f"{text!r} names no path on this machine: file:///folder/masks.zarr")
    return unquote(parts.path)


def partial_path(target: Path) -> Path:
    """Return where a local store is built before it is moved to `target`."""
    return target.with_name(f"{target.name}.partial")
