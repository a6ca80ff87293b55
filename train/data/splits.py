"""Which files are trained on and which are held out, and a fingerprint of those that were used."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from ...engines.errors import UserError, reason
from .sampling import Named

HELD_OUT_SEED = 1_000_003
"""Of drawn samples that nothing trains on."""

_BLOCK = 1 << 20


class Grouped(Named, Protocol):
    """What samples are drawn from: a pair (`raw_pair.PairFiles`), a photograph (`photos.PhotoFile`)."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of its files."""
        ...

    @property
    def group(self) -> str:
        """Equal for those that show the same scene and must not be torn apart between training and validation."""
        ...


G = TypeVar("G", bound=Grouped)


def known_split(split: str, known: Sequence[str], title: str) -> str:
    """`split` if it is one of `known`. Raises UserError: it is none."""
    if split not in known:
        raise UserError(f"{title} has no split {split!r}: choose one of {', '.join(known)}")
    return split


def hold_out(files: Sequence[G], share: float) -> tuple[list[G], list[G]]:
    """Split into training and validation, for data sets that are published without a split.

    Groups stay together. Which are held out follows from their names alone: it is the same on every machine, in every
    order, and new files of a known scene stay on its side.

    Args:
        files: Of two groups or more.
        share: Of the groups that is held out, above 0 and below 1; at least one is, and at least one is not.

    Raises:
        UserError: There is only one group, or the share is out of range.
    """
    if not 0 < share < 1:
        raise UserError(f"the share to hold out is {share:g}: it must lie above 0 and below 1")
    groups = sorted({file.group for file in files}, key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(groups) < 2:
        raise UserError("there is one scene only, of which nothing can be held out: give other files for validation")
    held = set(groups[: min(len(groups) - 1, max(1, round(share * len(groups))))])
    return [file for file in files if file.group not in held], [file for file in files if file.group in held]


def read_names(path: Path) -> list[str]:
    """The names in a text file, one per line; empty lines and those that begin with # do not count.

    Raises:
        UserError: The list cannot be read, or names nothing.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list {path} cannot be read: {reason(error)}") from error
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise UserError(f"the list {path} names nothing: write one name per line")
    return names


def read_split(path: Path, files: Sequence[G]) -> list[G]:
    """Those that a list names, in its order.

    Args:
        path: A text file, see `read_names`.
        files: All of them.

    Raises:
        UserError: The list cannot be read, names nothing, or names something twice or that is not there.
    """
    names = read_names(path)
    by_name = {file.name: file for file in files}
    for name in names:
        if name not in by_name:
            raise UserError(f"{path} names {name}, which is not there: the names are like {files[0].name}")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} names {twice} twice: remove one of the lines")
    return [by_name[name] for name in names]


def write_split(path: Path, files: Sequence[Grouped]) -> None:
    """Write the list that `read_split` reads. Raises UserError: it cannot be written."""
    try:
        path.write_text("".join(f"{file.name}\n" for file in files), encoding="utf-8")
    except OSError as error:
        raise UserError(f"the list {path} cannot be written: {error.strerror}") from error


def manifest_hash(files: Sequence[Grouped], *, contents: bool = False) -> str:
    """SHA-256, in hex, of what was used: it changes when a file is added, left out, renamed or changed.

    Args:
        files: In any order.
        contents: Hash the files' bytes, which takes as long as reading them but is the same on every machine; else
            sizes and times of change stand for them.

    Raises:
        UserError: A file cannot be read.
    """
    total = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        for path in file.paths:
            total.update(f"{file.name}\0{path.name}\0{_state(path, contents)}\n".encode())
    return total.hexdigest()


def _state(path: Path, contents: bool) -> str:
    try:
        if not contents:
            facts = path.stat()
            return f"{facts.st_size}\0{facts.st_mtime_ns}"
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        return digest.hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
