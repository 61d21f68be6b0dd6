"""Zarr's metadata and small arrays of a store of models, made in memory before they are written."""

from __future__ import annotations

import base64
import json
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from maskcube.insilico.brain import Brain, Volume
from maskcube.schema import ROOT

__all__ = ["Nodes", "brain_arrays", "brain_attributes"]


class _Array(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...


class Nodes:
    """A group and its arrays, as zarr writes them.

    Parameters
    ----------
    path : str
        Path of the group; "" for the root.
    attributes : dict
        Attributes of the group.
    """

    def __init__(self, path: str, attributes: dict[str, Any]) -> None:
        import zarr
        from zarr.storage import MemoryStore

        self._store: dict[str, Any] = {}
        self._path = path
        memory = MemoryStore(self._store)
        self._group = zarr.create_group(memory, path=path or None, attributes=attributes)

    def declare(
        self, name: str, array: _Array, chunks: tuple[int, ...], dims: tuple[str, ...]
    ) -> Any:  # noqa: ANN401 - zarr.Array is generic
        """Make an array whose chunks are plain bytes, each with its checksum; writes none."""
        from zarr.codecs import Crc32cCodec

        is_text = array.dtype.kind in "TU"
        return self._group.create_array(
            name,
            shape=array.shape,
            dtype="string" if is_text else array.dtype.newbyteorder("<"),
            chunks=chunks,
            compressors=[Crc32cCodec()],
            filters=None,
            dimension_names=dims,
        )

    def write(self, name: str, values: NDArray[Any], dims: tuple[str, ...]) -> None:
        """Make a small array, of one chunk."""
        array = self.declare(name, values, tuple(max(1, size) for size in values.shape), dims)
        array[...] = values

    def made(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return the metadata of all nodes by their paths, and all objects but the root's."""
        objects = {key: buffer.to_bytes() for key, buffer in self._store.items()}
        objects.pop(ROOT, None)
        documents = {
            key.removesuffix(f"/{ROOT}"): json.loads(data)
            for key, data in objects.items()
            if key.endswith(f"/{ROOT}")
        }
        return documents, objects


def brain_attributes(brain: Brain | None) -> dict[str, Any]:
    """Return what is said of a subject in the attributes of its group."""
    if brain is None:
        return {}
    volumes = {"": brain.voxels, "group_": brain.group}
    said: dict[str, Any] = {}
    for prefix, volume in volumes.items():
        said[f"{prefix}affine"] = _plain(volume)
        header = volume.header
        said[f"{prefix}header"] = None if header is None else base64.b64encode(header).decode()
    return said


def brain_arrays(brain: Brain | None) -> dict[str, tuple[tuple[str, ...], NDArray[Any]]]:
    """Return dimensions and values of the small arrays of a subject, by their names."""
    if brain is None:
        return {}
    regions = list(brain.regions.values())
    measures = np.array(list(brain.measures.values())).reshape(-1, brain.n_voxels)
    found: dict[str, tuple[tuple[str, ...], NDArray[Any]]] = {
        "mask": (("i", "j", "k"), brain.voxels.mask),
        "group_mask": (("i", "j", "k"), brain.group.mask),
        # Names are values, not paths: they are from elsewhere.
        "measure": (("measure",), np.array(list(brain.measures), np.dtypes.StringDType())),
        "measures": (("measure", "voxel"), measures),
        "region": (("region",), np.array(list(brain.regions), np.dtypes.StringDType())),
        "region_size": (("region",), np.array([len(each.flat) for each in regions], np.int64)),
        "region_indices": (
            ("region_voxel", "axis"),
            np.concatenate(
                [np.empty((0, 3), np.int64), *(each.indices for each in regions)]
            ).astype(np.int32),
        ),
        "region_flat": (
            ("region_voxel",),
            np.concatenate([np.empty(0, np.int64), *(each.flat for each in regions)]),
        ),
    }
    return found


def _plain(volume: Volume) -> list[list[float | None]]:
    """Return an affine as JSON: null where it is not known."""
    return [[None if np.isnan(each) else float(each) for each in row] for row in volume.affine]
