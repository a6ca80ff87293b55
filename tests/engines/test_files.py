"""Files are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ispeed.engines import UserError
from ispeed.engines.files import write_whole


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is there."""
    path = tmp_path / "file.bin"
    path.write_bytes(b"before")
    return path


@contextmanager
def full_disk() -> Iterator[None]:
    """The system refuses to write more than a little, as a full disk does.

    No fixture: pytest writes its own lines before it takes fixtures down, and they may go to a file too.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_is_replaced(path: Path):
    for content in (b"after", b""):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_file_before(path: Path):
    with full_disk(), pytest.raises(UserError, match=r"cannot write the plan .*file\.bin: File too large"):
        write_whole(path, bytes(1000), "the plan")
    assert path.read_bytes() == b"before"
    assert list(path.parent.iterdir()) == [path]


def test_ctrl_c_leaves_the_file_before(path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(descriptor: int) -> None:
        assert len(list(path.parent.iterdir())) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (lambda path: path.parent / "none" / "x", "No such file or directory"),
        (lambda path: path / "x", "Not a directory"),
        (lambda path: path.parent, "Is a directory"),
        (lambda path: path.with_name("x" * 300), "File name too long"),
    ],
)
def test_a_place_that_cannot_be_is_one_sentence(path: Path, place: Callable[[Path], Path], reason: str):
    where = place(path)
    with pytest.raises(UserError, match=f"^cannot write {where}: {reason}$"):
        write_whole(where, b"after")
    assert list(path.parent.iterdir()) == [path]
