"""A store in a session of icechunk: a version that is read, or a transaction that ends in one.

icechunk is no place for any bytes: it knows the keys of Zarr, refuses all others, and takes chunks
only of arrays that are there. So it has no copy of the root metadata, which every version keeps
anyway, and plan and journal of what is written lie elsewhere: see `maskcube.transaction`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from maskcube.errors import CorruptStore, InvalidOption
from maskcube.folder import reason, unreadable
from maskcube.plain import PlainObjects

if TYPE_CHECKING:
    from zarr.abc.store import Store

__all__ = ["SessionObjects", "can_hold"]

_ROOT = "zarr.json"

_ZARR_KEY = re.compile(r"(.+/)?zarr\.json|.+/c(/\d+)*")


def can_hold(objects: object, key: str) -> bool:
    """Whether an object can be there at all: a session of icechunk has metadata and chunks only."""
    return not isinstance(objects, SessionObjects) or bool(_ZARR_KEY.fullmatch(key))


class SessionObjects(PlainObjects):
    """Objects in a session of icechunk.

    Parameters
    ----------
    store : icechunk.IcechunkStore
        The store of a session.
    """

    has_cheap_ranges = False
    max_concurrency = 16
    reach = ""

    def __init__(self, store: Any) -> None:  # noqa: ANN401 - icechunk may not be installed
        self.store = store
        self.session = store.session
        branch = self.session.branch
        where = f"branch {branch!r}" if branch else f"snapshot {self.session.snapshot_id}"
        self.location = f"icechunk {where}"

    @classmethod
    def open(cls, store: Any, *, read_only: bool) -> SessionObjects:  # noqa: ANN401 - see `__init__`
        """Return the objects of a session.

        Raises
        ------
        InvalidOption
            When `store` is no store of a session, or it is to be written to and cannot.
        """
        if not hasattr(store, "session"):
            raise InvalidOption(
                f"store is a {type(store).__name__} of icechunk; give the store of a session:"
                ' repo.readonly_session("main").store, or repo.writable_session("main").store'
            )
        objects = cls(store)
        if read_only:
            return objects
        if store.read_only or objects.session.read_only:
            raise InvalidOption(
                f"{objects.location} can only be read: a session ends with its commit; give the"
                ' store of a new one, repo.writable_session("main").store'
            )
        if type(objects.session).__name__ == "ForkSession":
            raise InvalidOption(
                f"{objects.location} is a fork, which cannot commit; give the store of"
                ' repo.writable_session("main")'
            )
        if objects.session.has_uncommitted_changes:
            raise InvalidOption(
                f"{objects.location} has changes that are not committed, and what maskcube writes"
                " is one commit of its own: commit or discard them first"
            )
        return objects

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        """Return an object, or a range of it."""
        if key == _ROOT:
            stop = None if length is None else start + length
            return (self._root() or b"")[start:stop] or None
        return self._get(key, start, length)

    def _root(self) -> bytes | None:
        """Return the root metadata, completed by that of all arrays if somebody has left it out.

        zarr does so when it writes attributes: in icechunk nobody needs all metadata in one place.
        """
        data = self._get(_ROOT)
        try:
            root = json.loads(data or b"null")
        except ValueError:
            root = None
        if not isinstance(root, dict) or root.get("consolidated_metadata"):
            return data
        suffix = f"/{_ROOT}"
        found = {
            key.removesuffix(suffix): json.loads(self._get(key) or b"{}")
            for key in self.keys()
            if key.endswith(suffix)
        }
        below = {"kind": "inline", "must_understand": False, "metadata": found}
        return json.dumps({**root, "consolidated_metadata": below}).encode()

    def _get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        from zarr.abc.store import RangeByteRequest
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        size = self.size(key)
        if size is None:
            return None
        # Beyond the end icechunk 1 gives the last byte, and icechunk 2 an error.
        stop = size if length is None else min(size, start + length)
        if stop <= start:
            return b""
        wanted = None if stop - start == size else RangeByteRequest(start, stop)
        try:
            found = sync(self.store.get(key, default_buffer_prototype(), wanted))
        except Exception as error:  # icechunk raises whatever it likes
            raise unreadable(self.location, key, error) from error
        return None if found is None else bytes(found.to_bytes())

    def stamp(self, key: str) -> None:  # noqa: ARG002 - as any Objects
        """Return None: asking takes as long as reading, and a version never changes."""
        return

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes."""
        from zarr.core.sync import sync

        if not can_hold(self, key):
            return None
        try:
            # A chunk that is not there has none.
            return sync(self.store.getsize(key)) or None
        except (KeyError, FileNotFoundError):
            return None
        except Exception as error:  # icechunk raises whatever it likes
            raise unreadable(self.location, key, error) from error

    def put(self, key: str, data: bytes) -> None:
        """Write an object; nobody else sees it before the commit."""
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        sync(self.store.set(key, default_buffer_prototype().buffer.from_bytes(data)))

    def delete(self, *keys: str) -> None:
        """Delete objects, and all below their names: chunks before the metadata of their array."""
        from zarr.core.sync import sync

        for name in keys:
            for key in [*self.keys(f"{name}/"), name]:
                if can_hold(self, key) and self.size(key) is not None:
                    sync(self.store.delete(key))

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys below a prefix, sorted."""
        from zarr.core.sync import sync

        async def listed() -> list[str]:
            # Groups and arrays can be listed, not any prefix.
            return [key async for key in self.store.list() if key.startswith(prefix)]

        try:
            found = sync(listed())
        except Exception as error:  # icechunk raises whatever it likes
            raise CorruptStore(f"{self.location} cannot be listed: {reason(error)}") from error
        yield from sorted(found)

    def zarr_store(self) -> Store:
        """Return the store of the session."""
        store: Store = self.store
        return store

    def clear(self) -> None:
        """Delete everything, in this session only."""
        from zarr.core.sync import sync

        sync(self.store.clear())

    def __deepcopy__(self, _: object) -> SessionObjects:
        return self

    def __getstate__(self) -> dict[str, Any]:
        if not self.session.read_only:
            raise InvalidOption(
                f"{self.location}: a session that can write stays in its process; open the store of"
                ' repo.readonly_session("main") to share it with others'
            )
        return {"store": self.store, "location": self.location}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.session = state["store"].session
