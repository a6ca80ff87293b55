"""DirectFile: from shared memory to the disk without a copy, past the page cache where the file system allows it.

A page cache that has to be flushed takes several times as long on fast disks, and pushes everything else out of memory;
see docs/decisions/0017-frames-past-the-page-cache.md.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from pathlib import Path

_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # of fallocate
_MOST_PIECES = 1024  # IOV_MAX
_REFUSED = (errno.EINVAL, errno.EOPNOTSUPP)

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = _libc.fallocate64
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class DirectFile:
    """A file that is there already, for writing whole pages at offsets that are multiples of a page.

    Attributes:
        direct: Whether it is written past the page cache.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path, *, direct: bool = True) -> None:
        self._path = path
        self._fd = -1
        self.direct = direct
        if direct:
            try:
                self._fd = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
        if self._fd < 0:
            self._open_buffered()

    def reserve(self, offset: int, length: int) -> None:
        """Sees to it that the disk has room for `length` bytes at `offset`. Raises OSError where it has not.

        File systems that cannot reserve run full later, or not.
        """
        if _fallocate(self._fd, 0, offset, length):
            code = ctypes.get_errno()
            if code not in (*_REFUSED, errno.ENOSYS):
                raise OSError(code, os.strerror(code))

    def give_back(self, offset: int, length: int) -> None:
        """Gives the room of bytes that were not written back to the disk, where the file system can."""
        _fallocate(self._fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length)

    def write(self, offset: int, pieces: Sequence[memoryview]) -> None:
        """Writes page-aligned pieces of whole pages one after another from `offset` on. Raises OSError."""
        for first in range(0, len(pieces), _MOST_PIECES):
            some = pieces[first : first + _MOST_PIECES]
            self._write(offset, some)
            offset += sum(piece.nbytes for piece in some)

    def _write(self, offset: int, pieces: Sequence[memoryview]) -> None:
        while pieces:
            try:
                written = os.pwritev(self._fd, pieces, offset)
            except OSError as error:
                if not self.direct or error.errno not in _REFUSED:
                    raise
                self._open_buffered()  # file systems that accept the flag and then not the writing
                continue
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            offset += written
            pieces = _rest(pieces, written)

    def sync(self) -> None:
        """Returns when everything is on the disk. Raises OSError."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Closes the file. Harmless when repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open_buffered(self) -> None:
        # By the descriptor where there is one: the file may have another name by now.
        path = f"/proc/self/fd/{self._fd}" if self._fd >= 0 else self._path
        opened = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self.close()
        self._fd, self.direct = opened, False


def _rest(pieces: Sequence[memoryview], written: int) -> list[memoryview]:
    """What remains of the pieces after their first `written` bytes."""
    for i, piece in enumerate(pieces):
        if written < piece.nbytes:
            return [piece[written:], *pieces[i + 1 :]]
        written -= piece.nbytes
    return []
