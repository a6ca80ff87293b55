"""Model cores that ship with ispeed, each with its card."""

from .catalogue import names, zoo_path

__all__ = ["names", "zoo_path"]
