"""What networks see and give."""

from __future__ import annotations

from typing import Literal, get_args

Form = Literal["raw", "rgb", "clean", "mapper", "inverse", "cycle"]
"""Planes to a picture; a picture to a better one; a clean picture to itself; planes to a picture that looks like
another one; a picture to planes; or a picture to planes and back."""

FORMS: tuple[Form, ...] = get_args(Form)
