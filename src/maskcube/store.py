"""An opened store: its manifest and its coordinates."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from maskcube.codec import DamagedBytes, decode_chunk
from maskcube.edition import Edition
from maskcube.errors import (
    CorruptStore,
    IncompleteStore,
    MaskcubeError,
    NotAMaskStore,
    StoreNotFound,
    listed,
)
from maskcube.layout import Layout
from maskcube.manifest import CONVERT, Manifest, Piece
from maskcube.objects import (
    ENTRIES,
    PLAN,
    REPLACING,
    Folder,
    Objects,
    StoreLike,
    get_at_most,
    open_objects,
    partial_path,
)
from maskcube.schema import COORDINATES, COPY, MASKS, ROOT, is_native, value_bytes
from maskcube.texts import Texts

if TYPE_CHECKING:
    import zarr

__all__ = ["MOST_METADATA_BYTES", "MaskStore", "name_of", "parsed_metadata"]

MOST_METADATA_BYTES = 2**25
"""Of the root: 44 kB for 24,011 masks, and 7 bytes a mask where the CSV was not sorted."""

_MOST_PARTS = 2**18
"""Lists and objects in metadata: one for each shard, and a few hundred."""

_ZARR_FORMAT = 3


class MaskStore:
    """A complete mask store, open for reading.

    Parameters
    ----------
    objects : Objects
        Where its bytes are.
    root : str
        Key of the root metadata, or of its copy.

    Attributes
    ----------
    manifest : Manifest
        What the store says of itself.
    attributes : dict
        Root attributes, the manifest's block included.
    arrays : dict
        Zarr metadata of each array, by name, from the consolidated metadata.
    edition : Edition
        Tells whether another store has taken its place since.

    Raises
    ------
    StoreNotFound, IncompleteStore, NotAMaskStore
        When there is no complete mask store of a known format.
    """

    def __init__(self, objects: Objects, root: str = ROOT) -> None:
        self.objects = objects
        stamp = objects.stamp(ROOT)
        found, identity = _read_root(objects, root)
        self.edition = Edition(objects, identity, stamp)
        self.attributes: dict[str, Any] = found["attributes"]
        self.manifest = Manifest.from_json(self.attributes["maskcube"], objects.location)
        self.arrays = _arrays(found, objects.location)
        _check_arrays(self.arrays, self.layout, objects.location)

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

    def is_native(self, name: str) -> bool:
        """Whether an array is as a conversion wrote it; any other one is left to plain zarr."""
        return is_native(name, self.arrays[name], self.layout)

    def coordinate(self, name: str) -> np.ndarray[Any, Any]:
        """Read a coordinate, (mask,), in the dtype of the schema; texts as numpy StringDType.

        Raises
        ------
        CorruptStore
            When its bytes are missing, damaged, or do not hold one value for each mask.
        """
        if not self.is_native(name):
            return self._foreign_coordinate(name)
        try:
            if COORDINATES[name].dtype == "string":
                return self.texts(name).array()
            values = np.empty(self.layout.n_masks, COORDINATES[name].dtype)
            decode_chunk(self._coordinate_bytes(name), values.view(np.uint8))
        except DamagedBytes as error:
            raise self.corrupt(name, error) from error
        return values

    def texts(self, name: str) -> Texts:
        """Read a native coordinate of texts as the bytes that they are.

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
        if not self.is_native(name):
            return str(self.coordinate(name)[row])
        try:
            return self.texts(name)[row]
        except DamagedBytes as error:
            raise self.corrupt(name, error) from error

    def _foreign_coordinate(self, name: str) -> np.ndarray[Any, Any]:
        dtype = COORDINATES[name].dtype
        try:
            values = np.asarray(self.zarr_array(name)[:])
            values = values.astype(np.dtypes.StringDType() if dtype == "string" else dtype)
            found = Piece.of(value_bytes(name, values))
        except Exception as error:  # zarr and its codecs raise whatever they like
            raise CorruptStore(
                f"{self.location}: coordinate {name!r} cannot be read by zarr: {error}"
            ) from error
        # Plain zarr shows what is missing as zeros and empty texts.
        if found != self.manifest.values.get(name):
            self.edition.check()
            raise CorruptStore(
                f"{self.location}: coordinate {name!r} was rewritten, and its values are not those"
                " that were converted"
            )
        return values

    def zarr_array(self, name: str) -> zarr.Array[Any]:
        """Return an array as plain zarr has it, by the root's copy of its metadata; reads nothing.

        Raises
        ------
        NotAMaskStore
            When zarr cannot open it, or its chunks could be of any size.
        """
        try:
            from maskcube.guarded import guarded_array

            return guarded_array(self.objects.zarr_store(), name, self.arrays[name])
        except Exception as error:  # zarr raises whatever it likes
            raise NotAMaskStore(
                f"{self.location}: array {name!r} is not as a conversion writes it, and zarr cannot"
                f" open it: {error}"
            ) from error

    def corrupt(self, name: str, found: DamagedBytes) -> CorruptStore:
        """Return the error of a coordinate whose bytes are not what the codecs wrote."""
        return CorruptStore(f"{self.location}: coordinate {name!r} {found}")

    def _coordinate_bytes(self, name: str) -> bytes:
        piece = self.manifest.coordinates.get(name)
        return self.edition.get(f"{name}/c/0", piece, f"coordinate {name!r}")


def name_of(objects: Objects, row: int) -> str:
    """Name a mask by its labels for a message, if these at least can be read."""
    with suppress(MaskcubeError):
        store = MaskStore(objects)
        image, noun = (store.text(name, row) for name in ("image", "noun"))
        instance = store.coordinate("instance")[row]
        return f"mask {row} (image {image!r}, noun {noun!r}, instance {instance})"
    return f"mask {row}"


def _read_root(objects: Objects, key: str) -> tuple[dict[str, Any], Piece]:
    """Return the parsed root metadata of a mask store, and its checksum."""
    data = get_at_most(objects, key, MOST_METADATA_BYTES)
    if data is None:
        raise _nothing_there(objects)
    root = parsed_metadata(data)
    is_group = root.get("node_type") == "group" and root.get("zarr_format") == _ZARR_FORMAT
    attributes = root.get("attributes")
    if not is_group or not isinstance(attributes, dict):
        found = f"{ROOT} is no metadata of a Zarr group of format {_ZARR_FORMAT}"
    elif not isinstance(attributes.get("maskcube"), dict):
        found = "a Zarr group without the attribute 'maskcube': no mask store"
    else:
        return root, Piece.of(data)
    raise NotAMaskStore(f"{objects.location}: {found}{_advice(objects)}")


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


def _arrays(root: dict[str, Any], location: str) -> dict[str, Any]:
    found = root.get("consolidated_metadata")
    consolidated: dict[str, Any] = found if isinstance(found, dict) else {}
    arrays = consolidated.get("metadata")
    is_inline = consolidated.get("kind"), consolidated.get("must_understand")
    if not isinstance(arrays, dict) or is_inline != ("inline", False):
        raise NotAMaskStore(f"{location} has no consolidated metadata: not written by a conversion")
    return arrays


def _check_arrays(arrays: dict[str, Any], layout: Layout, location: str) -> None:
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
