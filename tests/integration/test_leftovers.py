"""What lies about when a store is written: of other runs, other kinds of stores, strangers."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from reference import Source, write_source
from zarr.abc.store import Store
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore, WrapperStore

import maskcube

SHAPE = (6, 5)
Operation = Callable[[Any], object]


class Killed(BaseException):
    """Stands for the end of the process."""


class Deadly(WrapperStore[Store]):
    """A store whose n-th change is the last one."""

    def __init__(self, store: Store, at: int) -> None:
        super().__init__(store)
        self.left = at

    def _count(self) -> None:
        self.left -= 1
        if not self.left:
            raise Killed

    async def set(self, key: str, value: Buffer) -> None:
        """Put an object, or die."""
        self._count()
        await self._store.set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Put an object that is not there, or die."""
        self._count()
        await self._store.set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:
        """Delete an object, or die."""
        self._count()
        await self._store.delete(key)


class Shaky(WrapperStore[Store]):
    """A store whose root cannot be read when it is asked for the n-th time."""

    def __init__(self, store: Store, at: int) -> None:
        super().__init__(store)
        self.left = at

    async def get(self, key: str, *asked: Any, **options: Any) -> Buffer | None:
        """Return an object, or fail."""
        if key == "zarr.json":
            self.left -= 1
            if not self.left:
                raise OSError("connection reset")
        return await self._store.get(key, *asked, **options)


def killed(operation: Operation, place: Path, moment: str) -> None:
    """Run an operation until it comes to some function of maskcube."""

    def die(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"maskcube.{moment}", die)
        with pytest.raises(Killed):
            operation(place)


def later_images(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(image_name="later_" + table["image_name"])


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return write_source(tmp_path_factory.mktemp("first"), n_masks=70, shape=SHAPE)


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("later")
    return write_source(folder, n_masks=70, shape=SHAPE, seed=1, change=later_images)


@pytest.fixture
def place(first: Source, tmp_path: Path) -> Path:
    target = tmp_path / "masks.zarr"
    maskcube.convert(first.folder, target, progress=False)
    return target


@pytest.fixture
def append(later: Source) -> Operation:
    return lambda place: maskcube.append(later.folder, place, progress=False)


@pytest.fixture
def update(first: Source) -> Operation:
    image, noun, instance = first.by_row[["image_name", "noun", "instance_id"]].to_numpy()[3]
    return lambda place: maskcube.update(place, image, noun, int(instance), np.ones(SHAPE))


def n_masks(place: Any) -> int:
    assert maskcube.verify(place).n_masks == len(maskcube.open_masks(place))
    return len(maskcube.open_masks(place))


def killed_in_place(operation: Operation, place: Path, at: int) -> None:
    with pytest.raises(Killed):
        operation(Deadly(LocalStore(place), at))


def give_note(place: Path) -> None:
    """Give the root an attribute of a user's own: then it is another root."""
    root = json.loads((place / "zarr.json").read_bytes())
    root["attributes"]["note"] = "mine"
    (place / "zarr.json").write_text(json.dumps(root))


class TestOtherRuns:
    @pytest.mark.parametrize("at", [5, 20])
    def test_begun_in_its_place_is_not_taken_for_done(
        self, place: Path, append: Operation, at: int
    ) -> None:
        killed_in_place(append, place, at)
        with pytest.raises(maskcube.StoreExists, match="begun through a zarr store"):
            append(place)
        assert n_masks(place) == 70
        append(LocalStore(place))
        assert n_masks(place) == 140

    @pytest.mark.parametrize("at", [45, 55, 95])
    def test_copied_in_its_place_is_ended(self, place: Path, append: Operation, at: int) -> None:
        killed_in_place(append, place, at)
        append(place)
        assert n_masks(place) == 140
        assert not (place / "_maskcube").exists()

    def test_a_change_of_what_is_not_there_any_more_is_not_taken_for_done(
        self, place: Path, append: Operation
    ) -> None:
        killed_in_place(append, place, 20)
        give_note(place)
        append(LocalStore(place))
        assert n_masks(place) == 140

    def test_a_change_of_what_is_not_there_any_more_is_in_nobodys_way(
        self, place: Path, append: Operation, update: Operation
    ) -> None:
        killed(append, place, "stage.LocalStage.promote")
        with pytest.raises(maskcube.StoreExists, match=r"or delete .*partial to give it up"):
            update(place)
        give_note(place)
        update(place)
        assert n_masks(place) == 70

    def test_an_unfinished_update_is_in_nobodys_way(
        self, place: Path, append: Operation, update: Operation
    ) -> None:
        killed(update, place, "stage.LocalStage.promote")
        append(place)
        assert n_masks(place) == 140

    def test_a_read_that_fails_deletes_nothing(
        self, place: Path, first: Source, append: Operation
    ) -> None:
        killed_in_place(append, place, 20)
        for at in range(1, 7):
            shaky = Shaky(LocalStore(place), at)
            with pytest.raises((maskcube.CorruptStore, maskcube.StoreExists)):
                maskcube.convert(first.folder, shaky, progress=False)
            assert n_masks(place) == 70


class TestStrangers:
    """Nothing of theirs is deleted or written over."""

    @pytest.fixture
    def theirs(self, tmp_path: Path) -> Path:
        folder = tmp_path / "theirs"
        (folder / "_maskcube").mkdir(parents=True)
        (folder / "_maskcube" / "thesis").write_text("all of it")
        return folder

    @pytest.fixture(params=["append", "update", "overwrite", "repair"])
    def operation(
        self, request: pytest.FixtureRequest, append: Operation, update: Operation, first: Source
    ) -> Operation:
        operations: dict[str, Operation] = {
            "append": append,
            "update": update,
            "overwrite": lambda place: maskcube.convert(
                first.folder, place, overwrite=True, progress=False
            ),
            "repair": lambda place: maskcube.verify(place, repair=True),
        }
        return operations[request.param]

    def check(self, theirs: Path) -> None:
        names = sorted(path.name for path in theirs.rglob("*"))
        assert names == ["_maskcube", "thesis"]
        assert (theirs / "_maskcube" / "thesis").read_text() == "all of it"

    @pytest.mark.parametrize("link", [os.symlink, os.link])
    def test_a_link_in_place_of_the_lock(
        self, place: Path, theirs: Path, operation: Operation, link: Callable[..., None]
    ) -> None:
        link(theirs / "_maskcube" / "thesis", place.with_name(".masks.zarr.maskcube-lock"))
        with pytest.raises(maskcube.StoreExists, match="not the lock"):
            operation(place)
        self.check(theirs)

    def test_a_link_in_place_of_what_is_begun(
        self, place: Path, theirs: Path, append: Operation
    ) -> None:
        place.with_name("masks.zarr.partial").symlink_to(theirs)
        with pytest.raises(maskcube.StoreExists, match="in its way"):
            append(place)
        self.check(theirs)

    def test_a_link_in_place_of_our_folder(
        self, place: Path, theirs: Path, operation: Operation
    ) -> None:
        (place / "_maskcube").symlink_to(theirs / "_maskcube")
        with pytest.raises(maskcube.CorruptStore, match="leads out"):
            operation(place)
        self.check(theirs)

    def test_a_link_in_what_is_begun(self, place: Path, theirs: Path, append: Operation) -> None:
        killed(append, place, "journal.Journal.__init__")
        begun = place.with_name("masks.zarr.partial") / "masks"
        (begun / "c" / "0" / "0" / "0").unlink()
        for folder in ("c/0/0", "c/0", "c", "."):
            (begun / folder).rmdir()
        begun.symlink_to(theirs)
        with pytest.raises(maskcube.CorruptStore, match="leads out"):
            append(place)
        self.check(theirs)

    def test_a_folder_of_our_name(self, theirs: Path, first: Source) -> None:
        with pytest.raises(maskcube.StoreExists, match="no mask store"):
            maskcube.convert(first.folder, theirs, progress=False)
        self.check(theirs)

    def test_another_group_with_a_plan(self, tmp_path: Path, first: Source) -> None:
        target = tmp_path / "group.zarr"
        zarr.create_group(target, attributes={"mine": True})
        (target / "_maskcube").mkdir()
        (target / "_maskcube" / "plan.json").write_text("{}")
        with pytest.raises(maskcube.NotAMaskStore):
            maskcube.convert(first.folder, LocalStore(target), overwrite=True, progress=False)
        assert zarr.open_group(target, mode="r").attrs["mine"]


class TestNonsense:
    @pytest.mark.parametrize("kind", [Path, LocalStore])
    @pytest.mark.parametrize("plan", [b"", b"{", b"[]", b"5", b"[" * 10**5])
    def test_no_plan(self, place: Path, append: Operation, kind: Any, plan: bytes) -> None:
        for folder in (place, place.with_name("masks.zarr.partial")):
            (folder / "_maskcube" / "shards").mkdir(parents=True)
            (folder / "_maskcube" / "plan.json").write_bytes(plan)
            (folder / "_maskcube" / "shards" / "0.json").write_text("{}")
            (folder / "_maskcube" / "replacing.json").write_bytes(plan)
        append(kind(place))
        assert n_masks(place) == 140

    @pytest.mark.parametrize("n_masks", ["1e999", "1" + "0" * 400, '"x"', "-1", "null"])
    def test_an_absurd_plan(self, tmp_path: Path, n_masks: str) -> None:
        target = tmp_path / "masks.zarr"
        (target / "_maskcube").mkdir(parents=True)
        layout = f'{{"n_masks": {n_masks}, "height": 1, "width": 1}}'
        text = f'{{"action": "convert", "layout": {layout}}}'
        (target / "_maskcube" / "plan.json").write_text(text)
        with pytest.raises((maskcube.IncompleteStore, maskcube.NotAMaskStore)):
            maskcube.open_masks(target)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("areas", "x" * 64),
            ("areas", [-1] * 64),
            ("areas", [0]),
            ("crcs", [0.5] * 64),
            ("crcs", [2**32] * 64),
            ("counts", 64),
            ("counts", [-2] * 64),
            ("counts", [10**12] * 64),
            ("steps", []),
            ("steps", "damaged"),
            ("steps", [["x", ""]]),
            ("steps", [[10**12, ""]]),
            ("piece", ["a", "b"]),
            ("piece", [10**30, 0]),
        ],
    )
    def test_an_absurd_entry(self, tmp_path: Path, first: Source, name: str, value: object) -> None:
        target = tmp_path / "masks.zarr"
        killed(partial(maskcube.convert, first.folder), target, "conversion.commit")
        path = tmp_path / "masks.zarr.partial" / "_maskcube" / "shards" / "0.json"
        entry = json.loads(path.read_bytes())
        n_steps = sum(entry["counts"])
        entry[name] = [[n_steps, ""]] if value == "damaged" else value
        del entry["crc32"]
        crc32 = zlib.crc32(json.dumps(entry, sort_keys=True).encode())
        path.write_text(json.dumps({**entry, "crc32": crc32}))
        report = maskcube.convert(first.folder, target, progress=False)
        assert report.n_resumed == 1
        maskcube.verify(target, first.folder)

    def test_a_file_cut_off_before_there_was_a_plan(self, tmp_path: Path, first: Source) -> None:
        target = tmp_path / "masks.zarr"
        (target / "_maskcube").mkdir(parents=True)
        (target / "_maskcube" / "plan.1234.partial").write_bytes(b"{")
        maskcube.convert(first.folder, LocalStore(target), progress=False)
        assert n_masks(target) == 70
        assert not [path for path in (target / "_maskcube").rglob("*") if path.is_file()]

    def test_a_store_that_can_only_be_read(self, place: Path, append: Operation) -> None:
        with pytest.raises(maskcube.InvalidOption, match="read_only"):
            append(LocalStore(place, read_only=True))

    def test_a_link_to_itself(self, tmp_path: Path, append: Operation) -> None:
        link = tmp_path / "masks.zarr"
        link.symlink_to(link)
        with pytest.raises(maskcube.CorruptStore):
            append(link)
