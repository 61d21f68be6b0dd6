"""Options that commands share, and how a report is printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import click

__all__ = ["print_report", "resumable"]


class _Reported(Protocol):
    def to_json(self) -> dict[str, Any]: ...


def _options(
    _: click.Context, __: click.Parameter, given: tuple[str, ...]
) -> dict[str, Any] | None:
    """Return KEY=VALUE pairs as a dict; a value may be secret, so no message repeats it."""
    found: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter("give each as KEY=VALUE")
        is_count = name == "max_concurrency" and value.isdecimal()
        found[name] = int(value) if is_count else {"true": True, "false": False}.get(value, value)
    return found or None


def _reach(what: str, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option that says how to reach what is at a URL."""
    return click.option(
        f"--{name}-option",
        f"{name}_options",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_options,
        help=f"How to reach a {what} at a URL, as in anon=true; may be repeated. Keys are better"
        " kept in the environment.",
    )


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet = click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
metadata = click.option("--metadata", metavar="CSV", help="The CSV, if not beside the HDF5.")
workers = click.option("--workers", type=int, help="Threads; one for each core by default.")
images = click.option("--image", "image", multiple=True, help="Only this image; may be repeated.")
reach = _reach("store", "storage")
reach_source = _reach("source", "source")
nouns = click.option("--noun", "noun", multiple=True, help="Only this noun; may be repeated.")


def print_report(report: _Reported, *, as_json: bool) -> None:
    """Print a report on stdout, as a text or as JSON."""
    click.echo(json.dumps(report.to_json()) if as_json else str(report))


@contextmanager
def resumable(store: str, *, in_place: bool = False) -> Iterator[None]:
    """Say what to do after a Ctrl-C, and where what is finished lies until then."""
    try:
        yield
    except KeyboardInterrupt:
        kept = f"{store} stays as it is until then, what is finished is in {store}.partial"
        if in_place or "://" in store:
            kept = "what is finished is there, and no store until all is"
        told = f"interrupted; run the same command again to resume ({kept})"
        raise click.ClickException(told) from None
