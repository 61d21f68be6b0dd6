"""Real servers of object stores on loopback, each with a folder of its own, gone at the end.

>>> with SeaweedFS() as server:
...     bucket = server.new_bucket()
...     store = server.obstore(bucket)

A server that is killed and started again has the same port, and what was stored; but moto keeps
nothing, and Azurite only what was there when it was stopped. Clients always get credentials, or are
told to sign nothing: left alone they would ask the metadata address of a cloud for them.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import itertools
import json
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any, Self

import obstore
from obstore.store import AzureStore, HTTPStore, ObjectStore, S3Store
from processes import Program, find_program, free_ports, new_folder, remove_folder

__all__ = ["Azurite", "Moto", "Nginx", "SeaweedFS", "Server"]

SECRET = "maskcube-secret-key"  # noqa: S105 - opens nothing but a server of the tests
AZURE_SECRET = "maskcubeSecretKeyOfAzure"  # noqa: S105
"""Secrets are words that no message may ever contain; Azure wants base64."""

_ONCE: Any = {"max_retries": 0}
_MINUTE = dt.timedelta(minutes=1)


class Server(ABC):
    """A server, running from the beginning of its `with` to the end."""

    name: str
    secrets: tuple[str, ...] = ()
    """What must never be read in a message."""

    def __init__(self) -> None:
        self.folder = new_folder(self.name)
        self.port, *self._ports = free_ports(self._n_ports)
        self.program = Program(self._command(), self.folder, self._environment())
        self._numbers = itertools.count(1)

    _n_ports = 1

    @property
    def endpoint(self) -> str:
        """Its address, to which buckets and paths are appended."""
        return f"http://127.0.0.1:{self.port}"

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """What a client needs besides the URL, in the words of fsspec."""

    @abstractmethod
    def url(self, bucket: str, path: str = "") -> str:
        """Return the URL of what is in a bucket."""

    @abstractmethod
    def obstore(
        self, bucket: str, prefix: str = "", *, endpoint: str | None = None, **config: Any
    ) -> ObjectStore:
        """Return a client that tries once; `endpoint` is that of a proxy, `config` obstore's."""

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _create(self, bucket: str) -> None: ...

    def _environment(self) -> Mapping[str, str]:
        return {}

    def _is_ready(self) -> bool:
        return True

    def start(self) -> None:
        """Start it, with the port and the data that it had."""
        self.program.start()
        self.program.wait_for(self.port)
        for _ in self.program.attempts():
            with suppress(OSError, obstore.exceptions.BaseError):
                if self._is_ready():
                    return

    def kill(self) -> None:
        """End it with -9."""
        self.program.kill()

    def stop(self) -> None:
        self.program.stop()

    def new_bucket(self, prefix: str = "bucket") -> str:
        """Return the name of a new bucket (container, folder) that begins with `prefix`."""
        name = f"{prefix}-{next(self._numbers)}"
        self._create(name)
        return name

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        remove_folder(self.folder)


class _S3(Server):
    key = "maskcube-key"
    region = "us-east-1"
    secrets = (SECRET,)

    @property
    def options(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "secret": SECRET,
            "endpoint_url": self.endpoint,
            "region": self.region,
        }

    def url(self, bucket: str, path: str = "") -> str:
        return f"s3://{bucket}/{path}"

    def obstore(
        self, bucket: str, prefix: str = "", *, endpoint: str | None = None, **config: Any
    ) -> S3Store:
        given: Any = {
            "access_key_id": self.key,
            "secret_access_key": SECRET,
            "endpoint": endpoint or self.endpoint,
            "region": self.region,
            "allow_http": True,
            **config,
        }
        if given.get("skip_signature"):
            del given["access_key_id"], given["secret_access_key"]
        return S3Store(bucket, prefix=prefix or None, config=given, retry_config=_ONCE)

    def _create(self, bucket: str) -> None:
        _put(obstore.sign(self.obstore(bucket), "PUT", "", _MINUTE))


class SeaweedFS(_S3):
    """SeaweedFS: S3 that checks keys, and lets anybody read buckets named ``public-...``."""

    name = "weed"
    _n_ports = 8

    def _command(self) -> list[str]:
        folder = self.folder
        (folder / "data").mkdir()
        # By default each bucket makes seven files that grow, of which there is a limited number.
        (folder / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
        (folder / "s3.json").write_text(json.dumps({"identities": self._identities()}))
        words = ["s3.port.grpc"]
        words += [f"{part}.port{kind}" for part in _PARTS for kind in ("", ".grpc")]
        return [
            find_program("weed"),
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-dir=data",
            "-master.telemetry=false",
            # With it, a master that was killed waits for an election among itself.
            "-master.resumeState=false",
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=1000",
            "-volume.minFreeSpace=100MiB",
            "-volume.preStopSeconds=0",
            "-filer.localSocket=filer.sock",
            "-s3",
            f"-s3.port={self.port}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.localSocket=s3.sock",
            "-s3.config=s3.json",
            "-s3.autoCreateBucket=false",
            *[f"-{word}={port}" for word, port in zip(words, self._ports, strict=True)],
        ]

    def _identities(self) -> list[dict[str, Any]]:
        return [
            {
                "name": "maskcube",
                "credentials": [{"accessKey": self.key, "secretKey": SECRET}],
                "actions": ["Admin", "Read", "List", "Tagging", "Write"],
            },
            {"name": "anonymous", "actions": ["Read:public-*", "List:public-*"]},
        ]

    def _is_ready(self) -> bool:
        # It takes connections long before it takes bytes.
        with suppress(urllib.request.HTTPError):
            self._create("ready")
        obstore.put(self.obstore("ready"), "ready", b"ready")
        return True

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        for port in self._ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - its own choice
                left.unlink()


_PARTS = ("master", "volume", "filer")


class Moto(_S3):
    """moto: S3 in memory, which takes any key, and forgets all when it is killed."""

    name = "moto"

    def _command(self) -> list[str]:
        return [find_program("moto_server"), "-H", "127.0.0.1", "-p", str(self.port)]


class Azurite(Server):
    """Azurite: Azure's blobs. Killed, it forgets what was put last: stop it to start it again."""

    name = "azurite"
    account = "maskcube"
    secrets = (AZURE_SECRET,)

    def _command(self) -> list[str]:
        place = ["--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--location", "data"]
        return [
            find_program("azurite-blob"),
            *place,
            "--disableTelemetry",
            "--skipApiVersionCheck",
        ]

    def _environment(self) -> Mapping[str, str]:
        return {"AZURITE_ACCOUNTS": f"{self.account}:{AZURE_SECRET}"}

    @property
    def endpoint(self) -> str:
        return f"{super().endpoint}/{self.account}"

    @property
    def options(self) -> dict[str, Any]:
        return {
            "account_name": self.account,
            "account_key": AZURE_SECRET,
            "endpoint": self.endpoint,
        }

    def url(self, bucket: str, path: str = "") -> str:
        return f"az://{bucket}/{path}"

    def obstore(
        self, bucket: str, prefix: str = "", *, endpoint: str | None = None, **config: Any
    ) -> AzureStore:
        given: Any = {
            "account_name": self.account,
            "account_key": AZURE_SECRET,
            "endpoint": f"{endpoint}/{self.account}" if endpoint else self.endpoint,
            "allow_http": True,
            **config,
        }
        if given.get("skip_signature"):
            del given["account_key"]
        return AzureStore(bucket, prefix=prefix or None, config=given, retry_config=_ONCE)

    def _create(self, bucket: str) -> None:
        # The shared key's signature of "Put Container"; see "Authorize with Shared Key" of Azure.
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        signed = "PUT" + "\n" * 12 + "".join(f"{key}:{headers[key]}\n" for key in sorted(headers))
        signed += f"/{self.account}/{self.account}/{bucket}\nrestype:container"
        digest = hmac.digest(base64.b64decode(AZURE_SECRET), signed.encode(), hashlib.sha256)
        signature = base64.b64encode(digest).decode()
        headers["Authorization"] = f"SharedKey {self.account}:{signature}"
        _put(f"{self.endpoint}/{bucket}?restype=container", headers)


class Nginx(Server):
    """nginx: files of `files` over https, by a certificate of an authority of its own; no lists.

    The same without encryption is at `plain`, for a proxy that counts.
    """

    name = "nginx"
    _n_ports = 2

    def _command(self) -> list[str]:
        folder = self.folder
        self.files = folder / "files"
        """What it serves; its folders are the buckets."""
        self.files.mkdir()
        self.files.chmod(0o755)
        folder.chmod(0o755)
        import trustme

        authority = trustme.CA()
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
            folder / "leaf.pem"
        )
        self.certificate = authority.cert_pem.bytes()
        """That of the authority, PEM."""
        self.ca = folder / "ca.pem"
        """The file of it."""
        self.ca.write_bytes(self.certificate)
        (folder / "nginx.conf").write_text(_NGINX % {"port": self.port, "plain": self._ports[0]})
        return [find_program("nginx"), "-p", str(folder), "-c", "nginx.conf", "-e", "errors"]

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def plain(self) -> str:
        """Its address without encryption."""
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def options(self) -> dict[str, Any]:
        return {"client_options": {"root_certificate": self.certificate}}

    def url(self, bucket: str, path: str = "") -> str:
        return f"{self.endpoint}/{bucket}/{path}"

    def obstore(
        self, bucket: str, prefix: str = "", *, endpoint: str | None = None, **config: Any
    ) -> HTTPStore:
        given: Any = {"root_certificate": self.certificate, "allow_http": True, **config}
        url = "/".join(filter(None, [endpoint or self.endpoint, bucket, prefix]))
        return HTTPStore.from_url(url, client_options=given, retry_config=_ONCE)

    def _create(self, bucket: str) -> None:
        (self.files / bucket).mkdir()

    def stop(self) -> None:
        # Requests under way would keep it.
        self.kill()


_NGINX = """
daemon off; master_process off; pid pid;
events { worker_connections 512; }
http {
    access_log off; default_type application/octet-stream;
    client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp;
    scgi_temp_path tmp;
    server {
        listen 127.0.0.1:%(port)d ssl;
        listen 127.0.0.1:%(plain)d;
        ssl_certificate leaf.pem; ssl_certificate_key leaf.pem;
        root files; autoindex off;
    }
}
"""


def _put(url: str, headers: Mapping[str, str] | None = None) -> None:
    given = {"Content-Type": "", **(headers or {})}  # urllib would name a type that is not signed
    asked = urllib.request.Request(url, data=b"", headers=given, method="PUT")  # noqa: S310
    with urllib.request.urlopen(asked, timeout=30):  # noqa: S310 - loopback, by http
        pass
