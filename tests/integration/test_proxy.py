"""The proxy in front of the servers: it counts what passes, and every fault really happens."""

from __future__ import annotations

import datetime as dt
import http.client
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple
from urllib.parse import urlsplit

import obstore
import pytest
from obstore.exceptions import BaseError
from proxy import FAULTS, Proxy, error_xml
from servers import Azurite, Nginx, SeaweedFS

BYTES = bytes(range(256)) * 40
HALF = len(BYTES) // 2


class Answer(NamedTuple):
    """What a client that is no help at all gets to see."""

    status: int
    body: bytes
    headers: dict[str, str]


@pytest.fixture
def bucket(nginx: Nginx) -> str:
    name = nginx.new_bucket()
    (nginx.files / name / "masks").write_bytes(BYTES)
    (nginx.files / name / "nothing").write_bytes(b"")
    return name


@pytest.fixture
def proxy(nginx: Nginx) -> Iterator[Proxy]:
    with Proxy(nginx.plain, seed=5) as proxy:
        yield proxy


def ask(proxy: Proxy, path: str, method: str = "GET", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(), dict(answer.getheaders()))
    finally:
        connection.close()


def raw(proxy: Proxy, data: bytes) -> bytes:
    """Send bytes, and return everything until the proxy closes the connection."""
    with socket.create_connection(("127.0.0.1", proxy.port), 30) as link:
        link.sendall(data)
        return b"".join(iter(lambda: link.recv(2**16), b""))


class TestCounting:
    def test_requests_ranges_and_bytes(self, proxy: Proxy, bucket: str) -> None:
        path = f"/{bucket}/masks"
        assert ask(proxy, path).body == BYTES
        assert ask(proxy, path + "?a=%20b", Range="bytes=3-9").body == BYTES[3:10]
        head = ask(proxy, path, "HEAD")
        assert (head.body, head.headers["Content-Length"]) == (b"", str(len(BYTES)))
        assert ask(proxy, f"/{bucket}/another").status == 404
        found = [(one.method, one.path, one.range, one.status, one.fault) for one in proxy.requests]
        assert found == [
            ("GET", path, None, 200, None),
            ("GET", path + "?a=%20b", "bytes=3-9", 206, None),
            ("HEAD", path, None, 200, None),
            ("GET", f"/{bucket}/another", None, 404, None),
        ]
        sizes = [one.bytes_down for one in proxy.requests]
        assert sizes[:3] == [len(BYTES), 7, 0]
        assert proxy.bytes_down == sum(sizes)
        assert all(first.started <= then.started for first, then in pairwise(proxy.requests))
        assert proxy.most_at_once == 1

    def test_nothing_after_a_reset(self, proxy: Proxy, bucket: str) -> None:
        ask(proxy, f"/{bucket}/masks")
        proxy.reset()
        assert (proxy.requests, proxy.bytes_down, proxy.most_at_once) == ([], 0, 0)
        ask(proxy, f"/{bucket}/masks")
        assert len(proxy.requests) == 1

    def test_one_connection_takes_many_requests(self, proxy: Proxy, bucket: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)
        connection.connect()
        before = connection.sock
        for status, name in [(200, "masks"), (404, "another"), (200, "nothing")] * 3:
            connection.request("GET", f"/{bucket}/{name}")
            answer = connection.getresponse()
            assert answer.status == status
            answer.read()
        assert connection.sock is before
        connection.close()
        assert len(proxy.requests) == 9

    def test_a_client_may_close(self, proxy: Proxy, bucket: str) -> None:
        request = f"GET /{bucket}/masks HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        assert raw(proxy, request.encode()).endswith(BYTES)

    def test_not_modified(self, proxy: Proxy, bucket: str) -> None:
        tag = ask(proxy, f"/{bucket}/masks").headers["ETag"]
        answer = ask(proxy, f"/{bucket}/masks", **{"If-None-Match": tag})
        assert (answer.status, answer.body) == (304, b"")

    def test_latency(self, proxy: Proxy, bucket: str) -> None:
        # At least so long: no machine is too slow for that.
        proxy.latency = 0.05
        started = time.monotonic()
        for _ in range(4):
            ask(proxy, f"/{bucket}/masks")
        assert time.monotonic() - started >= 4 * 0.05


class TestBodies:
    def test_of_obstore(self, seaweed: SeaweedFS) -> None:
        """Signed requests, in parts, pass as they are."""
        with Proxy(seaweed.endpoint) as proxy:
            bucket = seaweed.new_bucket()
            store = seaweed.obstore(bucket, endpoint=proxy.endpoint)
            large = BYTES * 600
            obstore.put(store, "small", BYTES)
            obstore.put(store, "large", large)
            assert obstore.get(store, "large").bytes() == large
            assert obstore.get_range(store, "small", start=3, length=7) == BYTES[3:10]
            puts = [one for one in proxy.requests if one.method == "PUT"]
            assert puts[0].bytes_up == len(BYTES)
            assert sum(one.bytes_up for one in puts[1:]) == len(large)
            gets = [one for one in proxy.requests if one.method == "GET"]
            assert [(one.range, one.bytes_down) for one in gets] == [
                (None, len(large)),
                ("bytes=3-9", 7),
            ]

    def test_in_chunks_after_being_told_to_go_on(self, seaweed: SeaweedFS) -> None:
        bucket = seaweed.new_bucket()
        with Proxy(seaweed.endpoint) as proxy:
            store = seaweed.obstore(bucket, endpoint=proxy.endpoint)
            url = urlsplit(obstore.sign(store, "PUT", "chunks", dt.timedelta(minutes=5)))
            head = (
                f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n"
                "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
            )
            with socket.create_connection(("127.0.0.1", proxy.port), 30) as link:
                link.sendall(head.encode())
                # Without this the client would wait.
                assert link.recv(2**16) == b"HTTP/1.1 100 Continue\r\n\r\n"
                chunks = b"5\r\nhello\r\n6; with=more\r\n world\r\n0\r\n\r\n"
                link.sendall(chunks)
                answer = b"".join(iter(lambda: link.recv(2**16), b""))
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert obstore.get(store, "chunks").bytes() == b"hello world"
            # What came, with the frames of its chunks.
            assert [one.bytes_up for one in proxy.requests] == [len(chunks), 0]

    def test_answers_in_chunks_get_a_length(self, azurite: Azurite) -> None:
        """Azurite gives lists in chunks."""
        bucket = azurite.new_bucket()
        with Proxy(azurite.endpoint) as proxy:
            store = azurite.obstore(bucket, endpoint=proxy.endpoint)
            obstore.put(store, "a", BYTES)
            assert [one["path"] for one in obstore.list(store).collect()] == ["a"]
            assert obstore.get(store, "a").bytes() == BYTES
            proxy.fault("cut", times=1)
            with pytest.raises(BaseError):
                obstore.list(store).collect()
            assert [one.fault for one in proxy.requests] == [None, None, None, "cut"]

    @pytest.mark.parametrize(
        "nonsense", [b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\na\r\n\r\n"]
    )
    def test_what_is_no_request_ends_the_connection(self, proxy: Proxy, nonsense: bytes) -> None:
        assert raw(proxy, nonsense) == b""
        assert not proxy.requests


class TestFaults:
    @pytest.mark.parametrize(
        ("kind", "code"),
        [("500", "InternalError"), ("503", "SlowDown"), ("429", "TooManyRequests")],
    )
    def test_refused(self, proxy: Proxy, bucket: str, kind: str, code: str) -> None:
        proxy.fault(kind)
        answer = ask(proxy, f"/{bucket}/masks")
        assert (answer.status, answer.body) == (int(kind), error_xml(code))
        assert [(one.fault, one.status) for one in proxy.requests] == [(kind, int(kind))]

    def test_dropped(self, proxy: Proxy, bucket: str) -> None:
        proxy.fault("drop")
        with pytest.raises(http.client.RemoteDisconnected):
            ask(proxy, f"/{bucket}/masks")
        assert [(one.fault, one.status, one.bytes_down) for one in proxy.requests] == [
            ("drop", None, 0)
        ]

    def test_cut(self, proxy: Proxy, bucket: str) -> None:
        proxy.fault("cut")
        with pytest.raises(http.client.IncompleteRead) as error:
            ask(proxy, f"/{bucket}/masks")
        assert (error.value.partial, error.value.expected) == (BYTES[:HALF], len(BYTES) - HALF)
        assert proxy.bytes_down == HALF

    def test_cut_in_the_head(self, proxy: Proxy, bucket: str) -> None:
        proxy.fault("cut")
        request = f"GET /{bucket}/nothing HTTP/1.1\r\nHost: a\r\n\r\n"
        answer = raw(proxy, request.encode())
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\n\r\n" not in answer
        assert [one.fault for one in proxy.requests] == ["cut"]

    def test_short(self, proxy: Proxy, bucket: str) -> None:
        proxy.fault("short")
        answer = ask(proxy, f"/{bucket}/masks")
        assert answer.body == BYTES[:HALF]
        assert answer.headers["Content-Length"] == str(HALF)
        assert [(one.fault, one.bytes_down) for one in proxy.requests] == [("short", HALF)]

    def test_flipped(self, proxy: Proxy, bucket: str) -> None:
        proxy.fault("flip")
        body = ask(proxy, f"/{bucket}/masks").body
        assert len(body) == len(BYTES)
        different = [a ^ b for a, b in zip(body, BYTES, strict=True) if a != b]
        assert [value.bit_count() for value in different] == [1]
        assert [one.fault for one in proxy.requests] == ["flip"]

    @pytest.mark.parametrize("kind", ["short", "flip"])
    def test_nothing_to_spoil(self, proxy: Proxy, bucket: str, kind: str) -> None:
        proxy.fault(kind)
        assert ask(proxy, f"/{bucket}/nothing").body == b""
        assert ask(proxy, f"/{bucket}/masks", "HEAD").headers["Content-Length"] == str(len(BYTES))
        assert [one.fault for one in proxy.requests] == [None, None]

    def test_slow(self, proxy: Proxy, bucket: str) -> None:
        proxy.fault("slow", delay_s=0.3)
        started = time.monotonic()
        assert ask(proxy, f"/{bucket}/masks").body == BYTES
        assert time.monotonic() - started >= 0.3
        assert [one.fault for one in proxy.requests] == ["slow"]

    def test_hangs_until_the_client_gives_up(self, proxy: Proxy, bucket: str) -> None:
        proxy.fault("hang", times=1)
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=0.3)
        connection.request("GET", f"/{bucket}/masks")
        with pytest.raises(TimeoutError):
            connection.getresponse()
        connection.close()
        assert [(one.fault, one.status) for one in proxy.requests] == [("hang", None)]
        assert ask(proxy, f"/{bucket}/masks").body == BYTES

    def test_lost_after_the_work_was_done(self, seaweed: SeaweedFS) -> None:
        bucket = seaweed.new_bucket()
        with Proxy(seaweed.endpoint) as proxy:
            proxy.fault("lost", when=lambda method, _: method == "PUT", times=1)
            store = seaweed.obstore(bucket, endpoint=proxy.endpoint)
            with pytest.raises(BaseError):
                obstore.put(store, "plan", b"mine", mode="create")
            assert obstore.get(store, "plan").bytes() == b"mine"
            assert [(one.fault, one.bytes_up) for one in proxy.requests] == [("lost", 4), (None, 0)]

    def test_not_done_when_dropped(self, seaweed: SeaweedFS) -> None:
        bucket = seaweed.new_bucket()
        with Proxy(seaweed.endpoint) as proxy:
            proxy.fault("drop", when=lambda method, _: method == "PUT")
            with pytest.raises(BaseError):
                obstore.put(seaweed.obstore(bucket, endpoint=proxy.endpoint), "plan", b"mine")
        with pytest.raises(FileNotFoundError):
            obstore.head(seaweed.obstore(bucket), "plan")

    def test_all_are_tried_here(self) -> None:
        assert {
            "500",
            "503",
            "429",
            "drop",
            "cut",
            "short",
            "flip",
            "slow",
            "hang",
            "lost",
        } == FAULTS


class TestRules:
    def test_by_path_and_times(self, proxy: Proxy, bucket: str) -> None:
        proxy.fault("503", when=lambda _, path: path.endswith("/masks"), times=2)
        names = ["nothing", "masks", "masks", "nothing", "masks"]
        statuses = [ask(proxy, f"/{bucket}/{name}").status for name in names]
        assert statuses == [200, 503, 503, 200, 200]

    def test_the_first_that_applies(self, proxy: Proxy, bucket: str) -> None:
        proxy.fault("500", times=1)
        proxy.fault("503", times=1)
        assert [ask(proxy, f"/{bucket}/masks").status for _ in range(3)] == [500, 503, 200]
        proxy.fault("500")
        proxy.clear()
        assert ask(proxy, f"/{bucket}/masks").status == 200

    def test_a_rate_that_comes_again(self, nginx: Nginx, bucket: str) -> None:
        seen = []
        for _ in range(2):
            with Proxy(nginx.plain, seed=7) as proxy:
                proxy.fault("500", "503", "429", rate=0.3)
                seen.append([ask(proxy, f"/{bucket}/nothing").status for _ in range(60)])
        assert seen[0] == seen[1]
        assert set(seen[0]) == {200, 500, 503, 429}
        assert 6 <= 60 - seen[0].count(200) <= 30

    def test_scripted(self, proxy: Proxy, bucket: str) -> None:
        body = error_xml("PermanentRedirect", "ask another region")
        headers = {"x-amz-bucket-region": "us-west-2", "Content-Type": "application/xml"}
        proxy.answer(lambda method, _: method == "GET", 301, body, headers, times=1)
        path = f"/{bucket}/masks"
        assert ask(proxy, path, "HEAD").status == 200
        answer = ask(proxy, path)
        assert (answer.status, answer.body) == (301, body)
        assert answer.headers.items() >= headers.items()
        assert ask(proxy, path).body == BYTES
        assert [one.fault for one in proxy.requests] == [None, "answer", None]

    def test_scripted_for_head(self, proxy: Proxy, bucket: str) -> None:
        proxy.answer(lambda *_: True, 403, error_xml("AccessDenied"))
        answer = ask(proxy, f"/{bucket}/masks", "HEAD")
        assert (answer.status, answer.body) == (403, b"")
        assert ask(proxy, f"/{bucket}/masks").body == error_xml("AccessDenied")


class TestOutage:
    def test_stopped_and_started_on_the_same_port(self, proxy: Proxy, bucket: str) -> None:
        endpoint = proxy.endpoint
        ask(proxy, f"/{bucket}/masks")
        proxy.stop()
        with pytest.raises(ConnectionRefusedError):
            ask(proxy, f"/{bucket}/masks")
        proxy.start()
        assert proxy.endpoint == endpoint
        assert ask(proxy, f"/{bucket}/masks").body == BYTES
        assert len(proxy.requests) == 2

    def test_stopping_drops_who_waits(self, proxy: Proxy, bucket: str) -> None:
        proxy.fault("hang", "slow", delay_s=600)
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(ask, proxy, f"/{bucket}/masks") for _ in range(4)]
            while len(proxy.requests) < 4:
                time.sleep(0.01)
            assert proxy.most_at_once == 4
            proxy.stop()
            for one in waiting:
                assert isinstance(one.exception(), ConnectionError | http.client.HTTPException)

    def test_a_server_that_is_gone(self) -> None:
        with Nginx() as server, Proxy(server.plain) as proxy:
            server.kill()
            with pytest.raises(http.client.RemoteDisconnected):
                ask(proxy, "/bucket/masks")
            assert [(one.fault, one.status) for one in proxy.requests] == [("unreachable", None)]
            server.start()
            assert ask(proxy, "/bucket/masks").status == 404

    def test_loopback_only(self, proxy: Proxy) -> None:
        import psutil

        listening = {
            link.laddr.ip
            for link in psutil.Process().net_connections("inet")
            if link.status == psutil.CONN_LISTEN and link.laddr.port == proxy.port
        }
        assert listening == {"127.0.0.1"}
