"""What can go wrong, as one tree.

Every leaf is also the builtin exception that a caller would catch without knowing maskcube::

    MaskcubeError
    ├── SourceError        (ValueError)         the HDF5 or the CSV cannot be converted: .faults
    │   └── SourceNotFound (FileNotFoundError)  there is no HDF5, or no CSV, at that place
    ├── StoreNotFound      (FileNotFoundError)  nothing is at that place
    ├── StoreExists        (FileExistsError)    the target is taken
    ├── NotAMaskStore      (ValueError)         something else is at that place, or a newer format
    ├── IncompleteStore    (ValueError)         a conversion has begun and has not ended
    ├── StoreChanged       (RuntimeError)       it is another one than when it was opened
    ├── StoreUnreachable   (ConnectionError)    there is no answer, or none but "later"
    ├── AccessDenied       (PermissionError)    these credentials may not, or are none any more
    ├── LabelNotFound      (KeyError)           no mask has that image, noun or instance
    ├── RowNotFound        (IndexError)         there is no mask in that row
    ├── CorruptStore       (ValueError)         a piece of the store is missing or damaged
    │   └── CorruptMask    (ValueError)         ... and it holds the pixels of these masks: .rows
    ├── VerificationError  (ValueError)         ``verify`` found differences: .masks
    ├── InvalidOption      (ValueError)         an argument has no meaning here
    └── MissingDependency  (ImportError)        an optional library is not installed

A message says what was asked, what was found and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = [
    "AccessDenied",
    "BadMask",
    "CorruptMask",
    "CorruptStore",
    "IncompleteStore",
    "InvalidOption",
    "LabelNotFound",
    "MaskcubeError",
    "MissingDependency",
    "NotAMaskStore",
    "RowNotFound",
    "SourceError",
    "SourceNotFound",
    "StoreChanged",
    "StoreExists",
    "StoreNotFound",
    "StoreUnreachable",
    "VerificationError",
    "listed",
]

_LISTED = 8
_LISTED_FAULTS = 32


def listed(items: Iterable[object], *, limit: int = _LISTED) -> str:
    """Items by their repr for a message: at most `limit`, then how many there are.

    Examples
    --------
    >>> listed(["hand", "fingers"])
    "'hand', 'fingers'"
    >>> listed(range(24_011), limit=3)
    '0, 1, 2, ... (24,011 in all)'
    """
    every = list(items)
    shown = ", ".join(repr(item) for item in every[:limit])
    return shown if len(every) <= limit else f"{shown}, ... ({len(every):,} in all)"


class MaskcubeError(Exception):
    """Base of every error that maskcube raises on purpose."""


class SourceError(MaskcubeError, ValueError):
    """The source cannot be converted as it is.

    Parameters
    ----------
    source : str
        The file or folder that was read.
    faults : sequence of str
        Every fault that was found, one sentence each, with line or row numbers.
    """

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        super().__init__(source, tuple(faults))
        self.source = source
        self.faults = tuple(faults)

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return f"{self.source}: {self.faults[0]}"
        lines = "".join(f"\n  - {fault}" for fault in self.faults)
        return f"{self.source}: {len(self.faults):,} faults{lines}"


class SourceNotFound(SourceError, FileNotFoundError):
    """There is no HDF5 of masks, or no CSV beside it, at that place."""

    # Of its two builtin bases the one with more fields must make it: ValueError comes first.
    __new__ = FileNotFoundError.__new__  # type: ignore[assignment]


class StoreNotFound(MaskcubeError, FileNotFoundError):
    """Nothing is at that place."""


class StoreExists(MaskcubeError, FileExistsError):
    """The target of a conversion is taken."""


class NotAMaskStore(MaskcubeError, ValueError):
    """Something is at that place, but no mask store that this version can read."""


class IncompleteStore(MaskcubeError, ValueError):
    """A conversion has begun at that place and has not ended."""


class StoreChanged(MaskcubeError, RuntimeError):
    """The store was appended to, updated or replaced after it was opened."""


class StoreUnreachable(MaskcubeError, ConnectionError):
    """No answer has come from where a store or a source is, however often it was asked."""


class AccessDenied(MaskcubeError, PermissionError):
    """Credentials are wrong, have expired, or are not those of somebody who may."""


class LabelNotFound(MaskcubeError, KeyError):
    """No mask has that image, noun or instance, or not together."""

    def __str__(self) -> str:
        # KeyError would show the repr of the message, line breaks escaped.
        return str(self.args[0]) if self.args else ""


class RowNotFound(MaskcubeError, IndexError):
    """There is no mask in that row."""


class CorruptStore(MaskcubeError, ValueError):
    """A piece of the store is missing or damaged."""


class CorruptMask(CorruptStore):
    """The pixels of some masks are missing or damaged.

    Parameters
    ----------
    message : str
        What was asked and what was found.
    rows : sequence of int
        Rows of the store (positions along ``mask``) that cannot be read.
    """

    def __init__(self, message: str, rows: Sequence[int] = ()) -> None:
        super().__init__(message, tuple(rows))
        self.rows = tuple(rows)

    def __str__(self) -> str:
        return str(self.args[0])


class BadMask(NamedTuple):
    """A mask that is not as it was converted."""

    row: int
    """Row of the store (position along ``mask``)."""
    image: str
    noun: str
    instance: int
    found: str
    """What is wrong with it."""

    def __str__(self) -> str:
        return (
            f"mask {self.row} (image {self.image!r}, noun {self.noun!r},"
            f" instance {self.instance}): {self.found}"
        )


class VerificationError(MaskcubeError, ValueError):
    """``verify`` found differences.

    Parameters
    ----------
    location : str
        Where the store is.
    faults : sequence of str
        What is wrong apart from single masks.
    masks : sequence of BadMask
        The masks that are bad.
    """

    def __init__(
        self, location: str, faults: Sequence[str] = (), masks: Sequence[BadMask] = ()
    ) -> None:
        super().__init__(location, tuple(faults), tuple(masks))
        self.location = location
        self.faults = tuple(faults)
        self.masks = tuple(masks)

    def __str__(self) -> str:
        found = [*self.faults[:_LISTED_FAULTS], *(str(mask) for mask in self.masks[:_LISTED])]
        if len(self.faults) > _LISTED_FAULTS:
            found.append(f"... ({len(self.faults):,} faults in all)")
        if len(self.masks) > _LISTED:
            found.append(f"... ({len(self.masks):,} bad masks in all)")
        lines = "".join(f"\n  - {fault}" for fault in found)
        return f"{self.location} is not as it was converted:{lines}"


class InvalidOption(MaskcubeError, ValueError):
    """An argument has no meaning here."""


class MissingDependency(MaskcubeError, ImportError):
    """An optional library is not installed."""


def missing(library: str, extra: str, purpose: str) -> MissingDependency:
    """Return the error for a library that an extra of maskcube would install.

    Examples
    --------
    >>> print(missing("matplotlib", "plot", "overlay"))
    overlay needs matplotlib, which is not installed: pip install "maskcube[plot]"
    """
    return MissingDependency(
        f'{purpose} needs {library}, which is not installed: pip install "maskcube[{extra}]"'
    )
