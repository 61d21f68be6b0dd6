"""The two files of a source, the HDF5 and its CSV: where they are, on this machine or at a URL."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskcube.errors import InvalidOption, SourceNotFound, listed
from maskcube.hdf5 import MaskFile
from maskcube.layout import FOLDER
from maskcube.metadata import MOST_CSV_BYTES, read_metadata
from maskcube.paths import folder_path
from maskcube.remote import RemotePath, is_url, plain_url
from maskcube.spool import Spool, spool

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CSV_NAME", "HDF5_NAME", "SourceFiles"]

HDF5_NAME = "task-images_desc-segmentations.h5"
CSV_NAME = "task-images_desc-segmentations_metadata.csv"

_SUFFIXES = frozenset({".h5", ".hdf5", ".hdf", ".he5"})
"""What at a URL is an HDF5 and no folder: to ask would take a request."""

Place = Path | RemotePath


class SourceFiles:
    """The HDF5 and the CSV of a source; of those at a URL, what was fetched of them.

    Each is fetched once. The CSV comes first: without it there is no use for the other.

    Parameters
    ----------
    source : str or pathlib.Path
        A data folder or an HDF5, or the URL of either.
    metadata : str or pathlib.Path, optional
        The CSV, or its URL, when it does not lie beside the HDF5.
    options : dict, optional
        For a URL: how to reach it.
    whole : bool
        Fetch all of an HDF5 that is at a URL.

    Attributes
    ----------
    masks, metadata : pathlib.Path or RemotePath
        Where the HDF5 and the CSV are.

    Raises
    ------
    SourceNotFound
        When there is no HDF5 or no CSV at that place.
    SourceError
        When one of them cannot be fetched.
    InvalidOption
        When there are options and no URL.
    """

    def __init__(
        self,
        source: str | Path,
        metadata: str | Path | None,
        options: dict[str, Any] | None,
        *,
        whole: bool,
    ) -> None:
        if options and not is_url(source) and not is_url(metadata):
            raise InvalidOption(f"source_options are for URLs; source={str(source)!r} is none")
        self._options = options
        self._spools: dict[Place, Spool] = {}
        self._size: int | None = None
        given = None if metadata is None else self._place(metadata)
        self.masks: Place
        self.metadata: Place
        try:
            self.masks, self.metadata = (
                self._find(str(source), given, whole=whole)
                if is_url(source)
                else self._local(source, given)
            )
        except BaseException:
            self.close()
            raise

    def table(self) -> tuple[pd.DataFrame, list[str]]:
        """Return the table of the CSV and every fault in it: see `read_metadata`."""
        if isinstance(self.metadata, Path):
            return read_metadata(self.metadata)
        return read_metadata(self._spools[self.metadata])

    def open(self) -> MaskFile:
        """Return the HDF5, open."""
        return MaskFile(self.masks, self._spools.get(self.masks), self._size)

    def identities(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return name, size and SHA-256 of the HDF5 and of the CSV."""
        return self._identity(self.masks), self._identity(self.metadata)

    def _identity(self, place: Place) -> dict[str, Any]:
        if isinstance(place, Path):
            with place.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"file": place.name, "size_bytes": place.stat().st_size, "sha256": digest}
        fetched = self._spools[place]
        return {"file": place.name, "size_bytes": fetched.size, "sha256": fetched.sha256}

    def _place(self, given: str | Path) -> Place:
        return RemotePath.of(str(given), self._options) if is_url(given) else _expanded(given)

    def _local(self, source: str | Path, metadata: Place | None) -> tuple[Place, Place]:
        masks = _hdf5_in(source)
        csv = metadata or _csv_beside(masks)
        if not self._is_there(csv):
            raise _no_csv(masks, csv)
        return masks, csv

    def _find(self, url: str, metadata: Place | None, *, whole: bool) -> tuple[Place, Place]:
        """Return where the HDF5 at a URL is, and its CSV; what is needed of them is fetched."""
        tried = _candidates(url, self._options)
        denied: PermissionError | None = None
        for masks in tried:
            csv = _csv_beside(masks) if metadata is None else metadata
            try:
                if not self._is_there(csv):
                    found = False
                    if masks.size() is not None:
                        raise _no_csv(masks, csv)
                elif whole:
                    found = self._fetched(masks)
                else:
                    self._size = masks.size()
                    found = self._size is not None
            except PermissionError as error:
                # A bucket that nobody may list says so of whatever is not there.
                denied = error
            else:
                if found:
                    return masks, csv
        if denied is not None:
            raise denied
        raise SourceNotFound(plain_url(url), [f"no HDF5 of masks; tried {listed(map(str, tried))}"])

    def _is_there(self, csv: Place) -> bool:
        if isinstance(csv, Path):
            return csv.is_file()
        return self._fetched(csv, MOST_CSV_BYTES)

    def _fetched(self, place: RemotePath, most: int | None = None) -> bool:
        """Whether a file is there; it is fetched then."""
        if place not in self._spools:
            fetched = spool(place, most)
            if fetched is not None:
                self._spools[place] = fetched
        return place in self._spools

    def close(self) -> None:
        """Give the room on the disk back."""
        for each in self._spools.values():
            each.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_spools": {}}


def _candidates(url: str, options: dict[str, Any] | None) -> list[RemotePath]:
    """Return where the HDF5 at a URL may be."""
    plain = plain_url(url)
    if Path(plain).suffix.lower() in _SUFFIXES:
        return [RemotePath.of(url, options)]
    names = (f"{FOLDER}/{HDF5_NAME}", HDF5_NAME)
    return [RemotePath(url.rstrip("/"), name, options) for name in names]


def _hdf5_in(source: str | Path) -> Path:
    """Return the local HDF5 that is given, or lies in the folder that is."""
    given = _expanded(source)
    tried = [given / FOLDER / HDF5_NAME, given / HDF5_NAME] if given.is_dir() else [given]
    path = next((place for place in tried if place.is_file()), None)
    if path is None:
        found = f"no HDF5 of masks; tried {listed(map(str, tried))}"
        if not given.exists():
            found += "; sample_dataset would write a small dataset there"
        raise SourceNotFound(str(source), [found])
    return path


def _csv_beside(masks: Place) -> Place:
    return masks.with_name(f"{Path(masks.name).stem}_metadata.csv")


def _no_csv(masks: Place, csv: Place) -> SourceNotFound:
    fault = f"no CSV at {str(csv)!r}; say where it is with metadata='...'"
    error: SourceNotFound = SourceNotFound(str(masks), [fault])
    return error


def _expanded(path: str | Path) -> Path:
    """Return the path with the home folder for a leading ``~``, if that is a user's."""
    with suppress(RuntimeError):
        named = folder_path(path) if str(path).startswith("file://") else None
        return named or Path(path).expanduser()
    return Path(path)
