"""What training makes small: differences of pictures, float [B, 3, H, W] in [0, 1], as scalars with finite slopes."""

from .basic import L1, Charbonnier, Gradient
from .colour import BlurredColour, ColourAngle
from .ms_ssim import MsSsim, ms_ssim
from .perceptual import VGG19, Perceptual, load_vgg19
from .table import LOSSES, WeightedLoss, make_loss

__all__ = [
    "L1",
    "LOSSES",
    "VGG19",
    "BlurredColour",
    "Charbonnier",
    "ColourAngle",
    "Gradient",
    "MsSsim",
    "Perceptual",
    "WeightedLoss",
    "load_vgg19",
    "make_loss",
    "ms_ssim",
]
