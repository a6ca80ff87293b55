"""What the pages of `isp-eval` and `isp-align` have in common: XHTML that needs nothing from elsewhere, no scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from .evaluation.crops import EDGE

ZOOM = 2
"""How many pixels of the screen a pixel of a crop takes, in each direction; on a narrow screen, such as a phone's with
its finer pixels, one, so that two crops fit beside each other."""

GAP = 8
"""Between crops, in pixels of the screen."""

_NARROW = 720
"""Screens up to so many pixels are narrow."""

_STYLE = f"""
body {{ font: 15px/1.4 sans-serif; margin: 2em; color: #222; background: #fff; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: 0.5em 0; font-variant-numeric: tabular-nums; }}
th, td {{ border-bottom: 1px solid #ccc; padding: 0.2em 0.7em; text-align: right; white-space: nowrap; }}
th:first-child, td:first-child, .texts th, .texts td {{ text-align: left; }}
th:first-child, td:first-child {{ position: sticky; left: 0; background: #fff; }}
.texts td:last-child {{ white-space: normal; }}
.first td {{ border-top: 2px solid #888; }}
h3 {{ overflow-wrap: anywhere; }}
.strip {{ display: flex; flex-wrap: wrap; gap: {GAP}px; margin: 0.5em 0 1.5em; }}
figure {{ margin: 0; width: {ZOOM * EDGE}px; }}
figure img {{ image-rendering: pixelated; display: block; max-width: 100%; height: auto; }}
figure svg {{ display: block; max-width: 100%; height: auto; }}
figcaption {{ overflow-wrap: anywhere; }}
p, dl {{ max-width: 60em; }}
dt {{ font-weight: bold; }}
dd {{ margin: 0 0 0.4em 1.5em; }}
.note {{ color: #844; overflow-wrap: anywhere; }}
@media (max-width: {_NARROW}px) {{
  body {{ margin: 1em; }}
  figure {{ width: {EDGE}px; }}
  th:first-child, td:first-child {{ white-space: normal; overflow-wrap: anywhere; min-width: 7em; }}
}}
"""


def page(name: str, heading: str, parts: Iterable[str], style: str = "") -> str:
    """A whole page.

    Args:
        name: Of the command, for the title.
        heading: Of the page, and in the title.
        parts: What is on it, as markup.
        style: Rules besides those of all pages.
    """
    head = (
        '<!DOCTYPE html>\n<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8" />\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1" />\n'
        f"<title>{escape(name)}: {escape(heading)}</title><style>{_STYLE}{style}</style></head>\n"
        f"<body><h1>{escape(heading)}</h1>"
    )
    return "\n".join([head, *parts, "</body></html>\n"])


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of text that is not markup."""
    return f"<p{_class(kind)}>{escape(text)}</p>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "", firsts: Sequence[int] = ()) -> str:
    """A table, which scrolls by itself where it is wider than the screen.

    Args:
        heads: Of the columns.
        rows: Texts that are not markup.
        kind: "texts" puts every column to the left, not the first one alone.
        firsts: Places of rows that begin another group.
    """
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in heads)
    body = "\n".join(
        f"<tr{_class('first' if place in firsts else '')}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for place, row in enumerate(rows)
    )
    return f'<div class="wide"><table{_class(kind)}><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def figure(source: str, size: tuple[int, int], caption: str, of: str) -> str:
    """A crop with its caption.

    Args:
        source: The file, relative to the page.
        size: Of the crop, (height, width) in pixels.
        caption: What it shows.
        of: Of which frame: for who cannot see it.
    """
    height, width = (ZOOM * length for length in size)
    return (
        f'<figure><img src="{escape(source)}" width="{width}" height="{height}" alt="{escape(f"{of}: {caption}")}" />'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def link(target: str, text: str) -> str:
    """A paragraph that leads to a file, relative to the page."""
    return f'<p><a href="{escape(target)}">{escape(text)}</a></p>'


def strip(name: str, figures: Iterable[str]) -> str:
    """Figures side by side, under the name of a frame."""
    return f'<h3>{escape(name)}</h3>\n<div class="strip">' + "\n".join(figures) + "</div>"


def meanings(words: Mapping[str, str]) -> str:
    """What words on the page mean."""
    entries = "\n".join(f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in words.items())
    return f"<h2>What the words mean</h2>\n<dl>{entries}</dl>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
