"""The life of a store: converted, grown, updated, interrupted, damaged, repaired, in any order.

Beside it goes a list of what must be in it. A step may fail at any of its changes to the disk; then
the store is the old one or the new one, and the same step again ends it.
"""

from __future__ import annotations

import errno
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from faults import BROKEN, BUFFER, Faults
from forks import Strike, Tripwire
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from reference import Masks, Source, write_source
from zarr.storage import MemoryStore

import maskcube

SHAPE = (6, 5)
N_SOURCES = 4
SOURCES = tempfile.TemporaryDirectory(prefix="maskcube-life-")

Key = tuple[str, str, int]


class Content(NamedTuple):
    """What must be in a store."""

    masks: Masks
    keys: list[Key]
    sources: tuple[int, ...]
    updated: frozenset[int]


@cache
def source(number: int) -> Source:
    """Return one of a few sources, each of some shards, that have no mask in common."""
    return write_source(
        Path(SOURCES.name) / str(number),
        n_masks=(40, 64, 90, 130)[number],
        shape=SHAPE,
        seed=number,
        sorted_rows=number % 2 == 0,
        chunks=(33, 4, 5) if number == 1 else True,
        change=lambda table: table.assign(image_name=f"{number}_" + table["image_name"]),
    )


def content_of(number: int) -> Content:
    found = source(number)
    columns = (found.by_row[name].tolist() for name in ("image_name", "noun", "instance_id"))
    return Content(found.masks, list(zip(*columns, strict=True)), (number,), frozenset())


class Interrupted(Exception):
    """A step that was struck."""


@contextmanager
def interrupting() -> Iterator[None]:
    """Tell the fault that was injected from all others."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise Interrupted from error


class Life(RuleBasedStateMachine):
    """What any store goes through; subclasses say where it is, and how a step is struck there."""

    place: Any

    def __init__(self) -> None:
        super().__init__()
        self.content: Content | None = None
        self.damaged: dict[str, bytes] = {}

    def struck(self, step: Callable[[], object], at: int) -> None:
        """Run a step that fails at its change number `at`; raise `Interrupted` if it did."""
        raise NotImplementedError

    def objects(self) -> dict[str, bytes]:
        """Return every object by key."""
        raise NotImplementedError

    def write(self, key: str, data: bytes | None) -> None:
        """Write an object behind everybody's back; None deletes it."""
        raise NotImplementedError

    def run(self, step: Callable[[], object], after: Content, at: int) -> None:
        """Run a step that may be struck, and then again until it has ended."""
        before = self.content
        try:
            self.struck(step, at)
        except Interrupted:
            found = self.found()
            allowed = [each.masks for each in (before, after) if each is not None]
            # Elsewhere than on a disk an old store is deleted first.
            assert found is None or any(np.array_equal(found, each) for each in allowed)
            assert found is not None or before is None or not isinstance(self.place, Path)
            try:
                step()
            except maskcube.StoreExists:
                # It had ended, and was struck when it cleaned up.
                found = self.found()
                assert found is not None
                np.testing.assert_array_equal(found, after.masks)
        self.content = after

    def found(self) -> Masks | None:
        try:
            return np.asarray(maskcube.open_masks(self.place, chunks=None))
        except (maskcube.StoreNotFound, maskcube.IncompleteStore):
            return None

    @initialize(number=st.integers(0, N_SOURCES - 1), at=st.integers(1, 120))
    def convert(self, number: int, at: int) -> None:
        def step() -> None:
            maskcube.convert(source(number).folder, self.place, progress=False)

        self.run(step, content_of(number), at)

    @precondition(lambda self: not self.damaged)
    @rule(number=st.integers(0, N_SOURCES - 1), at=st.integers(1, 120))
    def overwrite(self, number: int, at: int) -> None:
        def step() -> None:
            maskcube.convert(source(number).folder, self.place, overwrite=True, progress=False)

        self.run(step, content_of(number), at)

    @precondition(lambda self: not self.damaged)
    @rule(number=st.integers(0, N_SOURCES - 1), at=st.integers(1, 120))
    def append(self, number: int, at: int) -> None:
        old = self.content
        assert old is not None
        assume(number not in old.sources)

        def step() -> None:
            maskcube.append(source(number).folder, self.place, progress=False)

        new = content_of(number)
        after = Content(
            np.concatenate([old.masks, new.masks]),
            [*old.keys, *new.keys],
            (*old.sources, number),
            old.updated,
        )
        self.run(step, after, at)

    @precondition(lambda self: not self.damaged)
    @rule(place=st.floats(0, 1, exclude_max=True), at=st.integers(1, 120), seed=st.integers(0, 9))
    def update(self, place: float, at: int, seed: int) -> None:
        old = self.content
        assert old is not None
        row = int(place * len(old.masks))
        mask = (np.random.default_rng(seed).random(SHAPE) < 0.5).astype(np.uint8)

        def step() -> None:
            maskcube.update(self.place, *old.keys[row], mask)

        masks = old.masks.copy()
        masks[row] = mask
        self.run(step, old._replace(masks=masks, updated=old.updated | {row}), at)

    @precondition(lambda self: not self.damaged)
    @rule(data=st.data(), bit=st.integers(0, 7))
    def damage(self, data: st.DataObject, bit: int) -> None:
        """Flip a bit of a piece, cut it, or lose it; `verify` finds it."""
        objects = {key: value for key, value in self.objects().items() if "zarr.json" not in key}
        key = data.draw(st.sampled_from(sorted(objects)))
        whole = objects[key]
        place = data.draw(st.integers(0, len(whole) - 1))
        flipped = bytearray(whole)
        flipped[place] ^= 1 << bit
        self.damaged[key] = whole
        self.write(key, data.draw(st.sampled_from([bytes(flipped), whole[:place], None])))
        with pytest.raises(maskcube.VerificationError):
            maskcube.verify(self.place)

    @precondition(lambda self: self.damaged)
    @rule()
    def repair(self) -> None:
        """With its sources a store is whole again, but for what is in none of them."""
        assert self.content is not None
        sources = [source(number).folder for number in self.content.sources]
        lost: set[int] = set()
        try:
            maskcube.verify(self.place, sources, repair=True)
        except maskcube.VerificationError as error:
            lost = {mask.row for mask in error.masks}
            for key, data in self.damaged.items():
                self.write(key, data)
        assert not lost or lost & self.content.updated
        self.damaged.clear()

    @precondition(lambda self: not self.damaged)
    @invariant()
    def is_what_went_in(self) -> None:
        if self.content is None:
            return
        masks = maskcube.open_masks(self.place, chunks=None)
        np.testing.assert_array_equal(masks, self.content.masks)
        labels = (masks[name].values.tolist() for name in ("image", "noun", "instance"))
        assert list(zip(*labels, strict=True)) == self.content.keys
        sources = [source(number).folder for number in self.content.sources]
        report = maskcube.verify(self.place, sources)
        assert report.n_compared == len(masks) - len(self.content.updated)
        assert not [key for key in self.objects() if key.startswith("_maskcube")]


class Disk:
    """The audit hook of this process, which cannot be taken away again, only disarmed."""

    tripwire: Tripwire | None = None
    is_heard = False

    @classmethod
    def hear(cls, event: str, arguments: tuple[Any, ...]) -> None:
        if cls.tripwire is not None:
            cls.tripwire(event, arguments)


class LifeOnDisk(Life):
    def __init__(self) -> None:
        super().__init__()
        if not Disk.is_heard:
            sys.addaudithook(Disk.hear)
            Disk.is_heard = True
        self.folder = Path(tempfile.mkdtemp(prefix="maskcube-life-"))
        self.place = self.folder / "masks.zarr"

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def struck(self, step: Callable[[], object], at: int) -> None:
        Disk.tripwire = Tripwire(self.folder, at, Strike.FAIL)
        try:
            with interrupting():
                step()
        finally:
            Disk.tripwire = None
        assert [path.name for path in self.folder.iterdir()] == ["masks.zarr"]

    def objects(self) -> dict[str, bytes]:
        files = (path for path in self.place.rglob("*") if path.is_file())
        return {path.relative_to(self.place).as_posix(): path.read_bytes() for path in files}

    def write(self, key: str, data: bytes | None) -> None:
        # Another file: the old one may be of another store too.
        (self.place / key).unlink(missing_ok=True)
        if data is not None:
            (self.place / key).write_bytes(data)


class LifeInMemory(Life):
    def __init__(self) -> None:
        super().__init__()
        self.place = MemoryStore()

    def struck(self, step: Callable[[], object], at: int) -> None:
        memory = self.place
        self.place = Faults(memory, at, BROKEN)
        try:
            with interrupting():
                step()
        finally:
            self.place = memory

    def objects(self) -> dict[str, bytes]:
        found = self.place._store_dict.items()  # noqa: SLF001 - behind everybody's back
        return {key: value.to_bytes() for key, value in found}

    def write(self, key: str, data: bytes | None) -> None:
        self.place._store_dict.pop(key, None)  # noqa: SLF001
        if data is not None:
            self.place._store_dict[key] = BUFFER.from_bytes(data)  # noqa: SLF001


SHORT = settings(
    max_examples=8,
    stateful_step_count=6,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
TestLifeOnDisk = pytest.mark.timeout(600)(LifeOnDisk.TestCase)
TestLifeOnDisk.settings = SHORT
TestLifeInMemory = pytest.mark.timeout(600)(LifeInMemory.TestCase)
TestLifeInMemory.settings = SHORT


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("life", [LifeOnDisk, LifeInMemory])
def test_long_lives(life: type[Life]) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        life, settings=settings(SHORT, max_examples=60, stateful_step_count=12)
    )
