"""Which shards of a conversion are finished, so that it can be resumed.

The plan is written first: what is converted, and how. Then, after each shard, an entry with the
shard's size and checksum and with the area, the CRC-32C and the runs of its masks. An unfinished
conversion with the same plan is continued, with another plan refused.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from maskcube.errors import CorruptStore, StoreExists
from maskcube.layout import Layout
from maskcube.manifest import Piece
from maskcube.objects import WORK, Objects
from maskcube.schema import shard_key
from maskcube.stage import PLAN, Stage

__all__ = ["Entry", "Journal", "progress_of"]

_ENTRIES = f"{WORK}/shards"


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
    steps: bytes
    """The boundaries of all its masks: their steps, encoded."""

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain JSON types, with a checksum."""
        record = {**self._asdict(), "steps": base64.b64encode(self.steps).decode()}
        return {**record, "crc32": zlib.crc32(_to_json(record))}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Entry:
        """Return an entry as it was written; KeyError, TypeError or ValueError if it was not."""
        written = found.pop("crc32")
        if zlib.crc32(_to_json(found)) != written:
            raise ValueError("its checksum differs")
        return cls(
            Piece(*found["piece"]),
            found["areas"],
            found["crcs"],
            found["counts"],
            base64.b64decode(found["steps"], validate=True),
        )


class Journal:
    """The plan of a conversion and the shards that are finished.

    Parameters
    ----------
    objects : Objects
        Where the store is being built.
    plan : dict
        What is converted, and how.
    """

    def __init__(self, objects: Objects, plan: dict[str, Any]) -> None:
        self.objects = objects
        self.plan = plan
        self.layout = Layout(**plan["layout"])

    @classmethod
    def begin(cls, stage: Stage, plan: dict[str, Any], *, anew: bool) -> Journal:
        """Write the plan, or continue the unfinished conversion that has the same one.

        Parameters
        ----------
        stage : Stage
            Where the store is built.
        plan : dict
            What is converted, and how. ``created`` may differ: the earlier one is kept.
        anew : bool
            Discard an unfinished conversion that has another plan.

        Raises
        ------
        StoreExists
            When a conversion with another plan is unfinished there and `anew` is false.
        """
        # As it will be read back: the order of names must not tell a resumed run from a whole one.
        plan = json.loads(_to_json(plan))
        stage.prepare()
        begun = _read_json(stage.objects, PLAN)
        other = [name for name in plan if begun and plan[name] != begun.get(name)]
        if begun and not set(other) - {"created"}:
            return cls(stage.objects, begun)
        if begun and not anew:
            differs = " and ".join(sorted(set(other) - {"created"}))
            raise StoreExists(
                f"{stage.location}: an unfinished conversion with another {differs} is there;"
                " finish that one, or start anew with overwrite=True"
            )
        if begun:
            stage.discard()
        stage.objects.put(PLAN, _to_json(plan))
        return cls(stage.objects, plan)

    def record(self, shard: int, entry: Entry) -> None:
        """Write down that a shard is finished."""
        self.objects.put(f"{_ENTRIES}/{shard}.json", _to_json(entry.to_json()))

    def finished(self) -> dict[int, Entry]:
        """Return the finished shards whose bytes are there in the recorded size."""
        entries = {}
        for shard in range(self.layout.n_shards):
            found = _read_json(self.objects, f"{_ENTRIES}/{shard}.json")
            if found is None:
                continue
            try:
                entry = Entry.from_json(found)
            except (KeyError, TypeError, ValueError):
                continue
            whole = self.objects.size(shard_key(shard)) == entry.piece.length
            if whole and len(entry.counts) == len(self.layout.shard_rows(shard)):
                entries[shard] = entry
        return entries

    def read_back(self) -> Iterator[Entry]:
        """Yield every shard's entry in order, after comparing the shard's bytes with it.

        Raises
        ------
        CorruptStore
            When a shard is not as it was written.
        """
        entries = self.finished()
        for shard in range(self.layout.n_shards):
            data = self.objects.get(shard_key(shard))
            entry = entries.get(shard)
            if data is None or entry is None or Piece.of(data) != entry.piece:
                self.objects.delete(f"{_ENTRIES}/{shard}.json")
                raise CorruptStore(
                    f"{self.objects.location}: shard {shard} does not read back as it was written;"
                    " run the same conversion again"
                )
            yield entry


def progress_of(objects: Objects) -> tuple[int, int] | None:
    """Return (finished, all) shards of an unfinished conversion; None when there is none."""
    plan = _read_json(objects, PLAN)
    if plan is None:
        return None
    try:
        n_shards = Layout(**plan["layout"]).n_shards
    except (KeyError, TypeError, ZeroDivisionError):
        return None
    return sum(1 for _ in objects.keys(_ENTRIES)), n_shards


def _to_json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _read_json(objects: Objects, key: str) -> dict[str, Any] | None:
    """Return a JSON object; None when it is not there or was cut off in writing."""
    data = objects.get(key)
    try:
        value = json.loads(data) if data else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
