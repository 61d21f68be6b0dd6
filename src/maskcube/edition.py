"""Which state of a store was opened: whoever reads from it later must not mix it with another."""

from __future__ import annotations

from maskcube.errors import CorruptStore, StoreChanged
from maskcube.manifest import Piece
from maskcube.objects import Objects, get_piece, is_piece
from maskcube.schema import ROOT

__all__ = ["Edition"]

_MOST_PIECE_BYTES = 2**28
"""Coordinates and runs are read whole; those of 24,011 masks are 0.7 MB at most."""


class Edition:
    """The root metadata of an opened store, in which the checksums of all its pieces stand.

    A store takes another one's place whole, its root with it. So what was read before the root is
    found unchanged is of the store that was opened.

    Parameters
    ----------
    objects : Objects
        Where the store is.
    identity : Piece
        Size and checksum of its root metadata.
    stamp : tuple of int, optional
        The root's stamp, taken before it was read.
    """

    def __init__(
        self, objects: Objects, identity: Piece, stamp: tuple[int, ...] | None = None
    ) -> None:
        self.identity = identity
        self._objects = objects
        self._stamp = stamp

    @property
    def token(self) -> tuple[str, Piece, str]:
        """What differs for another place, another state of it, or another way there."""
        return self._objects.location, self.identity, self._objects.reach

    def get(self, key: str, piece: Piece | None, what: str) -> bytes:
        """Return an object of the store that is read whole, as it was written.

        Parameters
        ----------
        key : str
            Its key.
        piece : Piece or None
            What the manifest says of it, if anything.
        what : str
            What it is, for messages.

        Raises
        ------
        CorruptStore
            When it is missing, of another size or checksum, too large, or cannot be read.
        StoreChanged
            When that is so because another store has taken its place.
        """
        try:
            return self._piece(key, piece, what)
        except CorruptStore:
            self.check()
            raise

    def _piece(self, key: str, piece: Piece | None, what: str) -> bytes:
        most = Piece(0, 0) if piece is None or piece.length > _MOST_PIECE_BYTES else piece
        data = get_piece(self._objects, key, most)
        if data is None:
            raise CorruptStore(f"{self._objects.location}: {what} is missing")
        if Piece.of(data) != piece:
            raise CorruptStore(
                f"{self._objects.location}: {what}: size or checksum is not the recorded one"
            )
        return data

    def check_cheaply(self) -> None:
        """Raise if the store is seen to have changed, where seeing costs next to nothing.

        Raises
        ------
        StoreChanged
            When another store has taken its place.
        """
        stamp = self._objects.stamp(ROOT)
        if stamp != self._stamp:
            self.check()
            # The same bytes in another file: somebody has copied the store.
            self._stamp = stamp

    def check(self) -> None:
        """Raise if the store has changed; reads the root metadata.

        Raises
        ------
        StoreChanged
            When another store has taken its place.
        """
        if not is_piece(self._objects, ROOT, self.identity):
            raise StoreChanged(
                f"{self._objects.location} is not the store any more that was opened: it was"
                " changed or replaced meanwhile; open it again"
            )
