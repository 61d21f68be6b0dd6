"""Two processes that write to one place where nothing keeps them apart."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from reference import Source, write_source

import maskcube
from maskcube.bucket import Bucket
from maskcube.objects import open_objects

_numbers = itertools.count()


@pytest.fixture
def url() -> str:
    return f"memory://rivals/{next(_numbers)}"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return write_source(tmp_path_factory.mktemp("other"), n_masks=200, seed=5)


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return write_source(
        tmp_path_factory.mktemp("later"),
        n_masks=70,
        seed=1,
        change=lambda table: table.assign(image_name="later_" + table["image_name"]),
    )


@pytest.fixture(scope="module")
def sources(small: Source, later: Source) -> list[Source]:
    return [small, later]


@pytest.fixture
def rival(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let something happen just before, or after, a request for a key is made first."""

    def meanwhile(
        method: str, key: str, action: Callable[[], object], when: str = "before"
    ) -> None:
        real, waiting = getattr(Bucket, method), [action]

        def request(self: Bucket, *args: Any) -> Any:
            hit = args[:1] == (key,) and bool(waiting)
            if hit and when == "before":
                waiting.pop()()
            found = real(self, *args)
            if hit and waiting:
                waiting.pop()()
            return found

        monkeypatch.setattr(Bucket, method, request)

    return meanwhile


def convert(source: Source, url: str, **options: Any) -> None:
    maskcube.convert(source.folder, url, progress=False, **options)


def append(source: Source, url: str) -> None:
    maskcube.append(source.folder, url, progress=False)


def check(url: str, *sources: Source) -> None:
    """Raise unless it is the store of these, whole, and nothing else is left."""
    expected = np.concatenate([source.masks for source in sources])
    np.testing.assert_array_equal(maskcube.open_masks(url), expected)
    folders = [source.folder for source in sources]
    assert maskcube.verify(url, folders).n_compared == len(expected)
    place = open_objects(url)
    assert not list(place.keys("_maskcube/"))


POINTS = ["masks/c/0/0/0", "_maskcube/shards/1.json", "masks/c/2/0/0", "image/c/0", "zarr.json"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("key", ["_maskcube/plan.json", *POINTS])
def test_the_slower_of_two_equal_conversions_is_done_too(
    small: Source, url: str, rival: Callable[..., None], key: str, when: str
) -> None:
    rival("create", key, lambda: convert(small, url), when)
    if key == "_maskcube/plan.json":
        with pytest.raises(maskcube.StoreExists, match="has just written it"):
            convert(small, url)
    else:
        convert(small, url)
    check(url, small)


@pytest.mark.parametrize("key", [POINTS[0], *POINTS[2:], "masks/coordinates"])
def test_whose_plan_was_discarded_replaces_nothing(
    small: Source, other: Source, url: str, rival: Callable[..., None], key: str
) -> None:
    rival("create", key, lambda: convert(other, url, overwrite=True))
    with pytest.raises(maskcube.StoreExists, match="its plan is gone"):
        convert(small, url)
    check(url, other)


def test_a_bad_source_deletes_nothing_of_another(
    small: Source, other: Source, url: str, rival: Callable[..., None], tmp_path: Path
) -> None:
    bad = shutil.copytree(small.folder, tmp_path / "bad")
    with h5py.File(bad / small.hdf5.relative_to(small.folder), "r+") as file:
        file["masks"][149, 0, 0] = 7
    rival("create", "masks/c/0/0/0", lambda: convert(other, url, overwrite=True))
    with pytest.raises(maskcube.SourceError, match="149"):
        maskcube.convert(bad, url, progress=False)
    check(url, other)


SWITCHING = [
    ("put", "_maskcube/switching.json"),
    ("delete", "zarr.json"),
    ("copy", "_maskcube/new/noun/c/0"),
    ("copy", "_maskcube/new/zarr.json"),
    ("delete", "_maskcube/switching.json"),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", SWITCHING)
def test_the_same_change_ended_twice(
    sources: list[Source], url: str, rival: Callable[..., None], point: tuple[str, str], when: str
) -> None:
    small, later = sources
    convert(small, url)
    rival(*point, lambda: append(later, url), when)
    append(later, url)
    check(url, small, later)


@pytest.mark.parametrize("key", ["_maskcube/new/zarr.json", "_maskcube/switching.json"])
def test_an_update_that_another_one_has_discarded(
    small: Source, url: str, rival: Callable[..., None], key: str
) -> None:
    convert(small, url)
    row, another = (small.by_row.iloc[number] for number in (3, 70))

    def update(of: Any) -> None:
        labels = of["image_name"], of["noun"], int(of["instance_id"])
        maskcube.update(url, *labels, np.ones(small.masks.shape[1:]))

    rival("create" if "new" in key else "put", key, lambda: update(another))
    with pytest.raises(maskcube.StoreExists, match="another process has finished"):
        update(row)
    update(row)
    masks = maskcube.open_masks(url)
    assert masks[[3, 70]].all()
    maskcube.verify(url)


def test_a_switch_of_nothing(small: Source, later: Source, url: str) -> None:
    convert(small, url)
    open_objects(url, read_only=False).put("_maskcube/switching.json", b"{}")
    append(later, url)
    check(url, small, later)
