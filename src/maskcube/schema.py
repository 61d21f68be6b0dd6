"""The arrays of a store: names, dtypes and attributes, and their encoding by plain zarr."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskcube.codec import STEPS_LEVEL, ZSTD_LEVEL
from maskcube.layout import DIMS, Layout
from maskcube.manifest import Piece, crc_of, sealed

if TYPE_CHECKING:
    import zarr
    from zarr.core.buffer import Buffer

__all__ = [
    "COORDINATES",
    "COPY",
    "INDEXED",
    "MASKS",
    "MASK_ATTRIBUTES",
    "NODES",
    "OFFSETS",
    "PACKED",
    "ROOT",
    "RUNS",
    "STEPS",
    "Coordinate",
    "build",
    "create_coordinate",
    "described",
    "description_crc",
    "is_native",
    "mask_metadata",
    "shard_key",
    "value_bytes",
]

ROOT = "zarr.json"
"""Key of the root metadata: with it a group is there, without it there is none."""

MASKS = "masks"

COPY = f"{MASKS}/root.json"
"""Key of a copy of the root metadata, without which no piece could be told to be right. It lies
below an array, where zarr does not look for groups and arrays and wonder what it is."""

PACKED = f"{MASKS}/coordinates"
"""Key of the encoded chunks of all coordinates, end to end: see `maskcube.packed`."""

MASK_ATTRIBUTES: dict[str, Any] = {
    "long_name": "object mask",
    "flag_values": [0, 1],
    "flag_meanings": "background object",
    "origin": "top left; y downwards, x to the right, in pixels",
}
"""Attributes of the mask array, apart from the CF ``coordinates``."""


class Coordinate(NamedTuple):
    """A coordinate along ``mask``."""

    column: str | None
    """The CSV column that it is from; None when the conversion computes it."""
    dtype: str
    """numpy dtype; ``"string"`` for variable-length text."""
    attributes: Mapping[str, Any]
    """What a reader needs to understand the values."""


def _box_edge(column: str, edge: str) -> Coordinate:
    return Coordinate(column, "float64", {"long_name": f"{edge} of the box", "units": "pixel"})


COORDINATES: dict[str, Coordinate] = {
    "image": Coordinate("image_name", "string", {"long_name": "file name of the stimulus image"}),
    "noun": Coordinate("noun", "string", {"long_name": "what the mask shows"}),
    "instance": Coordinate(
        "instance_id",
        "int64",
        {"long_name": "which one of that noun in that image; 0 has the highest score"},
    ),
    "score": Coordinate("score", "float64", {"long_name": "score of the detection", "units": "1"}),
    "box_x0": _box_edge("box_x0", "left edge"),
    "box_y0": _box_edge("box_y0", "upper edge"),
    "box_x1": _box_edge("box_x1", "right edge"),
    "box_y1": _box_edge("box_y1", "lower edge"),
    "localized": Coordinate(
        "localized",
        "int8",
        {
            "long_name": "whether the object was found at a place in the image",
            "flag_values": [0, 1],
            "flag_meanings": "whole_image localized",
        },
    ),
    "mask_file": Coordinate(
        "mask_file", "string", {"long_name": "file name of the mask where it was made"}
    ),
    "mask_row": Coordinate("mask_row", "int64", {"long_name": "row of the mask in the HDF5"}),
    "area": Coordinate(None, "int32", {"long_name": "pixels that are 1", "units": "pixel"}),
    "crc32c": Coordinate(
        None, "uint32", {"long_name": "CRC-32C of the mask's pixels, one byte each, row by row"}
    ),
}


INDEXED = ("image", "noun", "instance")
"""Coordinates that name masks; the first ones of all."""

RUNS = "runs"
STEPS = f"{RUNS}/steps"
OFFSETS = f"{RUNS}/offsets"

NODES = {MASKS, RUNS, *COORDINATES}
"""What a conversion puts into the root group; all else in a store is somebody else's."""

RUN_ATTRIBUTES: dict[str, Any] = {
    "long_name": "runs of each mask, read row by row",
    "comment": (
        "cumsum(steps[offsets[i]:offsets[i + 1]]) are the boundaries of mask i in its flattened"
        " pixels (y * width + x): first pixel of a run of 1, first pixel after it, and so on."
        " Lines are joined: a run that reaches the right edge may go on in the next line."
        " Derived from the masks."
    ),
}
"""Attributes of the subgroup of runs."""


def shard_key(shard: int) -> str:
    """Return the key of a shard's object."""
    return f"{MASKS}/c/{shard}/0/0"


_COPIES = "consolidated_metadata"

_KEYS = {"name": "default", "configuration": {"separator": "/"}}


def value_bytes(name: str, values: np.ndarray[Any, Any]) -> bytes:
    """Return the values of a coordinate, (mask,), as bytes that do not depend on their encoding.

    Texts each after its length, numbers in the dtype of the schema, little-endian.
    """
    dtype = COORDINATES[name].dtype
    if dtype != "string":
        return values.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
    from numcodecs.vlen import VLenUTF8

    return bytes(VLenUTF8().encode(values.astype(object)))


def is_native(name: str, metadata: Mapping[str, Any], layout: Layout) -> bool:
    """Whether an array of a store is laid out and encoded as a conversion writes it.

    Parameters
    ----------
    name : str
        ``masks`` or a coordinate.
    metadata : mapping
        Its Zarr metadata.
    layout : Layout
        Shape of the mask array and of its shards.
    """
    try:
        grid = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        if metadata["chunk_key_encoding"] != _KEYS:
            return False
        if name != MASKS:
            first = "vlen-utf8" if COORDINATES[name].dtype == "string" else "bytes"
            return grid == [layout.n_masks] and _codecs(metadata) == [first, "zstd", "crc32c"]
        sharding = metadata["codecs"][0]["configuration"]
        return (
            grid == list(layout.shard_shape)
            and sharding["chunk_shape"] == list(layout.chunk_shape)
            and sharding.get("index_location", "end") == "end"
            and _codecs(metadata) == ["sharding_indexed"]
            and _codecs(sharding) == ["bytes", "zstd", "crc32c"]
            and [codec["name"] for codec in sharding["index_codecs"]] == ["bytes", "crc32c"]
        )
    except (KeyError, IndexError, TypeError, AttributeError):
        return False


def _codecs(metadata: Mapping[str, Any]) -> list[str]:
    return [codec["name"] for codec in metadata["codecs"]]


def build(
    layout: Layout,
    coordinates: Mapping[str, np.ndarray[Any, Any]],
    offsets: np.ndarray[Any, np.dtype[np.int64]],
    chunk_steps: int,
    attributes: Callable[[Mapping[str, Piece]], Mapping[str, Any]],
) -> dict[str, bytes]:
    """Return every object of a store but the shards and the steps, by key.

    Plain zarr writes them into memory, so the metadata is zarr's own and any reader's.

    Parameters
    ----------
    layout : Layout
        Shape of the mask array.
    coordinates : mapping of str to numpy.ndarray
        Values of each coordinate, (mask,).
    offsets : numpy.ndarray
        (mask + 1,) int64, where the steps of each mask begin.
    chunk_steps : int
        Steps in a chunk.
    attributes : callable
        Gives the root attributes when told the size and checksum of each coordinate's chunk, of
        that of the offsets, and of all coordinates' chunks end to end. The block ``maskcube``
        among them is given the checksums of the metadata of all arrays, and sealed.
    """
    import zarr
    from zarr.storage import MemoryStore

    written: dict[str, Buffer] = {}
    store = MemoryStore(store_dict=written)
    group = zarr.create_group(store, zarr_format=3)
    _create_masks(group, layout)
    for name, values in coordinates.items():
        create_coordinate(group, name, values)
    _create_runs(group, offsets, chunk_steps)
    chunks = {name: written[f"{name}/c/0"].to_bytes() for name in (*COORDINATES, OFFSETS)}
    packed = b"".join(chunks[name] for name in COORDINATES)
    pieces = {name: Piece.of(data) for name, data in {**chunks, PACKED: packed}.items()}
    found = dict(attributes(pieces))
    found["maskcube"] = sealed({**found["maskcube"], "metadata": _descriptions(written)})
    group.attrs.update(found)
    with warnings.catch_warnings():
        # Not in the specification yet; without it plain https shows an empty group.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(store)
    return {PACKED: packed, **{key: buffer.to_bytes() for key, buffer in written.items()}}


def description_crc(metadata: Mapping[str, Any]) -> int:
    """Return the checksum of an array's or group's Zarr metadata, without copies of others'."""
    return crc_of(described(metadata))


def described(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of an array or group without the copies of what is below it."""
    return {key: value for key, value in metadata.items() if key != _COPIES}


def _descriptions(written: Mapping[str, Buffer]) -> dict[str, int]:
    suffix = "/zarr.json"
    return {
        key.removesuffix(suffix): description_crc(json.loads(data.to_bytes()))
        for key, data in written.items()
        if key.endswith(suffix)
    }


def mask_metadata(layout: Layout) -> bytes:
    """Return the Zarr metadata of the mask array, as `build` gives it."""
    import zarr
    from zarr.storage import MemoryStore

    written: dict[str, Buffer] = {}
    _create_masks(zarr.create_group(MemoryStore(store_dict=written), zarr_format=3), layout)
    return written[f"{MASKS}/{ROOT}"].to_bytes()


def _create_masks(group: zarr.Group, layout: Layout) -> None:
    group.create_array(
        MASKS,
        shape=layout.shape,
        dtype="uint8",
        chunks=layout.chunk_shape,
        shards=layout.shard_shape,
        compressors=_compressors(),
        fill_value=0,
        dimension_names=DIMS,
        attributes={**MASK_ATTRIBUTES, "coordinates": " ".join(COORDINATES)},
    )


def create_coordinate(group: zarr.Group, name: str, values: np.ndarray[Any, Any]) -> None:
    """Write a coordinate, (mask,), into a group."""
    coordinate = COORDINATES[name]
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=coordinate.dtype,
        chunks=values.shape,
        compressors=_compressors(),
        dimension_names=DIMS[:1],
        attributes=dict(coordinate.attributes),
        # Also when all values equal the fill value: a missing chunk is always damage.
        config={"write_empty_chunks": True},
    )
    array[:] = values


def _create_runs(
    group: zarr.Group, offsets: np.ndarray[Any, np.dtype[np.int64]], chunk_steps: int
) -> None:
    from zarr.codecs import BloscCodec, Crc32cCodec

    group.create_group(RUNS, attributes=RUN_ATTRIBUTES)
    array = group.create_array(
        OFFSETS,
        shape=offsets.shape,
        dtype="int64",
        chunks=offsets.shape,
        compressors=_compressors(),
        dimension_names=("mask_edge",),
        attributes={"long_name": "where the steps of each mask begin, and where they are over"},
        config={"write_empty_chunks": True},
    )
    array[:] = offsets
    shuffled = BloscCodec(typesize=4, cname="zstd", clevel=STEPS_LEVEL, shuffle="shuffle")
    group.create_array(
        STEPS,
        shape=offsets[-1:].tolist(),
        dtype="int32",
        chunks=(chunk_steps,),
        compressors=[shuffled, Crc32cCodec()],
        dimension_names=("step",),
        attributes={"long_name": "background and object, in turn", "units": "pixel"},
    )


def _compressors() -> Any:  # noqa: ANN401 - zarr's own union of codecs
    from zarr.codecs import Crc32cCodec, ZstdCodec

    return [ZstdCodec(level=ZSTD_LEVEL), Crc32cCodec()]
