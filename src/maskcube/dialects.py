"""The words of ``storage_options``: those of fsspec, which xarray passes on, and obstore's own.

Both mean the same here. Whatever is no word of fsspec's goes to obstore as it is.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from maskcube.errors import InvalidOption, listed

__all__ = ["AZURE", "CLIENT_WORDS", "DIALECTS", "GOOGLE", "HTTP", "S3", "Dialect", "translated"]


class Dialect(NamedTuple):
    """What is said of one kind of place."""

    words: Mapping[str, str]
    """Words of fsspec, and obstore's for the same."""
    credentials: frozenset[str]
    """obstore's words that say whose credentials to use."""
    environment: tuple[str, ...]
    """Variables of the environment that say so."""


S3 = Dialect(
    {
        "anon": "skip_signature",
        "key": "access_key_id",
        "secret": "secret_access_key",
        "token": "session_token",
        "endpoint_url": "endpoint",
        "region_name": "region",
        "requester_pays": "request_payer",
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token",
        "aws_region": "region",
        "aws_endpoint": "endpoint",
        "aws_endpoint_url": "endpoint",
        "aws_skip_signature": "skip_signature",
    },
    frozenset(
        {"access_key_id", "secret_access_key", "session_token", "skip_signature", "role_arn"}
        | {"web_identity_token_file", "container_credentials_relative_uri"}
        | {"container_credentials_full_uri"}
    ),
    (
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ),
)

GOOGLE = Dialect(
    {
        "anon": "skip_signature",
        "endpoint_url": "base_url",
        "google_service_account": "service_account",
        "google_application_credentials": "application_credentials",
    },
    frozenset(
        {"skip_signature", "service_account", "service_account_key", "bearer_token"}
        | {"application_credentials"}
    ),
    ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY"),
)

AZURE = Dialect(
    {
        "anon": "skip_signature",
        "sas_token": "sas_key",
        "endpoint_url": "endpoint",
        "azure_storage_account_name": "account_name",
        "azure_storage_account_key": "account_key",
    },
    frozenset(
        {"skip_signature", "account_key", "sas_key", "token", "client_id", "client_secret"}
        | {"use_azure_cli", "use_emulator", "federated_token_file", "msi_endpoint"}
    ),
    (
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_STORAGE_SAS_KEY",
        "AZURE_STORAGE_TOKEN",
        "AZURE_CLIENT_ID",
        "AZURE_FEDERATED_TOKEN_FILE",
    ),
)

HTTP = Dialect({"headers": "default_headers"}, frozenset(), ())

DIALECTS = {
    **dict.fromkeys(("s3", "s3a"), S3),
    **dict.fromkeys(("gs", "gcs"), GOOGLE),
    **dict.fromkeys(("az", "azure", "abfs", "abfss", "adl"), AZURE),
    **dict.fromkeys(("http", "https"), HTTP),
}
"""What is said of the places of a scheme."""

CLIENT_WORDS = frozenset(
    {"allow_http", "allow_invalid_certificates", "connect_timeout", "default_headers"}
    | {"pool_idle_timeout", "pool_max_idle_per_host", "proxy_url", "read_timeout"}
    | {"root_certificate", "timeout", "user_agent"}
)
"""Words of obstore's that are about requests, whatever the place."""

_HOLDING_MORE = frozenset({"config", "client_options", "client_kwargs", "config_kwargs", "s3"})
"""Words of obstore, fsspec and botocore that hold more words."""

_WITHOUT_MEANING = frozenset({"project", "access", "consistency", "use_ssl", "asynchronous"})
"""Words of fsspec's that change nothing about reading objects and writing them."""

_SWITCHES = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}

_CONNECTION = {
    "AccountName": "account_name",
    "AccountKey": "account_key",
    "SharedAccessSignature": "sas_key",
    "BlobEndpoint": "endpoint",
}
"""What stands in a connection string of Azure."""


def translated(options: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    """Return options in obstore's words, all beside each other.

    Raises
    ------
    InvalidOption
        When a value of fsspec's has no meaning.
    """
    found: dict[str, Any] = {}
    for name, value in _flat(options):
        if value is not None and name not in _WITHOUT_MEANING:
            found |= _meant(name.lower(), value, dialect)
    return found


def _flat(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        if not isinstance(name, str):
            raise InvalidOption(f"storage_options has {name!r}, which is no word")
        if name in _HOLDING_MORE and isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield name, value


def _meant(name: str, value: Any, dialect: Dialect) -> dict[str, Any]:  # noqa: ANN401 - options
    """Return one option in obstore's words."""
    if name == "verify":
        return _verified(value)
    if name.endswith("timeout") and isinstance(value, int | float) and math.isfinite(value):
        # In seconds, as botocore has it.
        value = f"{round(value * 1000)}ms"
    if dialect is S3 and name == "addressing_style":
        return {"virtual_hosted_style_request": value == "virtual"}
    if dialect is GOOGLE and name == "token":
        return _of_google(value)
    if dialect is AZURE and name in {"connection_string", "credential"}:
        return _of_azure(name, value)
    word = dialect.words.get(name, name)
    return {word: _switched(name, value) if word == "skip_signature" else value}


def _switched(name: str, value: object) -> bool:
    """Return whether something is meant to be so: everybody must read it alike."""
    found = _SWITCHES.get(str(value).lower())
    if found is None:
        raise InvalidOption(f"{name}= of storage_options is neither True nor False")
    return found


def _verified(value: object) -> dict[str, Any]:
    """Return what botocore's ``verify`` means: no check, or the certificates in a file."""
    if isinstance(value, bool):
        return {} if value else {"allow_invalid_certificates": True}
    try:
        return {"root_certificate": Path(str(value)).read_bytes()}
    except OSError as error:
        raise InvalidOption(f"verify={value!r} cannot be read: {error.strerror}") from None


def _of_azure(name: str, value: Any) -> dict[str, Any]:  # noqa: ANN401 - options
    """Return what adlfs's ``connection_string`` or ``credential`` means."""
    if name == "connection_string":
        parts = (part.partition("=") for part in str(value).split(";"))
        said = {word.strip(): text.strip() for word, _, text in parts}
        if said.get("UseDevelopmentStorage") == "true":
            return {"use_emulator": True}
        found = {_CONNECTION[word]: text for word, text in said.items() if word in _CONNECTION}
        if not found:
            raise InvalidOption(f"connection_string= has none of {listed(_CONNECTION)}")
        return found
    if not isinstance(value, str):
        return {"credential_provider": value}
    return {"sas_key" if "sig=" in value else "account_key": value}


def _of_google(token: object) -> dict[str, Any]:
    """Return what gcsfs's ``token`` means: nobody, the environment, a file, or its contents."""
    if token == "anon":  # noqa: S105 - a word of gcsfs
        return {"skip_signature": True}
    if token in ("google_default", "cloud"):
        return {"skip_signature": False}
    if isinstance(token, Mapping):
        return {"service_account_key": json.dumps(dict(token))}
    if isinstance(token, str | os.PathLike) and Path(token).is_file():
        return {"application_credentials": str(token)}
    raise InvalidOption("token= of gs:// is 'anon', 'google_default', a file, or a dict of a key")
