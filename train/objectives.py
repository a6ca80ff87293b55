"""What a step makes small: the loss of the recipe between what is shown and what is wanted, and with a teacher the
distance to it as well.

Two kinds of teachers. **Heterogeneous**: an auto-encoder of clean pictures of the student's shapes (`models.lwisp`,
form "clean"), whose features at the same layers the student is to find from noisy planes, and whose picture it is to
give. This is our reconstruction of what the abstract of LW-ISP (arXiv 2210.03904) names, after Hong et al.,
"Distilling Image Dehazing With Heterogeneous Task Imitation" (CVPR 2020); the paper's teacher, layers, distances and
weights are not public. **Size**: a larger network of the same form, which sees the same planes; features are then
compared by the maps of where they are large, as in attention transfer (Zagoruyko, Komodakis, ICLR 2017), because widths
differ.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, normalize

from ..engines.errors import UserError
from ..engines.inputs import CAMERA
from .adversary import Adversary, balanced
from .checkpoint import load_checkpoint
from .config import DistillSettings, TrainConfig
from .feed import Batch
from .losses import WeightedLoss, make_loss
from .losses.perceptual import DISTANCES
from .models import NETWORKS, Module, form_of, make_module, shown


def _attention(a: Tensor, b: Tensor) -> Tensor:
    maps = [normalize(x.float().square().mean(1).flatten(1), dim=1) for x in (a, b)]
    return (maps[0] - maps[1]).square().sum(1).mean()


FEATURE_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {**DISTANCES, "attention": _attention}
"""Of features [B, C, h, w]; "attention" takes any numbers of channels."""


def see(network: nn.Module, takes: tuple[str, ...], batch: Batch, output: str, *, leak: bool = False) -> Tensor:
    """The pictures that a module of `models.make_module`, or what wraps it, shows of a batch: float32 [B, 3, H, W]; of
    one that gives planes, these: float32 [B, 4, h, w]."""
    given = _called(network, takes, batch)
    return shown((given[-1] if isinstance(given, tuple) else given).float(), batch["matrix"], output, leak=leak)


def wanted(core: Module, batch: Batch) -> Tensor:
    """What of a batch a module is to give, in the size in which it gives it: a network of several levels (`scale`)
    learns pictures that are smaller by bicubic interpolation, as published."""
    picture, scale = batch[core.wants], scale_of(core)
    if scale == 1:
        return picture
    smaller = interpolate(picture, scale_factor=1 / scale, mode="bicubic", antialias=True)
    return smaller.clamp(0.0, 1.0)


def scale_of(core: Module) -> int:
    """How much smaller than the frame its picture is, each way."""
    return getattr(core.network, "scale", 1)


def _called(network: nn.Module, takes: tuple[str, ...], batch: Batch) -> Any:
    seen = [batch[name] for name in takes]
    seen[0] = seen[0].contiguous(memory_format=torch.channels_last)
    return network(*seen)


class Objective(nn.Module):
    """The loss of a recipe.

    Args:
        loss: Of `losses.make_loss`.
        core: The module that is trained, or its equal: it tells what of a batch it takes and what it gives.
    """

    def __init__(self, loss: nn.Module, core: Module) -> None:
        super().__init__()
        self.loss = loss
        self._takes, self._output = core.takes, core.output
        # no parts of the objective: their weights are the network's
        self._wanted, self._scale = partial(wanted, core), scale_of(core)

    def forward(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """What is made small, with its graph, and its parts without, for the log.

        Args:
            network: The module that is trained, as Fabric wraps it.
            batch: Of `feed`.
        """
        return self.loss(self._see(network, batch), self._wanted(batch), self._mask(batch))

    def stepped(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """What there is to do behind a step of the network. Returns scalars for the log."""
        return {}

    def state(self) -> dict[str, Any] | None:
        """What a run needs to go on besides the network, for `restore`; None for nothing."""
        return None

    def restore(self, state: Any) -> None:
        """Stand where another objective stood that gave this state."""

    def _mask(self, batch: Batch) -> Tensor | None:
        mask = batch.get("mask")
        return mask if mask is None or self._scale == 1 else -max_pool2d(-mask, self._scale)  # all of it counts

    def _see(self, network: nn.Module, batch: Batch) -> Tensor:
        return see(network, self._takes, batch, self._output, leak=True)


class Circle(Objective):
    """The loss of a recipe between pictures and what comes of them over frames and back, and the distance of these
    frames to the camera's: the joint fine-tuning of ParamISP (CVPR 2024).

    Args:
        loss, core: As of `Objective`; `core` is of the form "cycle".
        frames: Weight of the mean absolute difference of the frames.
    """

    def __init__(self, loss: nn.Module, core: Module, frames: float) -> None:
        super().__init__(loss, core)
        self._frames = frames

    def forward(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        planes, picture = _called(network, self._takes, batch)
        total, parts = self.loss(picture.float(), batch["target"], batch.get("mask"))
        missed = (planes.float() - batch["planes"]).abs().mean()
        return total + self._frames * missed, parts | {"frames": missed.detach()}


class Contest(Objective):
    """The losses of a recipe, and what discriminators say, who learn beside the network.

    Args:
        loss, core: As of `Objective`; `core` is the very module that is trained.
        adversary: The discriminators; None for none.
        balance: Each loss and each judgement is divided by the length of its own slope at the weights.
    """

    def __init__(self, loss: WeightedLoss, core: Module, adversary: Adversary | None, balance: bool) -> None:
        super().__init__(loss, core)
        self.adversary, self._balance = adversary, balance
        self._weights = [*core.parameters()]  # in a list, so no parts of the objective either
        self._made: Tensor | None = None

    def forward(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        picture, loss = self._see(network, batch), cast(WeightedLoss, self.loss)
        values = loss.values(picture, self._wanted(batch), self._mask(batch))
        terms = {name: (loss.weights[name], value) for name, value in values.items()}
        if self.adversary is not None:
            self._made = picture.detach()
            for name, value in self.adversary.terms(picture, batch["photo"]).items():
                terms[f"adversary_{name}"] = (self.adversary.weights[name], value)
        parts = {name: value.detach() for name, (_, value) in terms.items()}
        if self._balance:
            return balanced(terms, picture, self._weights), parts
        return torch.stack([weight * value for weight, value in terms.values()]).sum(), parts

    def stepped(self, batch: Batch, step: int) -> dict[str, Tensor]:
        if self.adversary is None or self._made is None or not self.adversary.due(step):
            return {}
        return self.adversary.update(self._made, batch["photo"])

    def state(self) -> dict[str, Any] | None:
        return None if self.adversary is None else self.adversary.state()

    def restore(self, state: Any) -> None:
        if self.adversary is not None:
            self.adversary.restore(state)


class Distillation(Objective):
    """The loss of a recipe and the distance to a teacher.

    Args:
        loss, core: As of `Objective`; `core` is the very module that is trained.
        teacher: Its weights do not change.
        settings: Layers and weights.
        autocast: Makes the context in which the teacher calculates.

    Raises:
        UserError: A layer that one of the two does not have, or features that cannot be compared.
    """

    def __init__(
        self,
        loss: nn.Module,
        core: Module,
        teacher: Module,
        settings: DistillSettings,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        super().__init__(loss, core)
        self.teacher = teacher.eval().requires_grad_(False)
        self._settings, self._autocast = settings, autocast
        self._distance = FEATURE_DISTANCES[settings.distance]
        self._own = _Taps(core.network, settings.layers, "the network")
        self._taught = _Taps(teacher.network, settings.layers.values(), "the teacher")
        self._check_shapes(core)

    def forward(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        picture = self._see(network, batch)
        with torch.no_grad(), self._autocast():
            model = see(self.teacher, self.teacher.takes, batch, self.teacher.output)
        total, parts = self.loss(picture, self._wanted(batch), self._mask(batch))
        imitation = {"teacher_pictures": (self._settings.pictures, (picture - model).abs().mean())}
        if self._settings.layers:
            distances = [self._distance(own.float(), taught.float()) for own, taught in self._pairs()]
            imitation["teacher_features"] = (self._settings.features, torch.stack(distances).sum())
        for name, (weight, value) in imitation.items():
            total, parts[name] = total + weight * value, value.detach()
        return total, parts

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        for name, other in self._settings.layers.items():
            yield self._own.seen[name], self._taught.seen[other]

    @torch.no_grad()
    def _check_shapes(self, core: Module) -> None:
        device = next(core.parameters()).device
        edge = 64  # two multiples of any network of `models`
        batch = {
            "planes": torch.zeros(1, 4, edge // 2, edge // 2),
            "gains": torch.ones(1, 3),
            "camera": torch.zeros(1, len(CAMERA)),
            "matrix": torch.eye(3)[None],
            "target": torch.zeros(1, 3, edge, edge),
            "input": torch.zeros(1, 3, edge, edge),
        }
        batch = {name: values.to(device) for name, values in batch.items()}
        for module in core, self.teacher.to(device):
            module(*(batch[name] for name in module.takes))
        for (name, other), (own, taught) in zip(self._settings.layers.items(), self._pairs(), strict=True):
            first = 2 if self._settings.distance == "attention" else 1
            if own.ndim != 4 or taught.ndim != 4 or own.shape[first:] != taught.shape[first:]:
                raise UserError(
                    f"distill.layers: {name} has features of {[*own.shape[1:]]} and {other} of the teacher "
                    f"{[*taught.shape[1:]]}; name layers of one shape (attention: of one size)"
                )


class _Taps:
    """What layers gave when they last ran."""

    def __init__(self, network: nn.Module, layers: Iterable[str], whose: str) -> None:
        self.seen: dict[str, Tensor] = {}
        children = dict(network.named_children())
        for name in set(layers):
            if name not in children:
                raise UserError(f"distill.layers: {whose} has no layer {name!r}; it has {', '.join(children)}")
            children[name].register_forward_hook(self._keep(name))

    def _keep(self, name: str) -> Callable[..., None]:
        def keep(layer: nn.Module, given: Any, features: Tensor) -> None:
            self.seen[name] = features

        return keep


def make_objective(
    config: TrainConfig, core: Module, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Objective:
    """As a recipe says.

    Args:
        config: The recipe.
        core: The module that is trained.
        autocast: Makes the context in which a teacher calculates.

    Raises:
        UserError: The loss cannot be made, or the teacher cannot be read or does not go with the student.
    """
    loss = make_loss(config.loss)
    crops = {source.crop for source in config.data.train if source.crop}
    for crop in crops:
        _check_sight(loss, core, crop)
    if config.model.form == "cycle":
        return Circle(loss, core, config.frames_weight)
    if config.adversary or config.balance:
        if config.adversary and scale_of(core) != 1:
            raise UserError(
                f"adversary: pictures of {config.model.name} at this level are 1/{scale_of(core)} of the photographs' "
                "size; train against photographs at level 0"
            )
        adversary = config.adversary and Adversary(config.adversary, min(crops), config.seed)
        return Contest(loss, core, adversary, config.balance)
    if config.distill is None:
        return Objective(loss, core)
    return Distillation(loss, core, _load_teacher(config.distill, core, sorted(crops)), config.distill, autocast)


@torch.no_grad()
def _check_sight(loss: nn.Module, core: Module, crop: int) -> None:
    """Raises UserError: one of the losses cannot see what comes of such a crop."""
    channels, edge = (4, crop // 2) if core.wants == "planes" else (3, crop // scale_of(core))
    black = torch.zeros(1, channels, edge, edge)
    try:
        loss(black, black, torch.ones(1, 1, edge, edge))
    except ValueError as error:
        raise UserError(
            f"loss: what comes of crops of {crop} cannot be compared: {error}; change the crop, or options of the loss"
        ) from error


def _load_teacher(settings: DistillSettings, core: Module, crops: Sequence[int]) -> Module:
    if not os.path.exists(settings.teacher):  # unlike Path.exists, no for a name that is too long
        raise UserError(
            f"distill.teacher: there is no {settings.teacher}; train the teacher first (the comment of the recipe says "
            "which one), or name another checkpoint"
        )
    checkpoint = load_checkpoint(settings.teacher)
    form, own = form_of(checkpoint.network), form_of(core.network)
    if form not in ("clean", own):
        raise UserError(
            f"distill.teacher: {settings.teacher} holds a network of the form {form}, and this one is of the form "
            f"{own}; give one of the form clean or {own}"
        )
    module = make_module(checkpoint.network, checkpoint.output)
    if scale_of(module) != scale_of(core):
        raise UserError(
            f"distill.teacher: {settings.teacher} gives pictures {scale_of(module)} times smaller than its frames, and "
            f"this network {scale_of(core)} times; take one of the same level"
        )
    multiple = NETWORKS[checkpoint.model].multiple
    for crop in crops:
        if crop % multiple or crop < 2 * multiple:
            raise UserError(
                f"distill.teacher: {checkpoint.model} takes crops in multiples of {multiple}, {2 * multiple} at least, "
                f"and data.train has {crop}; change the crop"
            )
    return module
