"""A store under construction in a session of icechunk: all of it is one commit.

Until the commit nobody sees anything of it, and a run that was killed has left nothing: there is
nothing to resume, and a journal on the target would be in vain. New shards go straight into the
session; plan, journal and all that will take the place of others wait in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from maskcube.errors import CorruptStore, StoreChanged, StoreExists
from maskcube.layout import Layout
from maskcube.objects import PLAN, Objects
from maskcube.plain import PlainObjects
from maskcube.provenance import generator
from maskcube.schema import MASKS, ROOT, mask_metadata, shard_key
from maskcube.session import SessionObjects, can_hold
from maskcube.store import MaskStore

if TYPE_CHECKING:
    from zarr.abc.store import Store

__all__ = ["TransactionStage", "commit_session"]


class TransactionStage:
    """A store built, or changed, in a session of icechunk.

    Parameters
    ----------
    place : SessionObjects
        The session, without changes.
    overwrite : bool
        Whether a mask store that is there may be replaced; that it is one was checked.
    """

    def __init__(self, place: SessionObjects, *, overwrite: bool) -> None:
        self.location = self.unfinished = place.location
        self.place: Objects = place
        self._place = place
        self._waiting = _Waiting(place, n_kept=0)
        self.objects: Objects = self._waiting
        self._overwrite = overwrite

    def recover(self) -> bool:
        """Do nothing: a run that was killed leaves nothing."""
        return False

    def prepare(self) -> None:
        """Delete the store that is to be replaced, in this session only."""
        if next(self.place.keys(), None) is None:
            return
        if not self._overwrite:
            raise StoreExists(f"{self.location} is not empty, and what it holds is no store")
        self._place.clear()

    def prepare_revision(self) -> MaskStore:
        """Return the store that is there; what takes the place of something waits for the end."""
        base = MaskStore(self.place)
        self.objects = self._waiting = _Waiting(self._place, n_kept=base.layout.n_shards)
        return base

    def keep(self, key: str) -> None:
        """Do nothing: it is there."""

    def promote(self) -> None:
        """Write what has waited, and commit."""
        root = json.loads(self._waiting.get(ROOT) or b"")
        self._waiting.write()
        attributes = root["attributes"]
        # The last line of the history, without its time, is what was done now.
        what = attributes["history"].splitlines()[-1].partition(" ")[2]
        n_masks = attributes["maskcube"]["counts"]["masks"]
        commit_session(self._place, f"{what}; {n_masks:,} masks")

    def clean(self) -> None:
        """Do nothing: plan and journal were never there."""

    def discard(self) -> None:
        """Take back what was written: the session is as it was opened."""
        self._place.session.discard_changes()
        self._waiting.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Commit what a repair has written; take back what has failed."""
        session = self._place.session
        if session.read_only or not session.has_uncommitted_changes:
            return
        if error is None:
            commit_session(self._place, f"{generator()}: repaired")
        else:
            self.discard()


def commit_session(place: SessionObjects, message: str) -> None:
    """Commit a session.

    Raises
    ------
    StoreChanged
        When somebody else has committed to its branch since it was opened.
    """
    from icechunk import ConflictError

    try:
        place.session.commit(message)
    except ConflictError as error:
        raise StoreChanged(
            f"{place.location} was committed to by somebody else since this session was opened;"
            " nothing of it was written: run the same again in a new session"
        ) from error


class _Waiting(PlainObjects):
    """Objects over those of a session: new shards go there, all else waits in memory.

    Parameters
    ----------
    place : SessionObjects
        The session.
    n_kept : int
        Shards that are there: their objects are not to be written before all is known.
    """

    has_cheap_ranges = False
    reach = ""

    def __init__(self, place: SessionObjects, *, n_kept: int) -> None:
        self.location = place.location
        self.max_concurrency = place.max_concurrency
        self._place = place
        self._kept = set(map(shard_key, range(n_kept)))
        self._waiting: dict[str, bytes] = {}

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        """Return an object as it will be, or a range of it."""
        data = self._waiting.get(key)
        if data is None:
            return self._place.get(key, start, length)
        return data[start:] if length is None else data[start : start + length]

    def stamp(self, key: str) -> None:
        """Return None, as the session does."""
        return self._place.stamp(key)

    def size(self, key: str) -> int | None:
        """Return the size of an object as it will be."""
        data = self._waiting.get(key)
        return self._place.size(key) if data is None else len(data)

    def put(self, key: str, data: bytes) -> None:
        """Write a new shard; keep all else."""
        if key.startswith(f"{MASKS}/c/") and key not in self._kept:
            self._place.put(key, data)
            return
        self._waiting[key] = data
        if key == PLAN:
            # The session takes no shard before it knows the array.
            layout = Layout(**json.loads(data)["layout"])
            self._place.put(f"{MASKS}/{ROOT}", mask_metadata(layout))

    def create(self, key: str, data: bytes) -> bool:
        """Write an object; nobody else writes to the session."""
        found = self.get(key, 0, len(data) + 1)
        if found is None or key not in self._waiting:
            self.put(key, data)
            return True
        return found == data

    def delete(self, *keys: str) -> None:
        """Delete what was written; what was there before stays."""
        for key in keys:
            self._waiting.pop(key, None)
            if key.startswith(f"{MASKS}/c/") and key not in self._kept:
                self._place.delete(key)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys below a prefix as they will be."""
        waiting = {key for key in self._waiting if key.startswith(prefix)}
        yield from sorted(waiting.union(self._place.keys(prefix)))

    def zarr_store(self) -> Store:
        """Return the store of the session."""
        return self._place.zarr_store()

    def forget(self) -> None:
        """Forget what waits."""
        self._waiting.clear()

    def write(self) -> None:
        """Write what has waited into the session, and read it back.

        Raises
        ------
        CorruptStore
            When something does not read back as it was written.
        """
        own = {key: data for key, data in self._waiting.items() if can_hold(self._place, key)}
        arrays = tuple(
            f"{key.removesuffix(ROOT)}c/"
            for key in own
            if key.endswith(f"/{ROOT}") and key != f"{MASKS}/{ROOT}"
        )
        for key in [key for key in self._place.keys() if key.startswith(arrays)]:  # noqa: SIM118 - no mapping
            # Of an array that has become smaller; the session would keep it.
            self._place.delete(key)
        for key in sorted(own, key=lambda key: (not key.endswith(ROOT), key)):
            self._place.put(key, own[key])
        for key, data in own.items():
            if self._place.get(key) != data:
                raise CorruptStore(
                    f"{self.location}: {key} does not read back as it was written; run the same"
                    " again"
                )
