"""An opened store: its manifest, its coordinates, and what can be said of it without a pixel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from maskcube.codec import DamagedBytes, decode_chunk
from maskcube.errors import CorruptStore, IncompleteStore, NotAMaskStore, StoreNotFound
from maskcube.journal import progress_of
from maskcube.layout import Layout
from maskcube.manifest import Manifest, Piece
from maskcube.objects import Folder, Objects, StoreLike, open_objects
from maskcube.schema import COORDINATES, MASKS
from maskcube.stage import ROOT, partial_path
from maskcube.texts import Texts

__all__ = ["MaskStore", "StoreInfo", "info", "read_manifest"]


class MaskStore:
    """A complete mask store, open for reading.

    Parameters
    ----------
    objects : Objects
        Where its bytes are.

    Attributes
    ----------
    manifest : Manifest
        What the store says of itself.
    attributes : dict
        Root attributes, the manifest's block included.
    arrays : dict
        Zarr metadata of each array, by name, from the consolidated metadata.
    identity : Piece
        Size and checksum of the root metadata, in which those of every other piece stand.

    Raises
    ------
    StoreNotFound, IncompleteStore, NotAMaskStore
        When there is no complete mask store of a known format.
    """

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        root, self.identity = _read_root(objects)
        self.attributes: dict[str, Any] = root["attributes"]
        self.manifest = Manifest.from_json(self.attributes.get("maskcube"), objects.location)
        self.arrays = _arrays(root, objects.location)
        _check_masks(self.arrays, self.layout, objects.location)

    @classmethod
    def open(cls, store: StoreLike, storage_options: dict[str, Any] | None = None) -> MaskStore:
        """Open the store at a path, at a URL or in a zarr ``Store``; reads its metadata only."""
        return cls(open_objects(store, storage_options))

    @property
    def layout(self) -> Layout:
        """Shape of the mask array and of its shards."""
        return self.manifest.layout

    @property
    def location(self) -> str:
        """Where the store is."""
        return self.objects.location

    def coordinate(self, name: str) -> np.ndarray[Any, Any]:
        """Read a coordinate, (mask,), in the dtype of the schema; texts as numpy StringDType.

        Raises
        ------
        CorruptStore
            When its bytes are missing, damaged, or do not hold one value for each mask.
        """
        try:
            if COORDINATES[name].dtype == "string":
                return self.texts(name).array()
            values = np.empty(self.layout.n_masks, COORDINATES[name].dtype)
            decode_chunk(self._coordinate_bytes(name), values.view(np.uint8))
        except DamagedBytes as error:
            raise self.corrupt(name, error) from error
        return values

    def texts(self, name: str) -> Texts:
        """Read a coordinate of texts as the bytes that they are.

        Raises
        ------
        CorruptStore
            When its bytes are missing, damaged, or not of as many texts as there are masks. That
            they are texts is checked by what reads them: `corrupt` makes the error then.
        """
        try:
            return Texts(self._coordinate_bytes(name), self.layout.n_masks)
        except DamagedBytes as error:
            raise self.corrupt(name, error) from error

    def text(self, name: str, row: int) -> str:
        """Read the text of one mask.

        Raises
        ------
        CorruptStore
            When the coordinate's bytes are missing or damaged.
        """
        try:
            return self.texts(name)[row]
        except DamagedBytes as error:
            raise self.corrupt(name, error) from error

    def corrupt(self, name: str, found: DamagedBytes) -> CorruptStore:
        """Return the error of a coordinate whose bytes are not what the codecs wrote."""
        return CorruptStore(f"{self.location}: coordinate {name!r} {found}")

    def _coordinate_bytes(self, name: str) -> bytes:
        data = self.objects.get(f"{name}/c/0")
        if data is None:
            raise CorruptStore(f"{self.location}: coordinate {name!r} is missing")
        if Piece.of(data) != self.manifest.coordinates.get(name):
            raise CorruptStore(
                f"{self.location}: coordinate {name!r}: size or checksum is not the recorded one"
            )
        return data


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """What a store says of itself."""

    location: str
    """Where it is."""
    format_version: int
    n_masks: int
    n_images: int
    n_nouns: int
    height: int
    """Pixels along y."""
    width: int
    """Pixels along x."""
    shard_masks: int
    """Masks in a shard."""
    n_shards: int
    shard_bytes: int
    """Size of all shards, encoded."""
    raw_bytes: int
    """Size of all masks, decoded."""
    generator: str
    """Name and version of what wrote it."""
    created: str
    """When the conversion began, UTC."""
    source: dict[str, Any]
    """The HDF5 and the CSV that it is from."""

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        files = [
            f"{file['file']} ({file['size_bytes'] / 1e6:,.1f} MB, sha256 {file['sha256'][:12]}...)"
            for file in (self.source["masks"], self.source["metadata"])
        ]
        return (
            f"{self.location}\n"
            f"  {self.n_masks:,} masks of {self.height} x {self.width} pixels:"
            f" {self.n_images:,} images, {self.n_nouns:,} nouns\n"
            f"  {self.n_shards:,} shards of {self.shard_masks} masks,"
            f" {self.shard_bytes / 1e6:,.1f} MB for {self.raw_bytes / 1e9:,.2f} GB of pixels\n"
            f"  from {files[0]}\n   and {files[1]}\n"
            f"  by {self.generator}, {self.created}, format_version {self.format_version}"
        )


def info(store: StoreLike, *, storage_options: dict[str, Any] | None = None) -> StoreInfo:
    """Return what a store says of itself; reads its metadata only.

    Parameters
    ----------
    store : path, URL or zarr Store
        A converted store.
    storage_options : dict, optional
        For a URL: how to reach it.

    Raises
    ------
    StoreNotFound, IncompleteStore, NotAMaskStore
        When there is no complete mask store of a known format.

    Examples
    --------
    >>> info("masks.zarr").n_images
    24
    """
    opened = MaskStore.open(store, storage_options)
    manifest, layout = opened.manifest, opened.layout
    return StoreInfo(
        location=opened.location,
        format_version=opened.attributes["maskcube"]["format_version"],
        n_masks=layout.n_masks,
        n_images=manifest.counts["images"],
        n_nouns=manifest.counts["nouns"],
        height=layout.height,
        width=layout.width,
        shard_masks=layout.shard_masks,
        n_shards=layout.n_shards,
        shard_bytes=sum(piece.length for piece in manifest.shards),
        raw_bytes=layout.n_masks * layout.mask_bytes,
        generator=manifest.generator,
        created=manifest.created,
        source=_without_order(manifest.source),
    )


def _without_order(source: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the CSV's own order, which is as long as the store has masks."""
    table = {key: value for key, value in source["metadata"].items() if key != "order"}
    return {**source, "metadata": table}


def read_manifest(objects: Objects) -> Manifest:
    """Return the manifest of a complete mask store.

    Raises
    ------
    StoreNotFound, IncompleteStore, NotAMaskStore
        When there is none.
    """
    return MaskStore(objects).manifest


def _read_root(objects: Objects) -> tuple[dict[str, Any], Piece]:
    """Return the parsed root metadata of a Zarr format 3 group, and its checksum."""
    data = objects.get(ROOT)
    if data is None:
        raise _nothing_there(objects)
    try:
        root = json.loads(data)
        is_group = root["node_type"] == "group" and isinstance(root.get("attributes"), dict)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        is_group = False
    if not is_group:
        raise NotAMaskStore(f"{objects.location}: {ROOT} is no metadata of a Zarr group")
    return dict(root), Piece.of(data)


def _nothing_there(objects: Objects) -> StoreNotFound | IncompleteStore | NotAMaskStore:
    """Tell a conversion that was interrupted from a wrong path."""
    building = [objects]
    if isinstance(objects, Folder) and objects.path.name:
        building.append(Folder(partial_path(objects.path)))
    for place in building:
        progress = progress_of(place)
        if progress is not None:
            done, every = progress
            return IncompleteStore(
                f"{objects.location}: half a conversion, {done} of {every} shards:"
                " run the same conversion again to finish it"
            )
    if next(iter(objects.keys()), None) is not None:
        return NotAMaskStore(f"{objects.location} has no {ROOT}: no Zarr group of format 3")
    return StoreNotFound(f"no mask store at {objects.location}; make one with maskcube.convert")


def _arrays(root: dict[str, Any], location: str) -> dict[str, Any]:
    consolidated = root.get("consolidated_metadata") or {}
    arrays = consolidated.get("metadata") if isinstance(consolidated, dict) else None
    if not isinstance(arrays, dict):
        raise NotAMaskStore(f"{location} has no consolidated metadata: not written by a conversion")
    return arrays


def _check_masks(arrays: dict[str, Any], layout: Layout, location: str) -> None:
    """Raise unless the mask array is laid out as the manifest says."""
    found = arrays.get(MASKS) or {}
    try:
        chunk = found["chunk_grid"]["configuration"]["chunk_shape"]
        sharding = found["codecs"][0]["configuration"]
        inner = [codec["name"] for codec in sharding["codecs"]]
        laid_out = (
            found["data_type"] == "uint8"
            and found["shape"] == list(layout.shape)
            and chunk == list(layout.shard_shape)
            and sharding["chunk_shape"] == list(layout.chunk_shape)
            and sharding.get("index_location", "end") == "end"
            and inner == ["bytes", "zstd", "crc32c"]
        )
    except (KeyError, IndexError, TypeError):
        laid_out = False
    missing = [name for name in COORDINATES if name not in arrays]
    if not laid_out or missing:
        raise NotAMaskStore(
            f"{location}: array {MASKS!r} is not laid out as format_version 1 says, or"
            f" coordinates are missing: {missing}"
        )
