"""Damaged objects of a store, made again: from the source, and from what is whole.

What is made must have the very size and checksum that the manifest says, or it is not written into
the store. Only shards whose masks are proved by their own checksums may be otherwise encoded: then
the store is changed as by an update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.base import check_native, checked_mask
from maskcube.boundaries import masks_from_runs, steps_of
from maskcube.codec import (
    DamagedBytes,
    EncodedSteps,
    checksum,
    decode_chunk,
    encode_mask,
    pack_shard,
)
from maskcube.encoded import EncodedShard
from maskcube.errors import CorruptMask, CorruptStore, InvalidOption, MaskcubeError
from maskcube.integrity import has_true_copy
from maskcube.manifest import Piece, is_sealed
from maskcube.objects import (
    PLAN,
    REPLACING,
    Objects,
    StoreLike,
    get_at_most,
    is_piece,
    open_objects,
)
from maskcube.packed import PackedCoordinates
from maskcube.parts import Part
from maskcube.ragged import RunReader, step_chunks, step_key
from maskcube.root import MOST_METADATA_BYTES, parsed_metadata
from maskcube.schema import COORDINATES, COPY, OFFSETS, PACKED, ROOT, build, described, shard_key
from maskcube.session import can_hold
from maskcube.shards import ShardReader
from maskcube.store import MaskStore
from maskcube.writer import EncodedMask

__all__ = ["make_again", "remade_shards", "restore_root"]


def restore_root(place: StoreLike, storage_options: dict[str, Any] | None = None) -> bool:
    """Write the root metadata again from its copy where it is lost or damaged; say whether it was.

    What an unfinished run has left has no root on purpose, and is not touched.
    """
    objects = open_objects(place, storage_options)
    try:
        MaskStore(objects)
    except MaskcubeError:
        if objects.get(PLAN) is not None or objects.get(REPLACING) is not None:
            return False
        with suppress(MaskcubeError):
            copy = MaskStore(objects, root=COPY)
            data = get_at_most(objects, COPY, MOST_METADATA_BYTES)
            if data is not None and is_sealed(copy.attributes["maskcube"]):
                _put(open_objects(place, storage_options, read_only=False), ROOT, data)
                return True
    return False


def make_again(store: MaskStore, parts: Sequence[Part]) -> list[str]:
    """Write the damaged objects again that can be made, and return their keys.

    Masks are made from their runs or from the source, and runs from the masks: of these three one
    must be whole. Coordinates that are from the CSV need every source; the others are made from the
    masks, metadata from the root's copy.

    Parameters
    ----------
    store : MaskStore
        The store; its root metadata is whole, or it could not have been opened.
    parts : sequence of Part
        Where its rows are from.

    Raises
    ------
    NotAMaskStore
        When the store was rewritten by something else.
    """
    check_native(store)
    mended = []
    # What is made later is made from what was mended before.
    for make in (_shards, _steps, _others):
        for key, data, piece in make(store, parts):
            if Piece.of(data) == piece and not is_piece(store.objects, key, piece):
                _put(store.objects, key, data)
                mended.append(key)
    return mended


_Made = Iterator[tuple[str, bytes, Piece]]
"""Key, bytes, and the size and checksum that these must have to be written."""


def _put(objects: Objects, key: str, data: bytes) -> None:
    if objects.size(key) is None:
        # A folder in its place, or a link to nowhere.
        objects.delete(key)
    objects.put(key, data)


def remade_shards(store: MaskStore, parts: Sequence[Part]) -> dict[int, list[EncodedMask]]:
    """Return the damaged shards whose every pixel is known, though not in the bytes that it had.

    Another version of zstd makes other bytes. That these are the masks their CRC-32C proves.

    Parameters
    ----------
    store : MaskStore
        The store, of which all else is whole.
    parts : sequence of Part
        Where its rows are from.
    """
    crcs = _coordinate(store, "crc32c")
    if crcs is None:
        return {}
    remade = {}
    for shard, _, chunks in _damaged(store, parts):
        with suppress(DamagedBytes):
            rows = store.layout.shard_rows(shard)
            remade[shard] = [
                checked_mask(chunks[row], store.layout, crcs[row])
                for row in range(rows.start, rows.stop)
            ]
    return remade


def _shards(store: MaskStore, parts: Sequence[Part]) -> _Made:
    """Yield the damaged shards of which all masks are known."""
    for shard, piece, chunks in _damaged(store, parts):
        data = pack_shard([chunks[row] for row in sorted(chunks)], store.layout.shard_masks)
        yield shard_key(shard), data, piece


def _damaged(
    store: MaskStore, parts: Sequence[Part]
) -> Iterator[tuple[int, Piece, dict[int, bytes]]]:
    """Yield damaged shards and their encoded masks: whole ones, others from runs or source."""
    crcs = _coordinate(store, "crc32c")
    for shard, piece in enumerate(store.manifest.shards):
        data = store.objects.get(shard_key(shard), 0, piece.length + 1) or b""
        if Piece.of(data) == piece:
            continue
        rows = store.layout.shard_rows(shard)
        chunks = _whole_chunks(store, shard, data, crcs)
        for made in (_from_runs, _from_sources):
            lost = [row for row in range(rows.start, rows.stop) if row not in chunks]
            chunks.update(made(store, parts, lost))
        if len(chunks) == len(rows):
            yield shard, piece, chunks


def _from_runs(store: MaskStore, _: Sequence[Part], lost: list[int]) -> dict[int, bytes]:
    """Return encoded masks made from their runs, which are all that there is of an updated one."""
    with suppress(CorruptStore, InvalidOption):
        if lost and store.manifest.runs is not None:
            boundaries, offsets = RunReader(store).read(np.array(lost))
            masks = masks_from_runs(boundaries, offsets, store.layout.shape[1:])
            return dict(zip(lost, map(encode_mask, masks), strict=True))
    return {}


def _from_sources(store: MaskStore, parts: Sequence[Part], lost: list[int]) -> dict[int, bytes]:
    """Return encoded masks of those sources that were given; not of masks updated since."""
    updated = store.manifest.updated()
    chunks: dict[int, bytes] = {}
    for part in parts:
        rows = [row for row in lost if part.holds(row) and row not in updated]
        if rows:
            pixels = part.pixels(range(rows[0], rows[-1] + 1))
            chunks.update((row, encode_mask(pixels[row - rows[0]])) for row in rows)
    return chunks


def _whole_chunks(
    store: MaskStore, shard: int, data: bytes, crcs: NDArray[Any] | None
) -> dict[int, bytes]:
    """Return the encoded masks of a damaged shard that are whole, by row."""
    rows = store.layout.shard_rows(shard)
    pixels = np.empty(store.layout.shape[1:], np.uint8)
    chunks = {}
    with suppress(DamagedBytes):
        found = EncodedShard.whole(data, store.layout, shard)
        for slot, row in enumerate(range(rows.start, rows.stop)):
            with suppress(DamagedBytes):
                decode_chunk(found.chunk(slot), pixels)
                if crcs is None or checksum(pixels) == crcs[row]:
                    chunks[row] = found.chunk(slot)
    return chunks


def _steps(store: MaskStore, _: Sequence[Part]) -> _Made:
    """Yield the chunks of the runs' steps, made from the masks, if one of them is damaged."""
    runs = store.manifest.runs
    if runs is None:
        return
    pieces = {step_key(number): piece for number, piece in enumerate(runs.steps)}
    if all(is_piece(store.objects, key, piece) for key, piece in pieces.items()):
        return
    with suppress(CorruptMask):
        each = ShardReader(store).each(_encoded_steps, np.arange(store.layout.n_masks))
        for key, data in step_chunks(sum(part.n_steps for part in each), each):
            if key in pieces:
                yield key, data, pieces[key]


def _encoded_steps(mask: NDArray[np.uint8]) -> EncodedSteps:
    return EncodedSteps.of(steps_of(mask))


def _others(store: MaskStore, parts: Sequence[Part]) -> _Made:
    """Yield coordinates, offsets and metadata, as far as their values are known."""
    yield from _from_packed(store)
    runs = store.manifest.runs
    offsets = None if runs is None else _offsets(store)
    objects = build(
        store.layout,
        {name: _values(store, parts, name) for name in COORDINATES},
        np.zeros(store.layout.n_masks + 1, np.int64) if offsets is None else offsets,
        1 if runs is None else runs.chunk_boundaries,
        lambda _: store.attributes,
    )
    pieces = {f"{name}/c/0": piece for name, piece in store.manifest.coordinates.items()}
    if runs is not None:
        pieces[f"{OFFSETS}/c/0"] = runs.offsets
    if store.manifest.packed is not None and can_hold(store.objects, PACKED):
        pieces[PACKED] = store.manifest.packed
    root = store.objects.get(ROOT) or b""
    if store.manifest.metadata and not has_true_copy(store):
        yield COPY, root, store.edition.identity
    for key, data in objects.items():
        if key in pieces:
            yield key, data, pieces[key]
        elif _is_described(store, key, data):
            there = store.objects.get(key, 0, MOST_METADATA_BYTES)
            # The same, otherwise spaced, is no damage.
            if there is None or not _is_described(store, key, there):
                yield key, data, Piece.of(data)


def _from_packed(store: MaskStore) -> _Made:
    """Yield the coordinates that are whole where all are in one object."""
    pieces = store.manifest.coordinates
    if store.manifest.packed is None or not {*COORDINATES} <= {*pieces}:
        return
    packed = PackedCoordinates(store.objects, pieces)
    for name in COORDINATES:
        data = packed.get(name)
        if data is not None:
            yield f"{name}/c/0", data, pieces[name]


def _is_described(store: MaskStore, key: str, data: bytes) -> bool:
    """Whether metadata is what the root's copy says."""
    said = store.arrays.get(key.removesuffix(f"/{ROOT}"))
    return isinstance(said, dict) and described(parsed_metadata(data)) == described(said)


def _values(store: MaskStore, parts: Sequence[Part], name: str) -> NDArray[Any]:
    """Return a coordinate; zeros, which have another checksum, where it cannot be known."""
    found = _coordinate(store, name)
    column = COORDINATES[name].column
    if found is None and column is None:
        found = _measured(store, name)
    elif found is None and sum(len(part.rows) for part in parts) == store.layout.n_masks:
        found = np.concatenate([part.column(name) for part in parts])
    if found is None:
        text = COORDINATES[name].dtype == "string"
        dtype = np.dtypes.StringDType() if text else COORDINATES[name].dtype
        return np.zeros(store.layout.n_masks, dtype)
    return found


def _coordinate(store: MaskStore, name: str) -> NDArray[Any] | None:
    with suppress(CorruptStore):
        return store.coordinate(name)
    return None


def _measured(store: MaskStore, name: str) -> NDArray[Any] | None:
    """Return the coordinate ``area`` or ``crc32c`` from the pixels."""
    measure: Callable[[NDArray[np.uint8]], Any] = checksum if name == "crc32c" else np.count_nonzero
    with suppress(CorruptMask):
        found = ShardReader(store).each(measure, np.arange(store.layout.n_masks))
        return np.array(found, COORDINATES[name].dtype)
    return None


def _offsets(store: MaskStore) -> NDArray[np.int64] | None:
    """Return where each mask's steps begin, as it is stored or else from the pixels."""
    with suppress(CorruptStore):
        return RunReader(store).offsets()
    with suppress(CorruptMask):
        counts = ShardReader(store).each(_count_steps, np.arange(store.layout.n_masks))
        return np.cumsum([0, *counts], dtype=np.int64)
    return None


def _count_steps(mask: NDArray[np.uint8]) -> int:
    return len(steps_of(mask))
