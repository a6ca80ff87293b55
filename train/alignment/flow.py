"""Dense displacement between two pictures of one scene: one interface, two ways.

`dis` is OpenCV's dense inverse search (Kroeger et al. 2016) on local structure, made exact by `refine`. `raft` is
torchvision's RAFT (Teed, Deng 2020) with weights of a file that the user brings, refined likewise. Either can be
refined once more on what a network sees (`features`), which is an option because it did not pay: on photographs with
known displacement and the noise of RHID, medians of the error were 0.08 pixels without and 0.15 with the encoder of a
briefly trained auto-encoder of clean pictures, whose features are half as fine as the picture. `none` finds nothing:
for pictures that lie as they should, and to see what flow is worth.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ...engines.errors import UserError
from ..protocols import opencv
from .refine import Channels, refine
from .structure import grey, structure

if TYPE_CHECKING:
    import torch

    from ..features import FeatureMaps

Floats = npt.NDArray[np.float32]
Picture = npt.NDArray[Any]
"""sRGB [H, W, 3], uint8 or float32 in [0, 1]."""

FLOWS = ("dis", "raft", "none")

PATCH = 12
"""Edge of the patches of dense inverse search, in pixels at half the size: larger than its usual 8, against noise."""

LEVELS = (1.0, 0.0)
"""Blur of the pictures that are searched and of those of the first round of the refinement, and of those of the later
ones: standard deviations in pixels."""

DEPTH = "conv2_2"
"""Of the features that flow is refined on: those at half the size of the picture."""

RAFTS = ("raft_large", "raft_small")
"""Functions of torchvision that make the network."""

RAFT_MULTIPLE, RAFT_LEAST = 8, 128
"""What the sides of pictures are divisible by for RAFT, and how long they are at least."""

RAFT_MOST = 640_000
"""Pixels that RAFT sees at most: it compares each place at an eighth of the size with each other. Larger pictures are
made smaller for it, and the flow is refined at full size."""

RAFT_UPDATES = 12
"""How often RAFT improves its flow: the released code's number."""

NEEDS_TORCHVISION = (
    "flow by raft needs the package torchvision, of the version and build that go with this torch; run: "
    "pip install --no-deps torchvision (from where torch was installed), or choose the flow dis"
)

WHERE_FROM = (
    "give the state dict of torchvision's raft_large or raft_small, which "
    "`torch.save(torchvision.models.optical_flow.raft_large(weights='DEFAULT').state_dict(), FILE)` writes on a "
    "machine with torchvision"
)


class Flow(Protocol):
    """Finds displacements."""

    def __call__(self, moving: Picture, fixed: Picture) -> Floats:
        """From each place of `fixed` to its place in `moving`.

        Args:
            moving, fixed: sRGB [H, W, 3], uint8 or float in [0, 1], of one size and roughly one look.

        Returns:
            float32 [H, W, 2], (x, y) in pixels: what is at p in `fixed` is at p + flow[p] in `moving`.
        """
        ...

    def facts(self) -> dict[str, Any]:
        """What it is, in JSON values, for the record."""
        ...


def make_flow(name: str = "dis", weights: Path | None = None, features: Path | None = None) -> Flow:
    """A flow by name.

    Args:
        name: Of `FLOWS`.
        weights: Of RAFT, which needs them; the other takes none.
        features: A network whose features flow is refined on besides (see `features.load_features`); None for none.

    Raises:
        UserError: No such flow, a file that cannot be read or does not fit, or a package that is missing.
    """
    if name not in FLOWS:
        raise UserError(f"there is no flow {name!r}: choose one of {', '.join(FLOWS)}")
    if name == "raft" and weights is None:
        raise UserError(f"flow by raft needs weights: {WHERE_FROM}")
    if name == "raft":
        _torchvision()  # before anything is read
    elif weights is not None:
        raise UserError(f"the flow {name} has no weights, but {weights} was given: leave it out, or choose raft")
    maps = None
    if features is not None:
        from ..features import load_features

        maps = load_features(features, [DEPTH])
    if weights is not None:
        return RaftFlow(weights, maps)
    return DisFlow(maps) if name == "dis" else NoFlow()


class NoFlow:
    """Everything stays where it is. See `Flow`."""

    def __call__(self, moving: Picture, fixed: Picture) -> Floats:
        """See `Flow`."""
        return np.zeros((*fixed.shape[:2], 2), np.float32)

    def facts(self) -> dict[str, Any]:
        """See `Flow.facts`."""
        return {"flow": "none"}


class DisFlow:
    """Dense inverse search, refined on structure and, where there are some, on features. See `Flow`."""

    def __init__(self, features: FeatureMaps | None = None) -> None:
        """Raises UserError: OpenCV is not installed."""
        self._cv2, self._features = opencv("flow by dis"), features

    def __call__(self, moving: Picture, fixed: Picture) -> Floats:
        """See `Flow`."""
        cv2 = self._cv2
        levels = _levels(moving), _levels(fixed)
        search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        search.setPatchSize(PATCH)
        start = search.calc(*(_in_codes(each[0][0]) for each in levels[::-1]), None)
        return _on_features(refine(*levels, start), moving, fixed, self._features)

    def facts(self) -> dict[str, Any]:
        """See `Flow.facts`."""
        return {"flow": "dis", "opencv": self._cv2.__version__, **_feature_facts(self._features)}


class RaftFlow:
    """RAFT, refined as `DisFlow` is. See `Flow`."""

    def __init__(self, weights: Path, features: FeatureMaps | None = None) -> None:
        """Which of the two networks it is follows from the weights.

        Raises:
            UserError: torchvision is not installed, or the file cannot be read or holds something else.
        """
        version, optical_flow = _torchvision()
        from ..vgg import checked_state, load_layers, read_values

        state = checked_state(read_values(weights, "the weights of RAFT", WHERE_FROM), weights, WHERE_FROM)
        made = {name: getattr(optical_flow, name)(weights=None, progress=False) for name in RAFTS}
        fitting = [name for name, network in made.items() if network.state_dict().keys() == state.keys()]
        if not fitting:
            raise UserError(f"{weights} does not hold the weights of RAFT; {WHERE_FROM}")
        self._name, self._features = fitting[0], features
        self._network = made[self._name].eval().requires_grad_(False)
        load_layers(self._network, state, weights, WHERE_FROM)
        self._version, self._file = version, weights.name

    def __call__(self, moving: Picture, fixed: Picture) -> Floats:
        """See `Flow`."""
        import torch

        cv2 = opencv("flow by raft")
        height, width = fixed.shape[:2]
        size = _raft_size(height, width)
        first, second = (_for_raft(cv2.resize(_unit(p), size, interpolation=cv2.INTER_AREA)) for p in (fixed, moving))
        with torch.inference_mode():
            found = self._network(first, second, num_flow_updates=RAFT_UPDATES)[-1][0]
        small = np.ascontiguousarray(found.permute(1, 2, 0).numpy())
        start = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        start *= np.array([width / size[0], height / size[1]], np.float32)
        flow = refine(_levels(moving), _levels(fixed), start)
        return _on_features(flow, moving, fixed, self._features)

    def facts(self) -> dict[str, Any]:
        """See `Flow.facts`."""
        named = {"flow": "raft", "network": self._name, "weights": self._file, "torchvision": self._version}
        return {**named, **_feature_facts(self._features)}


def _torchvision() -> tuple[str, Any]:
    """The version of torchvision, and its module of networks for flow. Raises UserError: it is not installed."""
    try:
        import torchvision  # pyright: ignore[reportMissingImports]
        from torchvision.models import optical_flow  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError) as error:  # the latter of one that goes with another torch
        raise UserError(NEEDS_TORCHVISION) from error
    return torchvision.__version__, optical_flow


def _levels(picture: Picture) -> list[Channels]:
    """A picture as `refine` takes it."""
    values = grey(picture)
    return [[structure(values, blur)] for blur in LEVELS]


def _on_features(flow: Floats, moving: Picture, fixed: Picture, features: FeatureMaps | None) -> Floats:
    """A flow refined once more, on features, where there are some."""
    if features is None:
        return flow
    return refine([_channels(features, moving)], [_channels(features, fixed)], flow, scale=2)


def _channels(features: FeatureMaps, picture: Picture) -> Channels:
    """What a network sees in a picture, each of its channels as local structure."""
    import torch

    height, width = (size // 2 * 2 for size in picture.shape[:2])
    with torch.inference_mode():
        maps = features(_tensor(_unit(picture)[:height, :width]))[DEPTH][0].float().numpy()
    return [structure(_spread(channel)) for channel in maps]


def _spread(channel: Floats) -> Floats:
    """A channel in units that `structure` takes for contrast: its standard deviation becomes that of pictures."""
    return channel * np.float32(_USUAL_CONTRAST / max(float(channel.std()), 1e-6))


_USUAL_CONTRAST = 0.2
"""Standard deviation of luma over a picture, roughly."""


def _feature_facts(features: FeatureMaps | None) -> dict[str, Any]:
    return {"features": None if features is None else type(features.encoder).__name__}


def _in_codes(values: Floats) -> npt.NDArray[np.uint8]:
    """Structure as grey of 8 bits, which dense inverse search takes."""
    return np.rint(128 + 42 * values).clip(0, 255).astype(np.uint8)


def _unit(picture: Picture) -> Floats:
    values = picture.astype(np.float32)
    if picture.dtype == np.uint8:
        values *= np.float32(1 / 255)
    return values


def _tensor(picture: Floats) -> torch.Tensor:
    """[1, 3, H, W]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]


def _for_raft(picture: Floats) -> torch.Tensor:
    """As RAFT was trained on: [1, 3, H, W] in [-1, 1]."""
    return 2 * _tensor(picture) - 1


def _raft_size(height: int, width: int) -> tuple[int, int]:
    """Width and height that RAFT sees of a picture."""
    share = min(1.0, (RAFT_MOST / (height * width)) ** 0.5)

    def side(length: int) -> int:
        return max(RAFT_LEAST, round(length * share / RAFT_MULTIPLE) * RAFT_MULTIPLE)

    return side(width), side(height)
