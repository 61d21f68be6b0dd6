"""A store under construction: built beside its place and moved there when it is complete.

On a local disk a store is built in ``<name>.partial`` and renamed. Elsewhere there is no rename: it
is built in place, and is no store until its root ``zarr.json`` is written, last of all.
"""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, Self

from maskcube.errors import MaskcubeError, NotAMaskStore, StoreExists
from maskcube.objects import WORK, Folder, Objects, StoreLike, folder_path, open_objects

__all__ = ["PLAN", "ROOT", "Stage", "open_stage", "partial_path"]

PLAN = f"{WORK}/plan.json"
"""Key of the plan of an unfinished conversion."""

_REPLACING = f"{WORK}/replacing.json"
"""Key of the mark that an old store is being deleted where nothing can be renamed."""

ROOT = "zarr.json"
"""Key of the root metadata: with it a group is there, without it there is none."""


class Stage(AbstractContextManager["Stage"], Protocol):
    """A store under construction; leaving its context lets others build there again."""

    location: str
    """Where the store will be, for messages."""
    objects: Objects
    """Where to write."""

    def prepare(self) -> None:
        """Clear what is in the way; what an unfinished conversion has written stays."""

    def promote(self) -> None:
        """Make the complete store appear at its place."""

    def discard(self) -> None:
        """Delete what was written."""


class LocalStage:
    """A store built in a folder beside its place."""

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        self.target = target
        self.location = str(target)
        self.partial = partial_path(target)
        self.objects: Objects = Folder(self.partial)
        self._overwrite = overwrite
        self._replaced = self.partial / WORK / "replaced"
        self._lock = _Lock(target.with_name(f".{target.name}.maskcube-lock"), self.location)
        self._check_target()

    def _check_target(self) -> None:
        if not _is_movable(self.target):
            raise StoreExists(f"{self.target} is no place for a store: give a new folder in it")
        if _taken(self.partial) and not (self.partial / WORK).is_dir():
            raise StoreExists(
                f"{self.partial} is not of an unfinished conversion, and would be in its way"
            )
        if not _taken(self.target):
            return
        if self._overwrite:
            _check_replaceable(self.target)
        else:
            raise StoreExists(f"{self.target} exists{_advice(Folder(self.target))}")

    def prepare(self) -> None:
        """Keep other processes out, and delete a folder that was left without a plan."""
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        if self._replaced.exists() and not self.target.exists():
            # An earlier run was killed between the two renames.
            self._replaced.rename(self.target)
        # Another process may have finished while this one was waiting to begin.
        self._check_target()
        if self.objects.get(PLAN) is None:
            self.discard()

    def promote(self) -> None:
        """Flush the folders to the disk and rename; the old store and the journal go last."""
        for folder, _, _ in os.walk(self.partial):
            _flush(Path(folder))
        if self.target.exists():
            self.target.rename(self._replaced)
        # Killed here, plan and old store are in the folder: the same command goes on.
        self.partial.rename(self.target)
        _flush(self.target.parent)
        shutil.rmtree(self.target / WORK, ignore_errors=True)

    def discard(self) -> None:
        """Delete the folder; the target stays as it is."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class DirectStage:
    """A store built in its place, where nothing can be renamed."""

    def __init__(self, objects: Objects, *, overwrite: bool) -> None:
        self.objects = objects
        self.location = objects.location
        if objects.get(ROOT) is not None:
            if not overwrite:
                raise StoreExists(f"{objects.location} holds a Zarr group{_advice(objects)}")
            _check_mask_store(objects)
        elif not self._begun() and next(iter(objects.keys()), None) is not None:
            raise StoreExists(f"{objects.location} is not empty, and what it holds is no store")

    def _begun(self) -> bool:
        return any(self.objects.get(key) is not None for key in (PLAN, _REPLACING))

    def prepare(self) -> None:
        """Delete the store that is to be replaced, its root first: then none can open it."""
        replacing = self.objects.get(_REPLACING) is not None
        if replacing or self.objects.get(ROOT) is not None:
            # Killed from here on, the same command goes on deleting.
            self.objects.put(_REPLACING, b"{}")
            self.objects.delete(ROOT)
            for key in list(self.objects.keys()):
                if not key.startswith(f"{WORK}/"):
                    self.objects.delete(key)
            self.discard()

    def promote(self) -> None:
        """Delete the journal: the root metadata, written last, has made the store."""
        self.objects.delete(WORK)

    def discard(self) -> None:
        """Delete what was written."""
        self.objects.delete("")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: nothing is held."""


class _Lock:
    """Held by the one process that builds a store; the system frees it when that process ends."""

    def __init__(self, path: Path, location: str) -> None:
        self.path = path
        self.location = location
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, or refuse when another process has it."""
        import fcntl

        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever had it may have deleted the file in between: then it locks nothing.
                if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                    self._descriptor = descriptor
                    return
            except BlockingIOError:
                os.close(descriptor)
                raise StoreExists(
                    f"another process is converting to {self.location}: let it finish"
                ) from None
            except FileNotFoundError:
                pass
            except OSError:
                # Some network disks have no locks: there, nobody else must convert to this place.
                self._descriptor = descriptor
                return
            os.close(descriptor)

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


def open_stage(
    store: StoreLike, *, overwrite: bool, storage_options: dict[str, Any] | None = None
) -> Stage:
    """Return the stage on which a store is built; writes nothing yet.

    Raises
    ------
    StoreExists
        When something is at the target and `overwrite` is false.
    NotAMaskStore
        When `overwrite` is true and what is at the target is no mask store.
    """
    objects = open_objects(store, storage_options, read_only=False)
    path = folder_path(store)
    if path is None:
        return DirectStage(objects, overwrite=overwrite)
    return LocalStage(path.absolute(), overwrite=overwrite)


def partial_path(target: Path) -> Path:
    """Return where a local store is built before it is moved to `target`."""
    return target.with_name(f"{target.name}.partial")


def _is_movable(target: Path) -> bool:
    """Whether a folder can be moved to `target`: it is no root and nothing is mounted there."""
    return bool(target.name) and not target.is_mount()


def _taken(target: Path) -> bool:
    """Whether something other than an empty folder is at `target`."""
    if target.is_dir() and not target.is_symlink():
        return any(target.iterdir())
    return os.path.lexists(target)


def _advice(objects: Objects) -> str:
    """Say what to do about what is at the target."""
    try:
        _check_mask_store(objects)
    except (NotAMaskStore, OSError):
        return " and is no mask store: choose another place"
    return "; overwrite=True would replace it"


def _check_replaceable(target: Path) -> None:
    if target.is_symlink() or not target.is_dir():
        raise NotAMaskStore(f"{target} is no folder; overwrite=True replaces only mask stores")
    _check_mask_store(Folder(target))


def _check_mask_store(objects: Objects) -> None:
    """Raise unless a mask store is there: nothing else may be deleted by overwriting."""
    from maskcube.store import read_manifest

    try:
        read_manifest(objects)
    except MaskcubeError as error:
        raise NotAMaskStore(
            f"{objects.location} is no mask store, and overwrite=True replaces only mask stores"
        ) from error


def _flush(folder: Path) -> None:
    """Flush a folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
