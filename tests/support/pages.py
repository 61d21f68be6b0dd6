"""The code that a page of the documentation shows."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

__all__ = ["ROOT", "blocks", "script"]

ROOT = Path(__file__).parents[2]


def blocks(page: str, language: str, *, section: str | None = None) -> list[str]:
    """Return the code blocks of one language, of the whole page or of one of its sections."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if section is not None:
        (text,) = re.findall(
            rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
        )
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def script(*parts: str) -> str:
    """Return a script that runs some code as a script with worker processes must."""
    return 'if __name__ == "__main__":\n' + textwrap.indent("\n".join(parts), "    ")
