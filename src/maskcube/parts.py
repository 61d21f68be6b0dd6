"""Which rows of a store are from which source: it may have been appended to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import InvalidOption, listed
from maskcube.layout import Block
from maskcube.source import MaskSource
from maskcube.store import MaskStore

__all__ = ["Part", "Sources", "open_parts"]

Sources = str | Path | Sequence[str | Path] | None
"""Where a source is, or where several are."""


class Part(NamedTuple):
    """Consecutive rows of a store that are from one source."""

    rows: Block
    normalize: bool
    """Whether every pixel but 0 was taken as 1."""
    masks: MaskSource

    def holds(self, row: int) -> bool:
        """Whether a row of the store is among these."""
        return self.rows.start <= row < self.rows.stop

    def pixels(self, rows: range) -> NDArray[np.uint8]:
        """Return the masks of consecutive rows of the store from the source."""
        block = Block(rows.start - self.rows.start, rows.stop - self.rows.start)
        out = np.empty((len(block), *self.masks.layout.shape[1:]), np.uint8)
        self.masks.file.read(block, out)
        return (out != 0).view(np.uint8) if self.normalize else out

    def column(self, name: str) -> NDArray[Any]:
        """Return a coordinate of the store's rows from the source's CSV."""
        values = self.masks.coordinates()[name]
        return values + self.rows.start if name == "mask_row" else values


@contextmanager
def open_parts(
    store: MaskStore,
    sources: Sources,
    metadata: Sources,
    options: dict[str, Any] | None = None,
) -> Iterator[list[Part]]:
    """Open the sources of a store; give the parts of it that are from them.

    The options are for those at URLs.

    Raises
    ------
    SourceError
        When one of them has faults.
    InvalidOption
        When one of them is none of those that the store is from, or there are not as many CSVs.
    """
    paths, tables = _listed(sources), _listed(metadata)
    if tables and len(tables) != len(paths):
        raise InvalidOption(f"{len(paths)} sources and {len(tables)} CSVs given: one for each")
    with ExitStack() as stack:
        opened = []
        for path, table in zip_longest(paths, tables):
            masks = stack.enter_context(
                MaskSource(path, table, allow_duplicates=True, options=options)
            )
            masks.check()
            opened.append(masks)
        yield _matched(store, opened) if opened else []


def _listed(paths: Sources) -> list[str | Path]:
    if paths is None:
        return []
    return [paths] if isinstance(paths, str | Path) else list(paths)


def _matched(store: MaskStore, sources: Sequence[MaskSource]) -> list[Part]:
    """Return which rows of a store are from which of these sources.

    A store that is from one source only is compared with whatever is given.

    Raises
    ------
    InvalidOption
        When a source is none of those that the store is from.
    """
    described = store.manifest.sources()
    if len(described) == 1 and len(sources) == 1:
        return [Part(described[0][0], described[0][1]["normalize"], sources[0])]
    given = [(_digests(masks.fingerprint()), masks) for masks in sources]
    known = {source["masks"]["sha256"] for _, source in described}
    unknown = [masks for digests, masks in given if digests[0] not in known]
    if unknown:
        paths = listed(str(masks.path) for masks in unknown)
        names = listed(
            f"rows {rows.start} to {rows.stop - 1}: sha256 {source['masks']['sha256'][:12]}..."
            for rows, source in described
        )
        raise InvalidOption(f"{paths}: none of the sources of {store.location}: {names}")
    exact = [_digests(source) for _, source in described]
    parts = []
    for rows, source in described:
        wanted = _digests(source)
        # One HDF5 may be there twice, with two CSVs; with a third one, what differs is told.
        fits = [masks for digests, masks in given if digests == wanted] or [
            masks for digests, masks in given if digests[0] == wanted[0] and digests not in exact
        ]
        parts += [Part(rows, source["normalize"], masks) for masks in fits[:1]]
    return parts


def _digests(source: Mapping[str, Any]) -> tuple[str, str]:
    return source["masks"]["sha256"], source["metadata"]["sha256"]
