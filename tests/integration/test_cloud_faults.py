"""A bucket whose answers fail, break off or lie, and conversions into it that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
from proxy import Proxy
from reference import Source, write_source
from servers import SeaweedFS

import maskcube

PASSING = ("500", "503", "429", "drop", "cut", "slow")
LYING = ("short", "flip")
N_MASKS = 640
N_SHARDS = 10


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return write_source(tmp_path_factory.mktemp("source"), n_masks=N_MASKS, chunks=(1, 24, 20))


@pytest.fixture
def proxy(seaweed: SeaweedFS) -> Iterator[Proxy]:
    with Proxy(seaweed.endpoint, seed=5) as proxy:
        yield proxy


@pytest.fixture
def options(seaweed: SeaweedFS, proxy: Proxy) -> dict[str, Any]:
    """Return how to reach the server through the proxy, without patience for silence."""
    return {
        **seaweed.options,
        "endpoint_url": proxy.endpoint,
        "config_kwargs": {"connect_timeout": 1, "read_timeout": 1},
    }


@pytest.fixture
def url(seaweed: SeaweedFS, source: Source) -> str:
    url = seaweed.url(seaweed.new_bucket(), "masks.zarr")
    maskcube.convert(source.folder, url, storage_options=seaweed.options, progress=False)
    return url


def read_often(url: str, options: dict[str, Any], source: Source, proxy: Proxy, n: int) -> int:
    """Ask for labels and masks `n` times, each time anew; return how many faults there were."""
    n_faults = 0
    nouns = source.by_row["noun"].to_numpy()
    for number in range(n // N_SHARDS):
        proxy.reset()
        masks = maskcube.open_masks(url, chunks=None, storage_options=options)
        rows = np.arange(number % 64, N_MASKS, 64)
        np.testing.assert_array_equal(masks[rows], source.masks[rows])
        assert masks.noun.values[rows].tolist() == nouns[rows].tolist()
        assert masks.area.values.tolist() == source.masks.sum(axis=(1, 2)).tolist()
        n_faults += sum(request.fault is not None for request in proxy.requests)
    return n_faults


@pytest.mark.parametrize("kinds", [PASSING, LYING, ("hang",)], ids="-".join)
def test_every_answer_is_right(
    url: str, options: dict[str, Any], source: Source, proxy: Proxy, kinds: tuple[str, ...]
) -> None:
    n_reads = 40 if "hang" in kinds else 150
    proxy.fault(*kinds, rate=0.05 if "hang" in kinds else 0.1, delay_s=0.2)
    assert read_often(url, options, source, proxy, n_reads) > 0


@pytest.mark.slow
def test_a_thousand_reads(url: str, options: dict[str, Any], source: Source, proxy: Proxy) -> None:
    proxy.fault(*PASSING, *LYING, rate=0.05, delay_s=0.2)
    assert read_often(url, options, source, proxy, 1000) > 30


def test_an_outage(url: str, options: dict[str, Any], source: Source, proxy: Proxy) -> None:
    masks = maskcube.open_masks(url, chunks=None, storage_options=options)
    proxy.stop()
    back = threading.Timer(3, proxy.start)
    back.start()
    np.testing.assert_array_equal(masks[:200], source.masks[:200])
    back.join()


def test_an_outage_without_end(
    url: str, options: dict[str, Any], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskcube.bucket._DEADLINE_SECONDS", 2)
    masks = maskcube.open_masks(url, chunks=None, storage_options=options)
    proxy.fault("503", when=lambda _, path: "/masks/c/" in path)
    with pytest.raises(maskcube.StoreUnreachable, match=r"the server answered 503 \(SlowDown\)"):
        masks.load()


def test_damage_that_stays(
    seaweed: SeaweedFS, url: str, options: dict[str, Any], proxy: Proxy
) -> None:
    """What is damaged in the bucket is said to be, after three questions."""
    inside = seaweed.obstore(url.split("/")[2], "masks.zarr")
    data = bytearray(obstore.get(inside, "masks/c/1/0/0").bytes())
    data[len(data) // 3] ^= 4
    obstore.put(inside, "masks/c/1/0/0", bytes(data))
    masks = maskcube.open_masks(url, chunks=None, storage_options=options)
    proxy.reset()
    with pytest.raises(maskcube.CorruptMask, match="shard 1"):
        masks[64:128].load()
    asked = [request for request in proxy.requests if "/masks/c/1/" in request.path]
    assert len(asked) == 3


@pytest.mark.parametrize(
    "rate", [0.05, pytest.param(0.2, marks=pytest.mark.slow)], ids=["5 %", "20 %"]
)
def test_a_conversion(
    seaweed: SeaweedFS, options: dict[str, Any], source: Source, proxy: Proxy, rate: float
) -> None:
    proxy.fault(*PASSING, *LYING, "lost", rate=rate, delay_s=0.2)
    url = seaweed.url(seaweed.new_bucket(), "masks.zarr")
    maskcube.convert(source.folder, url, storage_options=options, progress=False)
    assert any(request.fault for request in proxy.requests)
    proxy.clear()
    report = maskcube.verify(url, source.folder, storage_options=seaweed.options)
    assert report.n_compared == N_MASKS


class TestKills:
    """A conversion that is killed after a number of writes has reached the server."""

    def start(self, source: Source, url: str, options: dict[str, Any]) -> subprocess.Popen[bytes]:
        code = (
            "import json, sys, maskcube; source, url, options = sys.argv[1:];"
            "maskcube.convert(source, url, storage_options=json.loads(options), progress=False)"
        )
        given = [str(source.folder), url, json.dumps(options)]
        return subprocess.Popen([sys.executable, "-c", code, *given])

    def killed(
        self, source: Source, url: str, options: dict[str, Any], proxy: Proxy, n_writes: int
    ) -> bool:
        """Start a conversion and kill it at a write; whether it was done before."""
        proxy.reset()
        process = self.start(source, url, options)
        while process.poll() is None:
            if sum(request.method == "PUT" for request in proxy.requests) >= n_writes:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        return process.wait() == 0

    def check(
        self, seaweed: SeaweedFS, source: Source, options: dict[str, Any], proxy: Proxy, n: int
    ) -> None:
        bucket = seaweed.new_bucket()
        url = seaweed.url(bucket, "masks.zarr")
        proxy.latency = 0.005
        done = self.killed(source, url, options, proxy, n)
        proxy.latency = 0
        try:
            maskcube.open_masks(url, storage_options=seaweed.options)
        except (maskcube.IncompleteStore, maskcube.StoreNotFound):
            pass
        else:
            maskcube.verify(url, source.folder, storage_options=seaweed.options)
        # Killed with nothing left to do but to count, it is a store.
        with nullcontext() if n < N_SHARDS else suppress(maskcube.StoreExists):
            if not done:
                maskcube.convert(
                    source.folder, url, storage_options=seaweed.options, progress=False
                )
        report = maskcube.verify(url, source.folder, storage_options=seaweed.options)
        assert report.n_compared == N_MASKS
        inside = obstore.list(seaweed.obstore(bucket, "masks.zarr")).collect()
        assert not [found["path"] for found in inside if found["path"].startswith("_maskcube")]

    @pytest.mark.parametrize("n_writes", [1, 9, 22, 50])
    def test_a_few(
        self,
        seaweed: SeaweedFS,
        source: Source,
        options: dict[str, Any],
        proxy: Proxy,
        n_writes: int,
    ) -> None:
        self.check(seaweed, source, options, proxy, n_writes)

    @pytest.mark.slow
    def test_twenty(
        self, seaweed: SeaweedFS, source: Source, options: dict[str, Any], proxy: Proxy
    ) -> None:
        for n_writes in range(2, 62, 3):
            self.check(seaweed, source, options, proxy, n_writes)

    def test_the_same_twice_at_once(
        self, seaweed: SeaweedFS, source: Source, options: dict[str, Any], proxy: Proxy
    ) -> None:
        url = seaweed.url(seaweed.new_bucket(), "masks.zarr")
        proxy.latency = 0.005
        both = [self.start(source, url, options) for _ in range(2)]
        assert [process.wait(120) for process in both].count(0) >= 1
        report = maskcube.verify(url, source.folder, storage_options=seaweed.options)
        assert report.n_compared == N_MASKS

    def test_the_server_is_killed(self, source: Source) -> None:
        with SeaweedFS() as server, Proxy(server.endpoint) as proxy:
            url = server.url(server.new_bucket(), "masks.zarr")
            proxy.latency = 0.02
            process = self.start(source, url, {**server.options, "endpoint_url": proxy.endpoint})
            while sum(request.method == "PUT" for request in proxy.requests) < 8:
                time.sleep(0.005)
            server.kill()
            server.start()
            # Whether it has waited for the server or given up, nothing is lost.
            if process.wait(150) != 0:
                maskcube.convert(source.folder, url, storage_options=server.options, progress=False)
            report = maskcube.verify(url, source.folder, storage_options=server.options)
            assert report.n_compared == N_MASKS


@pytest.mark.parametrize("use", [lambda masks: masks[:3].load(), lambda masks: masks.area.load()])
def test_a_forked_process_is_told(
    seaweed: SeaweedFS, url: str, use: Callable[[Any], object], tmp_path: Path
) -> None:
    masks = maskcube.open_masks(url, chunks=None, storage_options=seaweed.options)
    told = tmp_path / "told"
    child = os.fork()
    if child == 0:
        try:
            masks.attrs = {}
            maskcube.open_masks(url, storage_options=seaweed.options)
        except maskcube.StoreUnreachable as error:
            told.write_text(str(error))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert "this process was forked from one that had read from afar" in told.read_text()
    use(masks)
