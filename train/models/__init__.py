"""Networks that training fits and `isp-export` turns into model cores."""

from .core import INPUTS, MODULES, OUTPUTS, CoreModule, Module, Output, PictureModule, form_of, shown
from .lwisp import FORMS, VARIANTS, Form, Variant, make_lwisp

__all__ = [
    "FORMS",
    "INPUTS",
    "MODULES",
    "OUTPUTS",
    "VARIANTS",
    "CoreModule",
    "Form",
    "Module",
    "Output",
    "PictureModule",
    "Variant",
    "form_of",
    "make_lwisp",
    "shown",
]
