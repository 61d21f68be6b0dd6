"""What a store that is changed gives to the new one: entries, encoded masks, columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskcube.boundaries import steps_of
from maskcube.codec import DamagedBytes, checksum, decode_chunk, encode_steps
from maskcube.commit import Origin, commit
from maskcube.encoded import EncodedShard
from maskcube.entry import Entry
from maskcube.errors import CorruptMask, CorruptStore, NotAMaskStore, listed
from maskcube.journal import Journal
from maskcube.layout import Block, Layout
from maskcube.manifest import APPEND, REPAIR, UPDATE
from maskcube.ragged import RunReader
from maskcube.schema import COORDINATES, MASKS, NODES, shard_key
from maskcube.shards import ShardReader
from maskcube.stage import Stage
from maskcube.store import MaskStore, name_of
from maskcube.writer import EncodedMask, encoded_mask, write_shard

__all__ = [
    "check_native",
    "checked_mask",
    "columns_of",
    "encoded_masks",
    "kept_entries",
    "open_base",
    "revised",
    "rewrite",
]


def open_base(stage: Stage) -> MaskStore:
    """Return the store that is changed.

    Raises
    ------
    StoreNotFound, IncompleteStore, NotAMaskStore
        When there is no complete mask store as a conversion writes it.
    """
    base = stage.prepare_revision()
    check_native(base)
    return base


def check_native(store: MaskStore) -> None:
    """Raise unless a store is as a conversion writes it: anything else is not changed.

    Raises
    ------
    NotAMaskStore
        When arrays of it were rewritten by something else.
    """
    rewritten = [name for name in (MASKS, *COORDINATES) if not store.is_native(name)]
    if rewritten:
        raise NotAMaskStore(
            f"{store.location}: {listed(rewritten)} rewritten in other chunks or codecs; only a"
            " store as convert writes it can be changed: convert the source again"
        )


def columns_of(store: MaskStore) -> dict[str, NDArray[Any]]:
    """Return the coordinates of a store that are from the CSV, (mask,) each."""
    return {
        name: store.coordinate(name)
        for name, coordinate in COORDINATES.items()
        if coordinate.column
    }


def kept_entries(store: MaskStore, shards: Iterable[int]) -> dict[int, Entry]:
    """Return the journal's entries of shards that are in a store already.

    Raises
    ------
    CorruptStore
        When the coordinates or the runs that tell it are damaged.
    """
    areas, crcs = store.coordinate("area"), store.coordinate("crc32c")
    known = _KnownSteps(store)
    entries = {}
    for shard in shards:
        rows = store.layout.shard_rows(shard)
        every = slice(rows.start, rows.stop)
        counts = known.counts(rows)
        entries[shard] = Entry(
            piece=store.manifest.shards[shard],
            areas=areas[every].tolist(),
            crcs=crcs[every].tolist(),
            counts=counts,
            steps=(_KeptSteps(known, rows, sum(counts)),),
        )
    return entries


class _KeptSteps(NamedTuple):
    """`Steps` that are read from the store when they are wanted."""

    known: _KnownSteps
    rows: Block
    n_steps: int

    def encoded(self) -> bytes:
        """Return them as `encode_steps` gives them."""
        return encode_steps(self.decoded())

    def decoded(self) -> NDArray[np.int32]:
        """Return them, (n_steps,) int32."""
        return self.known.steps(self.rows)


class _KnownSteps:
    """The steps of a store's masks: as they are stored, or made from the pixels."""

    def __init__(self, store: MaskStore) -> None:
        self._reader = ShardReader(store)
        self._offsets: NDArray[np.int64] | None = None
        # A store that is older than the runs has none.
        if store.manifest.runs is not None:
            with suppress(CorruptStore):
                self._runs = RunReader(store)
                self._chunk = lru_cache(2)(self._runs.chunk)
                self._offsets = self._runs.offsets()

    def counts(self, rows: Block) -> list[int]:
        """Return how many steps each mask of consecutive rows has."""
        if self._offsets is None:
            return [len(steps) for steps in self._made(rows)]
        counts: list[int] = np.diff(self._offsets[rows.start : rows.stop + 1]).tolist()
        return counts

    def steps(self, rows: Block) -> NDArray[np.int32]:
        """Return the steps of consecutive rows, end to end; quick for rows that ascend."""
        if self._offsets is not None:
            first, last = (int(self._offsets[row]) for row in (rows.start, rows.stop))
            with suppress(CorruptStore):
                return self._runs.steps(first, last, self._chunk)
        return np.concatenate(self._made(rows))

    def _made(self, rows: Block) -> list[NDArray[np.int32]]:
        return self._reader.each(steps_of, np.arange(rows.start, rows.stop))


def encoded_masks(
    store: MaskStore, shard: int, changed: dict[int, NDArray[np.uint8]] | None = None
) -> list[EncodedMask]:
    """Return the masks of a shard as they are encoded, those that are changed anew.

    Parameters
    ----------
    store : MaskStore
        The store that is changed.
    shard : int
        Number of the shard.
    changed : dict of int to numpy.ndarray
        New masks, (y, x) uint8, by row.

    Raises
    ------
    CorruptMask
        When one of the others is missing or damaged, or not the one that its checksum says.
    """
    changed = changed or {}
    rows = store.layout.shard_rows(shard)
    crcs = store.coordinate("crc32c")
    masks: list[EncodedMask] = []
    try:
        length = store.manifest.shards[shard].length
        data = store.objects.get(shard_key(shard), 0, length)
        found = EncodedShard.whole(data or b"", store.layout, shard)
        for slot, row in enumerate(range(rows.start, rows.stop)):
            if row in changed:
                masks.append(encoded_mask(changed[row]))
            else:
                masks.append(checked_mask(found.chunk(slot), store.layout, crcs[row]))
    except DamagedBytes as error:
        row = rows.start + len(masks)
        raise CorruptMask(
            f"{store.location}: {name_of(store.objects, row)}: {error};"
            " repair=True of verify mends it",
            [row],
        ) from error
    return masks


def checked_mask(chunk: bytes, layout: Layout, crc32c: int) -> EncodedMask:
    """Return an encoded mask if it is the one that its checksum says; else `DamagedBytes`."""
    pixels = np.empty(layout.shape[1:], np.uint8)
    decode_chunk(chunk, pixels)
    if checksum(pixels) != crc32c:
        raise DamagedBytes("its pixels' crc32c differs")
    return encoded_mask(pixels, chunk)


def rewrite(
    stage: Stage,
    base: MaskStore,
    plan: Mapping[str, Any],
    shards: Mapping[int, Sequence[EncodedMask]],
    change: Mapping[str, Any],
) -> None:
    """Put other masks into some shards of a store, and make it the store.

    Parameters
    ----------
    stage : Stage
        Where the new store is built.
    base : MaskStore
        The store that is changed; all else of it is whole, and stays.
    plan : mapping
        What is done, without where.
    shards : mapping of int to sequence of EncodedMask
        All masks of each shard that is written anew.
    change : mapping
        What is to stand among the revisions.
    """
    others = (shard for shard in range(base.layout.n_shards) if shard not in shards)
    journal = Journal.begin(
        stage,
        {**plan, "layout": asdict(base.layout), "base": base.edition.identity},
        kept=kept_entries(base, others),
    )
    for shard, masks in shards.items():
        write_shard(journal, shard, masks)
    commit(journal, columns_of(base), revised(base, journal.plan, change))
    stage.promote()
    stage.clean()


def revised(base: MaskStore, plan: Mapping[str, Any], change: Mapping[str, Any]) -> Origin:
    """Return the origin of a store with one change more, made by a plan."""
    manifest = base.manifest
    when = {"created": plan["created"], "generator": plan["generator"]}
    what = {
        APPEND: "appended {source[masks][file]} from row {first_row} on",
        UPDATE: "updated mask {row}",
        REPAIR: "repaired shards {shards}",
    }[change["action"]].format(**change)
    attributes = {name: value for name, value in base.attributes.items() if name != "maskcube"}
    line = f"{plan['created']} {plan['generator']}: {what}"
    return Origin(
        generator=manifest.generator,
        created=manifest.created,
        source=manifest.source,
        attributes={**attributes, "history": f"{attributes.get('history', '')}\n{line}".strip()},
        revisions=(*manifest.revisions, {**change, **when}),
        others={
            name: found
            for name, found in base.arrays.items()
            if name.partition("/")[0] not in NODES
        },
    )
