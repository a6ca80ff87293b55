"""How good a picture is, and how close to another. Pictures are [H, W, 3], sRGB, uint8 or floating point in [0, 1]."""

from ..data.splits import HELD_OUT_SEED
from .chart import PATCHES, ChartScore, chart_score, read_charts
from .colour import ciede2000, lab_from_linear
from .edge import mtf, mtf50, slanted_edge
from .flicker import Flicker, FlickerMeter
from .lpips import Lpips, load_lpips
from .noise import FlatNoise, flat_blocks, flat_noise
from .pictures import ms_ssim, psnr, ssim, ssim_map

__all__ = [
    "HELD_OUT_SEED",
    "PATCHES",
    "ChartScore",
    "FlatNoise",
    "Flicker",
    "FlickerMeter",
    "Lpips",
    "chart_score",
    "ciede2000",
    "flat_blocks",
    "flat_noise",
    "lab_from_linear",
    "load_lpips",
    "ms_ssim",
    "mtf",
    "mtf50",
    "psnr",
    "read_charts",
    "slanted_edge",
    "ssim",
    "ssim_map",
]
