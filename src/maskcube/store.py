"""An opened store: its manifest and its coordinates."""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from maskcube.codec import DamagedBytes, decode_chunk
from maskcube.edition import Edition
from maskcube.errors import CorruptStore, MaskcubeError, NotAMaskStore
from maskcube.layout import Layout
from maskcube.manifest import Manifest, Piece
from maskcube.objects import Objects, StoreLike, open_objects
from maskcube.packed import HEAD_BYTES, PackedCoordinates
from maskcube.root import arrays_of, check_arrays, read_root
from maskcube.schema import COORDINATES, PACKED, ROOT, is_native, value_bytes
from maskcube.texts import Texts

if TYPE_CHECKING:
    import zarr

__all__ = ["MaskStore", "name_of"]


class MaskStore:
    """A complete mask store, open for reading.

    Parameters
    ----------
    objects : Objects
        Where its bytes are.
    root : str
        Key of the root metadata, or of its copy.
    ahead : bool
        Ask for the labels too, where a question takes longer than an answer in vain.

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

    def __init__(self, objects: Objects, root: str = ROOT, *, ahead: bool = False) -> None:
        self.objects = objects
        stamp = objects.stamp(ROOT)
        (found, identity), head = _root_and_labels(objects, root, ahead=ahead)
        self.edition = Edition(objects, identity, stamp)
        self.attributes: dict[str, Any] = found["attributes"]
        self.manifest = Manifest.from_json(self.attributes["maskcube"], objects.location)
        self.arrays = arrays_of(found, objects.location)
        check_arrays(self.arrays, self.layout, objects.location)
        self._packed = _packed(objects, self.manifest, head)

    @classmethod
    def open(
        cls,
        store: StoreLike,
        storage_options: dict[str, Any] | None = None,
        *,
        ahead: bool = False,
    ) -> MaskStore:
        """Open the store at a path, at a URL or in a zarr ``Store``; reads its metadata only."""
        return cls(open_objects(store, storage_options), ahead=ahead)

    def unpacked(self) -> MaskStore:
        """Return the same store, each of whose coordinates is read from its own object."""
        found = copy(self)
        found._packed = None  # noqa: SLF001 - its own class
        return found

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
        if self._packed is not None:
            found = self._packed.get(name)
            if found is not None:
                return found
        return self.edition.get(f"{name}/c/0", piece, f"coordinate {name!r}")


def name_of(objects: Objects, row: int) -> str:
    """Name a mask by its labels for a message, if these at least can be read."""
    with suppress(MaskcubeError):
        store = MaskStore(objects)
        image, noun = (store.text(name, row) for name in ("image", "noun"))
        instance = store.coordinate("instance")[row]
        return f"mask {row} (image {image!r}, noun {noun!r}, instance {instance})"
    return f"mask {row}"


def _packed(objects: Objects, manifest: Manifest, head: bytes) -> PackedCoordinates | None:
    """Return the coordinates in one object, if the store has that, and it saves anything."""
    pieces = manifest.coordinates
    if objects.has_cheap_ranges or manifest.packed is None or not {*COORDINATES} <= {*pieces}:
        return None
    return PackedCoordinates(objects, pieces, head)


def _root_and_labels(
    objects: Objects, key: str, *, ahead: bool
) -> tuple[tuple[dict[str, Any], Piece], bytes]:
    """Return the root metadata, and what was asked for beside it to save the time of a question."""
    if not ahead or objects.has_cheap_ranges:
        return read_root(objects, key), b""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(objects.get, PACKED, 0, HEAD_BYTES)
        found = read_root(objects, key)
        with suppress(MaskcubeError):
            return found, asked.result() or b""
        return found, b""
