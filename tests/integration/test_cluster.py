"""Real dask workers in processes of their own: converting and computing."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import obstore
import pytest
from memory import peak_bytes
from reference import Source, write_files, write_source
from servers import SeaweedFS
from zarr.storage import MemoryStore

import maskcube

if TYPE_CHECKING:
    from distributed import Client


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster

    # Workers are killed here on purpose: a task is not to be blamed for it.
    patient = dask.config.set({"distributed.scheduler.allowed-failures": 20})
    with (
        patient,
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            memory_limit="1GiB",
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


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return write_source(tmp_path_factory.mktemp("source"), n_masks=6000, chunks=(1, 24, 20))


@pytest.fixture(scope="module")
def local(source: Source, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return every object of the store that a conversion makes here."""
    folder = tmp_path_factory.mktemp("local") / "masks.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        maskcube.convert(source.folder, folder, progress=False)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.timeout(900)  # whatever else a machine has to do while workers are killed and begin
class TestInABucket:
    """What workers write and read by themselves."""

    def convert(
        self, seaweed: SeaweedFS, source: Source, client: Any
    ) -> tuple[maskcube.ConversionReport, dict[str, bytes]]:
        bucket = seaweed.new_bucket()
        report = maskcube.convert(
            source.folder,
            seaweed.url(bucket, "masks.zarr"),
            storage_options=seaweed.options,
            client=client,
            memory="1GiB",
            progress=False,
        )
        return report, objects_of(seaweed.obstore(bucket, "masks.zarr"))

    def test_as_a_local_conversion(
        self,
        client: Any,
        seaweed: SeaweedFS,
        source: Source,
        local: dict[str, bytes],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        report, found = self.convert(seaweed, source, client)
        assert found == local
        assert len(report.workers) == 2
        assert max(report.workers.values()) < 2**30
        assert "2 workers, at most" in str(report)

    def test_workers_that_are_killed(
        self,
        client: Any,
        seaweed: SeaweedFS,
        source: Source,
        local: dict[str, bytes],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        killed: list[int] = []
        killer = threading.Thread(target=_kill_twice, args=(client, killed))
        killer.start()
        # Where the machine is so fast that it is over before both are killed, once more.
        while killer.is_alive():
            _, found = self.convert(seaweed, source, client)
            assert found == local
        assert len(killed) == 2

    def test_a_scan(self, client: Any, seaweed: SeaweedFS, source: Source) -> None:
        bucket = seaweed.new_bucket()
        url = seaweed.url(bucket, "masks.zarr")
        maskcube.convert(source.folder, url, storage_options=seaweed.options, progress=False)
        masks = maskcube.open_masks(url, storage_options=seaweed.options)
        assert masks.chunksizes["mask"][0] == 64
        killed: list[int] = []
        killer = threading.Thread(target=_kill_twice, args=(client, killed))
        killer.start()
        while killer.is_alive():
            areas = client.compute(masks.sum(("y", "x"))).result()
            np.testing.assert_array_equal(areas, source.masks.sum(axis=(1, 2)))
        assert len(killed) == 2


def _kill_twice(client: Any, killed: list[int]) -> None:
    """Kill a worker as soon as it is at work, and then another one, or the one in its place."""
    until = time.monotonic() + 60
    while len(killed) < 2 and time.monotonic() < until:
        busy = [address for address, keys in client.processing().items() if keys]
        nannies = client.cluster.workers.values()
        pids = {nanny.pid for nanny in nannies if nanny.worker_address in busy} - {*killed, None}
        if pids:
            os.kill(min(pids), signal.SIGKILL)
            killed.append(min(pids))


def objects_of(store: Any) -> dict[str, bytes]:
    return {
        found["path"]: bytes(obstore.get(store, found["path"]).bytes())
        for part in obstore.list(store)
        for found in part
    }


class TestRefusals:
    @pytest.mark.parametrize("given", [5, False, "tcp://127.0.0.1:1"], ids=repr)
    def test_what_is_no_client(self, given: Any, tmp_path: Path, small: Source) -> None:
        with pytest.raises(maskcube.InvalidOption, match=r"give a distributed\.Client"):
            maskcube.convert(small.folder, tmp_path / "z", client=given, progress=False)
        assert not list(tmp_path.iterdir())

    def test_a_cluster_is_no_client(self, client: Any, tmp_path: Path, small: Source) -> None:
        with pytest.raises(maskcube.InvalidOption, match=r"of a cluster Client\(cluster\)"):
            maskcube.convert(small.folder, tmp_path / "z", client=client.cluster, progress=False)

    def test_a_client_that_is_closed(self, client: Any, tmp_path: Path, small: Source) -> None:
        from distributed import Client

        closed = Client(client.scheduler.address)
        closed.close()
        with pytest.raises(maskcube.InvalidOption, match="is closed: give one that is connected"):
            maskcube.convert(small.folder, tmp_path / "z", client=closed, progress=False)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "place",
        [MemoryStore(), obstore.store.MemoryStore(), "memory://of/this/process"],
        ids=["zarr", "obstore", "url"],
    )
    def test_the_memory_of_this_process(self, client: Any, place: Any, small: Source) -> None:
        with pytest.raises(
            maskcube.InvalidOption, match=r"memory of (this|one) process|cannot be sent to other"
        ):
            maskcube.convert(small.folder, place, client=client, progress=False)


def test_a_shard_is_not_written_for_somebody_else(tmp_path: Path) -> None:
    """A worker that nobody waits for any more stops as soon as its plan is not the one there."""
    from maskcube.entry import Entry
    from maskcube.journal import Journal
    from maskcube.manifest import Piece
    from maskcube.stage import open_stage

    plan = {"action": "convert", "layout": {"n_masks": 150, "height": 24, "width": 20}}
    entry = Entry(Piece.of(b"x"), [], [], [], ())
    with open_stage(tmp_path / "z") as stage:
        journal = Journal.begin(stage, plan)
        elsewhere: Journal = pickle.loads(pickle.dumps(journal))  # noqa: S301 - our own
        elsewhere.write(0, b"x", entry)
        stage.discard()
        for who in (journal, elsewhere):
            with pytest.raises(maskcube.StoreExists, match="its plan is gone"):
                who.check_is_ours()
        with pytest.raises(maskcube.StoreExists, match="its plan is gone"):
            elsewhere.write(1, b"x", entry)
        assert not stage.objects.size("masks/c/1/0/0")
        Journal.begin(stage, {**plan, "license": "another"})
        with pytest.raises(maskcube.StoreExists, match="has begun to write it meanwhile"):
            elsewhere.write(1, b"x", entry)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_as_many_masks_as_a_day_of_work(
    client: Any, seaweed: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,400 whole masks, 2.4 GB of pixels, in two processes of 1 GiB, one killed twice."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    dataset = maskcube.sample_dataset(tmp_path / "laion-fmri", n_images=190)
    folder = tmp_path / "masks.zarr"
    n_masks = maskcube.convert(dataset, folder, progress=False).n_masks
    assert n_masks > 2300
    bucket = seaweed.new_bucket()
    url, options = seaweed.url(bucket, "masks.zarr"), seaweed.options
    report = maskcube.convert(
        dataset, url, storage_options=options, client=client, memory="512MiB", progress=False
    )
    local = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert objects_of(seaweed.obstore(bucket, "masks.zarr")) == local
    assert max(report.workers.values()) < 2**29

    masks = maskcube.open_masks(url, storage_options=options)
    killed: list[int] = []
    killer = threading.Thread(target=_kill_twice, args=(client, killed))
    killer.start()
    while killer.is_alive():
        areas = client.compute(masks.sum(("y", "x"))).result()
        np.testing.assert_array_equal(areas, masks.area)
    assert len(killed) == 2
    peaks = [peak_bytes(nanny.pid) for nanny in client.cluster.workers.values()]
    assert max(peaks) < 2**30
