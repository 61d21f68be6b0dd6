"""What objects can do that are only got and put: for places where nobody else writes meanwhile."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ["PlainObjects"]


class PlainObjects(ABC):
    """Objects of a place that has no conditions, and no copies that it makes by itself."""

    @abstractmethod
    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        """Return an object, or a range of it; None if it is not there."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write an object whole."""

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless another one is there; whether it holds these bytes now."""
        found = self.get(key, 0, len(data) + 1)
        if found is None:
            self.put(key, data)
        return found is None or found == data

    def copy(self, source: str, target: str) -> None:
        """Make an object a copy of another one, if that one is there."""
        data = self.get(source)
        if data is not None:
            self.put(target, data)
