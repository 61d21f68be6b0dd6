"""Everything of a store but its shards: coordinates, runs, metadata, and the root, last of all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import CorruptStore
from maskcube.journal import Journal
from maskcube.manifest import Manifest, Piece, RunPieces
from maskcube.objects import is_piece
from maskcube.ragged import step_chunks, steps_chunk
from maskcube.schema import COPY, OFFSETS, PACKED, ROOT, build, value_bytes
from maskcube.threads import spread

__all__ = ["Origin", "commit"]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a store is from, and what its root attributes say beside that."""

    generator: str
    """Name and version of what wrote the store first."""
    created: str
    """When the conversion began, UTC, ISO 8601."""
    source: Mapping[str, Any]
    """Names, sizes and SHA-256 of the HDF5 and the CSV, and how they were read."""
    attributes: Mapping[str, Any]
    """Root attributes, apart from the manifest."""
    revisions: tuple[Mapping[str, Any], ...] = field(default=())
    """What was appended and updated since."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """Consolidated metadata of arrays and groups that somebody else has put into the store."""


def commit(journal: Journal, columns: Mapping[str, NDArray[Any]], origin: Origin) -> None:
    """Read every shard back and write all the rest, the root last; it is read back as well.

    Parameters
    ----------
    journal : Journal
        All its shards are finished.
    columns : mapping of str to numpy.ndarray
        The coordinates that are from the CSV, (mask,) each.
    origin : Origin
        Where they are from.

    Raises
    ------
    CorruptStore
        When something does not read back as it was written.
    """
    entries = list(journal.read_back())
    coordinates = {
        **columns,
        "area": np.array([n for entry in entries for n in entry.areas], np.int32),
        "crc32c": np.array([n for entry in entries for n in entry.crcs], np.uint32),
    }
    offsets = np.cumsum([0, *(n for entry in entries for n in entry.counts)], dtype=np.int64)
    written: dict[str, Piece] = {}
    parts = (part for entry in entries for part in entry.steps)
    for key, data in step_chunks(int(offsets[-1]), parts):
        journal.put(key, data)
        written[key] = Piece.of(data)
    steps = tuple(written.values())
    chunk_steps = steps_chunk(int(offsets[-1]))

    def attributes(pieces: Mapping[str, Piece]) -> dict[str, Any]:
        manifest = Manifest(
            generator=origin.generator,
            created=origin.created,
            source=origin.source,
            layout=journal.layout,
            counts=_counts(columns),
            shards=tuple(entry.piece for entry in entries),
            coordinates={name: pieces[name] for name in coordinates},
            values={
                name: Piece.of(value_bytes(name, values)) for name, values in coordinates.items()
            },
            packed=pieces[PACKED],
            runs=RunPieces(int(offsets[-1]), chunk_steps, steps, pieces[OFFSETS]),
            revisions=origin.revisions,
        )
        return {**origin.attributes, "maskcube": manifest.to_json()}

    objects = build(journal.layout, coordinates, offsets, chunk_steps, attributes)
    root = objects[COPY] = _with_others(objects.pop(ROOT), origin.others)
    spread(lambda it: journal.put(*it), [*objects.items()], journal.objects.max_concurrency)
    written |= {key: Piece.of(data) for key, data in objects.items()}
    _read_back(journal, written)
    journal.write_root(root)
    _read_back(journal, {ROOT: Piece.of(root)})


def _with_others(root: bytes, others: Mapping[str, Any]) -> bytes:
    """Return the root metadata with the metadata of more arrays and groups."""
    if not others:
        return root
    parsed = json.loads(root)
    parsed["consolidated_metadata"]["metadata"].update(others)
    return json.dumps(parsed, indent=2).encode()


def _read_back(journal: Journal, written: Mapping[str, Piece]) -> None:
    """Compare objects with what was written."""
    objects = journal.objects
    found = spread(lambda it: is_piece(objects, *it), [*written.items()], objects.max_concurrency)
    for key, is_same in zip(written, found, strict=True):
        if not is_same:
            raise CorruptStore(
                f"{journal.location}: {key} does not read back as it was written; run the same"
                " again"
            )


def _counts(columns: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Return the number of masks, of distinct images and of distinct nouns."""
    return {
        "masks": len(columns["image"]),
        "images": len(set(columns["image"].tolist())),
        "nouns": len(set(columns["noun"].tolist())),
    }
