"""The root metadata of a store: read, taken apart, and what is there where it is not."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from maskcube.errors import (
    CorruptStore,
    IncompleteStore,
    NotAMaskStore,
    StoreNotFound,
    listed,
)
from maskcube.layout import Layout
from maskcube.manifest import CONVERT, Piece, is_sealed
from maskcube.objects import ATTEMPTS, ENTRIES, PLAN, REPLACING, Folder, Objects, get_at_most
from maskcube.paths import partial_path
from maskcube.schema import COORDINATES, COPY, MASKS, ROOT, description_crc

__all__ = ["MOST_METADATA_BYTES", "arrays_of", "check_arrays", "parsed_metadata", "read_root"]

MOST_METADATA_BYTES = 2**25
"""Of the root: 44 kB for 24,011 masks, and 7 bytes a mask where the CSV was not sorted."""

_MOST_PARTS = 2**18
"""Lists and objects in metadata: one for each shard, and a few hundred."""

_ZARR_FORMAT = 3


def read_root(objects: Objects, key: str) -> tuple[dict[str, Any], Piece]:
    """Return the parsed root metadata of a mask store, and its checksum."""
    data, root = _asked_root(objects, key)
    if data is None:
        raise _nothing_there(objects)
    is_group = root.get("node_type") == "group" and root.get("zarr_format") == _ZARR_FORMAT
    attributes = root.get("attributes")
    if not is_group or not isinstance(attributes, dict):
        found = f"{ROOT} is no metadata of a Zarr group of format {_ZARR_FORMAT}"
    elif not isinstance(attributes.get("maskcube"), dict):
        found = "a Zarr group without the attribute 'maskcube': no mask store"
    else:
        return root, Piece.of(data)
    raise NotAMaskStore(f"{objects.location}: {found}{_advice(objects)}")


def _asked_root(objects: Objects, key: str) -> tuple[bytes | None, dict[str, Any]]:
    """Read the root metadata, from afar again if it came damaged; parse it."""
    data, root = None, {}
    for _ in range(1 if objects.has_cheap_ranges else ATTEMPTS):
        data = get_at_most(objects, key, MOST_METADATA_BYTES)
        root = parsed_metadata(data or b"")
        if data is None or _is_sound(root):
            break
    return data, root


def _is_sound(root: dict[str, Any]) -> bool:
    """Whether a root is as it was written, as far as it can tell."""
    try:
        block, arrays = root["attributes"]["maskcube"], root["consolidated_metadata"]["metadata"]
        crcs = block.get("metadata", {})
        return is_sealed(block) and all(
            description_crc(arrays[name]) == crc for name, crc in crcs.items()
        )
    except (KeyError, TypeError, AttributeError):
        return False


def _advice(objects: Objects) -> str:
    """Say what to do where the root metadata is lost, if there is a copy."""
    with suppress(CorruptStore):
        if objects.get(COPY, 0, 1) is not None:
            return f"; there is a copy, {COPY}: repair=True of verify would restore it"
    return ""


def parsed_metadata(data: bytes) -> dict[str, Any]:
    """Return Zarr metadata as a dict; an empty one if the bytes are anything else."""
    if data.count(b"[") + data.count(b"{") > _MOST_PARTS:
        # Three bytes of JSON would be seventy of memory.
        return {}
    try:
        found = json.loads(data, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError, MemoryError):
        return {}
    return found if isinstance(found, dict) else {}


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # Readers differ in which one they take.
        raise ValueError("a name stands twice in it")
    return found


def _nothing_there(objects: Objects) -> StoreNotFound | IncompleteStore | NotAMaskStore:
    """Tell a conversion that was interrupted from a wrong path."""
    places, something = [objects], None
    if isinstance(objects, Folder) and objects.path.name:
        places.append(Folder(partial_path(objects.path)))
    for place in places:
        unfinished = _unfinished(place)
        if unfinished is not None:
            return IncompleteStore(f"{objects.location}: {unfinished}")
    with suppress(CorruptStore):  # plain https cannot list
        something = next(iter(objects.keys()), None)
    if something is not None:
        found = f"{objects.location} has no {ROOT}: no Zarr group of format 3"
        return NotAMaskStore(f"{found}{_advice(objects)}")
    return StoreNotFound(f"no mask store at {objects.location}; make one with maskcube.convert")


def _unfinished(objects: Objects) -> str | None:
    """Say how far a conversion, or a change of a store, has come; None when there is none."""
    n_finished = 0
    try:
        plan = json.loads(objects.get(PLAN, 0, MOST_METADATA_BYTES) or b"")
        action, n_shards = plan["action"], Layout(**plan["layout"]).n_shards
    except (ValueError, RecursionError, KeyError, TypeError, ArithmeticError, MemoryError):
        replacing = objects.get(REPLACING) is not None
        return "half a conversion: run it again to finish it" if replacing else None
    if action != CONVERT:
        return f"an unfinished {action}: run it again to finish it"
    with suppress(CorruptStore):
        n_finished = sum(1 for _ in objects.keys(f"{ENTRIES}/"))
    return (
        f"half a conversion, {n_finished} of {n_shards} shards:"
        " run the same conversion again to finish it"
    )


def arrays_of(root: dict[str, Any], location: str) -> dict[str, Any]:
    """Return the Zarr metadata of each array, by name, as the root has it.

    Raises
    ------
    NotAMaskStore
        When the root has none of anybody.
    """
    found = root.get("consolidated_metadata")
    consolidated: dict[str, Any] = found if isinstance(found, dict) else {}
    arrays = consolidated.get("metadata")
    is_inline = consolidated.get("kind"), consolidated.get("must_understand")
    if not isinstance(arrays, dict) or is_inline != ("inline", False):
        raise NotAMaskStore(f"{location} has no consolidated metadata: not written by a conversion")
    return arrays


def check_arrays(arrays: dict[str, Any], layout: Layout, location: str) -> None:
    """Raise unless the arrays are those of so many masks of this size."""
    expected: dict[str, tuple[Any, list[int]]] = {
        name: (coordinate.dtype, [layout.n_masks]) for name, coordinate in COORDINATES.items()
    }
    expected[MASKS] = ("uint8", list(layout.shape))
    # Others may be there too: nothing of theirs is read, and no name becomes a path.
    faults = [
        name
        for name, (dtype, shape) in expected.items()
        if not isinstance(arrays.get(name), dict)
        or (arrays[name].get("data_type"), arrays[name].get("shape")) != (dtype, shape)
    ]
    if faults:
        raise NotAMaskStore(
            f"{location}: not the dtype and shape that format_version 1 says for {layout.n_masks:,}"
            f" masks, or not there: {listed(faults)}"
        )
