"""The folder that `isp-eval -o` leaves: results.json, index.html with crops side by side, and their PNG files.

It needs nothing from elsewhere, and holds no scripts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..data.folder import encode_png
from ..folders import WholeFolder
from .crops import EDGE
from .frames import Frame, Picture
from .run import SetResult
from .settings import AnySet
from .tables import headings, lines, notes, title

RESULTS, PAGE, CROPS, PICTURES = "results.json", "index.html", "crops", "pictures"

ZOOM = 2
"""How many pixels of the screen a pixel of a crop takes, in each direction."""

_STYLE = f"""
body {{ font: 15px/1.4 sans-serif; margin: 2em; color: #222; background: #fff; }}
table {{ border-collapse: collapse; margin: 0.5em 0; }}
th, td {{ border-bottom: 1px solid #ccc; padding: 0.2em 0.7em; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
.strip {{ display: flex; flex-wrap: wrap; gap: 8px; margin: 0.5em 0 1.5em; }}
figure {{ margin: 0; width: {ZOOM * EDGE}px; }}
figure img {{ image-rendering: pixelated; display: block; }}
figcaption {{ overflow-wrap: anywhere; }}
.note {{ color: #855; }}
"""


class Folder(WholeFolder):
    """Where results go. See `WholeFolder`.

    Args:
        path: The folder, empty or not there.
        replace: Replace it if it holds results of isp-eval.

    Raises:
        UserError: There is something in it, or it cannot be made.
    """

    def __init__(self, path: Path, *, replace: bool = False) -> None:
        super().__init__(path, "isp-eval", RESULTS, replace=replace)

    def keep(self, settings: AnySet, phase: str, label: str, frame: Frame, picture: Picture) -> None:
        """Write a whole picture: pictures/SET/ENGINE/FRAME.png. Raises UserError: it cannot be written."""
        place = self.made / PICTURES / safe(" ".join(filter(None, (settings.name, phase)))) / safe(label)
        self._save(place / f"{safe(_stem(frame.name))}.png", picture)

    def end(self, report: dict[str, Any], results: Sequence[SetResult]) -> None:
        """Write the results as JSON, and the page. Raises UserError: they cannot be written."""
        page = [_head(report), *(self._section(number, result) for number, result in enumerate(results))]
        self.write(RESULTS, json.dumps(report, indent=1, allow_nan=False) + "\n")
        self.write(PAGE, "\n".join([*page, "</body></html>\n"]))

    def _section(self, number: int, result: SetResult) -> str:
        parts = [f"<h2>{escape(title(result))}</h2>", _table(headings(result), lines(result))]
        parts += [f'<p class="note">{escape(note)}</p>' for note in notes(result)]
        for place, strip in enumerate(result.strips):
            parts.append(f'<h3>{escape(strip.name)}</h3>\n<div class="strip">')
            for which, (caption, crop) in enumerate(strip.crops.items()):
                name = f"{CROPS}/{number:02d}-{place:02d}-{which:02d}.png"
                self._save(self.made / name, crop)
                height, width = (ZOOM * size for size in crop.shape[:2])
                parts.append(
                    f'<figure><img src="{name}" width="{width}" height="{height}" alt="{escape(caption)}" />'
                    f"<figcaption>{escape(caption)}</figcaption></figure>"
                )
            parts.append("</div>")
        return "\n".join(parts)

    def _save(self, path: Path, picture: Picture) -> None:
        self.write(str(path.relative_to(self.made)), encode_png(picture))


def safe(name: str) -> str:
    """A name that every file system takes, as like the given one as can be."""
    return re.sub(r"[^A-Za-z0-9._+,-]+", "_", name).lstrip(".") or "_"


def _stem(name: str) -> str:
    """The name of a frame without the ending of a picture's file."""
    return re.sub(r"\.(png|jpe?g)$", "", name, flags=re.IGNORECASE)


def _head(report: dict[str, Any]) -> str:
    engines = [[label, *(str(facts.get(key) or "") for key in _FACTS)] for label, facts in report["engines"].items()]
    facts = report["machine"]
    where = f"ispeed {report['version']}, {facts['cpu']}, {facts['cores']} cores, Python {facts['python']}"
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8" />',
            f"<title>isp-eval</title><style>{_STYLE}</style></head><body>",
            f"<h1>Pictures of {len(engines)} engines</h1>\n<p>{escape(where)}</p>",
            _table(["engine", *_FACTS], engines),
        ]
    )


_FACTS = ("name", "backend", "precision", "run", "weights_sha256")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(heads, 'th')}</thead>\n<tbody>{body}</tbody></table>"
