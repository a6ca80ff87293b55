"""Batches in an order that follows from seed and step alone, whatever the number of workers and processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ..engines.errors import UserError
from .devices import quicken_processor
from .sources import SampleSet

Batch = dict[str, Tensor]
"""`planes` [B, 4, h, w], `gains` [B, 3], `target` [B, 3, 2h, 2w], `matrix` [B, 3, 3], `camera` [B, 5], float32; and
`mask` [B, 1, 2h, 2w] where a sample of the batch has one."""


class Feed:
    """Training batches from a step on, without end. Every epoch takes each sample once, in an order of its own; what
    does not fill a batch is left out."""

    def __init__(
        self, samples: SampleSet, batch: int, seed: int, *, rank: int = 0, world: int = 1, **loader: Any
    ) -> None:
        """Nothing is drawn yet.

        Args:
            samples: To draw from.
            batch: Samples of a step, of all processes together.
            seed: Of the order.
            rank, world: Which process of how many this is; it gets every `world`-th sample of each batch.
            loader: For `make_loader`.

        Raises:
            UserError: A batch cannot be filled, or not shared out evenly.
        """
        if batch % world:
            raise UserError(f"a batch of {batch} cannot be shared out among {world} processes; choose a multiple")
        if len(samples) < batch:
            raise UserError(f"there are {len(samples)} samples for batches of {batch}; set data.batch lower")
        self._samples, self._order = samples, _Order(len(samples), batch, seed, rank, world)
        self._loader = make_loader(samples, self._order, **loader)

    def batches(self, step: int) -> Iterator[Batch]:
        """The batches of that step and those after it.

        Raises:
            UserError: A sample cannot be made: a damaged file, or no memory for it.
        """
        epoch, first = divmod(step, self._order.per_epoch)
        while True:
            self._samples.set_epoch(epoch)
            self._order.begin(epoch, first)
            yield from self._epoch_of_batches()
            epoch, first = epoch + 1, 0

    def _epoch_of_batches(self) -> Iterator[Batch]:
        try:
            for batch in self._loader:
                if isinstance(batch, UserError):
                    raise batch
                yield batch
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            raise UserError(
                "a process that makes samples was killed, as when memory runs out; set data.workers lower, or "
                "cache_mb of the sources"
            ) from error


def make_loader(samples: SampleSet, batches: Any, *, workers: int = 0, pin: bool = False) -> DataLoader[Any]:
    """A loader of the batches of indices that `batches` gives, each time anew.

    Args:
        samples: To draw from.
        batches: Sequences of indices.
        workers: Processes that draw; 0 draws in this one. They stay from epoch to epoch.
        pin: Batches in pinned memory, for a GPU.
    """
    return DataLoader(
        _Guarded(samples),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin,
        worker_init_fn=_begin_worker if workers else None,
        persistent_workers=workers > 0,
        # a fork of a process with threads of its own (of Numba, OpenMP, CUDA) may hang
        multiprocessing_context="spawn" if workers else None,
        generator=torch.Generator(),  # else each epoch takes a number from the random state of the run
    )


class _Order:
    """Batches of indices of one epoch, from one of them on."""

    def __init__(self, length: int, batch: int, seed: int, rank: int, world: int) -> None:
        self._length, self._batch, self._seed = length, batch, seed
        self._rank, self._world = rank, world
        self._epoch = self._first = 0

    @property
    def per_epoch(self) -> int:
        return self._length // self._batch

    def begin(self, epoch: int, first: int) -> None:
        self._epoch, self._first = epoch, first

    def __len__(self) -> int:
        return self.per_epoch - self._first

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(self._length)
        for place in range(self._first, self.per_epoch):
            batch = order[place * self._batch : (place + 1) * self._batch]
            yield batch[self._rank :: self._world].tolist()


class _Guarded(Dataset[Any]):
    """Samples, or what the user can mend as a value: raised in a worker it would come out with its traceback."""

    def __init__(self, samples: SampleSet) -> None:
        self._samples = samples

    def __getitem__(self, index: int) -> Any:
        try:
            return self._samples[index]
        except UserError as error:
            return error


def _collate(drawn: list[Any]) -> Any:
    """A batch of samples, or what the user can mend.

    A sample without a mask counts everywhere beside one that has a mask. Of no other part is anything made up.
    """
    if problem := next((each for each in drawn if isinstance(each, UserError)), None):
        return problem
    if any("mask" in sample for sample in drawn):
        drawn = [{"mask": torch.ones_like(sample["target"][:1]), **sample} for sample in drawn]
    parts = [set(sample) for sample in drawn]
    if uneven := sorted(set.union(*parts) - set.intersection(*parts)):
        return UserError(
            f"some samples have {', '.join(uneven)} and others have not, which cannot be in one batch: the sources "
            "under data.train do not go together"
        )
    return default_collate(drawn)


def _begin_worker(number: int) -> None:
    quicken_processor()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the trainer ends its workers
