"""The URL that an annotation gives for its mask, from a template or from where the file is."""

from __future__ import annotations

from pathlib import Path
from string import Formatter
from urllib.parse import quote

from maskcube.errors import InvalidOption, listed

__all__ = ["REMOTE", "MaskUrls"]

REMOTE = ("s3", "gs", "https", "http")
"""Schemes that Nucleus fetches from; Scale's client takes all else for a path."""

_FIELDS = ("image", "file")


class MaskUrls:
    """The URLs of masks.

    Parameters
    ----------
    template : str, optional
        With ``{image}``, the name of the image, percent-encoded, or ``{file}``, the name of the
        file, which has no characters to encode.
    folder : pathlib.Path
        Where the files are when there is no template: an absolute path.

    Raises
    ------
    InvalidOption
        When the template has no such field, or another one, or leads where nobody fetches.
    """

    def __init__(self, template: str | None, folder: Path) -> None:
        self._template = template
        self._folder = folder
        if template is not None:
            _check(template)

    def of(self, image: str, file: str) -> str:
        """Return the URL of the mask of an image that is in a file of this name."""
        if self._template is None:
            return str(self._folder / file)
        return self._template.format(image=quote(image, safe=""), file=file)


def _check(template: str) -> None:
    fields = _fields(template)
    unknown = [field for field in fields if field not in _FIELDS]
    if unknown or not fields:
        problem = f"has no field {listed(unknown)}" if unknown else "is the same for every image"
        raise InvalidOption(
            f"mask_url={template!r} {problem}: {{image}} is the name of the image, {{file}} that"
            " of the file"
        )
    scheme, is_remote, _ = template.partition("://")
    if is_remote and scheme.lower() not in REMOTE:
        raise InvalidOption(
            f"mask_url={template!r}: Nucleus fetches from {listed(REMOTE)}; for a file give its"
            " path, without a scheme"
        )
    if not is_remote and not template.endswith((".png", "{file}")):
        raise InvalidOption(
            f"mask_url={template!r}: Nucleus takes files whose names end in '.png', or URLs"
        )


def _fields(template: object) -> list[str]:
    """Return the names of the fields, with what may stand behind them."""
    if not isinstance(template, str):
        raise InvalidOption(f"mask_url={template!r}: give a text, as in 's3://bucket/{{file}}'")
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise InvalidOption(f"mask_url={template!r} is no template: {error}") from error
    return [
        name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
        for _, name, form, conversion in parts
        if name is not None
    ]
