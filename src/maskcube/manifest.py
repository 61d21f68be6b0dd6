"""What a store says of itself: the ``maskcube`` block of its root attributes."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from maskcube.errors import NotAMaskStore
from maskcube.layout import Block, Layout

__all__ = [
    "APPEND",
    "CONVERT",
    "FORMAT_VERSION",
    "MOST_MASK_BYTES",
    "REPAIR",
    "UPDATE",
    "Manifest",
    "Piece",
    "RunPieces",
    "crc_of",
    "is_sealed",
    "sealed",
]

FORMAT_VERSION = 1

CONVERT, APPEND, UPDATE, REPAIR = "convert", "append", "update", "repair"
"""What may be done to a store: the words of plans and of the list of revisions."""

_MOST_BYTES = 2**48
_MOST_MASKS = 2**21
"""87 times the dataset, and about what fits into the largest CSV that is read."""
MOST_MASK_BYTES = 2**28
_MOST_SHARD_MASKS = 2**16
_MOST_SHARDS = 2**16
_SEAL = "crc32"
_MOST_CHUNK_BOUNDARIES = 2**20
"""As many as a conversion puts into a chunk."""


class Piece(NamedTuple):
    """One object of the store, as it was written."""

    length: int
    """Size in bytes."""
    crc32: int
    """CRC-32 of its bytes. CRC-32C would be blind here: bytes that end in their own CRC-32C, as
    masks, shard indexes and coordinates do, all have the same one."""

    @classmethod
    def of(cls, data: bytes) -> Piece:
        """Return size and checksum of an object."""
        return cls(len(data), zlib.crc32(data))


class RunPieces(NamedTuple):
    """The runs of a store: how many boundaries there are, and in which pieces."""

    n_boundaries: int
    chunk_boundaries: int
    """Boundaries in a chunk; the last one is filled up."""
    steps: tuple[Piece, ...]
    """Size and checksum of each chunk of steps."""
    offsets: Piece
    """Size and checksum of the offsets' chunk."""

    @property
    def n_bytes(self) -> int:
        """Size of all pieces."""
        return sum(piece.length for piece in (*self.steps, self.offsets))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Where a store is from, how it is laid out and what its pieces are.

    It is written last: a store that has one is complete.
    """

    generator: str
    """Name and version of what wrote the store."""
    created: str
    """When the conversion began, UTC, ISO 8601."""
    source: Mapping[str, Any]
    """Names, sizes and SHA-256 of the HDF5 and the CSV, and how they were read."""
    layout: Layout
    """Shape of the mask array and of its shards."""
    counts: Mapping[str, int]
    """Number of masks, of distinct images and of distinct nouns."""
    shards: tuple[Piece, ...]
    """Size and checksum of each shard."""
    coordinates: Mapping[str, Piece]
    """Size and checksum of each coordinate's chunk."""
    values: Mapping[str, Piece] = field(default_factory=dict)
    """Size and checksum of each coordinate's values, however they are encoded."""
    runs: RunPieces | None = None
    """The runs; None in a store that was written before there were any."""
    packed: Piece | None = None
    """Size and checksum of all coordinates' chunks, end to end in one object; None where a store
    was written before there was one."""
    metadata: Mapping[str, int] = field(default_factory=dict)
    """Checksum of the Zarr metadata of each array and group, by name."""
    revisions: tuple[Mapping[str, Any], ...] = ()
    """What was appended, updated and repaired since the conversion, and when."""

    def sources(self) -> list[tuple[Block, Mapping[str, Any]]]:
        """Return the source, and each that was appended, with the rows that are from it."""
        appended = [each for each in self.revisions if each["action"] == APPEND]
        starts = [0, *(each["first_row"] for each in appended), self.layout.n_masks]
        rows = [Block(start, stop) for start, stop in pairwise(starts)]
        return list(zip(rows, [self.source, *(each["source"] for each in appended)], strict=True))

    def order(self) -> list[int] | None:
        """Return the rows in the order of the CSV; None when that is ascending."""
        sources = self.sources()
        if all(source["metadata"]["order"] is None for _, source in sources):
            return None
        order: list[int] = []
        for rows, source in sources:
            order += [rows.start + row for row in source["metadata"]["order"] or range(len(rows))]
        return order

    def updated(self) -> set[int]:
        """Return the rows whose mask is not that of the source any more."""
        return {each["row"] for each in self.revisions if each["action"] == UPDATE}

    def to_json(self) -> dict[str, Any]:
        """Return the block as it stands in the attributes."""
        runs = {} if self.runs is None else {"runs": self.runs._asdict()}
        packed = {} if self.packed is None else {"packed": list(self.packed)}
        metadata = {"metadata": dict(self.metadata)} if self.metadata else {}
        revisions = {"revisions": list(self.revisions)} if self.revisions else {}
        block = {
            "format_version": FORMAT_VERSION,
            "generator": self.generator,
            "created": self.created,
            "source": dict(self.source),
            "layout": asdict(self.layout),
            "counts": dict(self.counts),
            "shards": [list(piece) for piece in self.shards],
            "coordinates": {name: list(piece) for name, piece in self.coordinates.items()},
            "values": {name: list(piece) for name, piece in self.values.items()},
            **runs,
            **packed,
            **metadata,
            **revisions,
            "complete": True,
        }
        return sealed(block)

    @classmethod
    def from_json(cls, block: dict[str, Any], location: str) -> Manifest:
        """Read the block of the store at `location`.

        Raises
        ------
        NotAMaskStore
            When it is missing, of a newer format, or not what a conversion writes.
        """
        version = block.get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise NotAMaskStore(
                f"{location} has format_version {version}, this maskcube reads up to"
                f" {FORMAT_VERSION}: pip install --upgrade maskcube"
            )
        try:
            manifest = cls._parsed(block)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NotAMaskStore(
                f"{location}: the attribute 'maskcube' is not as a conversion writes it:"
                f" {type(error).__name__}: {error}"
            ) from error
        if version != FORMAT_VERSION or block.get("complete") is not True:
            raise NotAMaskStore(
                f"{location}: format_version={version!r}, complete={block.get('complete')!r};"
                f" expected {FORMAT_VERSION} and True"
            )
        return manifest

    @classmethod
    def _parsed(cls, block: dict[str, Any]) -> Manifest:
        layout = Layout(**{name: _count(size) for name, size in block["layout"].items()})
        if (
            layout.n_masks > _MOST_MASKS
            or layout.mask_bytes > MOST_MASK_BYTES
            or layout.shard_masks > _MOST_SHARD_MASKS
            or layout.n_shards > _MOST_SHARDS
        ):
            raise ValueError(
                f"{layout.n_masks:,} masks in shards of {layout.shard_shape} are out of bounds"
            )
        shards = tuple(_piece(entry) for entry in block["shards"])
        if len(shards) != layout.n_shards:
            raise ValueError(f"{len(shards)} shards listed, expected {layout.n_shards}")
        manifest = cls(
            generator=str(block["generator"]),
            created=str(block["created"]),
            source=dict(block["source"]),
            layout=layout,
            counts={name: _count(block["counts"][name]) for name in ("masks", "images", "nouns")},
            shards=shards,
            coordinates={name: _piece(entry) for name, entry in block["coordinates"].items()},
            values={name: _piece(entry) for name, entry in block.get("values", {}).items()},
            runs=_runs(block["runs"], layout) if "runs" in block else None,
            packed=_piece(block["packed"]) if "packed" in block else None,
            metadata={name: _crc(crc) for name, crc in block.get("metadata", {}).items()},
            revisions=tuple(_revision(each, layout) for each in block.get("revisions", ())),
        )
        for rows, source in manifest.sources():
            _check_source(source, len(rows))
        return manifest


def crc_of(value: object) -> int:
    """Return the CRC-32 of a JSON value, however it is written down."""
    return zlib.crc32(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def sealed(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return a store's block with its own checksum."""
    unsealed = {key: value for key, value in block.items() if key != _SEAL}
    # Eight digits always: a store made at another time has the same size.
    return {**unsealed, _SEAL: f"{crc_of(unsealed):08x}"}


def is_sealed(block: Mapping[str, Any]) -> bool:
    """Whether a store's block is as it was written; one of before there were checksums is."""
    if _SEAL not in block and "metadata" not in block:
        return True
    return block == sealed(block)


def _runs(block: dict[str, Any], layout: Layout) -> RunPieces:
    found = RunPieces(
        block["n_boundaries"],
        _count(block["chunk_boundaries"]),
        tuple(_piece(entry) for entry in block["steps"]),
        _piece(block["offsets"]),
    )
    if found.chunk_boundaries > _MOST_CHUNK_BOUNDARIES:
        raise ValueError(f"chunks of {found.chunk_boundaries:,} boundaries are out of bounds")
    most = layout.n_masks * (layout.mask_bytes + 1)
    if type(found.n_boundaries) is not int or not 0 <= found.n_boundaries <= most:
        raise ValueError(f"{found.n_boundaries!r} is no number of boundaries")
    if len(found.steps) != math.ceil(found.n_boundaries / found.chunk_boundaries):
        raise ValueError(f"{len(found.steps)} pieces for {found.n_boundaries:,} boundaries")
    return found


def _revision(block: dict[str, Any], layout: Layout) -> dict[str, Any]:
    keys = {APPEND: "first_row", UPDATE: "row", REPAIR: "shards"}
    found = block[keys[block["action"]]]
    places = found if block["action"] == REPAIR else [found]
    if not all(type(place) is int and 0 <= place < layout.n_masks for place in places):
        raise ValueError(f"{block['action']!r} of {places!r} is no change of this store")
    return {**block, "created": str(block["created"]), "generator": str(block["generator"])}


def _check_source(block: Mapping[str, Any], n_masks: int) -> None:
    for name in ("masks", "metadata"):
        file, size, digest = (block[name][key] for key in ("file", "size_bytes", "sha256"))
        if not isinstance(file, str) or not isinstance(digest, str) or type(size) is not int:
            raise ValueError(f"{block[name]!r} names no file")
    order = block["metadata"]["order"]
    if order is not None and sorted(order) != list(range(n_masks)):
        raise ValueError("the order of the CSV is no order of the masks")
    if not isinstance(block["normalize"], bool):
        raise ValueError(f"normalize={block['normalize']!r}")  # noqa: TRY004 - caught with the rest


def _count(value: object) -> int:
    if type(value) is not int or not 0 < value < 2**31:
        raise ValueError(f"{value!r} is no size")
    return value


def _piece(entry: Any) -> Piece:  # noqa: ANN401 - parsed JSON
    length, crc = entry
    if type(length) is not int or not 0 <= length < _MOST_BYTES:
        raise ValueError(f"{length!r} is no length")
    return Piece(length, _crc(crc))


def _crc(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**32:
        raise ValueError(f"{value!r} is no CRC-32")
    return value
