"""Training samples from pairs of raw frames and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...engines.bayer import RawFormat
from ...engines.errors import UserError
from ...engines.quality import grey_world
from ...engines.white_balance import HIGHEST_GAIN, LOWEST_GAIN, checked_gains
from .raw_pair import Gains, PairFiles, PairReader, RawPair
from .rendering import classic_picture
from .sampling import Cache, DrawnSamples

WHITE_BALANCES = ("camera", "grey_world")


class _Window(NamedTuple):
    """A piece of a frame and how it is turned: first row and column, rows and columns, mirrored, transposed."""

    top: int
    left: int
    height: int
    width: int
    upside_down: bool = False
    left_right: bool = False
    transposed: bool = False

    def of(self, frame: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """A view of the frame, [H, W] or [H, W, 3]."""
        piece = frame[self.top : self.top + self.height, self.left : self.left + self.width]
        piece = piece[:: -1 if self.upside_down else 1, :: -1 if self.left_right else 1]
        return piece.swapaxes(0, 1) if self.transposed else piece


class RawPairs(DrawnSamples[PairFiles]):
    """Pairs as training samples: `planes`, `gains` and `target`, with the noise that the frames have.

    Pieces begin at a red sample, whatever the phase of the frame, and mirrored pieces begin one sample off, so that
    their mosaic is RGGB as well and no sample is ever made up. What is drawn follows from seed, epoch and index alone.
    """

    def __init__(
        self,
        reader: PairReader,
        files: Sequence[PairFiles] | None = None,
        *,
        crop: int | None = None,
        augment: bool = True,
        repeats: int = 1,
        white_balance: str | tuple[float, float, float] = "camera",
        camera: Sequence[float] = (),
        classic: bool = False,
        multiple: int = 2,
        seed: int = 0,
        cache_bytes: int = 1 << 30,
    ) -> None:
        """Nothing is decoded yet.

        Args:
            reader: Of the data set.
            files: Which of its pairs; None for all.
            crop: Edge of the pieces in mosaic pixels, even; None takes whole frames, unturned and always the same.
            augment: Mirror and transpose pieces; an axis where the piece leaves no room for the shift is not mirrored.
            repeats: Pieces of each frame and epoch.
            white_balance: "camera" for what the data set tells and else the grey world of the whole frame,
                "grey_world", or gains of red, green and blue for all.
            camera: What is known of the camera where the data set does not tell, for all columns of
                `engines.inputs.CAMERA` or the first ones; 0 is not known.
            classic: Targets are what the classic engine makes of the frames with these gains, not the pictures.
            multiple: Whole frames are cut so that width and height are divisible by it; even.
            seed: Of everything drawn.
            cache_bytes: Decoded frames are kept up to so many bytes, shared out among the workers of a loader; 0
                decodes every time.

        Raises:
            UserError: No pairs, or a value out of range.
        """
        super().__init__(reader.files() if files is None else files, "pairs", repeats=repeats, seed=seed)
        for name, value in (("crop", crop), ("multiple", multiple)):
            if value is not None and (value < 2 or value % 2):
                raise UserError(f"{name} is {value}: it must be even, and 2 or more, because a Bayer cell is 2x2")
        self._reader = reader
        self._gains = _fixed_gains(white_balance)
        self._grey_world = white_balance == "grey_world"
        self._camera, self._classic = camera, classic
        self._crop, self._augment, self._multiple = crop, augment, multiple
        self._cache: Cache[tuple[RawPair, Gains]] = Cache(cache_bytes)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """A sample.

        Returns:
            planes: float32 [4, h, w], R, Gr, Gb, B, black 0, white 1, not white balanced.
            gains: float32 [3], of R, G, B, green 1.
            target: float32 [3, 2h, 2w], sRGB in [0, 1].
            matrix: float32 [3, 3], the camera's colours after white balance to linear sRGB; the identity where the data
                set does not tell them.
            camera: float32 [5], the columns of `engines.inputs.CAMERA`; what is not known is 0.
            mask: float32 [1, 2h, 2w] in [0, 1], how much each place of the target counts; only where the data set has
                masks.

        Raises:
            IndexError: There is no such sample.
            UserError: A damaged file, or a frame smaller than a piece.
        """
        pair, gains = self._load(self._checked(index) % len(self._files))
        window = self._window(index, pair)
        sample = {
            "planes": torch.from_numpy(_planes(window.of(pair.samples), pair.raw_format)),
            "gains": torch.from_numpy(gains.copy()),
            "target": torch.from_numpy(np.ascontiguousarray(window.of(pair.target).transpose(2, 0, 1))).float() / 255,
            "matrix": torch.eye(3) if pair.matrix is None else torch.from_numpy(pair.matrix.copy()),
            "camera": torch.tensor(pair.camera(self._camera)),
        }
        if pair.mask is not None:
            sample["mask"] = torch.from_numpy(np.ascontiguousarray(window.of(pair.mask))).float()[None] / 255
        return sample

    def _load(self, index: int) -> tuple[RawPair, Gains]:
        kept = self._cache.get(index)
        if kept is not None:
            return kept
        pair = self._reader.load(self._files[index])
        gains = self._gains_of(pair)
        if self._classic:
            picture = classic_picture(pair.samples, pair.raw_format, gains, pair.matrix)
            pair = replace(pair, target=picture, mask=None)
        loaded = pair, gains
        self._cache.put(index, loaded, pair.bytes)
        return loaded

    def _gains_of(self, pair: RawPair) -> Gains:
        if self._gains is not None:
            return self._gains
        if pair.gains is None or self._grey_world:
            return grey_world(pair.samples, pair.raw_format)
        return np.clip(pair.gains, LOWEST_GAIN, HIGHEST_GAIN)  # as engines do with gains that come with a frame

    def _window(self, index: int, pair: RawPair) -> _Window:
        if self._crop is None:
            return self._whole(pair)
        rng = np.random.default_rng([self._seed, int(self._epoch), index])
        turns, places = rng.integers(0, 2, 3) * self._augment, rng.random(2)
        top, upside_down = self._place(pair, 0, bool(turns[0]), float(places[0]))
        left, left_right = self._place(pair, 1, bool(turns[1]), float(places[1]))
        return _Window(top, left, self._crop, self._crop, upside_down, left_right, bool(turns[2]))

    def _whole(self, pair: RawPair) -> _Window:
        first = _first_red(pair)
        height, width = (
            (size - start) // self._multiple * self._multiple
            for size, start in zip(pair.samples.shape, first, strict=True)
        )
        if not height or not width:
            size = f"{pair.raw_format.width}x{pair.raw_format.height}"
            raise UserError(f"{pair.name} is {size}, which is smaller than one multiple of {self._multiple}")
        return _Window(*first, height, width)

    def _place(self, pair: RawPair, axis: int, flip: bool, at: float) -> tuple[int, bool]:
        """Where a piece begins along an axis, and whether it is mirrored there."""
        red, room = _first_red(pair)[axis], pair.samples.shape[axis] - (self._crop or 0)
        if room < red:
            raise UserError(
                f"{pair.name} is {pair.raw_format.width}x{pair.raw_format.height} and {pair.raw_format.cfa}, which "
                f"leaves no room for a piece of {self._crop}x{self._crop} that begins with red: choose a smaller crop"
            )
        flip = flip and room >= 1 - red
        start = red ^ flip  # mirrored, the last sample of the piece comes first: it is the one that must be red
        return start + int(at * ((room - start) // 2 + 1)) * 2, flip


def _first_red(pair: RawPair) -> tuple[int, int]:
    """Row and column of the first red sample."""
    return divmod(pair.raw_format.cfa.index("R"), 2)


def _fixed_gains(white_balance: str | tuple[float, float, float]) -> Gains | None:
    if isinstance(white_balance, str):
        if white_balance not in WHITE_BALANCES:
            raise UserError(
                f"white_balance is {white_balance!r}: it is one of {', '.join(WHITE_BALANCES)}, or three gains"
            )
        return None
    return checked_gains(white_balance)


def _planes(mosaic: npt.NDArray[np.generic], fmt: RawFormat) -> npt.NDArray[np.float32]:
    """R, Gr, Gb, B of an RGGB mosaic with black at 0 and white at 1: float32 [4, h, w]. Nothing is limited."""
    sites = np.stack([mosaic[y::2, x::2] for y, x in ((0, 0), (0, 1), (1, 0), (1, 1))]).astype(np.float32)
    sites -= np.float32(fmt.black_level)
    sites /= np.float32(fmt.white_level - fmt.black_level)
    return sites
