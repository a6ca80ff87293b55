"""Networks that training fits and `isp-export` turns into model cores."""

from ..forms import FORMS, Form
from .core import INPUTS, OUTPUTS, CleanModule, CoreModule, Output, PictureModule, shown
from .liteisp import LITE_VARIANTS, make_liteisp
from .lwisp import VARIANTS, Variant, make_lwisp
from .noise_level import NoiseLevel, level_of
from .param_modules import ForwardModule, InverseModule
from .paramisp import BothISPs, InverseISP
from .registry import NETWORKS, Module, Network, form_of, make_module, make_network

__all__ = [
    "FORMS",
    "INPUTS",
    "LITE_VARIANTS",
    "NETWORKS",
    "OUTPUTS",
    "VARIANTS",
    "BothISPs",
    "CleanModule",
    "CoreModule",
    "Form",
    "ForwardModule",
    "InverseISP",
    "InverseModule",
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
    "make_module",
    "make_network",
    "shown",
]
