"""How a URL is reached, and whose credentials are used.

What ``storage_options`` say wins; then the environment; without either a request is anonymous, as a
public bucket wants it. The metadata address of a cloud's machine is asked only where somebody says
so (``anon=False``): it takes seconds where there is none, and it is nobody's business otherwise.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple, cast
from urllib.parse import SplitResult, urlsplit

from maskcube.dialects import (
    AZURE,
    CLIENT_WORDS,
    DIALECTS,
    HTTP,
    S3,
    Dialect,
    translated,
)
from maskcube.errors import InvalidOption, listed, missing

__all__ = ["ANONYMOUS", "SCHEMES", "Access", "location_of", "scheme_of"]

SCHEMES = frozenset({*DIALECTS, "file", "memory"})
"""What URLs may begin with."""

ANONYMOUS = "no credentials"
"""Whose credentials, where nobody's are used."""

_REGIONS = {"laion-fmri": "us-west-2"}
"""Where the dataset's public bucket is: asked for in another region, it refuses."""

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
"""Variables of the environment that say where S3 is."""

_MOST_REQUESTS = 16
"""Requests under way at once, unless ``max_concurrency`` says otherwise."""

_CLIENT = {
    # A stalled answer is told by its pause: many bytes may take long on a slow line.
    "connect_timeout": "5s",
    "read_timeout": "20s",
    "timeout": "300s",
}
_RETRY = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=3),
        "base": 2,
    },
}


@dataclass(frozen=True)
class Access:
    """How a URL is reached.

    Parameters
    ----------
    url : str
        Where to.
    options : mapping
        ``storage_options``, in the words of fsspec or obstore.

    Raises
    ------
    InvalidOption
        When the URL is of no known kind or holds credentials, or an option is unknown.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.options, Mapping):
            kind = type(self.options).__name__
            raise InvalidOption(f"{self.location}: storage_options is a {kind}; give a dict")
        if self._scheme not in DIALECTS:
            known = listed(sorted(SCHEMES), limit=len(SCHEMES))
            raise InvalidOption(f"{self.location}: {self._scheme!r} is none of {known}")
        parts = _parted(self.url)
        if parts.query or parts.fragment:
            raise InvalidOption(
                f"{self.location}: the URL goes on after its path; give credentials, a SAS token"
                " too, as storage_options"
            )
        is_user = parts.username and self._dialect is not AZURE
        if parts.password is not None or is_user or _is_cut(parts):
            raise InvalidOption(
                f"{self.location}: the URL holds credentials; give them as storage_options"
            )
        if not parts.netloc:
            raise InvalidOption(f"{self.url!r} names no bucket: {self._scheme}://bucket/path")

    @property
    def _scheme(self) -> str:
        return scheme_of(self.url)

    @property
    def _dialect(self) -> Dialect:
        return DIALECTS[self._scheme]

    @property
    def location(self) -> str:
        """The URL without anything secret, for messages."""
        return location_of(self.url)

    @property
    def is_writable(self) -> bool:
        """Whether there are stores at such URLs that take writes; plain https takes none."""
        return self._dialect is not HTTP

    @property
    def max_concurrency(self) -> int:
        """Most requests to have under way at once."""
        found = self.options.get("max_concurrency", _MOST_REQUESTS)
        if type(found) is not int or found < 1:
            raise InvalidOption(f"max_concurrency={found!r} is no whole number from 1 on")
        return found

    def open(self) -> tuple[Any, str]:
        """Return an obstore store, and whose credentials it uses; asks for nothing.

        Raises
        ------
        InvalidOption
            When an option is unknown, or does not fit.
        MissingDependency
            When credentials are those of a profile, and boto3 is not installed.
        """
        from obstore.exceptions import BaseError
        from obstore.store import HTTPStore, from_url

        ours = {name: value for name, value in self.options.items() if name != "max_concurrency"}
        config = translated(ours, self._dialect)
        client = {name: config.pop(name) for name in CLIENT_WORDS & {*config}}
        retrying = config.pop("retry_config", {})
        if not isinstance(retrying, Mapping):
            raise InvalidOption("retry_config= is no dict")
        given: dict[str, Any] = {
            "client_options": _CLIENT | client,
            "retry_config": {**_RETRY, **retrying},
        }
        provider, whose = self._credentials(config)
        self._fill_in(config, given["client_options"])
        try:
            if self._dialect is HTTP:
                if config:
                    raise self._unknown(config)
                # Also of a cloud's own host: whoever says https means plain https.
                return HTTPStore.from_url(self.url, **given), whose
            if provider is not None:
                given["credential_provider"] = provider
            with _endpoint_unset() if "endpoint" in config else nullcontext():
                return from_url(self.url, config=cast("Any", config), **given), whose
        except (BaseError, TypeError, ValueError) as error:
            if isinstance(error, InvalidOption):
                raise
            refusal = self._refused({*config, *client}, error)
        # Not as the context either: what it says may hold the values.
        raise refusal

    def _credentials(self, config: dict[str, Any]) -> tuple[Any, str]:
        """Return what provides credentials, if obstore itself does not, and whose they are."""
        provider, profile = config.pop("credential_provider", None), config.pop("profile", None)
        if provider is not None:
            return provider, "the credential_provider of storage_options"
        if profile is not None:
            return _profile(profile), f"the profile {profile!r}"
        said = self._dialect.credentials & {*config} - {"skip_signature"}
        if said and not config.get("skip_signature"):
            # The environment may say otherwise, but this was said here.
            config["skip_signature"] = False
            return _Keys.taken(config), "the credentials in storage_options"
        return None, self._unsaid(config)

    def _unsaid(self, config: dict[str, Any]) -> str:
        """Return whose credentials are used where none were given."""
        if config.get("skip_signature"):
            return "no credentials, as anon=True says"
        if self._dialect is not HTTP:
            for name in self._dialect.environment:
                if os.environ.get(name):
                    return f"the credentials in the environment ({name})"
            if "skip_signature" in config:
                return "the credentials of this machine"
            config["skip_signature"] = True
            return ANONYMOUS
        return "no credentials but those that headers= may hold"

    def _fill_in(self, config: dict[str, Any], client: dict[str, Any]) -> None:
        """Add what obstore needs to know and a person would not say."""
        endpoint = config.get("endpoint") or config.get("base_url")
        if self._dialect is S3:
            bucket = urlsplit(self.url).netloc
            if bucket in _REGIONS or not {"AWS_REGION", "AWS_DEFAULT_REGION"} & {*os.environ}:
                config.setdefault("region", _REGIONS.get(bucket, "us-east-1"))
            endpoint = endpoint or next(filter(None, map(os.environ.get, _ENDPOINTS)), None)
        if endpoint and not _is_address(str(endpoint)):
            # With any other one obstore panics.
            raise InvalidOption(f"{self.location}: the endpoint is none: http(s)://host:port")
        if str(endpoint or self.url).startswith("http://"):
            client.setdefault("allow_http", True)

    def _refused(self, names: set[str], error: Exception) -> InvalidOption:
        from obstore.exceptions import UnknownConfigurationKeyError

        if isinstance(error, UnknownConfigurationKeyError):
            return self._unknown(name for name in names if f"'{name}'" in str(error))
        return InvalidOption(
            f"{self.location}: storage_options have a wrong value, or do not fit together:"
            f" {listed(sorted(names))}"
        )

    def _unknown(self, names: Iterable[str]) -> InvalidOption:
        known = [word for word in self._dialect.words if "_" not in word or "url" in word]
        return InvalidOption(
            f"{self.location}: storage_options has no {listed(sorted(names))}; it has"
            f" {listed([*known, 'max_concurrency'], limit=99)} and the other words that obstore has"
            f" for {self._scheme}://"
        )


class _Keys(NamedTuple):
    """Keys that were given: obstore would mix them with a token of the environment."""

    key: str
    secret: str
    token: str | None

    @classmethod
    def taken(cls, config: dict[str, Any]) -> _Keys | None:
        """Take the keys of S3 out of the options, if they are there."""
        if not {"access_key_id", "secret_access_key"} <= {*config}:
            if {"session_token"} & {*config}:
                # obstore would ask the machine for the rest.
                raise InvalidOption("token= of s3:// goes with key= and secret=")
            if {"access_key_id", "secret_access_key"} & {*config}:
                raise InvalidOption("key= and secret= of s3:// go together; one is missing")
            return None
        key, secret = config.pop("access_key_id"), config.pop("secret_access_key")
        if not (isinstance(key, str) and isinstance(secret, str)):
            raise InvalidOption("key= and secret= are not both texts")
        return cls(key, secret, config.pop("session_token", None))

    def __call__(self) -> dict[str, Any]:
        """Return them as obstore asks for them."""
        return {
            "access_key_id": self.key,
            "secret_access_key": self.secret,
            "token": self.token,
            "expires_at": None,
        }

    def __repr__(self) -> str:
        return "<keys>"


@contextmanager
def _endpoint_unset() -> Iterator[None]:
    """Hide an endpoint of the environment, which obstore would prefer to the one that was given."""
    with _environment:
        hidden = os.environ.pop("AWS_ENDPOINT_URL_S3", None)
        try:
            yield
        finally:
            if hidden is not None:
                os.environ["AWS_ENDPOINT_URL_S3"] = hidden


_environment = threading.Lock()


def scheme_of(url: str) -> str:
    """Return the scheme of a URL, in small letters."""
    return url.partition("://")[0].lower()


def location_of(url: str) -> str:
    """Return a URL without what may be secret: who asks, and all after the path.

    Examples
    --------
    >>> location_of("https://me:secret@example.org/masks.zarr?sig=secret")
    'https://example.org/masks.zarr'
    """
    parts = _parted(url)
    if _is_cut(parts):
        return location_of(f"{scheme_of(url)}://{url.rpartition('@')[2] if '@' in url else '...'}")
    # In Azure's own URLs the container stands before the host.
    is_container = parts.password is None and DIALECTS.get(scheme_of(url)) is AZURE
    host = parts.netloc if is_container else parts.netloc.rpartition("@")[2]
    return f"{scheme_of(url)}://{host}{parts.path}"


def _parted(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        # It says all of the host, and who asks.
        pass
    raise InvalidOption(f"what stands behind {scheme_of(url)}:// is no host")


def _is_address(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_cut(parts: SplitResult) -> bool:
    """Whether credentials stand before the host that hold what ends a host, as a slash does."""
    host, colon, port = parts.netloc.rpartition(":")
    if not colon or "@" in parts.netloc or host.startswith("[") or port.endswith("]"):
        return False
    return DIALECTS.get(parts.scheme, HTTP) is not HTTP or not (port.isdigit() or not port)


def _profile(name: str) -> Callable[[], Any]:
    """Return what provides the credentials of a profile of AWS's configuration."""
    try:
        from boto3 import Session
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        raise missing("boto3", "aws", "profile=") from None
    try:
        provider: Callable[[], Any] = Boto3CredentialProvider(Session(profile_name=name))
    except (BotoCoreError, ValueError) as error:
        raise InvalidOption(f"profile={name!r}: {type(error).__name__}") from None
    return provider
