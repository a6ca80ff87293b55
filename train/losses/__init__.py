"""What training makes small: differences of pictures, float [B, 3, H, W] in [0, 1], as scalars with finite slopes."""

from ..vgg import VGG19, load_vgg19
from .amplitude import Amplitude, sliced_wasserstein
from .basic import L1, MSE, Charbonnier, Gradient
from .colour import BlurredColour, ColourAngle
from .histogram import Histogram, hellinger, rgb_uv_histogram
from .ms_ssim import MsSsim, ms_ssim
from .perceptual import Perceptual
from .phase import MaskedL1, PhaseMask, phase_similarity
from .table import LOSSES, WeightedLoss, make_loss

__all__ = [
    "L1",
    "LOSSES",
    "MSE",
    "VGG19",
    "Amplitude",
    "BlurredColour",
    "Charbonnier",
    "ColourAngle",
    "Gradient",
    "Histogram",
    "MaskedL1",
    "MsSsim",
    "Perceptual",
    "PhaseMask",
    "WeightedLoss",
    "hellinger",
    "load_vgg19",
    "make_loss",
    "ms_ssim",
    "phase_similarity",
    "rgb_uv_histogram",
    "sliced_wasserstein",
]
