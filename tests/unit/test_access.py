"""How a URL is reached: what nobody may read in a message, and words that are misunderstood."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
from obstore.store import HTTPStore
from reference import Source

import maskcube
from maskcube.access import Access, location_of
from maskcube.bucket import Bucket
from maskcube.objects import open_objects
from maskcube.shards import ShardReader
from maskcube.store import MaskStore

KEYS: dict[str, Any] = {"key": "k", "secret": "s"}


def config(url: str, **options: Any) -> dict[str, Any]:
    return dict(Access(url, options).open()[0].config)


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:hidden/hidden@bucket/masks.zarr",
        "s3://AKIA:hidden?hidden@bucket/masks.zarr",
        "s3://AKIA:hidden#hidden@bucket/masks.zarr",
        "s3://AKIA:123/hidden@bucket/masks.zarr",
        "s3://AKIA:hidden/masks.zarr",
        "https://me:hidden/hidden@host/masks.zarr",
        "https://me:hidden@[host/masks.zarr",
        "https://[hidden/masks.zarr",
    ],
)
def test_keys_in_a_url_are_in_no_message(url: str) -> None:
    with pytest.raises(maskcube.InvalidOption) as caught:
        maskcube.open_masks(url)
    assert "hidden" not in str(caught.value)


def test_what_looks_like_keys_and_is_a_path() -> None:
    for url in ("s3://bucket/a:b@c/z", "https://host:8443/a@b/z", "https://[::1]:8443/a@b/z"):
        assert Access(url).location == location_of(url) == url


def test_a_store_of_ones_own_is_named_without_its_keys() -> None:
    store = HTTPStore.from_url("https://me:hidden@127.0.0.1:9/z")
    assert open_objects(store).location == "https://127.0.0.1:9/z"


def test_no_error_has_a_context_that_tells_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def head(*_: object) -> None:
        raise PermissionError("hidden")

    monkeypatch.setattr(obstore, "head", head)
    with pytest.raises(maskcube.AccessDenied) as caught:
        Bucket(None, "s3://bucket").size("key")
    assert caught.value.__context__ is None
    with pytest.raises(maskcube.InvalidOption) as refused:
        Access("s3://bucket", {"timeout": "hidden"}).open()
    assert refused.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "options", "expected"),
    [
        ("s3://b", {"key": "k", "secret": b"hidden"}, "not both texts"),
        ("s3://b", {"token": "hidden"}, "goes with key= and secret="),
        ("s3://b", {"anon": "hidden"}, "anon= of storage_options is neither True nor False"),
        ("s3://b", {"retry_config": "hidden"}, "is no dict"),
        ("s3://b", {3: "hidden"}, "3, which is no word"),
        ("s3://b", {"timeout": math.nan}, "wrong value"),
        ("s3://b", {"endpoint_url": "hidden:9000"}, "the endpoint is none"),
        ("s3://b", {"endpoint_url": "http://[hidden"}, "the endpoint is none"),
        ("az://b", {"connection_string": "hidden"}, "has none of 'AccountName'"),
    ],
)
def test_what_is_no_option(url: str, options: dict[Any, Any], expected: str) -> None:
    with pytest.raises(maskcube.InvalidOption, match=expected) as caught:
        Access(url, options).open()
    assert "hidden" not in str(caught.value)


def test_words_that_mean_yes_or_no() -> None:
    for value in (True, 1, "true", "True", "yes"):
        assert Access("s3://b", {"anon": value}).open()[1] == "no credentials, as anon=True says"
    for value in (False, 0, "false"):
        assert Access("s3://b", {"anon": value}).open()[1] == "the credentials of this machine"


def test_a_connection_string_of_azurite() -> None:
    found = config("az://c/z", connection_string="UseDevelopmentStorage=true")
    assert found["use_emulator"] == "true"


def test_the_public_bucket_is_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert config("s3://laion-fmri/z")["region"] == "us-west-2"
    assert config("s3://laion-fmri/z", region="us-east-2")["region"] == "us-east-2"
    assert config("s3://another/z").get("region") in {None, "eu-west-1"}


def test_an_endpoint_of_the_environment_without_encryption(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    options = {**KEYS, "retry_config": {"max_retries": 0}}
    with pytest.raises(maskcube.StoreUnreachable, match="the connection was refused"):
        maskcube.open_masks("s3://bucket/z", storage_options=options)


def test_nothing_is_read_without_asking() -> None:
    """A range of no bytes is none: obstore would refuse it as if the server had."""
    assert Bucket(None, "nowhere").get("key", 5, 0) == b""


class _Slow:
    """A bucket that has begun to answer, and waits."""

    has_cheap_ranges = False
    max_concurrency = 4

    def __init__(self, objects: Any) -> None:
        self.location = objects.location
        self.objects = objects
        self.asked, self.goes_on = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objects, name)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        if key.startswith("masks/c/") and threading.current_thread().name == "slow":
            self.asked.set()
            self.goes_on.wait(60)
        found: bytes | None = self.objects.get(key, start, length)
        return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_read(small: Source, small_store: Path) -> None:
    slow = _Slow(open_objects(small_store))
    reader = ShardReader(MaskStore(slow))
    reading = threading.Thread(target=reader.mask, args=[3], name="slow")
    reading.start()
    assert slow.asked.wait(60)
    child = os.fork()
    if not child:
        # Whoever holds the turn to ask for that shard is not here.
        os._exit(0 if np.array_equal(reader.mask(3), small.masks[3]) else 1)
    slow.goes_on.set()
    reading.join()
    status = None
    for _ in range(600):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        status = None
    assert status == 0
