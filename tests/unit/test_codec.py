"""One mask, one shard: what plain zarr would write, and what damage looks like."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from numcodecs.zstd import Zstd
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from maskcube.codec import (
    DamagedBytes,
    checksum,
    decode_chunk,
    encode_mask,
    index_bytes,
    pack_shard,
    unpack_index,
)


@pytest.fixture
def masks(rng: np.random.Generator) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    return (rng.random((5, 30, 40)) < 0.3).astype(np.uint8)


def _with_crc(frame: bytes) -> bytes:
    return frame + checksum(frame).to_bytes(4, "little")


def test_a_shard_is_byte_for_byte_what_zarr_writes(
    masks: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]],
) -> None:
    written: dict[str, Buffer] = {}
    array = zarr.create_array(
        MemoryStore(store_dict=written),
        shape=masks.shape,
        dtype="uint8",
        chunks=(1, 30, 40),
        shards=(8, 30, 40),
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        config={"write_empty_chunks": True},
    )
    array[:] = masks
    theirs = written["c/0/0/0"].to_bytes()
    ours = pack_shard([encode_mask(mask) for mask in masks], 8)
    # zarr may place the chunks in another order, so the index differs; the chunks do not.
    assert len(ours) == len(theirs)
    for data in (ours, theirs):
        index = unpack_index(data[-index_bytes(8) :], 5, len(data) - index_bytes(8))
        for mask, (offset, length) in zip(masks, index, strict=True):
            assert data[offset : offset + length] == encode_mask(mask)


def test_a_mask_comes_back(masks: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]) -> None:
    for mask in [*masks, np.zeros((30, 40), np.uint8), np.ones((30, 40), np.uint8)]:
        out = np.full((30, 40), 9, np.uint8)
        decode_chunk(encode_mask(mask), out)
        np.testing.assert_array_equal(out, mask)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 65_791, 65_792, 70_000])
def test_every_width_of_the_size_field_is_understood(size: int) -> None:
    """The decoded size is written in 1, 2 or 4 bytes, from 256 on with an offset."""
    out = np.empty(size, np.uint8)
    decode_chunk(encode_mask(np.ones(size, np.uint8)), out)
    assert out.all()


@pytest.mark.parametrize("size", [1199, 1201, 0])
def test_a_chunk_of_another_size_is_damage(size: int) -> None:
    """Shorter ones would leave the rest of the array as it was."""
    data = encode_mask(np.ones(size, np.uint8))
    with pytest.raises(DamagedBytes, match=f"decodes to {size} bytes, expected 1,200"):
        decode_chunk(data, np.empty((30, 40), np.uint8))


def test_every_flipped_bit_is_damage() -> None:
    data = encode_mask(np.ones((30, 40), np.uint8))
    for position in range(len(data)):
        for bit in range(8):
            bad = bytearray(data)
            bad[position] ^= 1 << bit
            with pytest.raises(DamagedBytes):
                decode_chunk(bytes(bad), np.empty((30, 40), np.uint8))


@pytest.mark.parametrize(
    "frame",
    [b"", b"\x28", b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfd\xa0", b"not zstd at all"],
    ids=["empty", "one byte", "magic", "cut header", "text"],
)
def test_what_is_no_frame_is_damage_even_with_a_right_checksum(frame: bytes) -> None:
    with pytest.raises(DamagedBytes):
        decode_chunk(_with_crc(frame), np.empty(4, np.uint8))


def test_two_frames_in_one_chunk_are_damage() -> None:
    frame = bytes(Zstd(level=3).encode(np.ones(10, np.uint8)))
    with pytest.raises(DamagedBytes):
        decode_chunk(_with_crc(frame + frame), np.empty(10, np.uint8))


def test_a_declared_terabyte_is_refused_before_it_is_allocated() -> None:
    header = b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + (2**40).to_bytes(8, "little")
    with pytest.raises(DamagedBytes, match="1099511627776"):
        decode_chunk(_with_crc(header), np.empty(10, np.uint8))


def _index(*entries: tuple[int, int]) -> bytes:
    return _with_crc(np.array(entries, "<u8").tobytes())


ABSENT = (2**64 - 1, 2**64 - 1)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (_index((0, 10), ABSENT), "absent"),
        (_index((0, 10), (95, 6)), "outside"),
        (_index((0, 10), (101, 0)), "outside"),
        (_index((0, 10), (2**64 - 2, 10)), "outside"),
        (_index((0, 10)), "absent"),
        (_index((0, 10), (10, 10))[:-1] + b"\0", "crc32c"),
        (b"", "crc32c"),
    ],
)
def test_an_index_that_cannot_be_right_is_damage(data: bytes, found: str) -> None:
    with pytest.raises(DamagedBytes, match=found):
        unpack_index(data, 2, 100)


def test_slots_after_the_last_mask_are_absent() -> None:
    shard = pack_shard([b"abc", b"de"], 4)
    index = np.frombuffer(shard[-index_bytes(4) : -4], "<u8").reshape(4, 2)
    assert index.tolist() == [[0, 3], [3, 2], list(ABSENT), list(ABSENT)]
    assert unpack_index(shard[-index_bytes(4) :], 2, 5) == [(0, 3), (3, 2)]
