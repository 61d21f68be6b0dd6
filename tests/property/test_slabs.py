"""Masks of a source, however its chunks are laid out and whatever lies outside of the masks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskcube.hdf5 import MaskFile
from maskcube.layout import Block, blocks
from maskcube.slabs import (
    DeflatedSlab,
    PackedSlab,
    PlainSlab,
    StrayPixels,
    held_bytes,
    open_slab,
)


def write(path: Path, masks: np.ndarray[Any, Any], chunks: tuple[int, ...], **storage: Any) -> Path:
    storage = {"compression": "gzip", "shuffle": True} | storage
    with h5py.File(path, "w") as file:
        file.create_dataset("masks", data=masks, chunks=chunks, **storage)
    return path


@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 20), st.integers(1, 70)),
    rows=st.integers(1, 30),
    packed=st.booleans(),
    normalize=st.booleans(),
    data=st.data(),
)
def test_any_layout_gives_the_masks(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    shape: tuple[int, int, int],
    rows: int,
    packed: bool,
    normalize: bool,
    data: st.DataObject,
) -> None:
    n_masks, height, width = shape
    widths = [each for each in (8, 16, 24, 32, 64) if each <= width] if packed else []
    chunks = (
        data.draw(st.integers(1, n_masks)),
        data.draw(st.integers(1, height)),
        data.draw(st.sampled_from(widths) if widths else st.integers(1, width)),
    )
    pixels = np.random.default_rng(n_masks).integers(0, 5 if normalize else 2, shape, np.uint8)
    file = MaskFile(write(tmp_path_factory.mktemp("h5") / "m.h5", pixels, chunks))
    slab = open_slab(file, rows, normalize=normalize)
    with ThreadPoolExecutor(2) as pool:
        for block in blocks(0, n_masks, rows):
            slab.load(block, pool)
            found = list(
                pool.map(lambda row: slab.mask(row).copy(), range(block.start, block.stop))
            )
            expected = np.minimum(pixels[block.start : block.stop], 1)
            np.testing.assert_array_equal(found, expected)
    file.close()


@pytest.mark.parametrize(
    ("chunks", "storage", "kind", "held"),
    [
        ((1, 40, 50), {}, DeflatedSlab, 2000),
        ((1, 40, 50), {"compression": "lzf", "shuffle": False}, DeflatedSlab, 2000),
        ((1, 40, 50), {"compression": None, "fletcher32": True}, DeflatedSlab, 2000),
        ((5, 7, 16), {"compression": "lzf", "fletcher32": True}, PackedSlab, 40 * 4 * 2),
        ((5, 7, 16), {}, PackedSlab, 40 * 4 * 2),
        ((5, 7, 15), {}, PlainSlab, 2000),
    ],
)
def test_the_cheapest_form(
    tmp_path: Path, chunks: Any, storage: dict[str, Any], kind: type, held: int
) -> None:
    file = MaskFile(write(tmp_path / "m.h5", np.ones((12, 40, 50), np.uint8), chunks, **storage))
    assert type(open_slab(file, 4, normalize=False)) is kind
    assert held_bytes(file) == held


@pytest.mark.parametrize("chunks", [(1, 10, 20), (4, 10, 8), (4, 7, 5)], ids=str)
def test_a_stray_pixel_is_told_or_normalized(tmp_path: Path, chunks: Any) -> None:
    pixels = np.zeros((9, 10, 20), np.uint8)
    pixels[8, 9, 19] = 2
    file = MaskFile(write(tmp_path / "m.h5", pixels, chunks))
    block = Block(0, 9)
    with ThreadPoolExecutor(2) as pool:
        strict = open_slab(file, 9, normalize=False)
        with pytest.raises(StrayPixels):  # noqa: PT012 - at the latest when the mask is wanted
            strict.load(block, pool)
            strict.mask(8)
        tolerant = open_slab(file, 9, normalize=True)
        tolerant.load(block, pool)
        np.testing.assert_array_equal(tolerant.mask(8), pixels[8] > 0)


def test_what_lies_in_a_chunk_beyond_the_masks_means_nothing(tmp_path: Path) -> None:
    """The last chunks of a line stick out, and HDF5 may keep anything there."""
    path = write(tmp_path / "m.h5", np.zeros((3, 5, 12), np.uint8), (2, 4, 8), compression=None)
    with h5py.File(path, "r+") as file:
        inside = np.zeros((2, 4, 8), np.uint8)
        inside[1:], inside[:, 1:], inside[:, :, 4:] = 9, 9, 9
        file["masks"].id.write_direct_chunk((2, 4, 8), inside.tobytes())
    slab = open_slab(MaskFile(path), 3, normalize=False)
    assert isinstance(slab, PackedSlab)
    with ThreadPoolExecutor(1) as pool:
        slab.load(Block(0, 3), pool)
    assert not any(slab.mask(row).any() for row in range(3))
