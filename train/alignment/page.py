"""The folder that `isp-align -o` leaves.

    raw/NAME.png, raw/NAME.png.yaml, rgb/NAME.png, mask/NAME.png, pairs.json    what the data set `folder` reads
    alignment.json                                                              settings, versions, and each pair
    index.html, shown/*.png                                                     the same to look at

The pictures of the page flicker by themselves (APNG): it holds no scripts.
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

from ...engines.inputs import CAMERA
from .. import markup
from ..data.folder import NOTES, encode_frame, encode_png
from ..data.raw_pair import PairFiles
from ..evaluation.crops import EDGE, most_detailed
from ..evaluation.page import safe
from ..folders import WholeFolder
from ..protocols import opencv
from .align import LONGEST, AlignedPair, Picture, Record, usable

RECORD, PAGE, SHOWN = "alignment.json", "index.html", "shown"

FLICKER_MS = 500
"""How long each of two pictures is seen."""

_WIDTH, _HEIGHT, _BELOW = 224, 120, 18
"""Of a histogram, in pixels of the screen, and of the numbers below it: three crops and one fit beside each other."""

_STYLE = f"""
.bars {{ width: {_WIDTH}px; }}
rect {{ fill: #468; }}
line {{ stroke: #888; }}
svg text {{ font-size: 12px; fill: #222; }}
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
    if told.matrix is not None:
        note["matrix"] = told.matrix.flatten().tolist()
    numbers = {name: getattr(told, name) for name in CAMERA}
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

_COLUMNS = {
    "pair": "",
    "size px": "width and height of what both cameras see",
    "features": "how many of the features found in both pictures agree on how these lie; grid kept where the two lie "
    "over each other already, but for flow",
    "moved by px": "how far flow moves the places of the reference that count: the median of the distances in pixels",
    "95 % px": "the distance that 95 % of them do not exceed",
    "largest px": "the largest of them",
    "counts": "part of the places whose reference can be relied on; the mask leaves out the others",
    "agreement": "correlation of the local structure of frame and aligned reference where they count; 1 is best",
}
"""Headings of the table of pairs, and what they mean."""


def _page(report: Mapping[str, Any], records: Sequence[Record], shown: set[str]) -> str:
    accepted = [each for each in records if each.reason is None]
    data_set = report["settings"]["data_set"]
    parts = [
        markup.paragraph(f"ispeed {report['version']}, data set {data_set}, {_told(report['flow'])}"),
    ]
    if len(accepted) < len(records):
        rows = [[each.name, each.reason] for each in records if each.reason is not None]
        parts += ["<h2>Refused</h2>", markup.table(["pair", "reason"], rows, "texts")]
    if accepted:
        parts += ["<h2>Aligned</h2>", markup.table(list(_COLUMNS), [_row(each) for each in accepted])]
    if len(shown) < len(accepted):
        text = f"Pictures of {len(shown)} of them follow; --set shown={len(accepted)} shows all."
        parts.append(markup.paragraph(text))
    parts += [markup.strip(each.name, _figures(each)) for each in accepted if each.name in shown]
    if accepted:
        parts.append(markup.meanings({word: meaning for word, meaning in _COLUMNS.items() if meaning}))
    return markup.page("isp-align", f"{len(accepted)} of {len(records)} pairs aligned", parts, _STYLE)


def _row(record: Record) -> list[str]:
    facts, flow = record.facts, record.facts["flow"]
    how = "grid kept" if facts["grid_kept"] else f"{facts['inliers']} of {facts['matches']}"
    lengths = [f"{flow[name]:.2f}" for name in ("median", "p95", "largest")]
    _, _, height, width = facts["region"]
    return [record.name, f"{width}x{height}", how, *lengths, f"{facts['valid']:.1%}", f"{facts['agreement']:.3f}"]


def _figures(record: Record) -> list[str]:
    _, _, height, width = (min(EDGE, size) for size in record.facts["region"])
    figures = [
        markup.figure(f"{SHOWN}/{file_name(record.name)}-{kind}.png", (height, width), caption, record.name)
        for kind, caption in _CAPTIONS.items()
    ]
    return [*figures, _histogram(record.name, record.facts["flow"]["histogram"])]


def _histogram(name: str, shares: Sequence[float]) -> str:
    """How far the places of a pair are moved, as bars."""
    step, most = _WIDTH / len(shares), max(*shares, 1e-9)
    bars = "".join(
        f'<rect x="{number * step:.1f}" y="{_HEIGHT * (1 - share / most):.1f}" width="{step - 1:.1f}" '
        f'height="{_HEIGHT * share / most:.1f}" />'
        for number, share in enumerate(shares)
    )
    ends = (("start", 0, "0"), ("middle", _WIDTH / 2, f"{LONGEST / 2:g}"), ("end", _WIDTH, f"{LONGEST:g} and more"))
    numbers = "".join(
        f'<text x="{x:g}" y="{_HEIGHT + _BELOW - 4}" text-anchor="{anchor}">{text}</text>' for anchor, x, text in ends
    )
    caption = f"how far places are moved, in pixels; the highest bar holds {most:.0%} of them"
    return (
        f'<figure class="bars"><svg width="{_WIDTH}" height="{_HEIGHT + _BELOW}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT + _BELOW}" role="img" aria-label="{escape(f"{name}: {caption}")}" '
        f'xmlns="http://www.w3.org/2000/svg">{bars}<line x1="0" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}" />{numbers}'
        f"</svg><figcaption>{caption}</figcaption></figure>"
    )


def _told(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
