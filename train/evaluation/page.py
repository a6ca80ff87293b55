"""The folder that `isp-eval -o` leaves: results.json, index.html with crops side by side, their PNG files, and sheets
of whole pictures if asked for."""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Hashable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .. import markup
from ..data.folder import encode_png
from ..folders import WholeFolder
from .crops import EDGE
from .frames import Frame, Picture
from .run import SetResult
from .settings import AnySet
from .sheet import sheet
from .tables import about, groups, headings, lines, meanings, notes, title

RESULTS, PAGE, CROPS, PICTURES, SHEETS = "results.json", "index.html", "crops", "pictures", "sheets"

_DIGITS = 12
"""How many digits of a digest the page shows; all of them are in the results."""

_CROPS = {
    "crops": f"the piece of {EDGE} x {EDGE} pixels of a frame, or all of a smaller one, where it has most detail; as "
    "engines made it, whatever the protocol",
    "input": "what the sensor saw, each sample a grey pixel",
    "reference": "what the picture should be",
}


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
        self._names = _Names()

    def keep(self, settings: AnySet, phase: str, label: str, frame: Frame, picture: Picture) -> None:
        """Write a whole picture: pictures/SET/ENGINE/FRAME.png. Where two would have one name, the
        second has a number, too.

        Raises:
            UserError: It cannot be written.
        """
        place = self._names.of(
            self.made / PICTURES, (settings.name, phase), " ".join(filter(None, (settings.name, phase)))
        )
        place = self._names.of(place, label, label)
        self._save(self._names.of(place, frame.name, _stem(frame.name), ending=".png"), picture)

    def end(self, report: dict[str, Any], results: Sequence[SetResult]) -> None:
        """Write the results as JSON, and the page. Raises UserError: they cannot be written."""
        count = len(report["engines"])
        heading = f"Pictures of {count} engine{'s' if count != 1 else ''} on {report['on']}"
        parts = [_head(report), *(self._section(number, result) for number, result in enumerate(results))]
        captions = {caption for result in results for strip in result.strips for caption in ("crops", *strip.crops)}
        crops = {word: meaning for word, meaning in _CROPS.items() if word in captions}
        parts.append(markup.meanings(meanings(results) | crops))
        self.write(RESULTS, json.dumps(report, indent=1, allow_nan=False) + "\n")
        self.write(PAGE, markup.page("isp-eval", heading, parts))

    def _section(self, number: int, result: SetResult) -> str:
        parts = [f"<h2>{escape(title(result))}</h2>", markup.paragraph(about(result))]
        parts.append(markup.table(headings(result), lines(result), firsts=groups(result)))
        parts += [markup.paragraph(note, "note") for note in notes(result)]
        if result.wholes:
            path = self._names.of(self.made / SHEETS, number, result.settings.name, ending=".png")
            self._save(path, sheet(result.wholes))
            parts.append(markup.link(f"{SHEETS}/{path.name}", "the frames below, whole"))
        phases = {row.phase: None for row in result.rows}
        first = f", {next(iter(phases))}" if len(phases) > 1 else ""
        for place, strip in enumerate(result.strips):
            figures = []
            for which, (caption, crop) in enumerate(strip.crops.items()):
                name = f"{CROPS}/{number:02d}-{place:02d}-{which:02d}.png"
                self._save(self.made / name, crop)
                figures.append(markup.figure(name, crop.shape[:2], caption, strip.name))
            parts.append(markup.strip(strip.name + first, figures))
        return "\n".join(parts)

    def _save(self, path: Path, picture: Picture) -> None:
        self.write(str(path.relative_to(self.made)), encode_png(picture))


class _Names:
    """Names of files and folders, each unlike the others beside it."""

    def __init__(self) -> None:
        self._given: dict[tuple[Path, Hashable], Path] = {}
        self._taken: defaultdict[Path, set[str]] = defaultdict(set)

    def of(self, folder: Path, key: Hashable, wanted: str, ending: str = "") -> Path:
        """Where a thing goes in a folder: always the same place for the same key, under the wanted name unless another
        has it."""
        if (folder, key) not in self._given:
            numbered = (f"{wanted}-{number}" for number in itertools.count(2))
            names = (safe(name) + ending for name in itertools.chain([wanted], numbered))
            taken = self._taken[folder]
            found = next(name for name in names if name.casefold() not in taken)
            taken.add(found.casefold())  # some file systems do not tell small letters from capitals
            self._given[folder, key] = folder / found
        return self._given[folder, key]


def safe(name: str) -> str:
    """A name that every file system takes, as like the given one as can be."""
    return re.sub(r"[^A-Za-z0-9._+,-]+", "_", name).lstrip(".") or "_"


def _stem(name: str) -> str:
    """The name of a frame without the ending that its file has here, too: what else it ends in tells it from others."""
    return re.sub(r"\.png$", "", name, flags=re.IGNORECASE)


def _head(report: dict[str, Any]) -> str:
    facts = report["machine"]
    where = f"ispeed {report['version']}, {facts['cpu']}, {facts['cores']} cores, Python {facts['python']}"
    told = {label: _told(facts) for label, facts in report["engines"].items()}
    heads = [name for name in _FACTS if any(name in each for each in told.values())]
    rows = [[label, *(each.get(name, "") for name in heads)] for label, each in told.items()]
    parts = [markup.paragraph(where), markup.table(["engine", *heads], rows, "texts")]
    absent = (report.get("no_reference") or {}).get("not_measured", {})
    parts += [markup.paragraph(f"not measured: {name}: {why}", "note") for name, why in absent.items()]
    if report["quick"]:
        parts.append(
            markup.paragraph("Only the first frames of each set were taken (--quick): a look, no result.", "note")
        )
    return "\n".join(parts)


_FACTS = ("name", "backend", "precision", "run", "weights")


def _told(facts: dict[str, Any]) -> dict[str, str]:
    """What an engine says of itself, as far as it says it."""
    short = {"weights": (facts.get("weights_sha256") or "")[:_DIGITS]}
    return {name: str(value) for name, value in {**facts, **short}.items() if value and name in _FACTS}
