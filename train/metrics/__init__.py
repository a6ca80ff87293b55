"""How good a picture is, and how close to another. Pictures are [H, W, 3], sRGB, uint8 or floating point in [0, 1]."""

from ...engines.chart import PATCHES, ChartScore, chart_score, read_charts
from ...engines.cie import ciede2000, lab_from_linear
from ..data.splits import HELD_OUT_SEED
from .edge import mtf, mtf50, slanted_edge
from .flicker import ChangingLightMeter, Flicker, FlickerMeter, changing_light
from .histogram import histogram_distance, histograms_apart, mean_histogram
from .likeness import Likeness, LikenessMeter, lightness_ssim
from .lpips import Lpips, load_lpips
from .noise import FlatNoise, flat_blocks, flat_noise
from .pictures import ms_ssim, psnr, ssim, ssim_map
from .tmqi import Tmqi, tmqi

__all__ = [
    "HELD_OUT_SEED",
    "PATCHES",
    "ChangingLightMeter",
    "ChartScore",
    "FlatNoise",
    "Flicker",
    "FlickerMeter",
    "Likeness",
    "LikenessMeter",
    "Lpips",
    "Tmqi",
    "changing_light",
    "chart_score",
    "ciede2000",
    "flat_blocks",
    "flat_noise",
    "histogram_distance",
    "histograms_apart",
    "lab_from_linear",
    "lightness_ssim",
    "load_lpips",
    "mean_histogram",
    "ms_ssim",
    "mtf",
    "mtf50",
    "psnr",
    "read_charts",
    "slanted_edge",
    "ssim",
    "ssim_map",
    "tmqi",
]
