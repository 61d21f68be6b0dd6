"""HDF5's filters undone without the HDF5 library: as the library does, and never more or less."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskcube.filters import InflateError, fletcher32, most_stored_bytes, undo

CODES = {"gzip": 1, "shuffle": 2, "fletcher32": 3, "lzf": 32000}
PARAMETERS = {"gzip": (4,), "lzf": (4, 261, 0)}
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def stored(pixels: Pixels, filters: Sequence[str]) -> tuple[int, bytes]:
    """Return filter mask and bytes of a chunk as the HDF5 library writes it."""
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk(pixels.shape)
    for name in filters:
        created.set_filter(CODES[name], h5py.h5z.FLAG_OPTIONAL, PARAMETERS.get(name, ()))
    with h5py.File("memory.h5", "w", driver="core", backing_store=False) as file:
        space = h5py.h5s.create_simple(pixels.shape)
        dataset = h5py.h5d.create(file.id, b"m", h5py.h5t.STD_U8LE, space, created)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, pixels)
        found: tuple[int, bytes] = dataset.read_direct_chunk((0,) * pixels.ndim)
    return found


def undone(data: bytes, applied: Sequence[str], n_bytes: int) -> bytes:
    out = np.full(n_bytes, 0x55, np.uint8)
    undo(data, applied, out)
    return out.tobytes()


KINDS: dict[str, Callable[[int], Pixels]] = {
    "zeros": lambda n: np.zeros(n, np.uint8),
    "full": lambda n: np.full(n, 255, np.uint8),
    "noise": lambda n: np.random.default_rng(n).integers(0, 256, n, np.uint8),
    "mask": lambda n: (np.arange(n) // 37 % 3 == 0).astype(np.uint8),
    "period": lambda n: np.resize(np.arange(5, dtype=np.uint8), n),
}


@pytest.mark.parametrize("n_bytes", [1, 2, 3, 263, 719, 32767, 32768, 32769, 100_001])
@pytest.mark.parametrize("kind", KINDS)
def test_fletcher32_is_that_of_hdf5(kind: str, n_bytes: int) -> None:
    pixels = KINDS[kind](n_bytes)
    _, data = stored(pixels, ["fletcher32"])
    assert fletcher32(pixels.tobytes()).to_bytes(4, "little") == data[-4:]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "filters",
    [
        *[[], ["gzip"], ["lzf"], ["fletcher32"], ["shuffle"]],
        *[["shuffle", "gzip"], ["shuffle", "gzip", "fletcher32"], ["fletcher32", "gzip"]],
        *[["fletcher32", "shuffle", "lzf"], ["lzf", "fletcher32"], ["gzip", "shuffle"]],
    ],
    ids=str,
)
def test_what_the_library_writes_in_any_order(kind: str, filters: list[str]) -> None:
    for n_bytes in (1, 7, 500, 70_000):
        pixels = KINDS[kind](n_bytes)
        skipped, data = stored(pixels, filters)
        applied = [name for bit, name in enumerate(filters) if not skipped >> bit & 1]
        assert undone(data, applied, n_bytes) == pixels.tobytes()
        assert len(data) <= most_stored_bytes(n_bytes)


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=60), st.integers(0, 99))
def test_lzf_of_anything_that_repeats(pieces: list[bytes], seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    text = b"".join(chance.choice(pieces) * chance.randint(1, 30) for _ in range(30))
    skipped, data = stored(np.frombuffer(text, np.uint8), ["lzf"])
    assert undone(data, [] if skipped else ["lzf"], len(text)) == text


ZEROS = bytes(323)
WITH_SUM = ZEROS + fletcher32(ZEROS).to_bytes(4, "little")
LZF = stored(np.zeros(323, np.uint8), ["lzf"])[1]

CRAFTED: dict[str, tuple[bytes, list[str], str]] = {
    "nothing": (b"", [], "holds 0 bytes, not 323"),
    "short": (bytes(322), ["shuffle"], "holds 322 bytes, not 323"),
    "long": (bytes(324), [], "holds 324 bytes, not 323"),
    "gzip, nothing": (b"", ["gzip"], "inflate"),
    "gzip, short": (zlib.compress(ZEROS[1:]), ["gzip"], "inflates to 322 bytes, not 323"),
    "gzip, long": (zlib.compress(ZEROS + b"0"), ["gzip"], "does not inflate"),
    "gzip, a bomb": (zlib.compress(bytes(10**8)), ["gzip"], "does not inflate"),
    "gzip, cut": (zlib.compress(ZEROS)[:-6], ["gzip"], "inflate"),
    "gzip, bomb behind a sum": (zlib.compress(bytes(10**8)), ["fletcher32", "gzip"], "inflate"),
    "gzip, no sum in it": (zlib.compress(ZEROS), ["fletcher32", "gzip"], "323 bytes, not 327"),
    "gzip, wrong sum in it": (
        zlib.compress(ZEROS + b"\1\0\0\0"),
        ["fletcher32", "gzip"],
        "another fletcher32",
    ),
    "fletcher32, nothing": (b"", ["fletcher32"], "another fletcher32 checksum"),
    "fletcher32, three bytes": (b"\0\0\0", ["fletcher32"], "another fletcher32 checksum"),
    "fletcher32, short": (bytes(322 + 4), ["fletcher32"], "holds 322 bytes, not 323"),
    "fletcher32, a byte": (b"\1" + WITH_SUM[1:], ["fletcher32"], "another fletcher32 checksum"),
    "fletcher32, turned": (WITH_SUM[::-1] + b"\0", ["fletcher32"], "holds 324 bytes, not 323"),
    "lzf, nothing": (b"", ["lzf"], "expands to 0 bytes, not 323"),
    "lzf, cut": (LZF[:-1], ["lzf"], "expand"),
    "lzf, half": (LZF[: len(LZF) // 2 + 1], ["lzf"], "expand"),
    "lzf, cut literals": (b"\x1fabc", ["lzf"], "expands to 3 bytes, not 323"),
    "lzf, more": (LZF + b"\0a", ["lzf"], "expands to more than 323 bytes"),
    "lzf, a bomb": (b"\0a" + b"\xe0\xff\0" * 10**6, ["lzf"], "expands to more than 323 bytes"),
    "lzf, before the beginning": (b"\0a\x20\1", ["lzf"], "copies from before its beginning"),
    "lzf, no length": (b"\0a\xe0", ["lzf"], "it ends within a copy"),
    "lzf, no distance": (b"\0a\x20", ["lzf"], "it ends within a copy"),
}


@pytest.mark.parametrize(("data", "applied", "found"), CRAFTED.values(), ids=CRAFTED)
def test_what_is_not_the_pixels(data: bytes, applied: list[str], found: str) -> None:
    with pytest.raises(InflateError, match=found):
        undone(data, applied, 323)


def test_a_literal_that_is_cut_at_the_very_end_is_seen() -> None:
    """The stream promises 32 bytes, has 31, and 31 are wanted."""
    with pytest.raises(InflateError, match="expands to 31 bytes, not 32"):
        undone(b"\x1f" + b"a" * 31, ["lzf"], 32)
    with pytest.raises(InflateError):
        undone(b"\x1f" + b"a" * 31, ["lzf"], 31)


@pytest.mark.parametrize("name", ["fletcher32", "gzip"])
def test_a_flipped_bit_never_gives_other_bytes(name: str) -> None:
    pixels = KINDS["mask"](20_000)
    _, data = stored(pixels, [name])
    rng = np.random.default_rng(1)
    refused = 0
    for place in rng.integers(0, len(data), 300):
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        try:
            assert undone(bytes(changed), [name], len(pixels)) == pixels.tobytes()
        except InflateError:
            refused += 1
    assert refused > 200
