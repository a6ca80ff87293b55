"""What the HDF5 library is asked for, and what it says when it cannot."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from .layout import PAGE, pages, require_h5py

_NUMBER = re.compile(r"errno = (\d+)")


@contextmanager
def os_errors() -> Iterator[None]:
    """Whatever the library raises when it cannot write, as the OSError of the system that it is about."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        found = _NUMBER.search(str(error))
        if isinstance(error, OSError) and not found:
            raise
        code = int(found[1]) if found else errno.EIO
        raise OSError(code, os.strerror(code)) from error


def create_file(path: Path, room: int) -> Any:
    """A new file (h5py.File), with so many bytes in front for what the library writes beside the frames.

    Raises OSError; then there is none.
    """
    h5py = require_h5py()
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    # The oldest format: every HDF5 reads it, and nothing in it is a mark of an open file or a checksum that a killed
    # writer would leave wrong.
    access.set_libver_bounds(h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_V18)
    access.set_alignment(PAGE, PAGE)
    access.set_meta_block_size(pages(room))
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    try:
        with os_errors():
            return h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_EXCL, fapl=access))
    except OSError as error:
        if error.errno != errno.EEXIST:
            with suppress(OSError):
                path.unlink()
        raise


def allocated(file: Any, name: str, dtype: np.dtype, shape: tuple[int, ...], chunk: tuple[int, ...]) -> Any:
    """An empty dataset whose chunks are allocated, and not filled, as soon as it is extended."""
    h5py = require_h5py()
    create, access = h5py.h5p.create(h5py.h5p.DATASET_CREATE), h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    create.set_chunk(chunk)
    create.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    create.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    access.set_chunk_cache(0, 0, 0.0)
    space = h5py.h5s.create_simple((0, *shape), (h5py.h5s.UNLIMITED, *shape))
    kind = h5py.h5t.py_create(dtype, logical=True)
    return h5py.h5d.create(file.id, name.encode(), kind, space, dcpl=create, dapl=access)


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Writes all of it at an offset. Raises OSError."""
    if os.pwrite(fd, data, offset) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
