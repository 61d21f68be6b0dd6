"""What is found in a source: what is wrong with it, and what of it a store does not keep."""

from __future__ import annotations

from collections import Counter

__all__ = ["Findings"]

_MOST_EXAMPLES = 3


class Findings:
    """Faults one by one, and what is lost, alike things together.

    Attributes
    ----------
    faults : list of str
        What cannot be read, and where.

    Examples
    --------
    >>> findings = Findings()
    >>> for row in range(5):
    ...     findings.lose("keypoints are left out", f"row {row}")
    >>> findings.lost
    ['keypoints are left out: in row 0, row 1, row 2, ... (5 in all)']
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def fault(self, place: str, problem: object) -> None:
        """Note that something cannot be read."""
        self.faults.append(f"{place}: {problem}")

    def lose(self, what: str, place: str) -> None:
        """Note that something does not go into a store."""
        self._counts[what] += 1
        examples = self._examples.setdefault(what, [])
        if len(examples) < _MOST_EXAMPLES:
            examples.append(place)

    @property
    def lost(self) -> list[str]:
        """One sentence for each kind of thing that does not go into a store."""
        return [
            f"{what}: in {', '.join(self._examples[what])}"
            + (f", ... ({count:,} in all)" if count > _MOST_EXAMPLES else "")
            for what, count in self._counts.items()
        ]
