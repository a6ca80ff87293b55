"""Networks that training fits and `isp-export` turns into model cores."""

from .core import CAMERA, INPUTS, OUTPUTS, CoreModule, Output, PictureModule, shown
from .forms import FORMS, Form
from .liteisp import LITE_VARIANTS, make_liteisp
from .lwisp import VARIANTS, Variant, make_lwisp
from .noise_level import NoiseLevel, level_of
from .registry import MODULES, NETWORKS, Module, Network, form_of, make_network

__all__ = [
    "CAMERA",
    "FORMS",
    "INPUTS",
    "LITE_VARIANTS",
    "MODULES",
    "NETWORKS",
    "OUTPUTS",
    "VARIANTS",
    "CoreModule",
    "Form",
    "Module",
    "Network",
    "NoiseLevel",
    "Output",
    "PictureModule",
    "Variant",
    "form_of",
    "level_of",
    "make_liteisp",
    "make_lwisp",
    "make_network",
    "shown",
]
