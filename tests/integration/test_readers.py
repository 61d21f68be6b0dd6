"""The store is good without maskcube: plain zarr, plain xarray and TensorStore read it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorstore
import xarray as xr
from reference import Source

import maskcube


def _without_maskcube(code: str) -> str:
    """Run code in a process that cannot import maskcube, with every warning an error."""
    header = "import sys\nsys.modules['maskcube'] = None\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", header + code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_zarr_alone(small_store: Path, small: Source, tmp_path: Path) -> None:
    code = f"""
import numpy as np, zarr
group = zarr.open({str(small_store)!r}, mode="r")
np.save({str(tmp_path / "masks.npy")!r}, group["masks"][:])
print(group["noun"][:].tolist())
"""
    assert eval(_without_maskcube(code)) == small.by_row["noun"].tolist()  # noqa: S307 - a list
    np.testing.assert_array_equal(np.load(tmp_path / "masks.npy"), small.masks)


def test_xarray_alone(small_store: Path, small: Source) -> None:
    code = f"""
import json, xarray as xr
dataset = xr.open_zarr({str(small_store)!r}, chunks=None)
hands = dataset.masks[(dataset.noun == "hand").values]
print(json.dumps([list(dataset.data_vars), sorted(dataset.coords), list(hands.dims),
                  hands.sum(("y", "x")).values.tolist(), dataset.masks.encoding["chunks"],
                  dataset.area.attrs["units"], dataset.attrs["Conventions"]]))
"""
    variables, coords, dims, areas, chunks, units, conventions = json.loads(_without_maskcube(code))
    hands = small.masks[(small.by_row["noun"] == "hand").to_numpy()]
    assert variables == ["masks"]
    assert {"image", "noun", "instance", "score", "area", "crc32c"} < set(coords)
    assert dims == ["mask", "y", "x"]
    assert areas == hands.sum(axis=(1, 2)).tolist()
    assert (chunks, units, conventions) == ([1, 24, 20], "pixel", "CF-1.11")


def test_tensorstore_alone(small_store: Path, small: Source) -> None:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(small_store / "masks")}}
    array = tensorstore.open(spec, read=True).result()
    assert array.shape == small.masks.shape
    np.testing.assert_array_equal(array.read().result(), small.masks)
    np.testing.assert_array_equal(array[[149, 3, 64]].read().result(), small.masks[[149, 3, 64]])


class TestEngine:
    def test_a_dataset_with_its_index(self, small_store: Path, small: Source) -> None:
        with xr.open_dataset(small_store, engine="maskcube") as dataset:
            assert dataset.masks.chunks is None
            np.testing.assert_array_equal(dataset.masks[[3, 140]], small.masks[[3, 140]])
            assert isinstance(dataset.xindexes["noun"], maskcube.MaskIndex)
            assert dataset.attrs["Conventions"] == "CF-1.11"
            hands = dataset.sel(noun="hand")
            assert set(hands.noun.values) == {"hand"}

    @pytest.mark.parametrize(
        ("chunks", "expected"),
        [({}, (64, 64, 22)), ({"mask": 128}, (128, 22)), ("auto", (150,))],
        ids=str,
    )
    def test_chunks(
        self, small_store: Path, small: Source, chunks: Any, expected: tuple[int, ...]
    ) -> None:
        dropped = ["mask_file"] if chunks == "auto" else None
        with xr.open_dataset(
            small_store, engine="maskcube", chunks=chunks, drop_variables=dropped
        ) as dataset:
            assert dataset.masks.chunksizes["mask"] == expected
            assert isinstance(dataset.xindexes["noun"], maskcube.MaskIndex)
            np.testing.assert_array_equal(dataset.score, small.by_row["score"])

    def test_only_our_own_suffix_is_claimed(self) -> None:
        from maskcube.backend import MaskcubeBackend

        claims = MaskcubeBackend().guess_can_open
        assert claims("a/b.masks.zarr")
        assert not claims("a/b.zarr")
        assert not claims(3)

    def test_variables_may_be_dropped(self, small_store: Path) -> None:
        with xr.open_dataset(small_store, engine="maskcube", drop_variables="crc32c") as dataset:
            assert "crc32c" not in dataset.coords


class TestPlaces:
    """The same store from a zip, from memory and over plain http that cannot list."""

    def test_zip(self, small_store: Path, small: Source, tmp_path: Path) -> None:
        import shutil

        archive = shutil.make_archive(str(tmp_path / "masks"), "zip", small_store)
        masks = maskcube.open_masks(archive)
        np.testing.assert_array_equal(masks[[0, 149]], small.masks[[0, 149]])
        assert maskcube.verify(archive).n_masks == 150
        assert maskcube.info(archive).location == archive

    def test_memory(self, small_store: Path, small: Source) -> None:
        from zarr.core.buffer import default_buffer_prototype
        from zarr.storage import MemoryStore

        make = default_buffer_prototype().buffer.from_bytes
        objects = {
            path.relative_to(small_store).as_posix(): make(path.read_bytes())
            for path in small_store.rglob("*")
            if path.is_file()
        }
        masks = maskcube.open_masks(MemoryStore(store_dict=objects), chunks=None)
        np.testing.assert_array_equal(masks[70:90], small.masks[70:90])

    def test_obstore_store(self, small_store: Path, small: Source) -> None:
        from obstore.store import LocalStore

        masks = maskcube.open_masks(LocalStore(small_store), chunks=None)
        np.testing.assert_array_equal(masks[70:90], small.masks[70:90])

    @pytest.fixture
    def server(self, small_store: Path) -> Iterator[str]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=small_store))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
        server.server_close()

    def test_http(self, server: str, small: Source) -> None:
        options = {"client_options": {"allow_http": True}}
        masks = maskcube.open_masks(server, storage_options=options)
        np.testing.assert_array_equal(masks[[0, 149]], small.masks[[0, 149]])
        found = masks.sel(noun="hand")
        assert found.sizes["mask"] == (small.table["noun"] == "hand").sum()

    def test_an_image_is_one_request_for_each_shard(self, server: str, small: Source) -> None:
        options = {"client_options": {"allow_http": True}}
        masks = maskcube.open_masks(server, chunks=None, storage_options=options)
        _Quiet.asked.clear()
        np.testing.assert_array_equal(masks[70:86], small.masks[70:86])
        assert _Quiet.asked == ["/masks/c/1/0/0"]
        np.testing.assert_array_equal(masks[64:128], small.masks[64:128])
        assert _Quiet.asked == ["/masks/c/1/0/0"], "it is kept"
        np.testing.assert_array_equal(masks, small.masks)
        assert sorted(_Quiet.asked) == [f"/masks/c/{shard}/0/0" for shard in (0, 1, 2)]


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files and byte ranges; lists nothing, says nothing."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data, status = path.read_bytes(), 200
        total = len(data)
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        self_range = wanted.partition("-")
        if wanted:
            start = int(self_range[0])
            stop = min(int(self_range[2]) + 1, total) if self_range[2] else total
            data, status = data[start:stop], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{total}")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass
