"""Changes of camera features during a run: `isp-stream --at 500:ExposureTime=200`, once that many frames were seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..engines.errors import UserError
from ..engines.settings import parse_yaml

if TYPE_CHECKING:
    from .camera.camera import FeatureSet

Scalar = bool | int | float | str

EXAMPLE = "500:ExposureTime=200"
"""What such a change looks like."""

FREES_NOTHING = ("ExposureTime", "Gain")
"""Features that make no other one settable, and no other value of one possible."""

TOLD_ONCE = (
    *("Width", "Height", "OffsetX", "OffsetY", "PixelFormat"),
    *("BlackLevel", "BlackLevelRaw", "BlackLevelAbs"),
)
"""Features on which rings, headers, levels and calibration rest. Many cameras take some of them while they stream."""

MOST_DIGITS = 18
"""Digits that a number of frames may have: it then fits into 64 bits."""


class Change(NamedTuple):
    """One feature of the camera, set while it streams.

    Attributes:
        after: Frames that were seen before, since the run began.
        feature: Its name.
        value: What it is set to.
    """

    after: int
    feature: str
    value: Scalar


def read_scalar(text: str) -> Scalar:
    """A feature's value as YAML reads it: a number, true or false, else the text itself.

    Raises:
        ValueError: It is a list or the like.
    """
    try:
        value = parse_yaml(text)
    except ValueError:
        return text
    if not isinstance(value, (bool, int, float, str)):
        raise ValueError(f"{text!r} is no number, text, true or false")
    return value


def read_change(text: str) -> Change:
    """What `text`, such as `EXAMPLE`, says. Raises ValueError with a sentence where it says nothing of the kind."""
    after, colon, setting = text.partition(":")
    feature, equals, value = setting.partition("=")
    number, feature = after.strip(), feature.strip()
    if not (colon and equals and feature and number.isascii() and number.isdigit() and len(number) <= MOST_DIGITS):
        raise ValueError(f"write FRAMES:NAME=VALUE, such as {EXAMPLE}")
    try:
        return Change(int(number), feature, read_scalar(value))
    except ValueError as error:
        raise ValueError(f"the value of {feature}: {error}") from error


def require_changeable(feature: str) -> None:
    """Raises UserError for a feature that must stay as it was when the run began."""
    if feature in TOLD_ONCE:
        raise UserError(
            f"{feature} cannot be set during a run, because frames are told and developed by what it was at the start: "
            "set it before, in the config or with --set"
        )


class Schedule:
    """Which changes are still to come: in the order of their frames, those of one frame as they were given."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Of texts that `read_change` takes."""
        self._left = sorted((read_change(text) for text in texts), key=lambda change: change.after)

    @property
    def next_after(self) -> float:
        """How many frames the next change waits for; infinite where none is left."""
        return self._left[0].after if self._left else float("inf")

    def check(self, features: FeatureSet) -> None:
        """Whether the camera can be set so while it streams, as far as that is known before.

        Of a feature that only an earlier change to another one may set free, no more is asked than that it is there.

        Raises:
            UserError: There is no such feature, it cannot be set while the camera streams, or not to that value.
        """
        if not self._left:
            return
        locked = features.set_if_there("TLParamsLocked", 1)  # as it will be then
        try:
            for index, change in enumerate(self._left):
                before = {earlier.feature for earlier in self._left[:index]}
                freed = bool(before - {change.feature, *FREES_NOTHING})
                features.check(change.feature, None if freed else change.value)
                require_changeable(change.feature)
        except UserError as error:
            raise UserError(f"at {change.after} frames: {error}") from error
        finally:
            if locked:
                features.set_if_there("TLParamsLocked", 0)

    def due(self, seen: int) -> list[Change]:
        """Takes out the changes whose time has come, now that `seen` frames were seen."""
        now = [change for change in self._left if change.after <= seen]
        del self._left[: len(now)]
        return now
