"""What must be true whenever a source is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reference import Source

from maskcube.conversion import convert
from maskcube.errors import SourceError

__all__ = ["refused", "tree"]


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return everything in a folder: files with their bytes, folders, links, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(source: Source, target: Path, **options: Any) -> SourceError:
    """Return why a source is refused, after checking that nothing else has happened."""
    top = source.folder.parent
    before = tree(top)
    with pytest.raises(SourceError) as error:
        convert(source.folder, target, progress=False, **options)
    assert tree(top) == before
    return error.value
