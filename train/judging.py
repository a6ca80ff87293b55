"""How good a network is on the validation samples of a run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..engines.errors import UserError
from .metrics import LikenessMeter, psnr
from .metrics.histogram import Floats
from .models import Module
from .objectives import see, wanted
from .report import picture_row
from .sources import SampleSet

_PICTURES = 4
"""Of how many samples pictures are shown."""


class Judge:
    """Measures modules on the same samples each time.

    Args:
        samples: For validation.
        photographs: The mean of `data.unpaired.colours_of`, to measure likeness too; the samples' targets are then
            pictures of the classic engine.
    """

    def __init__(self, samples: SampleSet, photographs: Floats | None = None) -> None:
        self._samples, self._photographs = samples, photographs

    @torch.inference_mode()
    def measure(
        self,
        module: Module,
        device: torch.device,
        *,
        rank: int = 0,
        world: int = 1,
        sum_up: Callable[[Tensor], Tensor] | None = None,
        rows: list[Tensor] | None = None,
    ) -> dict[str, float]:
        """What a module of `models.make_module`, in evaluation mode, is measured to be in float32.

        Args:
            module: On the device.
            device: To calculate on.
            rank, world: Which process of how many this is; it looks at every `world`-th sample. Likeness is for one.
            sum_up: Sums float64 [3] on the device over all processes.
            rows: Takes `report.picture_row` of the first samples, where pictures are what the module gives.

        Returns:
            `psnr_db`, mean PSNR to the targets; where pictures are made better, `input_db`, that of those that are
            given; and of likeness `likeness`, `structure` and `colours`, as of `metrics.Likeness`.

        Raises:
            UserError: A sample cannot be made, or is too small for likeness.
        """
        self._samples.set_epoch(0)
        scores, given = [], []
        meter = None if self._photographs is None else LikenessMeter(self._photographs)
        for index in range(rank, len(self._samples), world):
            sample = {name: tensor[None].to(device) for name, tensor in self._samples[index].items()}
            picture, target = see(module, module.takes, sample, module.output), wanted(module, sample)
            shown, goal = picture.cpu(), target.cpu().clamp(0.0, 1.0)
            scores.append(psnr(shown, goal))
            if "input" in sample:
                given.append(psnr(sample["input"].cpu(), sample["target"].cpu()))
            if meter:
                _add(meter, shown, goal)
            if rows is not None and len(rows) < _PICTURES and module.wants == "target":
                rows.append(picture_row(sample, picture, target))
        sums = torch.tensor([sum(scores), sum(given), len(scores)], dtype=torch.float64, device=device)
        total, total_given, count = (sum_up(sums) if sum_up else sums).tolist()
        values = {"psnr_db": total / count} | ({"input_db": total_given / count} if given else {})
        if meter:
            likeness = meter.result()
            values |= {"likeness": likeness.score, "structure": likeness.structure, "colours": likeness.colours}
        return values


def _add(meter: LikenessMeter, shown: Tensor, classic: Tensor) -> None:
    try:
        meter.add(*(picture[0].permute(1, 2, 0).numpy() for picture in (shown, classic)))
    except ValueError as error:
        raise UserError(
            f"likeness cannot be measured of the validation pictures: {error}; set the crop under data.validation "
            "higher, or validation.choose to null"
        ) from error
