"""A store under construction where nothing can be moved: in memory, in a bucket.

A new store is written in its place, and is none until its root ``zarr.json`` is written, last of
all. A store that is changed stays as it is while what will differ is written beside it; then its
root is deleted, the new objects are copied into their places, and the new root is written. Readers
find the old store, none, or the new one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import filterfalse
from typing import TYPE_CHECKING, Self

from maskcube.disk import advise
from maskcube.errors import MaskcubeError, NotAMaskStore, StoreExists
from maskcube.manifest import Piece
from maskcube.objects import PLAN, REPLACING, WORK, Objects, get_at_most
from maskcube.plain import PlainObjects
from maskcube.root import MOST_METADATA_BYTES, parsed_metadata
from maskcube.schema import MASKS, ROOT, shard_key
from maskcube.store import MaskStore
from maskcube.threads import spread

if TYPE_CHECKING:
    from zarr.abc.store import Store

__all__ = ["DirectStage"]

_SWITCHING = f"{WORK}/switching.json"
"""Key of the mark that a change is complete and is being copied into its place."""

_STAGED = f"{WORK}/new/"
"""Prefix of the objects that will take the place of others."""


class DirectStage:
    """A store built, or changed, in its place.

    Parameters
    ----------
    objects : Objects
        Its place.
    overwrite : bool
        Whether a mask store that is there may be replaced.
    revise : bool
        Whether the store that is there is to be changed.
    """

    def __init__(self, objects: Objects, *, overwrite: bool, revise: bool = False) -> None:
        self.objects = objects
        self.location = objects.location
        self.unfinished = f"{objects.location}/{WORK}"
        self.place = objects
        self._n_shards = 0
        self._overwrite = overwrite
        self._revise = revise

    def recover(self) -> bool:
        """End a change that was killed while it was copied into its place."""
        if self._there(_SWITCHING):
            self._switch()
        return self._there(PLAN) and self.is_store() and not self._is_of_base()

    def is_store(self) -> bool:
        """Whether a complete store is there: a root may have been cut off in writing."""
        with suppress(MaskcubeError):
            MaskStore(self.place)
            return True
        return False

    def _is_of_base(self) -> bool:
        """Whether the plan is that of an unfinished change of the store that is there."""
        plan = parsed_metadata(get_at_most(self.place, PLAN, MOST_METADATA_BYTES) or b"")
        root = get_at_most(self.place, ROOT, MOST_METADATA_BYTES) or b""
        return bool(plan.get("base") == list(Piece.of(root)))

    def _is_torn(self) -> bool:
        """Whether a root is there that was cut off in writing."""
        # What cannot be read now is not torn.
        data = get_at_most(self.place, ROOT, MOST_METADATA_BYTES)
        try:
            json.loads(b"{}" if data is None else data)
        except ValueError:
            return True
        return False

    def prepare(self) -> None:
        """Delete the store that is to be replaced, its root first: then none can open it."""
        replacing = self._there(REPLACING)
        if self._there(PLAN) and self._is_torn():
            self.place.delete(ROOT)
        if replacing or self._there(ROOT):
            if not self._overwrite and not replacing:
                raise StoreExists(f"{self.location} exists; overwrite=True would replace it")
            if self._there(ROOT) and not self.is_store():
                raise NotAMaskStore(
                    f"{self.location} is no mask store, and overwrite=True replaces only those"
                )
            # Killed from here on, the same command goes on deleting.
            self.place.put(REPLACING, b"{}")
            self.place.delete(ROOT)
            self.place.delete(*filterfalse(_is_work, self.place.keys()))
            self.discard()
        elif not self._there(PLAN):
            if not all(map(_is_work, self.place.keys())):
                raise StoreExists(f"{self.location} is not empty, and what it holds is no store")
            self._tidy()

    def prepare_revision(self) -> MaskStore:
        """Return the store at the place; what is written from now on lies beside it."""
        base = MaskStore(self.place)
        self._n_shards = base.layout.n_shards
        if not self._there(PLAN):
            self._tidy()
        self.objects = _Overlay(self.place, self._n_shards)
        return base

    def keep(self, key: str) -> None:
        """Do nothing: it is there."""

    def promote(self) -> None:
        """Copy a change into its place; the root metadata, written last, has made a new store."""
        if self._revise:
            self.place.put(_SWITCHING, b"{}")
            if not self._switch():
                raise StoreExists(
                    f"{self.location}: another process has finished this change or given it up"
                )

    def _switch(self) -> bool:
        """Copy the staged objects into their places, the root last; whether there are any.

        It may be done twice, and by two at once: the root is never left deleted.
        """
        root = get_at_most(self.place, _STAGED + ROOT, MOST_METADATA_BYTES)
        if root is None:
            self.place.delete(_SWITCHING)
            return False
        staged = [key for key in self.place.keys(_STAGED) if key != _STAGED + ROOT]
        self.place.delete(ROOT)
        spread(self._take, staged, self.place.max_concurrency)
        self._take(_STAGED + ROOT)
        if not self._there(ROOT):
            # Somebody else was faster, and has cleaned up before the root was copied again.
            self.place.create(ROOT, root)
        self.place.delete(_SWITCHING)
        return True

    def _take(self, key: str) -> None:
        self.place.copy(key, key.removeprefix(_STAGED))

    def clean(self) -> None:
        """Delete what is not of the store, the plan last."""
        self._tidy()
        self.place.delete(PLAN)

    def _tidy(self) -> None:
        """Delete what nobody can tell what it is without the plan."""
        self.place.delete(*(key for key in self.place.keys(f"{WORK}/") if key != PLAN))

    def discard(self) -> None:
        """Delete what was written, the plan last; a store that was to be changed stays."""
        if self._revise:
            kept = set(map(shard_key, range(self._n_shards)))
            shards = self.place.keys(f"{MASKS}/c/")
            self.place.delete(*(key for key in shards if key not in kept))
        else:
            self.place.delete(*filterfalse(_is_work, self.place.keys()))
        self.clean()

    def _there(self, key: str) -> bool:
        return self.place.size(key) is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Say what to do if the system could not write."""
        advise(error, self.location)


def _is_work(key: str) -> bool:
    return key.startswith(f"{WORK}/")


class _Overlay(PlainObjects):
    """Objects over others: what is put stays beside those that are there, which stay as they are.

    Parameters
    ----------
    place : Objects
        Those that are there.
    n_shards : int
        Shards that there are: no reader looks for more.
    """

    has_cheap_ranges = False
    reach = ""

    def __init__(self, place: Objects, n_shards: int) -> None:
        self.location = place.location
        self.max_concurrency = place.max_concurrency
        self._place = place
        self._taken = set(map(shard_key, range(n_shards)))

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        """Return an object as it will be, or a range of it."""
        if not self._is_direct(key):
            found = self._place.get(_STAGED + key, start, length)
            if found is not None:
                return found
        return self._place.get(key, start, length)

    def stamp(self, key: str) -> None:  # noqa: ARG002 - as any Objects
        """Return None: asking takes as long as reading."""
        return

    def size(self, key: str) -> int | None:
        """Return the size of an object as it will be."""
        if not self._is_direct(key):
            found = self._place.size(_STAGED + key)
            if found is not None:
                return found
        return self._place.size(key)

    def put(self, key: str, data: bytes) -> None:
        """Write an object to where no reader of the store looks."""
        self._place.put(self._written_to(key), data)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless another one was written."""
        return self._place.create(self._written_to(key), data)

    def delete(self, *keys: str) -> None:
        """Delete objects that were written."""
        self._place.delete(*map(self._written_to, keys))

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys below a prefix as they are."""
        yield from self._place.keys(prefix)

    def zarr_store(self) -> Store:
        """Return the store that is there."""
        return self._place.zarr_store()

    def _written_to(self, key: str) -> str:
        return key if self._is_direct(key) else _STAGED + key

    def _is_direct(self, key: str) -> bool:
        """Whether a key is none of the store that is there."""
        return _is_work(key) or (key.startswith(f"{MASKS}/c/") and key not in self._taken)
