"""File names for names that come from data.

A name of an image or of a noun may be anything: ``../../x``, ``CON``, three hundred characters, or
the same as another one but for case. What is made of it here stays in its folder, is a file name on
every system, and no two names are one file.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

__all__ = ["file_names", "stem_of"]

_MOST = 100
"""Longest stem; systems take 255 bytes, and a suffix and a checksum come after it."""

_PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{device}{digit}" for device in ("com", "lpt") for digit in range(10)
}
"""What Windows takes for a device, whatever the suffix."""

_DIGITS = 10
_MOST_DIGITS = 64

_LOOKS_MARKED = re.compile(
    rf"(.*-)?[0-9a-f]{{{_DIGITS}}}([0-9a-f]{{{_MOST_DIGITS - _DIGITS}}})?", re.IGNORECASE
)
"""A stem that could be that of another name with its checksum."""


def file_names(names: Iterable[str], suffix: str) -> dict[str, str]:
    """Return a safe and unique file name for each name.

    A name of letters, digits, ``_`` and ``-`` stays as it is; the suffix of a picture goes. In
    others each run of other characters is one ``_``, and a checksum of the name follows; so it
    does where names would be the same, or the same but for case, and where a name looks as if it
    had a checksum: it may be that of another one.

    Parameters
    ----------
    names : iterable of str
        Distinct names, of images for example; which others there are may change a file name.
    suffix : str
        What each file name ends with.

    Examples
    --------
    >>> file_names(["a.jpg", "b.v2.jpg", "../b"], ".png")
    {'a.jpg': 'a.png', 'b.v2.jpg': 'b_v2-544149093a.png', '../b': 'b-95cd906910.png'}
    """
    every = list(dict.fromkeys(names))
    plain = {name: stem_of(name) for name in every}
    counts = Counter(stem.lower() for stem in plain.values())
    stems = {
        name: stem if counts[stem.lower()] == 1 and _is_plain(name, stem) else _marked(name, stem)
        for name, stem in plain.items()
    }
    # A short checksum can be that of two names, and somebody may have looked for these.
    counts = Counter(stem.lower() for stem in stems.values())
    twice = [name for name, stem in stems.items() if counts[stem.lower()] > 1]
    stems |= {name: _marked(name, plain[name], _MOST_DIGITS) for name in twice}
    return {name: f"{stem}{suffix}" for name, stem in stems.items()}


def stem_of(name: str) -> str:
    """Return what of a name can stand in a file name; not unique, and perhaps a device."""
    path = PurePosixPath(name)
    stem = name[: -len(path.suffix)] if path.suffix.lower() in _PICTURES else name
    return _UNSAFE.sub("_", stem).strip("_-")[:_MOST]


def _is_plain(name: str, stem: str) -> bool:
    """Whether nothing but the suffix of a picture was taken away."""
    is_same = name == stem or (name.startswith(stem) and name[len(stem) :].lower() in _PICTURES)
    is_free = stem.lower() not in _DEVICES and not _LOOKS_MARKED.fullmatch(stem)
    return is_same and bool(stem) and is_free


def _marked(name: str, stem: str, digits: int = _DIGITS) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
    # However many digits there are, the file name is not longer.
    kept = stem[: _MOST + _DIGITS - digits]
    return f"{kept}-{digest}" if kept else digest
