"""What the journal keeps of a finished shard."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from maskcube.codec import EncodedSteps, Steps, decode_steps
from maskcube.manifest import Piece

__all__ = ["Entry"]


class Entry(NamedTuple):
    """A finished shard, and what was found in its masks."""

    piece: Piece
    """Size and checksum of the shard's bytes."""
    areas: list[int]
    """Pixels that are 1, for each of its masks."""
    crcs: list[int]
    """CRC-32C of the pixels, for each of its masks."""
    counts: list[int]
    """Boundaries of runs, for each of its masks."""
    steps: tuple[Steps, ...]
    """The boundaries of all its masks: their steps, in as many parts as were encoded."""

    def to_json(self, plan: str) -> dict[str, Any]:
        """Return the same as plain JSON types, with the plan it is of, and a checksum."""
        steps = [(part.n_steps, base64.b64encode(part.encoded()).decode()) for part in self.steps]
        record = {**self._asdict(), "steps": steps, "plan": plan}
        return {**record, "crc32": zlib.crc32(_bytes(record))}

    @classmethod
    def from_json(cls, found: dict[str, Any], plan: str) -> Entry:
        """Return an entry as it was written; KeyError, TypeError or ValueError if it was not."""
        written = found.pop("crc32")
        if zlib.crc32(_bytes(found)) != written:
            raise ValueError("its checksum differs")
        if found["plan"] != plan:
            raise ValueError("it is of another plan")
        return cls(
            Piece(*found["piece"]),
            list(found["areas"]),
            list(found["crcs"]),
            list(found["counts"]),
            tuple(
                EncodedSteps(n_steps, base64.b64decode(data, validate=True))
                for n_steps, data in found["steps"]
            ),
        )

    def fits(self, n_masks: int, mask_bytes: int) -> bool:
        """Whether it can be that of so many masks of this size; DamagedBytes if it is damaged."""
        each = (self.areas, mask_bytes), (self.crcs, 2**32 - 1), (self.counts, mask_bytes + 1)
        n_steps = [part.n_steps for part in self.steps]
        if (
            not all(len(values) == n_masks and _are_counts(values, most) for values, most in each)
            or not _are_counts(n_steps, sum(self.counts))
            or sum(n_steps) != sum(self.counts)
        ):
            return False
        for part in self.steps:
            decode_steps(part.encoded(), np.empty(part.n_steps, np.int32))
        return True


def _are_counts(values: Iterable[object], most: int) -> bool:
    return all(type(value) is int and 0 <= value <= most for value in values)


def _bytes(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
