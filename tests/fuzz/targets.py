"""What is fuzzed: functions of bytes that raise only where maskcube has a fault.

Random bytes seldom have a right checksum: those targets that check one put the right ones in first,
so that what lies behind is tried too.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from berg_folder import PARTLY_OUTSIDE, BergFolder, write_berg_folder
from crafted import write_npy
from reference import Source, write_source

import maskcube
from maskcube.codec import (
    DamagedBytes,
    checksum,
    decode_chunk,
    decode_steps,
    encode_steps,
    index_bytes,
)
from maskcube.encoded import EncodedShard
from maskcube.errors import MaskcubeError, SourceError
from maskcube.filters import InflateError, undo
from maskcube.formats.clearml import read_clearml, to_clearml
from maskcube.formats.clearml_alpha import read_clearml_alpha, to_clearml_alpha
from maskcube.formats.collection import Collection
from maskcube.formats.png import encode
from maskcube.hdf5 import MaskFile
from maskcube.insilico.berg_files import BergFiles
from maskcube.insilico.errors import ModelLoadError
from maskcube.layout import Layout
from maskcube.metadata import COLUMNS, read_metadata
from maskcube.schema import COORDINATES
from maskcube.store import MaskStore
from maskcube.texts import Texts

__all__ = ["TARGETS", "Target", "pixels_of", "seed_hdf5"]

_MASKS, _HEIGHT, _WIDTH = 5, 12, 16
_LAYOUT = Layout(n_masks=_MASKS, height=_HEIGHT, width=_WIDTH, shard_masks=_MASKS)
_CRC_BYTES = 4
_MOST_READ = 2**26


class Target(NamedTuple):
    """Something that reads bytes."""

    check: Callable[[bytes], object]
    """Raises when these bytes show a fault."""
    seeds: Callable[[], list[bytes]]
    """Return good ones to begin from."""


@functools.cache
def _folder() -> Path:
    """Return a folder of this process."""
    holder = tempfile.TemporaryDirectory(prefix="fuzz-")
    _holders.append(holder)
    return Path(holder.name)


_holders: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def _source() -> Source:
    return write_source(_folder() / "source", n_masks=_MASKS, shape=(_HEIGHT, _WIDTH))


@functools.cache
def _store() -> Path:
    path = _folder() / "masks.zarr"
    maskcube.convert(_source().folder, path, progress=False)
    return path


def seed_hdf5(**storage: Any) -> bytes:
    """Return an HDF5 of a few masks."""
    path = _folder() / "seed.h5"
    with h5py.File(path, "w", libver=storage.pop("libver", None)) as file:
        file.create_dataset("masks", data=_source().masks, **storage)
    return path.read_bytes()


def pixels_of(data: bytes) -> np.ndarray[Any, Any] | None:
    """Return all masks of an HDF5, or the first and the last if there are many; None: refused."""
    path = _folder() / "any.h5"
    path.write_bytes(data)
    try:
        file = MaskFile(path)
    except SourceError:
        return None
    try:
        n_masks = file.layout.n_masks
        all_of_them = n_masks * file.layout.mask_bytes <= _MOST_READ
        rows = np.arange(n_masks) if all_of_them else np.array([0, n_masks - 1])
        return file.read_rows(rows)
    except SourceError:
        return None
    finally:
        file.close()


def _hdf5_seeds() -> list[bytes]:
    one = (1, _HEIGHT, _WIDTH)
    kinds: list[dict[str, Any]] = [
        {"chunks": one, "compression": "gzip", "shuffle": True},
        {"chunks": (2, 5, 8), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": one, "compression": "lzf", "libver": "latest"},
        {"chunks": one},
        {"chunks": (2, 5, 8), "compression": "gzip", "maxshape": (None,) * 3, "libver": "latest"},
    ]
    return [seed_hdf5(**kind) for kind in kinds]


def _filters(data: bytes) -> None:
    """Undo filters that the first byte chooses: what comes out must have come from the bytes."""
    if not data:
        return
    known = ["gzip", "lzf", "fletcher32", "shuffle"]
    applied = [name for bit, name in enumerate(known) if data[0] >> bit & 1]
    if "gzip" in applied and "lzf" in applied:
        return
    if data[0] >> 4 & 1:
        applied.reverse()
    found = []
    for sentinel in (0x55, 0xAA):
        out = np.full((_HEIGHT, _WIDTH), sentinel, np.uint8)
        with suppress(InflateError):
            undo(data[1:], applied, out)
            found.append(out)
    _same(found)


def _filters_seeds() -> list[bytes]:
    seeds = []
    kinds: list[tuple[int, dict[str, Any]]] = [
        (0, {}),
        (1, {"compression": "gzip"}),
        (2, {"compression": "lzf"}),
        (4, {"fletcher32": True}),
        (5, {"compression": "gzip", "fletcher32": True}),
    ]
    for choice, storage in kinds:
        path = _folder() / "filters.h5"
        with h5py.File(path, "w") as file:
            chunks = (1, _HEIGHT, _WIDTH)
            dataset = file.create_dataset("m", data=_source().masks, chunks=chunks, **storage)
            seeds.append(bytes([choice]) + dataset.id.read_direct_chunk((0, 0, 0))[1])
    return seeds


def _csv(data: bytes) -> None:
    path = _folder() / "any.csv"
    path.write_bytes(data)
    table, faults = read_metadata(path)
    if list(table.columns) != list(COLUMNS) or not (len(table) or faults):
        raise RuntimeError(f"{len(table)} rows of {list(table.columns)}, faults {faults}")
    if any(len(fault) > 2000 for fault in faults):
        raise RuntimeError("a very long message")
    if not faults:
        dtypes = [table[name].to_numpy().dtype for name in ("mask_row", "score", "localized")]
        if dtypes != [np.int64, np.float64, np.int8]:
            raise RuntimeError(f"dtypes {dtypes}")


def _csv_seeds() -> list[bytes]:
    whole = _source().csv.read_bytes()
    return [whole, b"\xef\xbb\xbf" + whole, whole.replace(b"\n", b"\r\n")]


def _resealed(data: bytes) -> bytes:
    """Return bytes with the checksum at their end made right."""
    body = data[:-_CRC_BYTES]
    return body + checksum(body).to_bytes(_CRC_BYTES, "little")


def _same(found: list[np.ndarray[Any, Any]]) -> None:
    """Raise unless a decoder gave the same to two buffers that held other values before."""
    if len(found) == 1 or (found and not np.array_equal(found[0], found[1])):
        raise RuntimeError("not every byte of the answer is decoded")


def _shard(data: bytes) -> None:
    index = index_bytes(_LAYOUT.shard_masks)
    for sealed in (data, data[:-index] + _resealed(data[-index:])):
        try:
            shard = EncodedShard.whole(sealed, _LAYOUT, 0)
            chunks = [shard.chunk(slot) for slot in range(_MASKS)]
        except DamagedBytes:
            continue
        for chunk in chunks:
            for frame in (chunk, _resealed(chunk)):
                found = []
                for sentinel in (0x55, 0xAA):
                    out = np.full((_HEIGHT, _WIDTH), sentinel, np.uint8)
                    with suppress(DamagedBytes):
                        decode_chunk(frame, out)
                        found.append(out)
                _same(found)


def _shard_seeds() -> list[bytes]:
    data = (_store() / "masks" / "c" / "0" / "0" / "0").read_bytes()
    # The store's shard has more slots than there are masks: an index as long as ours is made.
    shard = EncodedShard.whole(data, Layout(n_masks=_MASKS, height=_HEIGHT, width=_WIDTH), 0)
    entries = np.array(shard.index, "<u8").tobytes()
    body = data[: sum(length for _, length in shard.index)]
    return [body + _resealed(entries + bytes(_CRC_BYTES))]


_N_STEPS = 200


def _steps(data: bytes) -> None:
    for sealed in (data, _resealed(data)):
        found = []
        for sentinel in (0x55, 0xAA):
            out = np.full(_N_STEPS, sentinel, np.int32)
            with suppress(DamagedBytes):
                decode_steps(sealed, out)
                found.append(out)
        _same(found)


def _steps_seeds() -> list[bytes]:
    rng = np.random.default_rng(0)
    kinds = [np.zeros(_N_STEPS), np.arange(_N_STEPS), rng.integers(0, 2**31, _N_STEPS)]
    return [encode_steps(kind.astype(np.int32)) for kind in kinds]


def _texts(data: bytes) -> None:
    for sealed in (data, _resealed(data)):
        try:
            texts = Texts(sealed, _MASKS)
            every = texts.array()
            labels, codes = texts.factorized()
        except DamagedBytes:
            continue
        if [labels[code] for code in codes] != every.tolist() or len(every) != _MASKS:
            raise RuntimeError("two ways to read the texts differ")
        if [texts[row] for row in range(_MASKS)] != every.tolist():
            raise RuntimeError("texts one by one differ")


def _texts_seeds() -> list[bytes]:
    return [(_store() / name / "c" / "0").read_bytes() for name in ("image", "noun", "mask_file")]


@functools.cache
def _damaged_store() -> Path:
    return Path(shutil.copytree(_store(), _folder() / "damaged.zarr"))


def _root(data: bytes) -> None:
    path = _damaged_store()
    (path / "zarr.json").write_bytes(data)
    try:
        store = MaskStore.open(path)
    except MaskcubeError:
        return
    for name in COORDINATES:
        with suppress(MaskcubeError):
            store.coordinate(name)


def _root_seeds() -> list[bytes]:
    return [(_store() / "zarr.json").read_bytes()]


@functools.cache
def _frames() -> list[bytes]:
    """Write an export for ClearML of both kinds of masks, and return their frames."""
    masks = maskcube.open_masks(_store())
    to_clearml(masks, _folder() / "pixels", progress=False)
    to_clearml_alpha(masks, _folder() / "alpha", progress=False)
    return [(_folder() / name / "frames.json").read_bytes() for name in ("pixels", "alpha")]


def _clearml(data: bytes) -> None:
    """Read frames, and pictures, that are these bytes."""
    _frames()
    for name, read in (("pixels", read_clearml), ("alpha", read_clearml_alpha)):
        folder = _folder() / name
        (folder / "frames.json").write_bytes(data)
        with suppress(MaskcubeError):
            _read_all(read(folder))
    for read in (read_clearml, read_clearml_alpha):
        frame = {"id": "a", "sources": [{"id": "0", "masks": [{"id": "m", "uri": "m.png"}]}]}
        labels = {"labels": [{"value": [1, 1, 1], "labels": ["hand"]}]}
        options: dict[str, Any] = labels if read is read_clearml else {}
        _read_all(read([frame], masks=lambda _: data, **options))


def _read_all(found: Collection) -> None:
    for item in found.items:
        with suppress(ValueError):
            mask = item.read()
            if mask.shape != item.size or mask.max(initial=0) > 1:
                raise AssertionError("a mask is not as it was announced")


def _clearml_seeds() -> list[bytes]:
    pixels = np.arange(_HEIGHT * _WIDTH, dtype=np.uint8).reshape(_HEIGHT, _WIDTH)
    colours = np.stack([pixels] * 3, axis=-1)
    return [*_frames(), encode(pixels), encode(colours)]


@functools.cache
def _berg_folder() -> BergFolder:
    """Return weights of BERG's of a few kilobytes: of the regions of interest, two are left."""
    root = _folder() / "berg"
    made = write_berg_folder(root, n_features=30, n_components=3, volume=(6, 6, 5), n_voxels=60)
    metadata = made.load(made.metadata(1))
    regions = metadata["fmri"]["rois"]
    metadata["fmri"]["rois"] = {name: regions[name] for name in ("lV1v", PARTLY_OUTSIDE)}
    write_npy(made.metadata(1), metadata)
    return made


@functools.cache
def _berg_good() -> dict[Path, bytes]:
    made = _berg_folder()
    return {path: path.read_bytes() for path in (made.pca, made.weights(1), made.metadata(1))}


def _berg(data: bytes) -> None:
    """Read weights with any bytes in the place of each file: what is read must fit together."""
    for path, good in _berg_good().items():
        path.write_bytes(data)
        try:
            _berg_read(BergFiles.open(_berg_folder().root))
        except ModelLoadError as error:
            if len(str(error)) > 4000:
                raise RuntimeError("a very long message") from error
        finally:
            path.write_bytes(good)


def _berg_read(files: BergFiles) -> None:
    found = files.components()
    mean, scale, components = found.mean[:], found.scale[:], found.components[:]
    coef, intercept = (array[:] for array in files.regression(1))
    brain = files.brain(1)
    sizes = (
        {len(mean), len(scale), components.shape[1]},
        {len(coef), len(intercept), brain.n_voxels},
    )
    if list(map(len, sizes)) != [1, 1] or coef.shape[1] != len(components):
        raise RuntimeError(f"sizes {sizes}")
    if any(len(values) != brain.n_voxels for values in brain.measures.values()):
        raise RuntimeError("a measure is not one of each voxel")
    for name in brain.regions:
        rows = brain.rows(name)
        if len(rows) and not 0 <= rows.min() <= rows.max() < brain.n_voxels:
            raise RuntimeError("a region has rows that there are not")


def _berg_seeds() -> list[bytes]:
    path = _folder() / "any.npy"
    trees = [BergFolder.load(path) for path in _berg_good()]
    others = [write_npy(path, tree, protocol) for tree in trees for protocol in (2, 5)]
    return [*_berg_good().values(), *others]


TARGETS: dict[str, Target] = {
    "hdf5": Target(pixels_of, _hdf5_seeds),
    "filters": Target(_filters, _filters_seeds),
    "csv": Target(_csv, _csv_seeds),
    "shard": Target(_shard, _shard_seeds),
    "steps": Target(_steps, _steps_seeds),
    "texts": Target(_texts, _texts_seeds),
    "root": Target(_root, _root_seeds),
    "clearml": Target(_clearml, _clearml_seeds),
    "berg": Target(_berg, _berg_seeds),
}
