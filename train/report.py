"""What a run says while it goes on: lines of metrics, a progress bar, curves and pictures for TensorBoard."""

from __future__ import annotations

import sys
import warnings
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..engines.errors import UserError
from .config import TrainConfig
from .feed import Batch
from .runs import RunFolder


class Report:
    """Use it as a context.

    Args:
        folder: Of the run.
        config: The recipe.
        step: From which the run goes on.

    Raises:
        UserError: The recipe asks for TensorBoard, which is not installed.
    """

    def __init__(self, folder: RunFolder, config: TrainConfig, step: int) -> None:
        self._folder, self._steps, self._name = folder, config.schedule.steps, config.run.name
        self._stack = ExitStack()
        self._curves: Any = self._open_curves(step) if config.run.tensorboard else None
        self._bar: Any = self._open_bar(step) if sys.stderr.isatty() else None

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def shows_pictures(self) -> bool:
        """Whether `pictures` does anything."""
        return self._curves is not None

    def step(self, step: int) -> None:
        """So many steps are done."""
        if self._bar:
            self._bar.update(0, completed=step)

    def log(self, step: int, values: dict[str, float]) -> None:
        """A line of metrics, and the same for people. Raises UserError: it cannot be written."""
        self._folder.log({"step": step, **values})
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self._bar:
            self._bar.update(0, completed=step, text=text)
        else:
            sys.stderr.write(f"{self._name} {step}/{self._steps}  {text}\n")
        if self._curves:
            for name, value in values.items():
                self._curves.add_scalar(name, value, step)

    def pictures(self, step: int, rows: list[Tensor]) -> None:
        """Rows of pictures, each from `picture_row`."""
        if self._curves and rows:
            least = min(row.shape[1] for row in rows), min(row.shape[2] for row in rows)
            self._curves.add_image("samples", torch.cat([row[:, : least[0], : least[1]] for row in rows], 1), step)

    def _open_curves(self, step: int) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of its own imports
                from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError("run.tensorboard needs the package tensorboard; run: pip install tensorboard") from error
        curves = SummaryWriter(str(self._folder.path / "tensorboard"), purge_step=step + 1)  # what is done again
        self._stack.callback(curves.close)
        return curves

    def _open_bar(self, step: int) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = Progress(*columns, TextColumn("{task.fields[text]}"), console=Console(stderr=True))
        bar.add_task(self._name, total=self._steps, completed=step, text="")
        self._stack.enter_context(bar)
        return bar


def picture_row(sample: Batch, shown: Tensor, target: Tensor) -> Tensor:
    """What the network saw, what it made of it, and what was wanted, side by side: [3, H, 3 W] in [0, 1].

    Args:
        sample: Planes [1, 4, h, w] and gains [1, 3], or input [1, 3, 2h, 2w].
        shown, target: The network's picture and what it should be, [1, 3, 2h, 2w], or both smaller.
    """
    if "input" in sample:
        seen = sample["input"][0]
    else:
        r, gr, gb, b = sample["planes"][0]
        rough = torch.stack([r, (gr + gb) / 2, b]) * sample["gains"][0][:, None, None]
        seen = rough.clamp(0, 1).pow(1 / 2.2).repeat_interleave(2, 1).repeat_interleave(2, 2)
    seen = interpolate(seen[None], shown.shape[2:], mode="nearest")[0]
    return torch.cat([seen, shown[0], target[0]], 2).float().cpu()
