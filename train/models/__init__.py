"""Networks that training fits and `isp-export` turns into model cores."""

from .core import INPUTS, CoreModule
from .lwisp import VARIANTS, Variant, make_lwisp

__all__ = ["INPUTS", "VARIANTS", "CoreModule", "Variant", "make_lwisp"]
