"""The error tree: what its drawing says is what the classes are."""

from __future__ import annotations

import builtins
import inspect
import pickle
import re

import pytest

from maskcube import errors
from maskcube.errors import (
    BadMask,
    CorruptMask,
    LabelNotFound,
    MaskcubeError,
    SourceError,
    VerificationError,
    listed,
)

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, MaskcubeError)
]
DRAWN = dict(re.findall(r"[├└]── (\w+) +\((\w+)\)", errors.__doc__ or ""))


def test_the_drawing_is_complete() -> None:
    assert set(DRAWN) == {cls.__name__ for cls in CLASSES} - {"MaskcubeError"}


@pytest.mark.parametrize("name", DRAWN)
def test_an_error_is_the_builtin_that_is_drawn(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, MaskcubeError)
    assert issubclass(error, getattr(builtins, DRAWN[name]))


@pytest.mark.parametrize(
    "error",
    [
        SourceError("masks.h5", ["first", "second"]),
        errors.SourceNotFound("masks.h5", ["no file"]),
        CorruptMask("shard 3 is missing", [192, 193]),
        VerificationError("masks.zarr", ["a"], [BadMask(1, "a.jpg", "hand", 0, "gone")]),
        LabelNotFound("no mask has noun 'hnad'"),
        errors.StoreNotFound("nothing at masks.zarr"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_back_from_a_worker_whole(error: MaskcubeError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_a_key_error_shows_its_message_as_it_is() -> None:
    assert str(LabelNotFound("no mask has noun 'crème'")) == "no mask has noun 'crème'"


def test_a_source_error_lists_every_fault() -> None:
    assert str(SourceError("a.h5", ["first", "second"])) == "a.h5: 2 faults\n  - first\n  - second"
    assert str(SourceError("a.h5", ["first"])) == "a.h5: first"


def test_a_verification_error_names_at_most_eight_masks() -> None:
    masks = [BadMask(row, "a.jpg", "hand", row, "gone") for row in range(20)]
    text = str(VerificationError("masks.zarr", ["shard 3 is missing"], masks))
    assert text.count("gone") == 8
    assert "shard 3 is missing" in text
    assert "(20 bad masks in all)" in text


def test_listed_says_how_many_there_are() -> None:
    assert listed([]) == ""
    assert listed("ab") == "'a', 'b'"
    assert listed(range(8)) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert listed(range(24_011)) == "0, 1, 2, 3, 4, 5, 6, 7, ... (24,011 in all)"
