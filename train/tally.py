"""Means over the steps since the last line of the log."""

from __future__ import annotations

import time

import torch
from lightning_fabric import Fabric
from torch import Tensor


def sum_over_processes(fabric: Fabric, values: Tensor) -> Tensor:
    """Of all processes of the run; a collective call."""
    return fabric.all_reduce(values, reduce_op="sum")  # pyright: ignore[reportReturnType]: a tensor stays one


class Tally:
    """Sums on the device, fetched from there only when a line is due."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._begin()

    def _begin(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._samples, self._waited, self._start = 0, 0.0, time.monotonic()

    def waited(self, seconds: float) -> None:
        """For a batch."""
        self._waited += seconds

    def add(self, parts: dict[str, Tensor], samples: int) -> None:
        """Scalars of a step over so many samples; not every step need have all of them."""
        for name, value in parts.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._samples += samples

    def take(self) -> dict[str, float]:
        """The means, and begin anew; a collective call.

        Returns:
            Each scalar by its name, over all processes; `samples_per_s` of all processes, and `data_wait`, the share
            of the time in which this process waited for data.
        """
        sums = torch.stack([value.float() for value in self._sums.values()])
        counts = torch.tensor([*self._counts.values()], device=sums.device) * self._fabric.world_size
        means = sum_over_processes(self._fabric, sums) / counts
        values = dict(zip(self._sums, means.tolist(), strict=True))
        seconds = max(time.monotonic() - self._start, 1e-9)
        values["samples_per_s"] = round(self._samples * self._fabric.world_size / seconds, 2)
        values["data_wait"] = round(self._waited / seconds, 4)
        self._begin()
        return values
