"""A store under construction: built beside its place and moved there when it is complete.

On a local disk a store is built in ``<name>.partial`` and takes its place in one step. Elsewhere
nothing can be moved: see `maskcube.direct`.

A stage goes through `recover`, `prepare`, what is written to its objects, `promote`, `clean`; and
what an earlier run has left, killed wherever it was, is one of these states too.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Protocol, Self

from maskcube.direct import DirectStage
from maskcube.disk import Lock, advise, exchange, flush, make_folder
from maskcube.errors import MaskcubeError, NotAMaskStore, StoreExists
from maskcube.manifest import Piece
from maskcube.objects import (
    PLAN,
    REPLACING,
    WORK,
    Folder,
    Objects,
    StoreLike,
    get_at_most,
    open_objects,
)
from maskcube.paths import folder_path, partial_path
from maskcube.root import MOST_METADATA_BYTES
from maskcube.schema import NODES, ROOT
from maskcube.session import SessionObjects
from maskcube.store import MaskStore
from maskcube.transaction import TransactionStage

__all__ = ["Stage", "open_stage"]


class Stage(AbstractContextManager["Stage"], Protocol):
    """A store under construction; leaving its context lets others write there again."""

    location: str
    """Where the store will be, for messages."""
    objects: Objects
    """Where to write."""
    place: Objects
    """Where it will be found then."""
    unfinished: str
    """What an unfinished run leaves, for messages."""

    def recover(self) -> bool:
        """Keep others out and end what was begun; whether there is a store that needs `clean`.

        That is what a run leaves that was killed after its store had taken its place: its plan is
        there then.
        """

    def prepare(self) -> None:
        """Clear what is in the way; what an unfinished run with a plan has written stays.

        Raises
        ------
        StoreExists
            When the target is taken.
        """

    def prepare_revision(self) -> MaskStore:
        """Return the store that is there, to be changed; what an unfinished run has written stays.

        Raises
        ------
        StoreNotFound, IncompleteStore, NotAMaskStore
            When there is none.
        """

    def keep(self, key: str) -> None:
        """Take an object of the store that is changed as it is."""

    def promote(self) -> None:
        """Make the complete store appear at its place, instead of the one that is there."""

    def clean(self) -> None:
        """Delete plan, journal and the store that was replaced."""

    def discard(self) -> None:
        """Delete what was written."""


class LocalStage:
    """A store built in a folder beside its place.

    Parameters
    ----------
    target : pathlib.Path
        Its place.
    overwrite : bool
        Whether a mask store that is there may be replaced.
    revise : bool
        Whether the store that is there is to be changed.
    """

    def __init__(self, target: Path, *, overwrite: bool, revise: bool = False) -> None:
        self.target = target
        self.location = str(target)
        self.partial = partial_path(target)
        self.unfinished = str(self.partial)
        self.place: Objects = Folder(target)
        self._written = Folder(self.partial)
        self.objects: Objects = self._written
        self._overwrite = overwrite
        self._revise = revise
        self._replaced = self.partial / WORK / "replaced"
        self._lock = Lock(target.with_name(f".{target.name}.maskcube-lock"), self.location)
        if not (target / WORK).exists() and not self._replaced.exists():
            # Before a file is made. What was killed while moving is looked at later.
            self._lock.tidy()
            self._check_target()

    def _check_target(self) -> None:
        # A root cannot be moved, nor a place where something is mounted.
        if not self.target.name or self.target.is_mount():
            raise StoreExists(f"{self.target} is no place for a store: give a new folder in it")
        is_ours = (self.partial / WORK).is_dir() and not self.partial.is_symlink()
        if _taken(self.partial) and not is_ours:
            raise StoreExists(
                f"{self.partial} is not of an unfinished conversion, and would be in its way"
            )
        if self._revise:
            MaskStore(self.place)
        elif not _taken(self.target):
            pass
        elif self._overwrite:
            _check_replaceable(self.target)
        else:
            raise StoreExists(f"{self.target} exists{_advice(Folder(self.target))}")

    def recover(self) -> bool:
        """Keep other processes out, and end what was killed between two renames."""
        if not self._revise:
            make_folder(self.target.parent)
        self._lock.acquire()
        if self._replaced.exists() and not self.target.exists():
            self._replaced.rename(self.target)
        if not (self.target / WORK).is_dir():
            return False
        # Somebody may have changed the folder in its place, as a zarr store.
        direct = DirectStage(self.place, overwrite=self._overwrite, revise=self._revise)
        if direct.recover():
            self._put_away()
            return True
        if self.place.size(PLAN) is None and direct.is_store():
            self.clean()
        return False

    def prepare(self) -> None:
        """Check the place again, and delete a folder that was left without a plan."""
        # Another process may have finished while this one was waiting to begin.
        self._check_target()
        if self.objects.size(PLAN) is None:
            self.discard()

    def prepare_revision(self) -> MaskStore:
        """Return the store at the place; delete a folder that was left without a plan."""
        self.prepare()
        if self.place.size(PLAN) is not None:
            raise StoreExists(
                f"{self.location}: a change is unfinished that was begun through a zarr store; run"
                f" that again there to finish it, or delete {self.target / WORK} to give it up"
            )
        return MaskStore(self.place)

    def keep(self, key: str) -> None:
        """Let an object's file be in the new store too: no file is ever written to again."""
        kept = self.target / key
        if (self.partial / key).exists() or (
            not kept.is_symlink() and self._written.link(key, kept)
        ):
            return
        # Not every disk has links.
        data = self.place.get(key)
        if data is not None:
            self.objects.put(key, data)

    def _keep_others(self) -> None:
        """Take what somebody else has put into the store's folder, and who may enter it."""
        if self.target.exists():
            mode = stat.S_IMODE(self.target.stat().st_mode)
            # It is still to be written into.
            self.partial.chmod(mode | stat.S_IRWXU)
        if not self._revise:
            return
        for theirs in self.target.iterdir():
            if theirs.name not in {ROOT, WORK, *NODES}:
                ours = self.partial / theirs.name
                # What an earlier run took may have changed since.
                _delete(ours)
                _share(theirs, ours)

    def promote(self) -> None:
        """Flush the folders to the disk, and exchange them with what is there."""
        self._keep_others()
        for folder, _, _ in os.walk(self.partial):
            flush(Path(folder))
        old = self.place.get(ROOT)
        if old is not None:
            self.objects.put(REPLACING, json.dumps(Piece.of(old)).encode())
            if exchange(self.partial, self.target):
                # Killed here, the new store says which one is to be put away.
                self._put_away()
                flush(self.target.parent)
                return
            self.target.rename(self._replaced)
        # Killed here, plan and old store are in the folder: the same command goes on.
        self.partial.rename(self.target)
        flush(self.target.parent)

    def _put_away(self) -> None:
        """Move the store that was replaced to where it will be deleted."""
        old = get_at_most(self.objects, ROOT, MOST_METADATA_BYTES)
        mark = b"" if old is None else json.dumps(Piece.of(old)).encode()
        if mark and self.place.get(REPLACING, 0, len(mark) + 1) == mark:
            self.partial.rename(self.target / WORK / "replaced")

    def clean(self) -> None:
        """Delete what is not of the store, the plan last."""
        with suppress(FileNotFoundError):
            _remove(self.target / WORK, last=Path(PLAN).name)

    def discard(self) -> None:
        """Delete the folder, its plan last; the target stays as it is."""
        with suppress(FileNotFoundError):
            _remove(self.partial, last=WORK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Let others write, and say what to do if the system could not."""
        if self._lock.is_held:
            with suppress(OSError):
                # Empty where an object of the store itself was written.
                (self.target / WORK).rmdir()
        try:
            self._lock.release()
        except OSError as failed:
            error = error or failed
        advise(error, self.location)


def open_stage(
    store: StoreLike,
    *,
    overwrite: bool = False,
    revise: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> Stage:
    """Return the stage on which a store is built or changed; writes nothing yet.

    Raises
    ------
    StoreExists
        When something is at the target, and it is to be neither replaced nor changed.
    NotAMaskStore
        When `overwrite` is true and what is at the target is no mask store.
    """
    objects = open_objects(store, storage_options, read_only=False)
    path = folder_path(store)
    if path is not None:
        # A link to a store stays a link to the changed one.
        target = Path(os.path.realpath(path)) if revise else path.absolute()
        return LocalStage(target, overwrite=overwrite, revise=revise)
    # With a plan beside it, it may be what the same conversion has left.
    if not revise and objects.size(ROOT) is not None and objects.size(PLAN) is None:
        if not overwrite:
            raise StoreExists(f"{objects.location} holds a Zarr group{_advice(objects)}")
        _mask_store(objects)
    if isinstance(objects, SessionObjects):
        return TransactionStage(objects, overwrite=overwrite)
    return DirectStage(objects, overwrite=overwrite, revise=revise)


def _taken(target: Path) -> bool:
    """Whether something other than an empty folder is at `target`."""
    if target.is_dir() and not target.is_symlink():
        return any(target.iterdir())
    return os.path.lexists(target)


def _advice(objects: Objects) -> str:
    """Say what to do about what is at the target."""
    try:
        manifest = _mask_store(objects).manifest
    except (NotAMaskStore, OSError):
        return " and is no mask store: choose another place"
    n_changes = len(manifest.revisions)
    changes = f", with all {n_changes:,} changes since" if n_changes else ""
    return f", converted {manifest.created}; overwrite=True would replace it{changes}"


def _check_replaceable(target: Path) -> None:
    if target.is_symlink() or not target.is_dir():
        raise NotAMaskStore(f"{target} is no folder; overwrite=True replaces only mask stores")
    _mask_store(Folder(target))


def _mask_store(objects: Objects) -> MaskStore:
    """Return the mask store that is there: nothing else may be deleted by overwriting."""
    try:
        return MaskStore(objects)
    except MaskcubeError as error:
        raise NotAMaskStore(
            f"{objects.location} is no mask store, and overwrite=True replaces only mask stores"
        ) from error


def _remove(folder: Path, *, last: str) -> None:
    """Delete a folder, one of its entries last: killed before, it can still be told what it is."""
    if folder.is_symlink():
        folder.unlink()
        return
    for path in sorted(folder.iterdir(), key=lambda path: path.name == last):
        _delete(path)
    folder.rmdir()


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _share(source: str | Path, target: str | Path) -> None:
    """Let a file, or the files of a folder, be in a second place too; copied if need be."""
    if Path(source).is_dir() and not Path(source).is_symlink():
        shutil.copytree(source, target, symlinks=True, copy_function=_share)
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
