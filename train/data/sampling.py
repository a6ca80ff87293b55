"""What data sets of drawn samples share: an epoch, a seed, files, repeats, and what was read once and is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ...engines.errors import UserError


class Named(Protocol):
    """Something on disk that samples are drawn from."""

    @property
    def name(self) -> str:
        """Unlike any other of the data set."""
        ...


F = TypeVar("F", bound=Named)
T = TypeVar("T")


class Cache(Generic[T]):
    """Things by index, until a budget of bytes is spent, which is shared out among the workers of a loader.

    What was kept stays, because in an endless round the newest is needed last.
    """

    def __init__(self, budget: int) -> None:
        self._budget, self._used = budget, 0
        self._kept: dict[int, T] = {}

    def get(self, index: int) -> T | None:
        """What was put there, or None."""
        return self._kept.get(index)

    def put(self, index: int, thing: T, size: int) -> None:
        """Keep it if its bytes still fit in."""
        worker = get_worker_info()
        if self._used + size <= self._budget // (worker.num_workers if worker else 1):
            self._used += size
            self._kept[index] = thing

    def __getstate__(self) -> dict[str, object]:
        # a worker that is spawned reads for itself: what is kept is not worth sending
        return {"_budget": self._budget, "_used": 0, "_kept": {}}


class SeededSamples(Dataset[dict[str, Tensor]]):
    """A data set whose samples follow from seed, epoch and index alone, whoever draws them.

    Args:
        count: Samples of an epoch.
        seed: Of everything drawn.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        # shared memory, so that workers which outlive an epoch see the next one begin
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Draw others from now on, the same ones for the same epoch."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return self._count

    def _checked(self, index: int) -> int:
        """`index`. Raises IndexError: there is no such sample."""
        if not 0 <= index < self._count:
            raise IndexError(index)
        return index


class MadeSamples(SeededSamples):
    """Samples that are made of other drawn ones, of each one, such as frames of photographs.

    Args:
        photos: What they are made of, with a length and `set_epoch`.
        seed: Of everything drawn.
    """

    def __init__(self, photos: Any, seed: int) -> None:
        super().__init__(len(photos), seed)
        self._photos = photos

    def set_epoch(self, epoch: int) -> None:
        """See `SeededSamples.set_epoch`; of what they are made of as well."""
        self._photos.set_epoch(epoch)
        super().set_epoch(epoch)


class DrawnSamples(SeededSamples, Generic[F]):
    """Samples that are drawn from files, of each as many."""

    def __init__(self, files: Sequence[F], what: str, *, repeats: int, seed: int) -> None:
        """
        Args:
            files: What samples are drawn from.
            what: What they are called, for messages: "photographs".
            repeats: Samples of each and epoch.
            seed: Of everything drawn.

        Raises:
            UserError: No files, or fewer than 1 repeat.
        """
        if not files:
            raise UserError(f"there are no {what} to train on: give a folder, or a list of its files, that has some")
        if repeats < 1:
            raise UserError(f"repeats is {repeats}: at least one sample of each of the {what} is needed")
        super().__init__(len(files) * repeats, seed)
        self._files = list(files)

    @property
    def files(self) -> list[F]:
        """What samples are drawn from, for `splits.manifest_hash`."""
        return list(self._files)

    def name(self, index: int) -> str:
        """Which file a sample is of."""
        return self._files[index % len(self._files)].name
