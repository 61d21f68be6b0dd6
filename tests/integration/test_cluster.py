"""Real dask workers in processes of their own: converting and computing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from reference import Source, write_files, write_source

import maskcube

if TYPE_CHECKING:
    from distributed import Client


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.parametrize("chunks", [(1, 24, 20), (100, 9, 9)], ids=str)
def test_convert_on_workers(
    client: Any, tmp_path: Path, chunks: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    source = write_source(tmp_path / "data", n_masks=1000, chunks=chunks, sorted_rows=False)
    alone = maskcube.convert(source.folder, tmp_path / "alone.zarr", progress=False)
    report = maskcube.convert(
        source.folder, tmp_path / "together.zarr", client=client, progress=False
    )
    assert (report.n_masks, report.store_bytes) == (1000, alone.store_bytes)
    np.testing.assert_array_equal(maskcube.open_masks(tmp_path / "together.zarr"), source.masks)
    assert maskcube.verify(tmp_path / "together.zarr", source.folder).n_masks == 1000


def test_a_fault_found_by_a_worker(client: Any, tmp_path: Path) -> None:
    source = write_source(tmp_path / "data", n_masks=600)
    source.masks[[17, 599], 3, 3] = 7
    write_files(source)
    with pytest.raises(maskcube.SourceError, match=r"\(17, \[7\]\), \(599, \[7\]\)"):
        maskcube.convert(source.folder, tmp_path / "masks.zarr", client=client, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_compute_on_workers(client: Any, small_store: Path, small: Source) -> None:
    masks = maskcube.open_masks(small_store)
    areas = client.compute(masks.sum(("y", "x"))).result()
    np.testing.assert_array_equal(areas, small.masks.sum(axis=(1, 2)))
    hands = client.submit(lambda array: array.sel(noun="hand").load(), masks).result()
    np.testing.assert_array_equal(hands, small.masks[(small.by_row["noun"] == "hand").to_numpy()])


def test_damage_reaches_the_caller(client: Any, small_store: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(small_store, tmp_path / "masks.zarr")
    (copy / "masks/c/1/0/0").unlink()
    masks = maskcube.open_masks(copy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(maskcube.CorruptMask, match="shard 1: it is missing"):
            client.compute(masks.sum()).result()
