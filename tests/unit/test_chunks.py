"""Chunks inflated outside of the HDF5 library: what it reads, and what it would not notice."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskcube.errors import SourceError
from maskcube.hdf5 import MaskFile
from maskcube.layout import Block

SHAPE = (23, 17, 19)


def write(path: Path, masks: np.ndarray[Any, Any], chunks: tuple[int, ...], **storage: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "masks", data=masks, chunks=chunks, **{"compression": "gzip", **storage}
        )
    return path


@pytest.fixture
def masks(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    return (rng.random(SHAPE) < 0.3).astype(np.uint8)


@given(
    chunks=st.tuples(*(st.integers(1, size) for size in SHAPE)),
    rows=st.tuples(st.integers(0, 22), st.integers(1, 23)),
    shuffle=st.booleans(),
    threads=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_block_of_any_layout(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    chunks: tuple[int, int, int],
    rows: tuple[int, int],
    shuffle: bool,
    threads: bool,
    seed: int,
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)
    path = write(tmp_path_factory.mktemp("h5") / "m.h5", pixels, chunks, shuffle=shuffle)
    block = Block(rows[0], min(rows[0] + rows[1], 23))
    out = np.full((len(block), *SHAPE[1:]), 99, np.uint8)
    file = MaskFile(path)
    with ThreadPoolExecutor(2) as pool:
        file.read(block, out, pool if threads else None)
    file.close()
    np.testing.assert_array_equal(out, pixels[block.start : block.stop])


def test_a_chunk_that_was_not_worth_deflating(tmp_path: Path) -> None:
    """HDF5 may store it as it is and say so in the chunk's filter mask."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 9, 9), np.uint8)
    path = write(tmp_path / "m.h5", pixels, (1, 9, 9), shuffle=True)
    with h5py.File(path, "r+") as file:
        file["masks"].id.write_direct_chunk((2, 0, 0), pixels[2].tobytes(), filter_mask=0b10)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["masks"], pixels)
    np.testing.assert_array_equal(MaskFile(path).read_rows(np.arange(4)), pixels)


BODY = 17 * 19
CRAFTED: dict[str, tuple[bytes, int, str]] = {
    "too short": (zlib.compress(bytes(10)), 0, "inflates to 10 bytes, not 323"),
    "too long": (zlib.compress(bytes(BODY + 1)), 0, "does not inflate"),
    "a bomb": (zlib.compress(bytes(1_000_000)), 0, "does not inflate"),
    "cut": (zlib.compress(bytes(BODY))[:-5], 0, "inflate"),
    "another checksum": (zlib.compress(bytes(BODY))[:-1] + b"x", 0, "does not inflate"),
    "no deflate": (b"nothing of the kind", 0, "does not inflate"),
    "empty, stored as it is": (bytes(5), 1, "holds 5 bytes, not 323"),
}


@pytest.mark.parametrize("crafted", CRAFTED.values(), ids=CRAFTED)
def test_a_chunk_that_is_not_its_pixels(
    tmp_path: Path, masks: np.ndarray[Any, Any], crafted: tuple[bytes, int, str]
) -> None:
    data, skipped, found = crafted
    path = write(tmp_path / "m.h5", masks, (1, 17, 19))
    with h5py.File(path, "r+") as file:
        file["masks"].id.write_direct_chunk((11, 0, 0), data, filter_mask=skipped)
    file = MaskFile(path)
    np.testing.assert_array_equal(file.read_rows(np.array([10, 12])), masks[[10, 12]])
    with pytest.raises(
        SourceError, match=rf"mask 11 cannot be read: the chunk at \(11, 0, 0\) .*{found}"
    ):
        file.read_rows(np.array([11]))
