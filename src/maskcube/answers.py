"""What obstore raises, told apart: what a method waits for, what a user should hear, what may pass.

Its messages hold URLs, headers and the servers' own pages, and with them what may be secret. So
nothing of them is repeated but the status, the code and a few words that are looked for.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from maskcube.access import ANONYMOUS
from maskcube.errors import (
    AccessDenied,
    CorruptStore,
    InvalidOption,
    StoreExists,
    StoreNotFound,
    StoreUnreachable,
)

__all__ = [
    "IsThere",
    "NoConditions",
    "NotThere",
    "OutOfRange",
    "Question",
    "failure",
    "has_status",
    "unforeseen",
]

_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound", "InvalidBucketName"})
_OTHER_REGION = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_WRONG = {
    "InvalidAccessKeyId": "there is no such access key",
    "SignatureDoesNotMatch": "the secret does not belong to the access key",
    "InvalidToken": "the token is wrong",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
}
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_PASSES = frozenset({"408", "409", "425", "429"})
"""Statuses that are no refusal: the same question may be answered later."""


class NotThere(Exception):
    """There is no such object."""


class IsThere(Exception):
    """There is an object already."""


class OutOfRange(Exception):
    """The object ends before the range that was asked for."""


class NoConditions(Exception):
    """The server knows no conditions, or no ranges."""


class Question(NamedTuple):
    """What was asked, of whom, and as whom."""

    location: str
    purpose: str
    """As in "cannot read zarr.json"."""
    whose: str
    """Whose credentials were used."""


def unforeseen(found: Exception, asked: Question) -> Exception:
    """Return the error for a user where a method has not waited for what was found."""
    about = f"{asked.location}: cannot {asked.purpose}: the server"
    if isinstance(found, NotThere):
        return StoreNotFound(f"{about} says that it is not there")
    if isinstance(found, IsThere):
        return StoreExists(f"{about} says that it is there already")
    if isinstance(found, OutOfRange):
        return CorruptStore(f"{about} says that it is shorter")
    if isinstance(found, NoConditions):
        return InvalidOption(f"{about} does not know how, or gives no ranges of bytes")
    return found


def has_status(error: Exception) -> bool:
    """Whether a server has answered at all."""
    return _status(error) is not None or isinstance(error, FileNotFoundError | PermissionError)


def failure(error: Exception, asked: Question) -> Exception:
    """Return what an error of obstore's means; `StoreUnreachable` if it may pass.

    Parameters
    ----------
    error : Exception
        What obstore has raised.
    asked : Question
        What was asked.
    """
    from obstore import exceptions

    status, code = _status(error), _code(error)
    if code in _NO_BUCKET:
        bucket = urlsplit(asked.location).netloc
        return StoreNotFound(f"{asked.location}: there is no bucket {bucket!r}")
    if isinstance(error, FileNotFoundError) or status == "404":
        return NotThere()
    if isinstance(error, exceptions.AlreadyExistsError | exceptions.PreconditionError):
        return IsThere()
    if status == "416" or "Wanted range starting at" in str(error):
        return OutOfRange()
    is_whole = "non-partial response when range requested" in str(error)
    if (
        isinstance(error, NotImplementedError | exceptions.NotSupportedError)
        or status == "501"
        or is_whole
    ):
        return NoConditions()
    return _refusal(error, asked, status, code) or StoreUnreachable(
        f"{asked.location}: cannot {asked.purpose}: {_said(error, status, code)}"
    )


def _refusal(
    error: Exception, asked: Question, status: str | None, code: str | None
) -> Exception | None:
    """Return the error of a question that will never be answered otherwise."""
    first = str(error).partition("\n")[0]
    if code in _OTHER_REGION or "redirect" in first.lower():
        return InvalidOption(
            f"{asked.location}: the bucket is not in the region that was asked:"
            " give storage_options={'region': '...'}"
        )
    if code in _EXPIRED:
        return AccessDenied(f"{asked.location}: {asked.whose} have expired; renew them")
    if code in _WRONG:
        return AccessDenied(f"{asked.location}: {_WRONG[code]} ({asked.whose})")
    if isinstance(error, PermissionError) or status in {"401", "403"} or _is_denied(error):
        return AccessDenied(
            f"{asked.location}: not allowed to {asked.purpose} with {asked.whose}{_advice(asked)}"
        )
    if status is not None and status.startswith("4") and status not in _PASSES:
        return InvalidOption(
            f"{asked.location}: cannot {asked.purpose}: {_said(error, status, code)}"
        )
    return None


def _is_denied(error: Exception) -> bool:
    from obstore import exceptions

    return isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError)


def _advice(asked: Question) -> str:
    # Who may not list a bucket is not told what it lacks.
    unsure = ", or it is not there"
    if asked.whose != ANONYMOUS:
        return unsure
    return (
        f"{unsure}; the environment has none: give them among the options (key and secret, or"
        " profile), or anon=False to use those of this machine"
    )


def _said(error: Exception, status: str | None, code: str | None) -> str:
    """Say in a few words what went wrong."""
    if status is not None:
        return f"the server answered {status}{f' ({code})' if code else ''}"
    text = str(error)
    for sign, meaning in (
        ("Connection refused", "the connection was refused"),
        ("dns error", "there is no such host"),
        ("InvalidCertificate", "the server's certificate is not trusted"),
        ("TimedOut", "no answer in time"),
        ("Timeout", "no answer in time"),
        ("os error 28", "no space is left"),
    ):
        if sign in text:
            return meaning
    return "the connection broke off"


def _status(error: Exception) -> str | None:
    found = _STATUS.search(str(error))
    return found[1] if found else None


def _code(error: Exception) -> str | None:
    found = _CODE.search(str(error))
    return found[1] if found else None
