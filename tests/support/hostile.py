"""Stores that lie: what they say of themselves is consistent, and cannot be."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

_BLOCK_BYTES = 2**17


def zstd_bomb(n_bytes: int, first: bytes = b"", *, tells: bool = True) -> bytes:
    """Return a zstd frame of `first` and then zeros, 4 bytes for each 128 KiB (RFC 8878)."""
    window = 7 << 3
    size = n_bytes.to_bytes(8, "little") if tells else b""
    header = b"\x28\xb5\x2f\xfd" + bytes([0xC0 if tells else 0, window]) + size
    blocks = [(len(first) << 3).to_bytes(3, "little") + first] if first else []
    left = n_bytes - len(first)
    sizes = [_BLOCK_BYTES] * (left // _BLOCK_BYTES) + [left % _BLOCK_BYTES]
    blocks += [(size << 3 | 1 << 1).to_bytes(3, "little") + b"\0" for size in sizes[:-1]]
    return header + b"".join(blocks) + (sizes[-1] << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"


def with_crc32c(data: bytes) -> bytes:
    return data + int(google_crc32c.value(data)).to_bytes(4, "little")


def piece(data: bytes) -> list[int]:
    return [len(data), zlib.crc32(data)]


def change_root(store: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Change the block and the arrays' metadata, and all checksums of them with them."""
    root = json.loads((store / "zarr.json").read_text())
    block, arrays = root["attributes"]["maskcube"], root["consolidated_metadata"]["metadata"]
    change(block, arrays)
    for name, metadata in arrays.items():
        own = {key: value for key, value in metadata.items() if key != "consolidated_metadata"}
        block["metadata"][name] = _crc(own)
        if (store / name).is_dir():
            (store / name / "zarr.json").write_text(json.dumps(metadata))
    block.pop("crc32", None)
    root["attributes"]["maskcube"] = {**block, "crc32": f"{_crc(block):08x}"}
    for name in ("zarr.json", "masks/root.json"):
        (store / name).write_text(json.dumps(root))


def _crc(value: object) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def put_coordinate(store: Path, name: str, data: bytes) -> None:
    """Give a coordinate other bytes, which the manifest knows."""
    (store / name / "c" / "0").write_bytes(data)

    def change(block: dict[str, Any], _arrays: dict[str, Any]) -> None:
        block["coordinates"][name] = piece(data)

    change_root(store, change)


def put_shard(store: Path, shard: int, chunks: list[bytes], *, entries: Any = None) -> None:
    """Give a shard of 64 slots other chunks, or other entries of its index."""
    lengths = np.array([len(chunk) for chunk in chunks], np.uint64)
    index = np.full((64, 2), 2**64 - 1, "<u8")
    index[: len(chunks), 0] = np.cumsum(lengths) - lengths
    index[: len(chunks), 1] = lengths
    if entries is not None:
        index[: len(entries)] = entries
    data = b"".join(chunks) + with_crc32c(index.tobytes())
    (store / f"masks/c/{shard}/0/0").write_bytes(data)

    def change(block: dict[str, Any], _arrays: dict[str, Any]) -> None:
        block["shards"][shard] = piece(data)

    change_root(store, change)


def claim_masks(store: Path, n_masks: int, *, shard_masks: int = 64) -> None:
    """Say that there are so many masks, everywhere."""

    def change(block: dict[str, Any], arrays: dict[str, Any]) -> None:
        block["layout"] |= {"n_masks": n_masks, "shard_masks": shard_masks}
        block["counts"]["masks"] = n_masks
        block["source"]["metadata"]["order"] = None
        block["shards"] = [[100, 1]] * min(10**6, math.ceil(n_masks / shard_masks))
        for name, metadata in arrays.items():
            if metadata["node_type"] == "array" and not name.startswith("runs"):
                metadata["shape"][0] = n_masks
                if name != "masks":
                    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [n_masks]
        grid = arrays["masks"]["chunk_grid"]["configuration"]["chunk_shape"]
        grid[0] = shard_masks

    change_root(store, change)
