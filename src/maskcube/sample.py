"""A small dataset in the layout of the source, for examples and tests: no download.

Its pictures are drawn, not photographed (`maskcube.scenes`). Its files are like the real ones in
every other respect, also in what trips careless readers: the noun ``nan``, accents, a comma in a
noun, several dots in an image's name, images that are not in alphabetical order, and scores and
boxes that are NaN.
"""

from __future__ import annotations

import csv
import math
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from maskcube.errors import InvalidOption, StoreExists
from maskcube.painting import Painting
from maskcube.paths import refuse_url
from maskcube.scenes import SCENES, illusion
from maskcube.source import CSV_NAME, FOLDER, HDF5_NAME

__all__ = ["sample_dataset"]

_GENERATOR = "maskcube.sample_dataset"
"""Attribute of the HDF5 that tells a sample from real data."""

_SMALLEST = 16  # below, fingers are smaller than a pixel

Packed = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]


def sample_dataset(
    path: str | os.PathLike[str],
    n_images: int = 24,
    seed: int = 0,
    *,
    size: int | tuple[int, int] = 1000,
    chunks: Literal["mask", "auto"] | tuple[int, int, int] = "mask",
    shuffled: bool = False,
    first_image: int = 0,
) -> Path:
    """Write a small dataset in the layout of the source and return its folder.

    The same arguments give the same files, byte for byte; those of an earlier call are replaced.
    Image 0 is always ``shared_12rep_LAION_cluster_1003_i0.jpg``, two people at a piano,
    with four ``hand`` and three ``fingers``; the first k images do not depend on `n_images`.

    Parameters
    ----------
    path : path-like
        The dataset folder; made if need be. Gets ``stimuli/task-images_desc-segmentations.h5``,
        with ``masks`` (N, H, W) uint8, 1 where the object is, gzip and shuffle, and beside it
        ``task-images_desc-segmentations_metadata.csv``, one row a mask.
    n_images : int, default 24
        Number of images; each has 10 to 16 masks.
    seed : int, default 0
        What to draw differently: places, outlines, scores, left and right.
    size : int or (int, int), default 1000
        Height and width of the masks in pixels, at least 16.
    chunks : "mask", "auto" or (int, int, int), default "mask"
        HDF5 chunk shape: one mask a chunk, h5py's own guess, or this one, cut to the dataset.
    shuffled : bool, default False
        Write the rows of the CSV in random order. Otherwise those of an image stand together,
        sorted by noun, then by instance; ``mask_row`` is the row in the HDF5 either way.
    first_image : int, default 0
        Number of the first image: 24 gives the next images, as a later session would bring them.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    InvalidOption
        An argument is out of range, or `path` is a file.
    StoreExists
        Another dataset is at that place: only a sample is ever replaced.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = sample_dataset(mkdtemp(), n_images=1, size=100)
    >>> for file in sorted(folder.glob("stimuli/*")):
    ...     print(file.name)
    task-images_desc-segmentations.h5
    task-images_desc-segmentations_metadata.csv
    """
    n_images, seed = _integer("n_images", n_images, 1), _integer("seed", seed, 0)
    first = _integer("first_image", first_image, 0)
    images = range(first, first + n_images)
    height, width = _pair(size)
    refuse_url(path)
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise InvalidOption(f"path={str(path)!r} is a file; the sample dataset needs a folder")
    _check_ours(folder / FOLDER / HDF5_NAME)
    shape = (sum(len(_Picture(index, seed).rows) for index in images), height, width)
    chunk_shape = _chunk_shape(chunks, shape)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    with (
        _replacing(folder / FOLDER / HDF5_NAME) as hdf5,
        _replacing(folder / FOLDER / CSV_NAME) as table,
    ):
        rows: list[_Row] = []
        _write_masks(hdf5, _drawn(images, seed, shape, rows), shape, chunk_shape)
        if shuffled:
            order = np.random.default_rng([seed, n_images]).permutation(len(rows))
            rows = [rows[position] for position in order]
        _write_table(table, rows)
    return folder


class _Row(NamedTuple):
    """A row of the CSV: its fields are the columns."""

    mask_row: int
    image_name: str
    noun: str
    instance_id: int
    score: float
    box_x0: float
    box_y0: float
    box_x1: float
    box_y1: float
    localized: int
    mask_file: str


class _Detection(NamedTuple):
    noun: str
    instance: int
    score: float
    plane: int | None
    """Position of the thing in the painting; None when it was not found at a place."""


class _Picture:
    """An image: its name, what is painted, and the rows that a detector makes of it."""

    def __init__(self, index: int, seed: int) -> None:
        rng = np.random.default_rng([seed, index])
        self.name = _image_name(index)
        scene, gist = SCENES[index % len(SCENES)]
        self.painting = Painting(mirrored=bool(rng.integers(2)))
        (illusion if "OOD" in self.name else scene)(self.painting, rng)
        self.rows = _ranked(self.painting, rng)
        # Every second image has a noun that is true of all of it: of these, in turn, one has no
        # score, one has all, one has no box.
        has_score, self.has_box = ((False, True), (True, True), (True, False))[index // 2 % 3]
        if index % 2 == 0:
            score = round(float(rng.uniform(0.05, 0.3)), 6) if has_score else math.nan
            self.rows.append(_Detection(gist, 0, score, None))
        self.rows.sort(key=lambda row: (row.noun, row.instance))


def _image_name(index: int) -> str:
    if index % 6 == 3:  # noqa: PLR2004 - where the stimuli out of distribution stand
        ending = ("v2.final.png", "png", "v1.jpg")[index // 6 % 3]
        return f"shared_4rep_OOD_illusion_{index + 9}.{ending}"
    n_repeats = 4 if index % 3 else 12
    return f"shared_{n_repeats}rep_LAION_cluster_{1003 + 37 * index}_i{index % 4}.jpg"


def _ranked(painting: Painting, rng: np.random.Generator) -> list[_Detection]:
    """Return a detection of each thing; of each noun, instance 0 has the highest score."""
    drawn = rng.uniform(0.35, 0.99, len(painting.things)).round(6).tolist()
    best_first = sorted(zip(drawn, painting.things, strict=True), reverse=True)
    found: dict[str, int] = {}
    rows = []
    for score, thing in best_first:
        instance = found.get(thing.noun, 0)
        found[thing.noun] = instance + 1
        rows.append(_Detection(thing.noun, instance, score, thing.plane))
    return rows


def _drawn(
    images: range, seed: int, shape: tuple[int, int, int], rows: list[_Row]
) -> Iterator[Packed]:
    """Yield the masks in row order, eight pixels a byte, and append a row for each."""
    _, height, width = shape
    whole = np.ones((height, width), dtype=np.bool_)
    for index in images:
        picture = _Picture(index, seed)
        masks = [_packed(mask) for mask in picture.painting.masks(height, width)]
        for found in picture.rows:
            packed, box = _packed(whole) if found.plane is None else masks[found.plane]
            if found.plane is None and not picture.has_box:
                box = (math.nan, math.nan, math.nan, math.nan)
            rows.append(_row(len(rows), picture.name, found, box))
            yield packed


def _row(mask_row: int, image: str, found: _Detection, box: Box) -> _Row:
    file = f"{image.rsplit('.', 1)[0]}/{found.noun.replace(' ', '_')}_{found.instance}.png"
    localized = int(found.plane is not None)
    label = (image, found.noun, found.instance, found.score)
    return _Row(mask_row, *label, *box, localized, file)


def _packed(mask: npt.NDArray[np.bool_]) -> tuple[Packed, Box]:
    """Return a mask as bits and its tight box x0, y0, x1, y1; x1 and y1 are outside."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1))
    return np.packbits(mask, axis=1), box


def _write_masks(
    path: Path,
    masks: Iterable[Packed],
    shape: tuple[int, int, int],
    chunks: tuple[int, int, int] | None,
) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["generator"] = _GENERATOR
        dataset = file.create_dataset(
            "masks",
            shape,
            np.uint8,
            chunks=True if chunks is None else chunks,
            compression="gzip",
            shuffle=True,
            track_times=False,  # a date would make two runs differ
        )
        n_rows, n_lines, _ = dataset.chunks
        source = iter(masks)
        for start in range(0, shape[0], n_rows):
            bits = np.stack(list(islice(source, n_rows)))
            # Whole chunks only, or each would be compressed several times; a band of them at a
            # time, because the chunks that h5py guesses for many masks are hundreds of rows deep.
            for top in range(0, shape[1], n_lines):
                band = np.unpackbits(bits[:, top : top + n_lines], axis=2, count=shape[2])
                dataset[start : start + n_rows, top : top + n_lines] = band


def _check_ours(path: Path) -> None:
    """Raise if there is an HDF5 that is no sample: somebody's data."""
    import h5py

    if not path.exists():
        return
    try:
        with h5py.File(path, "r") as file:
            ours = file.attrs.get("generator") == _GENERATOR
    except OSError:
        ours = False
    if not ours:
        raise StoreExists(f"{path} exists and is no sample dataset: give another folder")


def _write_table(path: Path, rows: Iterable[_Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_Row._fields)
        writer.writerows(rows)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a name beside `path`; what is written there takes its place in one step."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _integer(name: str, value: object, least: int) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise InvalidOption(f"{name}={value!r}: must be an integer of at least {least}")
    return int(value)


def _pair(size: object) -> tuple[int, int]:
    if isinstance(size, tuple | list) and len(size) == 2:  # noqa: PLR2004 - height and width
        return _integer("size", size[0], _SMALLEST), _integer("size", size[1], _SMALLEST)
    side = _integer("size", size, _SMALLEST)
    return side, side


def _chunk_shape(chunks: object, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """Return the HDF5 chunk shape; None leaves it to h5py."""
    if chunks == "auto":
        return None
    if chunks == "mask":
        return (1, *shape[1:])
    if not isinstance(chunks, tuple | list) or len(chunks) != len(shape):
        raise InvalidOption(
            f"chunks={chunks!r}: must be 'mask', 'auto' or three numbers for (mask, y, x)"
        )
    n_rows, n_lines, n_columns = (
        min(_integer("chunks", length, 1), limit)
        for length, limit in zip(chunks, shape, strict=True)
    )
    return n_rows, n_lines, n_columns
