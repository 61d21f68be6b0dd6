"""What a store says of itself, against the checksums of what was written.

The root's block has a checksum of itself, and one of the Zarr metadata of each array and group.
Stores that were written before there were any are compared with the schema only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maskcube.errors import CorruptStore, MaskcubeError
from maskcube.layout import DIMS
from maskcube.manifest import Piece, is_sealed
from maskcube.objects import get_at_most, is_piece
from maskcube.root import MOST_METADATA_BYTES, parsed_metadata
from maskcube.schema import (
    COORDINATES,
    COPY,
    MASK_ATTRIBUTES,
    MASKS,
    OFFSETS,
    PACKED,
    RUNS,
    STEPS,
    described,
    description_crc,
    shard_key,
)
from maskcube.session import can_hold
from maskcube.store import MaskStore

__all__ = ["description_faults", "has_runs", "has_true_copy"]

_CONSOLIDATED = {"kind": "inline", "must_understand": False}


def has_runs(store: MaskStore) -> bool:
    """Whether the store has runs; where the masks were rewritten, nobody reads any."""
    return store.manifest.runs is not None and store.is_native(MASKS)


def description_faults(store: MaskStore) -> list[str]:
    """Return what is wrong with the root's block and with the metadata of the arrays.

    An array that somebody has rewritten, with other chunks or codecs, must have the same dimensions
    and no other meaning; its values are compared elsewhere. Root attributes of a user are no fault.
    """
    found = []
    if not is_sealed(store.attributes["maskcube"]):
        found.append("the root's attribute 'maskcube' is not as it was written: its crc32 differs")
    # Whoever wrote the masks anew has deleted it with the old ones.
    if store.manifest.metadata and store.is_native(MASKS) and not has_true_copy(store):
        found.append(f"{COPY}, the copy of the root metadata, is missing or another one")
    packed = store.manifest.packed
    is_expected = store.is_native(MASKS) and can_hold(store.objects, PACKED)
    if packed is not None and is_expected and not is_piece(store.objects, PACKED, packed):
        found.append(f"{PACKED}, all coordinates in one object, is missing or another one")
    names = [MASKS, *COORDINATES, *((RUNS, STEPS, OFFSETS) if has_runs(store) else ())]
    return [*found, *filter(None, (_fault(store, name) for name in names))]


def has_true_copy(store: MaskStore) -> bool:
    """Whether the copy of the root metadata says the same of every piece and of every array.

    Where there can be none, nothing is to be said against it.
    """
    if not can_hold(store.objects, COPY):
        return True
    if is_piece(store.objects, COPY, store.edition.identity):
        return True
    # Somebody may have added attributes or arrays to the root.
    try:
        copy = MaskStore(store.objects, root=COPY)
        crcs = {name: description_crc(copy.arrays[name]) for name in store.manifest.metadata}
        nested = all(_has_true_copies(copy, name, copy.arrays[name]) for name in crcs)
    except (MaskcubeError, KeyError, TypeError, AttributeError):
        return False
    if copy.edition.identity == store.edition.identity:
        # Bytes that are right only when they are read again are not.
        return False
    same = copy.attributes["maskcube"] == store.attributes["maskcube"]
    return same and nested and crcs == store.manifest.metadata


def _fault(store: MaskStore, name: str) -> str | None:
    """Return what is wrong with the metadata of an array or group."""
    try:
        data = get_at_most(store.objects, f"{name}/zarr.json", MOST_METADATA_BYTES)
    except CorruptStore as error:
        return str(error)
    own, said = parsed_metadata(data or b""), store.arrays.get(name)
    if (
        not isinstance(said, dict)
        or described(own) != described(said)
        or not _has_true_copies(store, name, said)
    ):
        return f"metadata of {name!r} is missing or not what the root says"
    written = store.manifest.metadata.get(name)
    if written is not None and description_crc(said) == written:
        return None
    if written is not None and (name.startswith(RUNS) or _is_untouched(store, name)):
        return f"metadata of {name!r} is not as it was written: its crc32 differs"
    return None if name.startswith(RUNS) else _other_meaning(name, said)


def _has_true_copies(store: MaskStore, name: str, said: Mapping[str, Any]) -> bool:
    """Whether the copies that a group has in turn of what is below it are true."""
    copies = said.get("consolidated_metadata")
    if copies is None:
        return True
    below = copies.get("metadata") if isinstance(copies, dict) else None
    if not isinstance(below, dict) or copies != {**_CONSOLIDATED, "metadata": below}:
        return False
    return all(store.arrays.get(f"{name}/{key}") == value for key, value in below.items())


def _is_untouched(store: MaskStore, name: str) -> bool:
    """Whether an array's bytes are those of the conversion: then its metadata should be, too."""
    if store.is_native(name):
        return True
    first = {MASKS: (shard_key(0), store.manifest.shards[0])}
    key, piece = first.get(name, (f"{name}/c/0", store.manifest.coordinates.get(name)))
    try:
        data = get_at_most(store.objects, key, 0 if piece is None else piece.length)
    except CorruptStore:
        return False
    return data is not None and Piece.of(data) == piece


def _other_meaning(name: str, said: Mapping[str, Any]) -> str | None:
    """Return what an array says of its values other than the schema does."""
    dims = DIMS if name == MASKS else DIMS[:1]
    attributes = MASK_ATTRIBUTES if name == MASKS else COORDINATES[name].attributes
    if said.get("dimension_names") != list(dims):
        return f"{name!r} has dimensions {said.get('dimension_names')!r}, not {dims}"
    given = said.get("attributes")
    if not isinstance(given, dict):
        return f"{name!r} has no attributes"
    other = [key for key in attributes if key in given and given[key] != attributes[key]]
    if other:
        return f"{name!r} was rewritten with another {other[0]}: {given[other[0]]!r}"
    return None
