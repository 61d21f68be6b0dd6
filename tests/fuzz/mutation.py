"""Good bytes changed at random, where no coverage-guided fuzzer is installed."""

from __future__ import annotations

import random
from collections.abc import Sequence

__all__ = ["mutated"]

_MOST_CHANGES = 4
_WIDTHS = (1, 2, 4, 8)
_ODD = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1]
_ODD += [2**63 - 1, 2**63, 2**64 - 1]
_WORDS = [b'"', b",", b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"null", b"-1", b"1e999", b"{"]
_WORDS += [b"[", b'"', b"../", b"NaN", b"9" * 40]


def mutated(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """Return one of some seeds with a few changes."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, _MOST_CHANGES)):
        _change(data, seeds, chance)
    return bytes(data)


def _change(data: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    place = chance.randrange(len(data) + 1)
    kind = chance.randrange(8)
    if kind in (0, 1) and place < len(data):
        data[place] ^= 1 << chance.randrange(8)
    elif kind == 2 and place < len(data):
        data[place] = chance.randrange(256)
    elif kind == 3:
        width = chance.choice(_WIDTHS)
        value = chance.choice(_ODD) % 2 ** (8 * width)
        number = value.to_bytes(width, "little")
        data[place : place + width] = number if chance.random() < 0.5 else number[::-1]
    elif kind == 4:
        data[place:place] = chance.choice(_WORDS)
    elif kind == 5:
        del data[place : place + chance.randint(1, 64)]
    elif kind == 6:
        other = chance.choice(seeds)
        start = chance.randrange(len(other) + 1)
        data[place : place + 16] = other[start : start + chance.randint(1, 64)]
    elif kind == 7 and chance.random() < 0.2:
        del data[place:]
