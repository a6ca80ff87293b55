"""Whole pictures of frames beside each other, as one picture: a row for each frame, a column for each engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from .crops import Strip
from .frames import Picture

WIDEST = 384
"""Of a picture on a sheet, in pixels; wider ones are made smaller by a whole factor, each pixel the mean of those that
it stands for."""

GAP, LINE = 6, 20
"""Between pictures, and the height of a caption, in pixels."""

_PAPER, _INK = (255, 255, 255), (32, 32, 32)


def sheet(strips: Sequence[Strip]) -> Picture:
    """The strips one above the other under their captions.

    Args:
        strips: At least one, of pictures of any size; where one lacks a caption that others have, its place is empty.

    Returns:
        uint8 [H, W, 3].
    """
    if not strips:
        raise ValueError("a sheet shows one frame at least")
    captions = list(dict.fromkeys(caption for strip in strips for caption in strip.crops))
    rows = [{caption: _fitted(picture) for caption, picture in strip.crops.items()} for strip in strips]
    widths = [max(row[caption].shape[1] for row in rows if caption in row) for caption in captions]
    heights = [max(picture.shape[0] for picture in row.values()) for row in rows]
    lefts = [GAP + sum(widths[:place]) + place * GAP for place in range(len(captions))]
    top, width = GAP + LINE, lefts[-1] + widths[-1] + GAP
    page = PIL.Image.new("RGB", (width, top + sum(heights) + GAP * len(heights)), _PAPER)
    font = PIL.ImageFont.load_default(LINE * 0.7)
    for left, room, caption in zip(lefts, widths, captions, strict=True):
        label = PIL.Image.new("RGB", (room, LINE), _PAPER)  # a strip of its own, beyond which nothing is drawn
        draw = PIL.ImageDraw.Draw(label)
        draw.text((0, 0), _short(caption, room, font), _INK, font)
        page.paste(label, (left, GAP))
    for row, height in zip(rows, heights, strict=True):
        for left, caption in zip(lefts, captions, strict=True):
            if caption in row:
                page.paste(PIL.Image.fromarray(row[caption]), (left, top))
        top += height + GAP
    return np.asarray(page)


def _short(caption: str, room: int, font: Any) -> str:
    """What of a caption fits, its end if not all of it: paths differ there. The font has letters of ASCII alone."""
    text = caption.encode("ascii", "replace").decode()
    shorter = (text, *(f"...{text[start:]}" for start in range(1, len(text))))
    return next((each for each in shorter if font.getlength(each) <= room), "")


def _fitted(picture: np.ndarray) -> Picture:
    """In three colours, [h, w, 3]."""
    image = PIL.Image.fromarray(picture).convert("RGB")
    return np.asarray(image.reduce(math.ceil(image.width / WIDEST)))
