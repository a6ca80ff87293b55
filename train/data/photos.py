"""Training samples from a folder of photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from torch import Tensor

from ...engines.errors import UserError, reason
from ..curves import light_of_codes, srgb_from_linear
from .raw_pair import JPEG, PNG, Picture
from .sampling import Cache, DrawnSamples
from .unprocess import Frames, Unprocessing, make_unprocessing, unprocess

JPEG_DOWNSCALE = 2.0
"""What photographs in JPEG are made smaller by, so that their blocks and noise go."""


@dataclass(frozen=True)
class PhotoFile:
    """A photograph on disk: its path below the folder, and the file."""

    name: str
    path: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file."""
        return (self.path,)

    @property
    def group(self) -> str:
        """Each is a scene of its own."""
        return self.name


def find_photos(folder: Path) -> list[PhotoFile]:
    """All JPEG and PNG files of a folder and the folders in it, by name.

    Raises:
        UserError: No such folder, or no photographs in it.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give one with photographs (JPEG or PNG)")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in JPEG + PNG and path.is_file())
    if not paths:
        raise UserError(f"{folder} holds no photographs: *.jpg, *.jpeg and *.png are looked for, in its folders too")
    return [PhotoFile(str(path.relative_to(folder)), path) for path in paths]


def read_photo(path: Path, downscale: float | None = None) -> Picture:
    """A photograph the right way up, made smaller in linear light.

    Args:
        path: JPEG or PNG; grey, palette and transparency are brought to RGB.
        downscale: How much smaller, 1 or more; None is `JPEG_DOWNSCALE` for JPEG and 1 for PNG.

    Returns:
        uint8 [H, W, 3], sRGB.

    Raises:
        UserError: The file is damaged or has more than 8 bits, or the factor is below 1.
    """
    if downscale is None:
        downscale = JPEG_DOWNSCALE if path.suffix.lower() in JPEG else 1.0
    if downscale < 1:
        raise UserError(f"downscale is {downscale:g}: photographs can only be made smaller, by 1 or more")
    try:
        with PIL.Image.open(path) as image:
            if image.mode[0] in "IF":
                raise UserError(f"{path} has samples of more than 8 bits (mode {image.mode}): convert it to 8 bits")
            picture = np.array(PIL.ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}; copy it again") from error
    return picture if downscale == 1 else _smaller(picture, downscale)


def _smaller(picture: Picture, factor: float) -> Picture:
    height, width = (max(1, round(size / factor)) for size in picture.shape[:2])
    light = light_of_codes(torch.from_numpy(picture)).numpy()
    # a filter without negative lobes: in linear light others leave dark rings around highlights
    small = [
        np.asarray(PIL.Image.fromarray(light[..., c]).resize((width, height), PIL.Image.Resampling.HAMMING))
        for c in range(3)
    ]
    shown = srgb_from_linear(torch.from_numpy(np.stack(small, -1)))
    return (shown * 255).round().to(torch.uint8).numpy()


class Photos(DrawnSamples[PhotoFile]):
    """Photographs as training samples: `planes`, `gains` and `target`.

    What is drawn (piece, turn, camera, noise) follows from seed, epoch and index alone.
    """

    def __init__(
        self,
        folder: Path,
        unprocessing: Unprocessing | None = None,
        files: Sequence[PhotoFile] | None = None,
        *,
        crop: int | None = None,
        augment: bool = True,
        repeats: int = 1,
        downscale: float | None = None,
        multiple: int = 2,
        seed: int = 0,
        cache_bytes: int = 1 << 30,
    ) -> None:
        """Nothing is read yet.

        Args:
            folder: Of the photographs.
            unprocessing: How they become frames; None is `make_unprocessing("rhid")`.
            files: Which of its photographs; None for all.
            crop: Edge of the pieces in pixels, even, 8 or more; None takes whole photographs, unturned and the same in
                every epoch: for validation.
            augment: Mirror and turn pieces, all eight ways.
            repeats: Pieces of each photograph and epoch.
            downscale: See `read_photo`.
            multiple: Whole photographs are cut, about their middle, so that width and height are divisible by it; even.
            seed: Of everything drawn.
            cache_bytes: Photographs are kept up to so many bytes, shared out among the workers of a loader.

        Raises:
            UserError: No photographs, or a value out of range.
        """
        super().__init__(find_photos(folder) if files is None else files, "photographs", repeats=repeats, seed=seed)
        for name, value, least in (("crop", crop, 8), ("multiple", multiple, 2)):
            if value is not None and (value < least or value % 2):
                raise UserError(f"{name} is {value}: it must be even, and {least} or more")
        self._unprocessing = unprocessing or make_unprocessing()
        self._crop, self._augment, self._multiple, self._downscale = crop, augment, multiple, downscale
        self._cache: Cache[Picture] = Cache(cache_bytes)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """A sample.

        Returns:
            planes: float32 [4, h, w], R, Gr, Gb, B, black 0, white 1, not white balanced.
            gains: float32 [3], of R, G, B, green 1.
            target: float32 [3, 2h, 2w], sRGB in [0, 1].
            matrix: float32 [3, 3], the camera's colours after white balance to linear sRGB.
            camera: float32 [5], the columns of `engines.inputs.CAMERA`; of these the gain alone is known.

        Raises:
            IndexError: There is no such sample.
            UserError: A damaged file, or a photograph smaller than a piece.
        """
        return {name: values[0] for name, values in self.frame(index).samples().items()}

    def frame(self, index: int, cfa: str = "RGGB") -> Frames:
        """A batch of one, with what else is known of it: its mosaic in any phase, and the camera's matrix.

        Args:
            index: Of the sample.
            cfa: Filter array. What is drawn is the same for all four, but for noise, which falls on other samples.

        Raises:
            As `__getitem__`.
        """
        photo, generator = self.photo(index)
        return unprocess(photo[None], self._unprocessing, generator, cfa=cfa)

    def photo(self, index: int) -> tuple[Tensor, torch.Generator]:
        """The photograph, or piece of one, that a sample is made of, uint8 [3, H, W], and chance for the rest of it.

        Raises:
            As `__getitem__`.
        """
        picture = self._read(self._checked(index) % len(self._files))
        epoch = 0 if self._crop is None else int(self._epoch)
        seed = int(np.random.SeedSequence([self._seed, epoch, index]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        generator = torch.Generator().manual_seed(seed)
        piece = self._whole(picture, index) if self._crop is None else self._piece(picture, index, generator)
        return torch.from_numpy(np.ascontiguousarray(piece.transpose(2, 0, 1))), generator

    def _read(self, index: int) -> Picture:
        kept = self._cache.get(index)
        if kept is None:
            kept = read_photo(self._files[index].path, self._downscale)
            self._cache.put(index, kept, kept.nbytes)
        return kept

    def _whole(self, picture: Picture, index: int) -> Picture:
        height, width = (size // self._multiple * self._multiple for size in picture.shape[:2])
        if min(height, width) < 8:
            raise self._too_small(picture, index, max(8, self._multiple))
        top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
        return picture[top : top + height, left : left + width]

    def _piece(self, picture: Picture, index: int, generator: torch.Generator) -> Picture:
        edge = self._crop or 0
        if min(picture.shape[:2]) < edge:
            raise self._too_small(picture, index, edge)
        at, turn = torch.rand(2, generator=generator).tolist(), int(torch.randint(8, (), generator=generator))
        top, left = (int(share * (size - edge + 1)) for share, size in zip(at, picture.shape[:2], strict=True))
        piece = picture[top : top + edge, left : left + edge]
        if not self._augment:
            return piece
        return np.rot90(piece[:, :: -1 if turn & 4 else 1], turn & 3)

    def _too_small(self, picture: Picture, index: int, edge: int) -> UserError:
        height, width = picture.shape[:2]
        return UserError(
            f"{self._files[index % len(self._files)].path} is {width}x{height}, made smaller as asked, and leaves no "
            f"room for {edge}x{edge}: choose a smaller piece, less downscaling, or leave it out"
        )
