"""Which shards of a store are finished, so that writing it can be resumed.

The plan is written first: what is converted or changed, and how. Then, after each shard, an entry
with the shard's size and checksum and with the area, the CRC-32C and the runs of its masks. An
unfinished run with the same plan is continued, with another plan refused.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

from maskcube.entry import Entry
from maskcube.errors import CorruptStore, MaskcubeError, StoreExists
from maskcube.layout import Layout, blocks
from maskcube.manifest import APPEND, CONVERT, REPAIR, UPDATE
from maskcube.objects import ATTEMPTS, ENTRIES, PLAN, Objects, get_at_most, is_piece
from maskcube.root import MOST_METADATA_BYTES, parsed_metadata
from maskcube.schema import ROOT, shard_key
from maskcube.stage import Stage
from maskcube.store import MaskStore
from maskcube.threads import spread

__all__ = ["Journal"]

_MOST_JSON_BYTES = 2**30
"""Of an entry: that of 64 masks of noise is some 100 MB."""

_INCIDENTAL = {"created", "base", "layout"}
"""What the plan of a finished change may differ in: done again, it would begin where it ended."""


class Journal:
    """The plan of what is written, and the shards that are finished.

    Parameters
    ----------
    objects : Objects
        Where the store is being built.
    plan : dict
        What is converted or changed, and how.
    location : str
        Where it will be, for messages.
    kept : mapping of int to Entry
        Shards that stay as they are in the store that is changed.
    """

    def __init__(
        self,
        objects: Objects,
        plan: dict[str, Any],
        location: str,
        kept: Mapping[int, Entry] | None = None,
    ) -> None:
        self.objects = objects
        self.plan = plan
        self.location = location
        self.layout = Layout(**plan["layout"])
        self._kept = kept or {}

    def __getstate__(self) -> dict[str, Any]:
        # Whoever writes shards elsewhere need not know those that stay, nor the order of the CSV:
        # both may be large, and go with every task.
        return {**self.__dict__, "_digest": self._digest, "_kept": {}, "plan": {}}

    @property
    def kept(self) -> Collection[int]:
        """The shards that stay as they are in the store that is changed."""
        return self._kept.keys()

    @classmethod
    def begin(
        cls,
        stage: Stage,
        plan: dict[str, Any],
        *,
        anew: bool = False,
        kept: Mapping[int, Entry] | None = None,
    ) -> Journal:
        """Write the plan, or continue the unfinished run that has the same one.

        Parameters
        ----------
        stage : Stage
            Where the store is built, prepared.
        plan : dict
            What is converted or changed, and how. ``created`` may differ: the earlier one is kept.
        anew : bool
            Discard an unfinished run that has another plan.
        kept : mapping of int to Entry
            Shards of the stage's base that stay as they are.

        Raises
        ------
        StoreExists
            When a run with another plan is unfinished there and `anew` is false, or another
            process has been faster.
        """
        plan = _as_read(plan)
        begun = _begun(stage.objects)
        if begun is not None:
            differs = _differing(plan, begun) - {"created"}
            # Nobody can end the change of a store that is not there any more, and an update or a
            # repair takes no longer from its beginning.
            is_vain = begun.get("action") in {None, UPDATE, REPAIR} or begun.get(
                "base", plan.get("base")
            ) != plan.get("base")
            if differs and not anew and not is_vain:
                raise StoreExists(f"{stage.location}: {_in_the_way(plan, begun, differs, stage)}")
            if differs:
                stage.discard()
                begun = None
        if begun is None:
            begun = plan
            if not stage.objects.create(PLAN, _to_json(plan)):
                begun = _begun(stage.objects)
                if begun is None or _differing(plan, begun) - {"created"}:
                    raise StoreExists(
                        f"{stage.location}: another process has just begun to write it"
                    )
            elif "base" not in plan and stage.objects.size(ROOT) is not None:
                # Since this one has looked at the place, another one has begun and finished.
                stage.objects.delete(PLAN)
                raise StoreExists(f"{stage.location}: another process has just written it")
        for shard in kept or {}:
            stage.keep(shard_key(shard))
        return cls(stage.objects, begun, stage.location, kept)

    @staticmethod
    def is_of(stage: Stage, plan: dict[str, Any]) -> bool:
        """Whether what has just taken its place was written by this plan."""
        begun = _begun(stage.place) or {}
        if _differing(_as_read(plan), begun) - _INCIDENTAL:
            return False
        # A plan that was never carried out may lie beside a store that was changed otherwise.
        return _last_change(MaskStore(stage.place)) == _change_of(begun)

    @contextmanager
    def shared(self, stage: Stage) -> Iterator[None]:
        """Let it be no error that another process has finished the same run meanwhile.

        Whoever is slower finds his plan gone, and with it what he has written: then the store that
        is there tells whether it is of this plan.
        """
        try:
            yield
        except (StoreExists, CorruptStore):
            if _begun(self.objects) is not None or not self._is_done(stage):
                raise
            # What was written since then is of no use.
            stage.clean()

    def _is_done(self, stage: Stage) -> bool:
        with suppress(MaskcubeError):
            return _last_change(MaskStore(stage.place)) == _change_of(self.plan)
        return False

    def write(self, shard: int, data: bytes, entry: Entry) -> None:
        """Write a shard, and down that it is finished.

        Raises
        ------
        StoreExists
            When somebody else, with another plan, is writing to the same place by now.
        """
        self.check_is_ours()
        self.put(shard_key(shard), data)
        self.put(_entry_key(shard), _to_json(entry.to_json(self._digest)))

    def write_root(self, data: bytes) -> None:
        """Write the root metadata, which makes it a store; raises as `write` does."""
        self.check_is_ours()
        self.put(ROOT, data)
        # What was staged is nobody's if the plan was given up just now.
        self.check_is_ours()

    def put(self, key: str, data: bytes) -> None:
        """Write an object; raises as `write` does, rather than replace what is another's."""
        # What is there already is the same, of a run that was interrupted, or a part of it, or of
        # somebody whose plan was discarded and who does not know it yet.
        if not self.objects.create(key, data):
            self.check_is_ours()
            self.objects.put(key, data)

    def check_is_ours(self) -> None:
        """Raise unless what is written here is what this journal's plan says.

        Raises
        ------
        StoreExists
            When it is not.
        """
        # One from afar that is another one may have been damaged on its way.
        for _ in range(1 if self.objects.has_cheap_ranges else ATTEMPTS):
            found = get_at_most(self.objects, PLAN, MOST_METADATA_BYTES)
            if found is None:
                told = "another process has finished it or given it up, or what is there cannot be"
                told += f" seen from {socket.gethostname()}"
                raise StoreExists(f"{self.location}: its plan is gone: {told}")
            # It is looked at before each shard: as it was written, it need not be parsed.
            is_same = hashlib.sha256(found).hexdigest() == self._digest
            if is_same or _digest(parsed_metadata(found)) == self._digest:
                return
        raise StoreExists(f"{self.location}: another process has begun to write it meanwhile")

    @cached_property
    def _digest(self) -> str:
        return _digest(self.plan)

    def finished(self) -> dict[int, Entry]:
        """Return the finished shards whose bytes are there in the recorded size."""
        there = set(self.objects.keys(f"{ENTRIES}/"))
        every = range(self.layout.n_shards)
        found = self._entries([shard for shard in every if _entry_key(shard) in there])
        written = [shard for shard in found if shard not in self._kept]
        keys = [shard_key(shard) for shard in written]
        sizes = spread(self.objects.size, keys, self.objects.max_concurrency)
        for shard, size in zip(written, sizes, strict=True):
            if size != found[shard].piece.length:
                del found[shard]
        return found

    def _entries(self, shards: Sequence[int]) -> dict[int, Entry]:
        """Return the entries of these shards that are there, and those of all that stay."""
        asked = [shard for shard in shards if shard not in self._kept]
        found = spread(self._entry, asked, self.objects.max_concurrency)
        entries = zip(asked, found, strict=True)
        return {**self._kept, **{shard: entry for shard, entry in entries if entry is not None}}

    def _entry(self, shard: int) -> Entry | None:
        """Return a shard's entry, if it is there and whole."""
        for _ in range(1 if self.objects.has_cheap_ranges else ATTEMPTS):
            found = _read_json(self.objects, _entry_key(shard))
            with suppress(KeyError, TypeError, ValueError):
                entry = Entry.from_json(found or {}, self._digest)
                if entry.fits(len(self.layout.shard_rows(shard)), self.layout.mask_bytes):
                    return entry
        return None

    def read_back(self) -> Iterator[Entry]:
        """Yield every shard's entry in order, after comparing the shard's bytes with it.

        Raises
        ------
        CorruptStore
            When a shard is not as it was written.
        """
        # All must be there by now: a list, which no checksum protects, is not needed, and each
        # shard is read.
        entries = self._entries(range(self.layout.n_shards))

        def is_whole(shard: int) -> bool:
            entry = entries.get(shard)
            return entry is not None and is_piece(self.objects, shard_key(shard), entry.piece)

        # As many requests at once as may be, and not much more in memory.
        for part in blocks(0, self.layout.n_shards, self.objects.max_concurrency):
            shards = range(part.start, part.stop)
            for shard, good in zip(
                shards, spread(is_whole, shards, self.objects.max_concurrency), strict=True
            ):
                if not good:
                    raise CorruptStore(f"{self.location}: {self._disown(shard)}")
                yield entries[shard]

    def _disown(self, shard: int) -> str:
        """Take a shard back that is not as it was written, and say what to do."""
        if shard in self._kept:
            # Once it is repaired, the whole one is to be taken.
            self.objects.delete(shard_key(shard))
            return (
                f"shard {shard} of the store that is changed is damaged:"
                " repair=True of verify mends it"
            )
        self.objects.delete(_entry_key(shard))
        return f"shard {shard} does not read back as it was written; run the same again"


def _entry_key(shard: int) -> str:
    return f"{ENTRIES}/{shard}.json"


def _in_the_way(
    plan: dict[str, Any], begun: dict[str, Any], differs: set[str], stage: Stage
) -> str:
    """Say what another run has left unfinished, and what to do."""
    action = begun.get("action")
    noun = {CONVERT: "conversion", APPEND: APPEND}.get(str(action), "change")
    advice = f"run that again to finish it, or delete {stage.unfinished} to give it up"
    if action == CONVERT:
        advice = "finish that one, or start anew with overwrite=True"
    other = f" with another {' and '.join(sorted(differs))}" if action == plan["action"] else ""
    return f"an unfinished {noun}{other} is there; {advice}"


def _last_change(store: MaskStore) -> tuple[Any, ...]:
    """Return what was last done to a store, when, and from what."""
    manifest = store.manifest
    if not manifest.revisions:
        return CONVERT, manifest.created, manifest.source
    last = manifest.revisions[-1]
    return last["action"], last["created"], last.get("crc32c", last.get("source"))


def _change_of(plan: dict[str, Any]) -> tuple[Any, ...]:
    """Return what `_last_change` finds where a plan was carried out."""
    what = plan["mask"]["crc32c"] if plan["action"] == UPDATE else plan.get("source")
    return plan["action"], plan.get("created"), what


def _digest(plan: dict[str, Any]) -> str:
    return hashlib.sha256(_to_json(plan)).hexdigest()


def _begun(objects: Objects) -> dict[str, Any] | None:
    """Return the plan that is there, an empty one if it is none; None when nothing is there."""
    # One from afar that is none may have been damaged on its way.
    for _ in range(1 if objects.has_cheap_ranges else ATTEMPTS):
        data = get_at_most(objects, PLAN, MOST_METADATA_BYTES)
        found = None if data is None else parsed_metadata(data)
        if found != {}:
            return found
    return {}


def _as_read(plan: dict[str, Any]) -> dict[str, Any]:
    """Return a plan as it is read back: the order of names must not tell a resumed run."""
    return dict(json.loads(_to_json(plan)))


def _differing(plan: dict[str, Any], begun: dict[str, Any]) -> set[str]:
    return {name for name in {*plan, *begun} if plan.get(name) != begun.get(name)}


def _to_json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _read_json(objects: Objects, key: str) -> dict[str, Any] | None:
    """Return a JSON object; None when it is not there, or not as it was written."""
    try:
        value = json.loads(get_at_most(objects, key, _MOST_JSON_BYTES) or b"null")
    except (ValueError, RecursionError, MemoryError, CorruptStore):
        return None
    return value if isinstance(value, dict) else None
