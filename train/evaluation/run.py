"""Develops every frame with everything that makes pictures, and measures what comes out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..data.unpaired import Colours
from ..metrics.lpips import Lpips
from ..metrics.no_reference import Quality
from ..metrics.pictures import psnr
from ..protocols import PROTOCOLS, opencv
from .crops import Strip, strip_of, whole_strip
from .developers import CLASSIC, NLM, BehindDeveloper, Developer, EngineDeveloper, Skipped, denoised
from .frames import Frame, FrameSet, Picture
from .meters import Measures, Meter, make_meter, means, spread
from .opening import UnpairedFrames, open_set
from .settings import AnySet, EdgeSet, FlickerSet, PhotosSet, ScenesSet

QUICK, QUICK_STILL = 2, 10
"""Frames of a set, and of a still scene, where only a look is wanted."""

REFERENCE, ALL_PHASES = "reference", "all"

STRENGTHS, COLOUR_STRENGTHS = (2.0, 3.0, 5.0, 7.0, 10.0), (5.0, 10.0, 15.0, 20.0, 30.0)
"""What `tune_nlm` tries, in codes of 8 bits."""

Tell = Callable[[str], None]
Keep = Callable[[AnySet, str, str, Frame, Picture], None]
"""Takes a picture: of which set, phase, developer and frame."""


@dataclass
class Row:
    """What one developer makes of one set.

    Attributes:
        engine: Its label.
        phase: Filter array; `ALL_PHASES` for the mean over them, "" where frames are as they are.
        measures: Of the set.
        frames: Of each frame: `name`, and its measures.
        notes: What could not be measured.
    """

    engine: str
    phase: str
    measures: Measures
    frames: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class SetResult:
    """What became of one set.

    Attributes:
        settings: Of the set.
        photographs: What pictures without references are compared with.
        rows: By phase, then by developer.
        strips: Crops of some frames.
        wholes: All of these frames, where sheets are asked for.
        skipped: Developers that it is not for, a sentence each.
    """

    settings: AnySet
    photographs: Colours | None = None
    rows: list[Row] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)
    wholes: list[Strip] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


class Evaluation:
    """Measures sets, one after the other.

    Args:
        developers: The classic engine first.
        seed: Of everything drawn.
        lpips: To be measured besides, where there are references.
        quality: Measures without a reference, by name, to be taken besides where pictures are scored.
        quick: Take only the first frames of each set.
        sheets: Keep the whole pictures of the frames of which crops are shown.
        tell: Takes a line about what is being done.
        keep: Takes every picture.
    """

    def __init__(
        self,
        developers: Sequence[Developer],
        seed: int,
        *,
        lpips: Lpips | None = None,
        quality: Mapping[str, Quality] | None = None,
        quick: bool = False,
        sheets: bool = False,
        tell: Tell = lambda line: None,
        keep: Keep = lambda *picture: None,
    ) -> None:
        if not developers or developers[0].label != CLASSIC:
            raise ValueError("the classic engine comes first: its pictures guide the others' and stand beside them")
        self._developers, self._seed, self._lpips = list(developers), seed, lpips
        self._quality, self._sheets = quality, sheets
        self._quick, self._tell, self._keep = quick, tell, keep

    def measure(self, settings: AnySet, frames: FrameSet | None = None) -> SetResult:
        """One set, whose frames may have been opened before.

        Raises:
            UserError: Data are missing, or a developer cannot take such frames.
        """
        for developer in self._developers:
            if isinstance(developer, BehindDeveloper):
                developer.fit(settings, self._seed, self._most(settings))
        frames = frames or open_set(settings, self._seed)
        result = SetResult(settings, frames.photographs if isinstance(frames, UnpairedFrames) else None)
        for phase in frames.phases:
            self._tell(" ".join(filter(None, (settings.name, phase))))
            result.rows += self._of_phase(result, frames, phase)
        if len(frames.phases) > 1:
            result.rows += list(_over_phases(result.rows))
        return result

    def _of_phase(self, result: SetResult, frames: FrameSet, phase: str) -> list[Row]:
        settings, rows = result.settings, {}
        if settings.kind == "inverse":
            return self._backwards(result, frames, phase)
        meters: dict[str, Meter] = {}
        colours = result.photographs.mean if result.photographs else None
        for number, frame in enumerate(frames.frames(phase, self._most(settings))):
            pictures = dict(self._pictures(frame, frames, result))
            if isinstance(settings, EdgeSet) and frame.reference is not None:
                pictures[REFERENCE] = frame.reference
            for label, picture in pictures.items():
                meter = meters.setdefault(label, make_meter(settings, self._lpips, self._quality, colours))
                row = rows.setdefault(label, Row(label, phase, {}))
                found = meter.add(frame, picture, pictures[CLASSIC])
                row.frames.append({"name": frame.name, **found})
                self._keep(settings, phase, label, frame, picture)
            if phase == frames.phases[0] and number < settings.shown:
                result.strips.append(strip_of(frame, pictures))
                result.wholes += [whole_strip(frame, pictures)] if self._sheets else []
        for label, row in rows.items():
            row.measures, row.notes = meters[label].result(), meters[label].notes
        return list(rows.values())

    def _most(self, settings: AnySet) -> int | None:
        """Frames that are taken of a set; None is all of them."""
        if not self._quick:
            return None
        if isinstance(settings, FlickerSet):
            return settings.light_period if settings.light_stops else QUICK_STILL
        return QUICK

    def _backwards(self, result: SetResult, frames: FrameSet, phase: str) -> list[Row]:
        from .inverse import measured_back

        rows = {}
        for developer in self._developers:
            if getattr(developer, "inverter", None) is None:
                result.skipped.append(f"skipped {developer.label}: it makes pictures of frames alone")
                self._tell(result.skipped[-1])
            else:
                rows[developer] = Row(developer.label, phase, {})
        for frame in frames.frames(phase, self._most(result.settings)):
            matrix = frames.matrix if frame.matrix is None else frame.matrix
            for developer, row in rows.items():
                found = measured_back(developer.inverter, frame, matrix)
                row.frames.append({"name": frame.name, **found})
        for row in rows.values():
            row.measures = means([{k: v for k, v in each.items() if k != "name"} for each in row.frames])
        return list(rows.values())

    def _pictures(self, frame: Frame, frames: FrameSet, result: SetResult) -> Iterator[tuple[str, Picture]]:
        for developer in self._developers:
            try:
                developer.prepare(frame, frames.matrix if frame.matrix is None else frame.matrix)
            except Skipped as reason:
                line = f"skipped {developer.label}: {reason}"
                if line not in result.skipped:
                    result.skipped.append(line)
                    self._tell(line)
                continue
            yield developer.label, developer.develop(frame)


def _over_phases(rows: Sequence[Row]) -> Iterator[Row]:
    """For each developer the means over the phases, and how far they differ in PSNR."""
    for label in dict.fromkeys(row.engine for row in rows):
        mine = [row.measures for row in rows if row.engine == label]
        yield Row(label, ALL_PHASES, means(mine) | {"psnr_spread": spread(mine, "psnr")})


@dataclass(frozen=True)
class Tuning:
    """What `tune_nlm` found.

    Attributes:
        name: The baseline with the best strengths.
        grid: `h`, `h_color` and mean `psnr` of all that were tried.
        frames: On so many.
    """

    name: str
    grid: list[dict[str, float]]
    frames: int


def tune_nlm(settings: PhotosSet | ScenesSet, seed: int, *, tell: Tell = lambda line: None) -> Tuning:
    """The strengths of non-local means behind the classic engine that give the best mean PSNR on a set.

    Raises:
        UserError: OpenCV is not installed, or data are missing.
    """
    cv2, frames = opencv("non-local means"), open_set(settings, seed)
    classic, align = EngineDeveloper(CLASSIC, CLASSIC, "fp32"), PROTOCOLS[settings.protocol]
    grid = list(itertools.product(STRENGTHS, COLOUR_STRENGTHS))
    scores: dict[tuple[float, float], list[float]] = {strengths: [] for strengths in grid}
    try:
        for frame in frames.frames(frames.phases[0]):
            tell(f"tuning on {frame.name}")
            classic.prepare(frame, frames.matrix)
            picture = classic.develop(frame)
            for strengths in grid:
                pair = align(denoised(cv2, picture, *strengths), frame.reference, picture)  # pyright: ignore
                scores[strengths].append(psnr(pair.shown, pair.reference))
    finally:
        classic.close()
    mean = {strengths: sum(values) / len(values) for strengths, values in scores.items()}
    best = max(grid, key=mean.__getitem__)
    table = [{"h": h, "h_color": h_color, "psnr": mean[h, h_color]} for h, h_color in grid]
    return Tuning(f"{CLASSIC}{NLM}{best[0]:g},{best[1]:g}", table, len(scores[best]))
