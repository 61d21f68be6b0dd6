"""Responses to objects as Zarr has them: metadata, coordinates, and a chunk for each mask."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from maskcube.errors import CorruptStore, InvalidOption, listed
from maskcube.insilico.voxels import DIM
from maskcube.layout import DIMS
from maskcube.schema import ROOT

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer
    from zarr.storage import MemoryStore

__all__ = ["EFFECT_DIMS", "RESPONSE", "EffectsArrays", "chunk_key", "digest_of", "is_name"]

EFFECT_DIMS = (DIMS[0], "condition", DIM)
"""Names of the dimensions, in order."""

RESPONSE = "response"
"""Name of the array."""

_NAME = re.compile(r"(?!zarr\.json$)[A-Za-z0-9][A-Za-z0-9_.+-]*")
"""What a coordinate may be called: it is the name of a folder, and stands in a list with spaces."""

_LEVEL = 1
"""Digits of responses are noise: more would take longer and save nothing."""


class EffectsArrays:
    """The arrays of a store in memory, as zarr writes them, but for the chunks of the responses.

    Parameters
    ----------
    effects : xarray.DataArray
        (mask, condition, voxel) float32 with all coordinates; its values are not looked at.
    attributes : dict
        Attributes of the root.

    Attributes
    ----------
    names : list of str
        The arrays, the responses first.

    Raises
    ------
    InvalidOption
        When a coordinate has a name, or values, that a store cannot have.
    """

    def __init__(self, effects: xr.DataArray, attributes: dict[str, Any]) -> None:
        self.names = [RESPONSE, *map(str, effects.coords)]
        strange = [name for name in self.names if not is_name(name)]
        if strange or RESPONSE in effects.coords:
            raise InvalidOption(
                f"a coordinate of a store cannot be called {listed(strange or [RESPONSE])}: use"
                " letters, digits and _, or .drop_vars"
            )
        self._attributes = attributes
        self._written: dict[str, Buffer] = {}
        self._shape = effects.shape
        self._write(effects)

    def _write(self, effects: xr.DataArray) -> None:
        import zarr

        memory = self._memory()
        _plain(effects).to_zarr(memory, mode="w", zarr_format=3, consolidated=False)
        group = zarr.open_group(memory)
        self._responses = group.create_array(
            RESPONSE,
            shape=self._shape,
            dtype="float32",
            chunks=(1, *self._shape[1:]),
            compressors=_compressors(),
            fill_value=np.nan,
            dimension_names=EFFECT_DIMS,
            attributes={**_as_json(effects.attrs), "coordinates": " ".join(self.names[1:])},
            # Also when all values equal the fill value: a missing chunk is a mask to do.
            config={"write_empty_chunks": True},
        )
        group.attrs.update(self._attributes)
        with warnings.catch_warnings():
            # Not in the specification yet; without it plain https shows an empty group.
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            zarr.consolidate_metadata(memory)

    def _memory(self) -> MemoryStore:
        from zarr.storage import MemoryStore

        return MemoryStore(store_dict=self._written)

    def objects(self) -> dict[str, bytes]:
        """Return every object but the chunks of responses, by key; the root metadata last."""
        keys = sorted(self._written, key=lambda key: (key == ROOT, key))
        return {key: self._written[key].to_bytes() for key in keys}

    def encoded(self, answers: NDArray[np.float32]) -> bytes:
        """Return the chunk of a mask's responses, (condition, voxel)."""
        self._responses[0] = answers
        return self._written.pop(chunk_key(0)).to_bytes()

    def decoded(self, chunk: bytes) -> NDArray[np.float32]:
        """Return the responses of a mask, (condition, voxel).

        Raises
        ------
        CorruptStore
            When the chunk is damaged.
        """
        from zarr.core.buffer import default_buffer_prototype

        key = chunk_key(0)
        self._written[key] = default_buffer_prototype().buffer.from_bytes(chunk)
        try:
            return np.asarray(self._responses[0], np.float32)
        except Exception as error:  # zarr and its codecs raise whatever they like
            raise CorruptStore(f"a chunk of {RESPONSE} is damaged: {error}") from error
        finally:
            del self._written[key]


def is_name(name: object) -> bool:
    """Whether an array of such a store can be called so; names from data are no paths."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def chunk_key(row: int) -> str:
    """Return the key of a mask's responses."""
    return f"{RESPONSE}/c/{row}/0/0"


def digest_of(coordinates: xr.Coordinates) -> str:
    """Return the SHA-256 of coordinates: names, dimensions and values."""
    found = hashlib.sha256()
    for name in sorted(map(str, coordinates)):
        variable = coordinates[name].variable
        values = np.ascontiguousarray(variable.to_numpy())
        is_plain = values.dtype.kind in "biufc"
        data = values.tobytes() if is_plain else repr(values.tolist()).encode("utf-8", "replace")
        kind = values.dtype.str if is_plain else "objects"
        found.update(repr((name, variable.dims, values.shape, kind, len(data))).encode())
        found.update(data)
    return found.hexdigest()


def _plain(effects: xr.DataArray) -> xr.Dataset:
    """Return the coordinates as every version of xarray can write and read them."""
    found = effects.coords.to_dataset().drop_encoding()
    found = found.drop_indexes(list(found.xindexes))
    # Texts of a fixed length are in no specification.
    texts = {name: each.astype(object) for name, each in found.variables.items() if _is_text(each)}
    return found.assign_coords(texts)


def _as_json(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what a model says of itself as JSON has it; as a text where it has no such thing."""
    found: dict[str, Any] = {}
    for name, value in attributes.items():
        plain = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
        try:
            found[str(name)] = json.loads(json.dumps(plain, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            found[str(name)] = str(value)
    return found


def _is_text(variable: xr.Variable) -> bool:
    return variable.dtype.kind in "UT"


def _compressors() -> Any:  # noqa: ANN401 - zarr's own union of codecs
    from zarr.codecs import Crc32cCodec, ZstdCodec

    return [ZstdCodec(level=_LEVEL), Crc32cCodec()]
