"""Workers that are jobs of a real Slurm: the same answers and stores, also when a job is ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pages import blocks, script
from reference import Source, write_source
from slurm import Slurm, SlurmMissing, slurm

import maskcube

if TYPE_CHECKING:
    from distributed import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SCHEDULER_ON_LOOPBACK = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
ON_LOOPBACK = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]


@pytest.fixture(scope="module")
def running() -> Iterator[Slurm]:
    try:
        with slurm() as running, pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(running.configuration))
            # Jobs have this environment: a worker imports what this module does.
            patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
            yield running
    except SlurmMissing as missing:
        pytest.fail(str(missing))


@pytest.fixture
def client(running: Slurm, tmp_path: Path) -> Iterator[Client]:
    """Return a client of two workers, each of them a job."""
    from dask_jobqueue.slurm import SLURMCluster
    from distributed import Client

    with (
        SLURMCluster(
            cores=1,
            memory="1GiB",
            walltime="00:10:00",
            scheduler_options=SCHEDULER_ON_LOOPBACK,
            worker_extra_args=ON_LOOPBACK,
            log_directory=str(tmp_path / "logs"),
            local_directory=str(tmp_path / "spilled"),
        ) as cluster,
        Client(cluster) as client,
    ):
        cluster.scale(jobs=2)
        client.wait_for_workers(2, timeout=120)
        yield client
    running.wait_for_end()


def _areas(block: NDArray[np.uint8]) -> NDArray[np.int64]:
    time.sleep(0.5)  # long enough for a job to be ended in the middle
    areas: NDArray[np.int64] = block.sum(axis=(1, 2), dtype=np.int64)
    return areas


def _ending(work: Callable[[], Any], begun: Callable[[], object], end: Callable[[], None]) -> Any:
    """Return what `work` gives, which runs while `end` is called, once it has begun."""
    future: Future[Any] = Future()

    def carry_out() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the test shall see it
            future.set_exception(error)

    # No executor, which would wait for ever for what hangs.
    Thread(target=carry_out, daemon=True).start()
    while not begun():
        assert not future.done(), f"it was done before anything was ended: {future}"
        time.sleep(0.02)
    assert not future.done(), f"it was done before anything was ended: {future}"
    end()
    return future.result(timeout=240)


def _files(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of a few hundred masks of 1000 x 1000 pixels."""
    return maskcube.sample_dataset(tmp_path_factory.mktemp("many") / "laion-fmri", n_images=40)


@pytest.fixture(scope="module")
def alone(source: Path) -> Iterator[Path]:
    """Return its store, made without a cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        path = source.parent / "alone.zarr"
        maskcube.convert(source, path, progress=False)
        yield path


def test_without_slurm_it_is_said_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slurm._PATH", "/nowhere")
    with pytest.raises(SlurmMissing, match=r"slurmctld.*scripts/slurm"), slurm():
        pass


def test_a_scan_equals_that_of_this_process(client: Any, alone: Path, store: Path) -> None:
    for path in (alone, store):
        pixels = maskcube.open_masks(path, chunks=None)
        masks = maskcube.open_masks(path)
        assert masks.chunksizes["mask"][0] == 64, "a task reads a shard"
        np.testing.assert_array_equal(masks.sum(("y", "x")).compute(), pixels.area)
        hand = masks.sel(noun="hand")
        np.testing.assert_array_equal(
            hand.any("mask").compute(), pixels.sel(noun="hand").any("mask")
        )
    assert len(client.run(os.getpid)) == 2


def test_a_scan_survives_a_cancelled_job(client: Any, running: Slurm, alone: Path) -> None:
    masks = maskcube.open_masks(alone)
    first, _ = running.jobs()
    areas = masks.data.map_blocks(_areas, drop_axis=(1, 2), dtype=np.int64)
    found = _ending(
        areas.compute,
        lambda: len(client.who_has()) > 0 or any(client.processing().values()),
        lambda: running.cancel(first),
    )
    np.testing.assert_array_equal(found, maskcube.open_masks(alone, chunks=None).area)
    running.wait_for_end(first)


def test_a_conversion_equals_that_of_this_process(
    client: Any, source: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    together = source.parent / "together.zarr"
    report = maskcube.convert(source, together, client=client, workers=1, progress=False)
    assert report.n_masks > 400
    assert _files(together) == _files(alone)


def test_a_conversion_survives_a_job_that_is_killed(
    client: Any, running: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    many: Source = write_source(tmp_path / "many", n_masks=12_000, shape=(60, 50))
    maskcube.convert(many.folder, tmp_path / "alone.zarr", progress=False)
    first, _ = running.jobs()
    entries = tmp_path / "together.zarr.partial" / "_maskcube" / "shards"
    _ending(
        lambda: maskcube.convert(
            many.folder, tmp_path / "together.zarr", client=client, workers=1, progress=False
        ),
        lambda: entries.exists() and len(list(entries.iterdir())) > 2,
        lambda: running.kill(first),
    )
    running.wait_for_end(first)
    assert _files(tmp_path / "together.zarr") == _files(tmp_path / "alone.zarr")


def test_the_site_of_its_page_is_what_dask_knows(tmp_path: Path) -> None:
    import dask
    import dask_jobqueue  # noqa: F401 - brings its defaults

    (site,) = blocks("docs/cluster.md", "yaml", section="Slurm")
    (tmp_path / "jobqueue.yaml").write_text(site)
    (shown,) = dask.config.collect_yaml([str(tmp_path)])
    assert len(shown["jobqueue"]["slurm"]) > 3
    assert set(shown["jobqueue"]["slurm"]) <= set(dask.config.get("jobqueue.slurm"))


def test_the_slurm_of_its_page_runs(
    running: Slurm, dataset: Path, store: Path, tmp_path: Path
) -> None:
    """The page's code as it stands; what is this site's stands in dask's configuration."""
    (tmp_path / "laion-fmri").symlink_to(dataset)
    (tmp_path / "masks.zarr").symlink_to(store)
    ours = {"scheduler-options": SCHEDULER_ON_LOOPBACK, "worker-extra-args": ON_LOOPBACK}
    configuration = {"jobqueue": {"slurm": ours}}
    (tmp_path / "dask.yaml").write_text(json.dumps(configuration))
    opening, work, same = (
        "\n".join(blocks("docs/cluster.md", "python", section=section))
        for section in ("Slurm", "The work", "What must be the same")
    )
    assert "SLURMCluster(" in opening
    path = tmp_path / "on_slurm.py"
    path.write_text(script(opening, work, same, "client.close()", "cluster.close()"))
    done = subprocess.run(
        [sys.executable, "-W", "error", path],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "DASK_CONFIG": str(tmp_path / "dask.yaml")},
    )
    assert done.returncode == 0, done.stderr
    assert maskcube.verify(tmp_path / "again.zarr", dataset).n_masks > 0
    running.wait_for_end()
