"""The folder that `isp-align -o` leaves.

    raw/NAME.png, raw/NAME.png.yaml, rgb/NAME.png, mask/NAME.png, pairs.json    what the data set `folder` reads
    alignment.json                                                              settings, versions, and each pair
    index.html, shown/*.png                                                     the same to look at

The page needs nothing from elsewhere, and holds no scripts: its pictures flicker by themselves.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from ..data.folder import NOTES, encode_frame, encode_png
from ..data.raw_pair import PairFiles
from ..evaluation.crops import EDGE, most_detailed
from ..evaluation.page import safe
from ..folders import WholeFolder
from ..protocols import opencv
from .align import LONGEST, AlignedPair, Picture, Record, usable

RECORD, PAGE, SHOWN = "alignment.json", "index.html", "shown"

ZOOM = 2
"""How many pixels of the screen a pixel of a picture takes, in each direction."""

FLICKER_MS = 500
"""How long each of two pictures is seen."""

_WIDTH, _HEIGHT = 320, 80
"""Of a histogram, in pixels of the screen."""

_STYLE = f"""
body {{ font: 15px/1.4 sans-serif; margin: 2em; color: #222; background: #fff; }}
table {{ border-collapse: collapse; margin: 0.5em 0; }}
th, td {{ border-bottom: 1px solid #ccc; padding: 0.2em 0.7em; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
.reasons td {{ text-align: left; }}
.strip {{ display: flex; flex-wrap: wrap; gap: 8px; margin: 0.5em 0 1.5em; }}
figure {{ margin: 0; width: {ZOOM * EDGE}px; }}
figure img {{ image-rendering: pixelated; display: block; }}
rect {{ fill: #468; }}
"""


class Finished(NamedTuple):
    """A pair as files: by name relative to the folder, and what is noted of it for the reader."""

    files: dict[str, bytes]
    note: dict[str, Any]


def finished(files: PairFiles, pair: AlignedPair) -> Finished:
    """The files of a pair."""
    name = file_name(files.name)
    frame = encode_frame(f"{name}.png", pair.samples, pair.raw_format)
    found = {
        **{f"raw/{file}": content for file, content in frame.items()},
        f"rgb/{name}.png": encode_png(pair.reference),
        f"mask/{name}.png": encode_png(pair.mask.astype(np.uint8) * 255),
    }
    found |= {f"{SHOWN}/{name}-{kind}.png": content for kind, content in _pictures(pair).items()}
    told = pair.pair
    note: dict[str, Any] = {"group": files.group}
    if told.gains is not None:
        note["gains"] = [round(float(gain), 6) for gain in usable(told.gains)]
    numbers = {"exposure_us": told.exposure_us, "gain_db": told.gain_db}
    return Finished(found, note | {key: float(value) for key, value in numbers.items() if value is not None})


def file_name(name: str) -> str:
    """The name of a pair as that of files."""
    return safe(name.replace("/", "_"))


class AlignedFolder(WholeFolder):
    """Where aligned pairs go. Arguments as of `WholeFolder`."""

    def __init__(self, path: Path, *, replace: bool = False) -> None:
        super().__init__(path, "isp-align", RECORD, replace=replace)
        self._notes: dict[str, dict[str, Any]] = {}

    def keep(self, record: Record, pair: Finished, *, shown: bool) -> None:
        """Write a pair, and its pictures for the page if it is shown. Raises UserError: it cannot be written."""
        for name, content in pair.files.items():
            if shown or not name.startswith(SHOWN):
                self.write(name, content)
        self._notes[file_name(record.name)] = pair.note

    def end(self, report: Mapping[str, Any], records: Sequence[Record], shown: Sequence[str]) -> None:
        """Write the record and the page.

        Args:
            report: What holds for all pairs, in JSON values.
            records: Of all pairs, in their order.
            shown: Names of those whose pictures were kept.

        Raises:
            UserError: They cannot be written.
        """
        pairs = [{"name": each.name, "refused": each.reason, **each.facts} for each in records]
        self.write(RECORD, json.dumps({**report, "pairs": pairs}, indent=1, allow_nan=False) + "\n")
        self.write(NOTES, json.dumps(self._notes, indent=1) + "\n")
        self.write(PAGE, _page(report, records, set(shown)))


# ---- pictures ----------------------------------------------------------------------------------------------


def _pictures(pair: AlignedPair) -> dict[str, bytes]:
    """The most detailed piece of the frame in the look of the reference, in turn with the reference before flow and
    after it; and the reference where it counts."""
    top, left = (2 * place for place in most_detailed(pair.reference[::2, ::2], EDGE // 2))
    piece = np.s_[top : top + EDGE, left : left + EDGE]
    smooth = opencv("alignment").GaussianBlur(pair.shown, (0, 0), _SMOOTH)
    shown, before, after = (np.ascontiguousarray(p[piece]) for p in (smooth, pair.before, pair.reference))
    masked = np.where(pair.mask[piece][..., None], after, np.uint8(_OUT) + after // 4)
    return {"before": _flicker(shown, before), "after": _flicker(shown, after), "mask": encode_png(masked)}


_SMOOTH = 1.0
"""Blur of the frame on the page, in pixels, so that edges are seen to jump or not through its noise."""

_OUT = 160
"""Grey of places that do not count, before a quarter of what is there."""


def _flicker(first: Picture, second: Picture) -> bytes:
    written = io.BytesIO()
    images = [PIL.Image.fromarray(picture) for picture in (first, second)]
    images[0].save(written, "PNG", save_all=True, append_images=images[1:], duration=FLICKER_MS, loop=0)
    return written.getvalue()


# ---- the page ----------------------------------------------------------------------------------------------

_CAPTIONS = {
    "before": "frame (smoothed) and reference in turn, before flow",
    "after": "frame (smoothed) and reference in turn, aligned",
    "mask": "aligned reference; what does not count is pale",
}


def _page(report: Mapping[str, Any], records: Sequence[Record], shown: set[str]) -> str:
    accepted = [each for each in records if each.reason is None]
    parts = [
        '<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8" />',
        f"<title>isp-align</title><style>{_STYLE}</style></head><body>",
        f"<h1>{len(accepted)} of {len(records)} pairs aligned</h1>",
        f"<p>ispeed {escape(str(report['version']))}, {escape(_told(report['flow']))}</p>",
    ]
    if len(accepted) < len(records):
        rows = [[each.name, each.reason] for each in records if each.reason is not None]
        parts += ["<h2>Refused</h2>", _table(["pair", "reason"], rows, "reasons")]
    if accepted:
        parts += ["<h2>Aligned</h2>", _table(_HEADS, [_row(each) for each in accepted])]
    for each in accepted:
        if each.name in shown:
            parts += [f"<h3>{escape(each.name)}</h3>", _strip(each)]
    return "\n".join([*parts, "</body></html>\n"])


_HEADS = ("pair", "size", "features", "flow median px", "95 % px", "largest px", "valid", "agreement")


def _row(record: Record) -> list[str]:
    facts, flow = record.facts, record.facts["flow"]
    how = "grid kept" if facts["grid_kept"] else f"{facts['inliers']} of {facts['matches']}"
    lengths = [f"{flow[name]:.2f}" for name in ("median", "p95", "largest")]
    _, _, height, width = facts["region"]
    return [record.name, f"{width}x{height}", how, *lengths, f"{facts['valid']:.1%}", f"{facts['agreement']:.3f}"]


def _strip(record: Record) -> str:
    _, _, height, width = (min(EDGE, size) * ZOOM for size in record.facts["region"])
    figures = [
        f'<figure><img src="{SHOWN}/{file_name(record.name)}-{kind}.png" width="{width}" height="{height}" '
        f'alt="{escape(caption)}" /><figcaption>{escape(caption)}</figcaption></figure>'
        for kind, caption in _CAPTIONS.items()
    ]
    figures.append(f"<figure>{_histogram(record.facts['flow']['histogram'])}</figure>")
    return '<div class="strip">' + "\n".join(figures) + "</div>"


def _histogram(shares: Sequence[float]) -> str:
    """How long displacements are, as bars."""
    step, most = _WIDTH / len(shares), max(*shares, 1e-9)
    bars = "".join(
        f'<rect x="{number * step:.1f}" y="{_HEIGHT * (1 - share / most):.1f}" width="{step - 1:.1f}" '
        f'height="{_HEIGHT * share / most:.1f}" />'
        for number, share in enumerate(shares)
    )
    caption = f"length of displacements, 0 to {LONGEST:g} pixels and more"
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{caption}" '
        f'xmlns="http://www.w3.org/2000/svg">{bars}</svg><figcaption>{caption}</figcaption>'
    )


def _told(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    return f'<table class="{kind}"><thead>{line(heads, "th")}</thead>\n<tbody>{body}</tbody></table>'
