"""Places other than a folder: every kind of zarr store does what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import obstore.store
import pandas as pd
import pytest
from reference import Source, write_source
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ObjectStore

import maskcube
from maskcube.objects import ZarrObjects

SHAPE = (6, 5)


def _fsspec(folder: Path) -> FsspecStore:
    return FsspecStore.from_url(f"file://{folder}", storage_options={"auto_mkdir": True})


KINDS: dict[str, Callable[[Path], Any]] = {
    "memory": lambda _: MemoryStore(),
    "local": LocalStore,
    "fsspec": _fsspec,
    "obstore on a disk": lambda folder: ObjectStore(obstore.store.LocalStore(folder)),
    "obstore in memory": lambda _: ObjectStore(obstore.store.MemoryStore()),
}


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    folder = tmp_path / "place"
    folder.mkdir()
    return KINDS[request.param](folder)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    folder = tmp_path_factory.mktemp("places")
    first = write_source(folder / "first", n_masks=70, shape=SHAPE)
    return [first, write_source(folder / "later", n_masks=70, shape=SHAPE, seed=1, change=_renamed)]


def _renamed(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(image_name="later_" + table["image_name"])


def test_an_object_is_deleted_and_no_other(place: Any) -> None:
    objects = ZarrObjects(place)
    keys = ["zarr.json", "a/1.json", "a/10.json", "a/b/c"]
    for key in keys:
        objects.put(key, b"x")
    objects.delete("zarr.json")
    objects.delete("a/1.json")
    objects.delete("not/there")
    assert list(objects.keys()) == ["a/10.json", "a/b/c"]
    objects.delete("a/b")
    assert list(objects.keys()) == ["a/10.json"]


def test_a_life(place: Any, sources: list[Source]) -> None:
    """Converted, updated, appended to and overwritten; nothing but the store stays."""
    first, second = sources
    maskcube.convert(first.folder, place, progress=False)
    image, noun, instance = first.by_row[["image_name", "noun", "instance_id"]].to_numpy()[66]
    for pixels in (np.ones(SHAPE), np.zeros(SHAPE)):
        maskcube.update(place, image, noun, int(instance), pixels)
        np.testing.assert_array_equal(maskcube.open_masks(place)[66], pixels)
    maskcube.append(second.folder, place, progress=False)
    report = maskcube.verify(place, [first.folder, second.folder])
    assert (report.n_masks, report.n_compared) == (140, 139)
    assert not list(ZarrObjects(place).keys("_maskcube/"))
    maskcube.convert(second.folder, place, overwrite=True, progress=False)
    assert maskcube.verify(place, second.folder).n_compared == 70
    assert not list(ZarrObjects(place).keys("_maskcube/"))
