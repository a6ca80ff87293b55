"""What networks see and give."""

from __future__ import annotations

from typing import Literal, get_args

Form = Literal["raw", "rgb", "clean", "mapper"]
"""Planes to a picture; a picture to a better one; a clean picture to itself; or planes to a picture that looks like
another one."""

FORMS: tuple[Form, ...] = get_args(Form)
