"""Stores in buckets of real servers, and behind https: read, written, changed, counted."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pandas as pd
import pytest
import xarray as xr
import zarr
from proxy import Proxy, error_xml
from reference import Source, write_source
from servers import Azurite, Nginx, SeaweedFS, Server
from zarr.storage import ObjectStore

import maskcube
from maskcube.bucket import Bucket

DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
N_MASKS = 320
N_SHARDS = 5


@pytest.fixture(params=["seaweed", "moto", "azurite"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return write_source(tmp_path_factory.mktemp("first"), n_masks=N_MASKS)


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Source:
    def renamed(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(image_name="later_" + table["image_name"])

    folder = tmp_path_factory.mktemp("later")
    return write_source(folder, n_masks=90, seed=1, change=renamed)


@pytest.fixture(scope="module")
def local(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("local") / "masks.zarr"
    maskcube.convert(source.folder, path, progress=False)
    return path


def put_store(local: Path, store: Any) -> None:
    """Copy a local store into a bucket as any tool would."""
    for path in local.rglob("*"):
        if path.is_file():
            obstore.put(store, path.relative_to(local).as_posix(), path.read_bytes())


def keys(store: Any) -> list[str]:
    return sorted(found["path"] for part in obstore.list(store) for found in part)


def check_reading(url: str, options: dict[str, Any], source: Source) -> None:
    """Ask everything that can be asked of a store, and compare it with the source."""
    table = source.by_row
    for chunks in ("auto", None, {}, {"mask": 7}):
        masks = maskcube.open_masks(url, chunks=chunks, storage_options=options)
        np.testing.assert_array_equal(masks, source.masks)
    noun, image = table["noun"][3], table["image_name"][200]
    is_noun, is_image = table["noun"] == noun, table["image_name"] == image
    np.testing.assert_array_equal(masks.sel(noun=noun), source.masks[is_noun])
    np.testing.assert_array_equal(masks.sel(image=image), source.masks[is_image])
    for name, column in (("score", "score"), ("box_x0", "box_x0"), ("mask_file", "mask_file")):
        np.testing.assert_array_equal(masks[name].values, table[column])
    np.testing.assert_array_equal(masks.area, source.masks.sum(axis=(1, 2)))
    counted = maskcube.map_masks(np.count_nonzero, masks)
    np.testing.assert_array_equal(counted, source.masks.sum(axis=(1, 2)))
    runs = maskcube.masks_from_runs(*maskcube.runs(masks), source.masks.shape[1:])
    np.testing.assert_array_equal(runs, source.masks)
    with maskcube.Segmentations(url, storage_options=options) as segmentations:
        assert len(segmentations) == len(table)
        np.testing.assert_array_equal(segmentations[5], source.masks[5])
        pd.testing.assert_frame_equal(
            segmentations.metadata, source.table, check_dtype=False, check_exact=True
        )
        np.testing.assert_array_equal(segmentations.masks[7:9], source.masks[7:9])
    assert maskcube.info(url, storage_options=options).n_masks == len(table)
    report = maskcube.verify(url, source.folder, storage_options=options)
    assert report.n_compared == len(table)


def test_a_life_in_a_bucket(server: Server, source: Source, later: Source) -> None:
    bucket = server.new_bucket()
    url, options = server.url(bucket, "some/masks.zarr"), server.options
    maskcube.convert(source.folder, url, storage_options=options, progress=False)
    check_reading(url, options, source)
    with pytest.raises(maskcube.StoreExists, match="overwrite=True"):
        maskcube.convert(later.folder, url, storage_options=options, progress=False)

    maskcube.append(later.folder, url, storage_options=options, progress=False)
    row = source.by_row.iloc[70]
    key = row["image_name"], row["noun"], int(row["instance_id"])
    maskcube.update(url, *key, np.ones(source.masks.shape[1:]), storage_options=options)
    sources = [source.folder, later.folder]
    report = maskcube.verify(url, sources, storage_options=options)
    assert (report.n_masks, report.n_compared) == (N_MASKS + 90, N_MASKS + 89)

    inside = server.obstore(bucket, "some/masks.zarr")
    obstore.delete(inside, ["masks/c/2/0/0", "noun/c/0", "zarr.json", "masks/coordinates"])
    with pytest.raises(maskcube.NotAMaskStore, match="repair=True"):
        maskcube.open_masks(url, storage_options=options)
    report = maskcube.verify(url, sources, repair=True, storage_options=options)
    assert set(report.repaired) == {
        "masks/c/2/0/0",
        "noun/c/0",
        "zarr.json",
        "masks/coordinates",
    }

    maskcube.convert(later.folder, url, overwrite=True, storage_options=options, progress=False)
    assert maskcube.verify(url, later.folder, storage_options=options).n_compared == 90
    assert not [key for key in keys(inside) if key.startswith("_maskcube")]
    assert keys(server.obstore(bucket)) == [f"some/masks.zarr/{key}" for key in keys(inside)]


def test_the_same_bytes_as_on_a_disk(
    server: Server, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    bucket = server.new_bucket()
    maskcube.convert(source.folder, tmp_path / "masks.zarr", progress=False)
    maskcube.convert(
        source.folder, server.url(bucket, "z"), storage_options=server.options, progress=False
    )
    inside = server.obstore(bucket, "z")
    found = {key: bytes(obstore.get(inside, key).bytes()) for key in keys(inside)}
    local = {
        path.relative_to(tmp_path / "masks.zarr").as_posix(): path.read_bytes()
        for path in (tmp_path / "masks.zarr").rglob("*")
        if path.is_file()
    }
    assert found == local


def test_plain_zarr_and_xarray_read_it(server: Server, source: Source, local: Path) -> None:
    bucket = server.new_bucket()
    inside = server.obstore(bucket, "z")
    put_store(local, inside)
    store = ObjectStore(inside, read_only=True)
    array: Any = zarr.open_group(store, mode="r")["masks"]
    np.testing.assert_array_equal(array[3:70], source.masks[3:70])
    dataset = xr.open_zarr(store, chunks=None)
    assert dataset["noun"].to_numpy().tolist() == source.by_row["noun"].tolist()
    for given in (store, inside):
        np.testing.assert_array_equal(maskcube.open_masks(given), source.masks)


class TestHttps:
    @pytest.fixture
    def url(self, nginx: Nginx, local: Path) -> str:
        bucket = nginx.new_bucket()
        shutil.copytree(local, nginx.files / bucket / "masks.zarr")
        return nginx.url(bucket, "masks.zarr")

    def test_everything_is_read(self, nginx: Nginx, url: str, source: Source) -> None:
        check_reading(url, nginx.options, source)

    def test_the_certificates_of_a_file(self, nginx: Nginx, url: str) -> None:
        options = {"client_kwargs": {"verify": str(nginx.ca)}}
        assert maskcube.info(url, storage_options=options).n_masks == N_MASKS

    def test_who_is_not_trusted(self, url: str) -> None:
        with pytest.raises(maskcube.StoreUnreachable, match="certificate is not trusted"):
            maskcube.open_masks(url)

    def test_nothing_there(self, nginx: Nginx, url: str) -> None:
        with pytest.raises(maskcube.StoreNotFound, match="no mask store at"):
            maskcube.open_masks(f"{url}/no", storage_options=nginx.options)

    def test_nothing_is_written(self, nginx: Nginx, url: str, source: Source) -> None:
        with pytest.raises(maskcube.InvalidOption, match="can only be read"):
            maskcube.convert(source.folder, f"{url}2", storage_options=nginx.options)

    def test_a_lost_shard_is_an_error(self, nginx: Nginx, url: str) -> None:
        lost = nginx.files / url.removeprefix(nginx.endpoint + "/") / "masks/c/1/0/0"
        lost.unlink()
        masks = maskcube.open_masks(url, storage_options=nginx.options)
        with pytest.raises(maskcube.CorruptMask, match="shard 1: it is missing"):
            masks.compute()


def test_google_without_ceremony(
    seaweed: SeaweedFS, source: Source, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client of Google that obstore has reads a public bucket of S3, which answers alike."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    bucket = seaweed.new_bucket("public")
    put_store(local, seaweed.obstore(bucket, "masks.zarr"))
    url = f"gs://{bucket}/masks.zarr"
    for anonymous in ({}, {"anon": True}, {"token": "anon", "project": "mine"}):
        check_reading(url, {"endpoint_url": seaweed.endpoint, **anonymous}, source)


def test_through_the_engine_of_xarray(seaweed: SeaweedFS, source: Source, local: Path) -> None:
    bucket = seaweed.new_bucket()
    put_store(local, seaweed.obstore(bucket, "masks.zarr"))
    dataset = xr.open_dataset(
        seaweed.url(bucket, "masks.zarr"), engine="maskcube", storage_options=seaweed.options
    )
    np.testing.assert_array_equal(dataset["masks"][60:70], source.masks[60:70])


def test_memory_is_of_this_process(source: Source) -> None:
    url = "memory://somewhere/masks.zarr"
    maskcube.convert(source.folder, url, overwrite=True, progress=False)
    check_reading(url, {}, source)
    with pytest.raises(maskcube.StoreNotFound):
        maskcube.open_masks("memory://somewhere/else.zarr")
    with pytest.raises(maskcube.InvalidOption, match="memory of one process"):
        pickle.dumps(maskcube.open_masks(url))


def test_urls_of_files(source: Source, local: Path, tmp_path: Path) -> None:
    named = tmp_path / "a b.zarr"
    shutil.copytree(local, named)
    check_reading(named.as_uri(), {}, source)
    archive = shutil.make_archive(str(tmp_path / "masks"), "zip", local)
    for place in (archive, Path(archive).as_uri()):
        np.testing.assert_array_equal(maskcube.open_masks(place), source.masks)


class TestRequests:
    """What a server sees."""

    @pytest.fixture
    def proxy(self, seaweed: SeaweedFS) -> Iterator[Proxy]:
        with Proxy(seaweed.endpoint) as proxy:
            yield proxy

    @pytest.fixture
    def options(self, seaweed: SeaweedFS, proxy: Proxy) -> dict[str, Any]:
        return {**seaweed.options, "endpoint_url": proxy.endpoint}

    @pytest.fixture
    def url(self, seaweed: SeaweedFS, local: Path) -> str:
        bucket = seaweed.new_bucket()
        put_store(local, seaweed.obstore(bucket, "masks.zarr"))
        return seaweed.url(bucket, "masks.zarr")

    def test_opening_and_selecting(
        self, url: str, options: dict[str, Any], proxy: Proxy, source: Source
    ) -> None:
        masks = maskcube.open_masks(url, chunks=None, storage_options=options)
        table = source.by_row
        found = masks.sel(noun=table["noun"][0])
        assert len(found) == int((table["noun"] == table["noun"][0]).sum())
        # The root, and the labels beside it.
        assert sorted(request.path.rpartition("masks.zarr/")[2] for request in proxy.requests) == [
            "masks/coordinates",
            "zarr.json",
        ]

    def test_one_mask(self, url: str, options: dict[str, Any], proxy: Proxy) -> None:
        masks = maskcube.open_masks(url, chunks=None, storage_options=options)
        for row, n_requests in ((70, 1), (70, 0), (127, 0), (128, 1)):
            proxy.reset()
            masks[row].load()
            assert len(proxy.requests) == n_requests

    def test_an_image_and_a_noun(
        self, url: str, options: dict[str, Any], proxy: Proxy, source: Source
    ) -> None:
        table = source.by_row
        for label, column in (("image", "image_name"), ("noun", "noun")):
            masks = maskcube.open_masks(url, storage_options=options)
            wanted = table[column][N_MASKS // 2]
            shards = set(np.flatnonzero(table[column] == wanted) // 64)
            proxy.reset()
            masks.sel({label: wanted}).compute()
            assert len(proxy.requests) == len(shards)

    def test_all_coordinates(
        self, url: str, options: dict[str, Any], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Of a store as small as this one, all would come with the labels.
        monkeypatch.setattr("maskcube.store.HEAD_BYTES", 4096)
        masks = maskcube.open_masks(url, chunks=None, storage_options=options)
        proxy.reset()
        masks.coords.to_dataset().load()
        assert len(proxy.requests) == 1

    def test_what_a_store_says_of_itself(
        self, url: str, options: dict[str, Any], proxy: Proxy
    ) -> None:
        maskcube.info(url, storage_options=options)
        assert len(proxy.requests) == 1

    def test_no_more_at_once_than_may_be(
        self, url: str, options: dict[str, Any], proxy: Proxy
    ) -> None:
        proxy.latency = 0.05
        options |= {"max_concurrency": 2}
        masks = maskcube.open_masks(url, chunks=None, storage_options=options)
        proxy.reset()
        masks.load()
        assert (len(proxy.requests), proxy.most_at_once) == (N_SHARDS, 2)

    def test_a_scan(self, url: str, options: dict[str, Any], proxy: Proxy) -> None:
        masks = maskcube.open_masks(url, storage_options=options)
        proxy.reset()
        maskcube.map_masks(np.count_nonzero, masks)
        assert len(proxy.requests) == N_SHARDS

    def test_converting(
        self, seaweed: SeaweedFS, options: dict[str, Any], proxy: Proxy, source: Source
    ) -> None:
        url = seaweed.url(seaweed.new_bucket(), "masks.zarr")
        maskcube.convert(source.folder, url, storage_options=options, progress=False)
        written = [request.path for request in proxy.requests if request.method == "PUT"]
        assert len(written) == len(set(written))
        # Plan; shard and entry of each; coordinates, runs and metadata; nothing twice.
        inside = [path for path in written if "_maskcube" not in path]
        assert len(written) - len(inside) == 1 + N_SHARDS
        read = [request.path for request in proxy.requests if request.method == "GET"]
        assert len(proxy.requests) < 4 * len(written)
        # All that was written was read back.
        assert {path.partition("?")[0] for path in inside} <= {
            path.partition("?")[0] for path in read
        }


class TestErrors:
    @pytest.fixture
    def url(self, seaweed: SeaweedFS, local: Path) -> str:
        bucket = seaweed.new_bucket()
        put_store(local, seaweed.obstore(bucket, "masks.zarr"))
        return seaweed.url(bucket, "masks.zarr")

    def refusal(self, url: str, options: dict[str, Any], kind: type[Exception]) -> str:
        with pytest.raises(kind) as error:
            maskcube.open_masks(url, storage_options=options)
        whole: BaseException | None = error.value
        # Nothing secret, also not in what led to it.
        while whole is not None:
            for secret in SECRETS:
                assert secret not in str(whole)
            whole = whole.__cause__ or (None if whole.__suppress_context__ else whole.__context__)
        return str(error.value)

    def test_wrong_keys(self, seaweed: SeaweedFS, url: str) -> None:
        found = self.refusal(url, {**seaweed.options, "secret": "wrong-secret"}, PermissionError)
        assert "the secret does not belong to the access key" in found
        found = self.refusal(url, {**seaweed.options, "key": "wrong-key"}, PermissionError)
        assert "there is no such access key (the credentials in storage_options)" in found

    def test_nobody(self, seaweed: SeaweedFS, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name, raising=False)
        options = {"endpoint_url": seaweed.endpoint}
        found = self.refusal(url, options, maskcube.AccessDenied)
        assert "not allowed to read zarr.json with no credentials" in found
        assert "anon=False" in found

    def test_credentials_of_the_environment(
        self, seaweed: SeaweedFS, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        options = seaweed.options
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", options["key"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", options["secret"])
        there = {"endpoint_url": options["endpoint_url"]}
        assert maskcube.info(url, storage_options=there).n_masks == N_MASKS
        monkeypatch.setenv("AWS_ENDPOINT_URL", options["endpoint_url"])
        assert maskcube.info(url).n_masks == N_MASKS
        # What is said wins.
        self.refusal(url, {"anon": True}, maskcube.AccessDenied)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
        found = self.refusal(url, {}, maskcube.AccessDenied)
        assert "the credentials in the environment (AWS_ACCESS_KEY_ID)" in found
        monkeypatch.setenv("AWS_SESSION_TOKEN", "wrong-token")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        assert maskcube.info(url, storage_options=options).n_masks == N_MASKS

    def test_a_public_bucket_needs_no_ceremony(
        self, seaweed: SeaweedFS, local: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bucket = seaweed.new_bucket("public")
        put_store(local, seaweed.obstore(bucket))
        monkeypatch.setenv("AWS_ENDPOINT_URL", seaweed.endpoint)
        assert maskcube.info(f"s3://{bucket}").n_masks == N_MASKS

    def test_no_bucket(self, server: Server, source: Source) -> None:
        url, options = server.url("no-such-bucket", "masks.zarr"), server.options
        with pytest.raises(maskcube.StoreNotFound, match="no bucket 'no-such-bucket'"):
            maskcube.open_masks(url, storage_options=options)
        with pytest.raises(maskcube.StoreNotFound, match="no bucket 'no-such-bucket'"):
            maskcube.convert(source.folder, url, storage_options=options, progress=False)

    def test_no_store(self, server: Server) -> None:
        url = server.url(server.new_bucket(), "masks.zarr")
        with pytest.raises(
            maskcube.StoreNotFound, match=r"no mask store at .*masks\.zarr; make one"
        ):
            maskcube.open_masks(url, storage_options=server.options)

    def test_a_wrong_key_of_azure(self, azurite: Azurite) -> None:
        url = azurite.url(azurite.new_bucket(), "masks.zarr")
        options = {**azurite.options, "account_key": "d3Jvbmctc2VjcmV0"}
        found = self.refusal(url, options, maskcube.AccessDenied)
        assert "the credentials in storage_options" in found

    @pytest.mark.parametrize(
        ("answer", "kind", "expected"),
        [
            ((301, "PermanentRedirect"), maskcube.InvalidOption, "not in the region"),
            ((400, "AuthorizationHeaderMalformed"), maskcube.InvalidOption, "not in the region"),
            ((400, "ExpiredToken"), maskcube.AccessDenied, "have expired; renew them"),
            ((403, "RequestTimeTooSkewed"), maskcube.AccessDenied, "clock of this machine"),
            ((403, "AccessDenied"), maskcube.AccessDenied, "not allowed to read zarr.json"),
            ((400, "InvalidRequest"), maskcube.InvalidOption, "the server answered 400"),
        ],
    )
    def test_what_a_cloud_answers(
        self,
        seaweed: SeaweedFS,
        url: str,
        answer: tuple[int, str],
        kind: type[Exception],
        expected: str,
    ) -> None:
        with Proxy(seaweed.endpoint) as proxy:
            proxy.answer(lambda *_: True, answer[0], error_xml(answer[1]))
            options = {**seaweed.options, "endpoint_url": proxy.endpoint}
            assert expected in self.refusal(url, options, kind)
            # What will never be answered otherwise is not asked again; the labels are asked beside.
            assert len(proxy.requests) <= 2

    def test_nobody_answers(self, seaweed: SeaweedFS, url: str) -> None:
        options = {**seaweed.options, "endpoint_url": "http://127.0.0.1:9"}
        found = self.refusal(url, options, ConnectionError)
        assert "cannot read zarr.json: the connection was refused" in found

    def test_no_ranges(self, seaweed: SeaweedFS, url: str) -> None:
        with Proxy(seaweed.endpoint) as proxy:
            proxy.answer(lambda *_: True, 200, b"{}", {"ETag": '"1"', "Last-Modified": DATE})
            options = {**seaweed.options, "endpoint_url": proxy.endpoint}
            found = self.refusal(url, options, maskcube.InvalidOption)
            assert "gives no ranges of bytes" in found

    def test_a_root_that_comes_damaged_is_no_other_store(
        self, seaweed: SeaweedFS, url: str
    ) -> None:
        with Proxy(seaweed.endpoint) as proxy:
            options = {**seaweed.options, "endpoint_url": proxy.endpoint}
            masks = maskcube.open_masks(url, storage_options=options)
            proxy.fault("flip", when=lambda _, path: "/c/0/0/0" in path)
            proxy.fault("short", when=lambda _, path: path.endswith("zarr.json"), times=1)
            with pytest.raises(maskcube.CorruptMask):
                masks[0].compute()

    def test_words_that_have_no_meaning(self, seaweed: SeaweedFS, url: str) -> None:
        options = {**seaweed.options, "secrte": "wrong-secret"}
        assert "has no 'secrte'; it has 'anon', 'key'" in self.refusal(url, options, ValueError)
        for text, expected in (
            ("s3://maskcube-key:wrong-secret@bucket/z", "the URL holds credentials"),
            ("https://127.0.0.1/z?sig=wrong-secret", "goes on after its path"),
            ("ftp://host/z", "'ftp' is none of"),
            ("s3:///z", "names no bucket"),
        ):
            assert expected in self.refusal(text, {}, maskcube.InvalidOption)


SECRETS = ("maskcube-secret", "wrong-secret", "wrong-token", "d3Jvbmctc2VjcmV0")


def test_what_is_sent_to_workers_holds_only_what_was_given(
    seaweed: SeaweedFS, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = seaweed.options
    bucket = seaweed.new_bucket()
    put_store(local, seaweed.obstore(bucket, "z"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", options["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", options["secret"])
    masks = maskcube.open_masks(
        seaweed.url(bucket, "z"), storage_options={"endpoint_url": seaweed.endpoint}
    )
    sent = pickle.dumps(masks)
    assert options["secret"].encode() not in sent
    # As many bytes as masks, not as pixels.
    assert len(sent) < 40_000
    again = pickle.loads(sent)  # noqa: S301 - our own
    np.testing.assert_array_equal(again[5:9], masks[5:9])


def test_writing_at_the_same_time_is_noticed(server: Server) -> None:
    bucket = server.new_bucket()
    first, second = (Bucket(server.obstore(bucket), "a place") for _ in range(2))
    assert first.create("plan", b"mine")
    assert first.create("plan", b"mine")
    assert not second.create("plan", b"yours")
    assert second.get("plan") == b"mine"
