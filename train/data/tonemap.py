"""Tone mapping: pictures that a display can show, of light whose range it cannot.

Operators take light (`Light`: float32 [H, W, 3], linear sRGB, 0 or more) on whose scale 1 is the white of a middle
exposure, and give display values in [0, 1]. Grey stays grey in all of them. Those of OpenCV stretch whatever they are
given until it reaches from black to white, so that a wall would look like a landscape: here black is always no light,
and white the brightest place but at least 1.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...engines.errors import UserError
from ..curves import LUMA, srgb_from_linear
from ..protocols import opencv

Light = npt.NDArray[np.float32]

_DARKEST = -16.0
"""In stops below 1: what is darker counts as this dark where logarithms are taken."""

_SMALLEST = 2
"""Edge in pixels from which on a picture can be tone-mapped."""

_WHITE_SHARE = 0.995
"""Quantile of the luminance that stays where it is in a local Laplacian filter, or comes down to white."""

_CODES = 255

_CLEAR = 4
"""Edge in pixels below which a level of a pyramid is not halved any more."""


def tone_mapped(radiance: Light, operator: str, **options: Any) -> Light:
    """A picture of light.

    Args:
        radiance: float32 [H, W, 3], linear sRGB, 0 or more; 1 is the white of a middle exposure, highlights are above.
        operator: A key of `OPERATORS`.
        options: What else its function takes.

    Returns:
        float32 [H, W, 3], sRGB in [0, 1].

    Raises:
        UserError: An unknown operator or option, a value out of range, OpenCV is needed and not installed, or what is
            given is no such light.
    """
    given = checked_options(operator, options)
    if radiance.ndim != 3 or radiance.shape[2] != 3 or min(radiance.shape[:2]) < _SMALLEST:
        raise UserError(
            f"the light is {_shape(radiance)}, but to be tone-mapped it is [H, W, 3], with H and W 2 or more"
        )
    light = np.ascontiguousarray(radiance, np.float32)
    if not np.isfinite(light).all() or light.min() < 0:
        raise UserError("the light has samples below 0, infinite or NaN: give linear light, black taken off")
    return np.clip(OPERATORS[operator](light, **given), 0, 1, dtype=np.float32)


def _shape(values: npt.NDArray[Any]) -> str:
    return f"[{', '.join(map(str, values.shape))}]"


# ---- operators ---------------------------------------------------------------------------------------------


def clipped(light: Light) -> Light:
    """As without tone mapping: what is above 1 is white."""
    return _shown(light)


def mertens(
    light: Light,
    *,
    stops: float = 2.0,
    exposures: int = 5,
    contrast: float = 0.0,
    saturation: float = 0.0,
    exposedness: float = 0.2,
) -> Light:
    """Exposure fusion (Mertens et al. 2007, as in OpenCV): of several exposures in 8 bits each place comes mostly from
    the one that shows it best.

    Args:
        light: See `Light`.
        stops: How far exposures are apart.
        exposures: How many; one is longer than the middle one, which shows 1 as white, all others shorter.
        contrast, saturation, exposedness: Exponents of what makes a place good. At 1, that of exposedness shows large
            areas of any brightness as the same grey; those of the others take exposures for equally good where the
            scene is flat, or grey.
    """
    cv2 = opencv("tone mapping")
    shown = [_shown(light * np.float32(2.0 ** (stops * (1 - place)))) for place in range(exposures)]
    codes = [np.rint(each * _CODES).astype(np.uint8) for each in shown]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # several add exposures up in any order, and round differently each time
    try:
        return cv2.createMergeMertens(contrast, saturation, exposedness).process(codes)
    finally:
        cv2.setNumThreads(threads)


def reinhard(light: Light, *, intensity: float = 0.0, light_adapt: float = 0.5) -> Light:
    """Photoreceptors (Reinhard and Devlin 2005, as in OpenCV), the same for all colours.

    Args:
        light: See `Light`.
        intensity: How bright, on a logarithmic scale.
        light_adapt: Share of what a place adapts to itself, in place of the picture's mean.
    """
    cv2 = opencv("tone mapping")
    return _anchored(cv2.createTonemapReinhard(1.0, intensity, light_adapt, 0.0), light)


def drago(light: Light, *, saturation: float = 1.0, bias: float = 0.85) -> Light:
    """Adaptive logarithm (Drago et al. 2003, as in OpenCV).

    Args:
        light: See `Light`.
        saturation: Of colours.
        bias: Less is brighter, with less contrast in highlights.
    """
    cv2 = opencv("tone mapping")
    return _anchored(cv2.createTonemapDrago(1.0, saturation, bias), light)


def local_laplacian(
    light: Light,
    *,
    sigma: float = 1.0,
    alpha: float = 1.0,
    beta: float = 0.35,
    saturation: float = 1.0,
    samples: int = 12,
) -> Light:
    """Fast local Laplacian filter (Aubry et al. 2014) on the logarithm of luminance.

    Args:
        light: See `Light`.
        sigma: In stops: smaller differences are detail, larger ones edges.
        alpha: Exponent of detail: below 1 stronger, above 1 smoother, at 1 as it is.
        beta: Factor of what an edge is beyond `sigma`: below 1 the range is compressed, at 1 it stays.
        saturation: Exponent of colours over luminance.
        samples: Levels at which the filter is computed; between them it is interpolated.
    """
    luminance = np.maximum(light @ np.array(LUMA, np.float32), np.float32(2.0**_DARKEST))
    stops = np.log2(luminance)
    mapped = laplacian_filtered(stops, sigma, alpha, beta, samples)
    before, after = (float(np.quantile(values, _WHITE_SHARE)) for values in (stops, mapped))
    mapped += min(0.0, before) - after
    colours = np.maximum(light, 0) / luminance[..., None]
    if saturation != 1:
        colours **= np.float32(saturation)
    return _shown(colours * np.exp2(mapped)[..., None])


OPERATORS: dict[str, Callable[..., Light]] = {
    "mertens": mertens,
    "reinhard": reinhard,
    "drago": drago,
    "local_laplacian": local_laplacian,
    "none": clipped,
}
"""By name. Each takes light and options of its own, and gives display values, which may leave [0, 1]."""

_LIMITS: dict[str, dict[str, tuple[float, float]]] = {
    "mertens": {
        "stops": (0.25, 6),
        "exposures": (2, 12),
        "contrast": (0, 4),
        "saturation": (0, 4),
        "exposedness": (0, 4),
    },
    "reinhard": {"intensity": (-8, 8), "light_adapt": (0, 1)},
    "drago": {"saturation": (0.1, 4), "bias": (0.5, 1)},
    "local_laplacian": {
        "sigma": (0.05, 16),
        "alpha": (0.1, 4),
        "beta": (0, 2),
        "saturation": (0.1, 4),
        "samples": (2, 64),
    },
    "none": {},
}
"""What options may be, the limits included."""


def checked_options(operator: str, options: dict[str, Any]) -> dict[str, Any]:
    """`options` as the function of the operator takes them.

    Raises:
        UserError: An unknown operator or option, or a value out of range.
    """
    if operator not in OPERATORS:
        raise UserError(f"there is no tone mapping {operator!r}: choose one of {', '.join(OPERATORS)}")
    defaults, checked = inspect.signature(OPERATORS[operator]).parameters, {}
    for name, value in options.items():
        if name not in _LIMITS[operator]:
            listed = ", ".join(_LIMITS[operator]) or "none"
            raise UserError(f"the tone mapping {operator} has no option {name!r}: its options are {listed}")
        low, high = _LIMITS[operator][name]
        whole = isinstance(defaults[name].default, int)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not low <= value <= high or (whole and value != int(value)):
            kind = "a whole number" if whole else "a number"
            raise UserError(
                f"{name} of the tone mapping {operator} is {value!r}: it is {kind} from {low:g} to {high:g}"
            )
        checked[name] = int(value) if whole else float(value)
    return checked


# ---- what they share ---------------------------------------------------------------------------------------


def _shown(light: npt.NDArray[Any]) -> Light:
    """Limited to [0, 1], by the curve of sRGB."""
    return srgb_from_linear(torch.from_numpy(np.asarray(light, np.float32))).numpy()


def _anchored(operator: Any, light: Light) -> Light:
    """What an operator of OpenCV gives, of a picture that has a black and a white place of ours below it.

    OpenCV takes the least of all samples for black. Drago's divides colours by luminance, so that no place may be
    without any: not even our black one, of which only one colour is 0. What is darker than that fades to black.
    """
    unit = light / np.float32(max(1.0, float(light.max())))
    given = np.maximum(np.concatenate([unit, unit[-1:]]), np.float32(2.0**_DARKEST))
    given[-1, 0], given[-1, 1] = (0, 2.0**_DARKEST, 2.0**_DARKEST), 1
    mapped = _quietly(operator.process, given)[:-1]
    return _shown(mapped * np.minimum(unit.max(2, keepdims=True) * 2.0**-_DARKEST, 1))


def _quietly(process: Callable[[Light], Light], given: Light) -> Light:
    """Without what OpenCV 5 prints of its own code: that a sum with a number may mean something else one day."""
    logging = getattr(getattr(opencv("tone mapping"), "utils", None), "logging", None)
    if logging is None:
        return process(given)
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_ERROR)
    try:
        return process(given)
    finally:
        logging.setLogLevel(level)


def laplacian_filtered(values: Light, sigma: float, alpha: float, beta: float, samples: int) -> Light:
    """A local Laplacian filter of one channel; arguments as of `local_laplacian`.

    Each coefficient of the pyramid is that of the values with their differences from the value at its place remapped.
    What it is follows from pyramids of all values remapped about `samples` fixed ones.

    Args:
        values: float32 [H, W].

    Returns:
        float32 [H, W]; the values themselves where alpha and beta are 1.
    """
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:  # nothing to remap, and no steps to interpolate between
        return values.copy()
    levels = max(1, int(math.log2(max(1, min(values.shape) / _CLEAR))))
    coarser = _gaussians(values, levels)
    step = (high - low) / (samples - 1)
    summed = [np.zeros_like(level) for level in coarser[:-1]]
    for number in range(samples):
        about = low + number * step
        details = _laplacians(_gaussians(_remapped(values, about, sigma, alpha, beta), levels))
        for total, detail, level in zip(summed, details, coarser, strict=False):
            total += detail * np.clip(1 - np.abs(level - about) / step, 0, 1, dtype=np.float32)
    rebuilt = coarser[-1] if beta == 1 else coarser[-1].mean() + beta * (coarser[-1] - coarser[-1].mean())
    for detail in reversed(summed):
        rebuilt = _wider(rebuilt, detail) + detail
    return np.ascontiguousarray(rebuilt, np.float32)


def _remapped(values: Light, about: float, sigma: float, alpha: float, beta: float) -> Light:
    away = values - np.float32(about)
    size = np.abs(away)
    detail = sigma * (np.minimum(size, sigma) / sigma) ** np.float32(alpha)
    return np.copysign(detail + beta * np.maximum(size - sigma, 0), away).astype(np.float32) + np.float32(about)


def _gaussians(values: Light, levels: int) -> list[Light]:
    cv2, pyramid = opencv("tone mapping"), [values]
    for _ in range(levels):
        pyramid.append(cv2.pyrDown(pyramid[-1]))
    return pyramid


def _laplacians(pyramid: list[Light]) -> list[Light]:
    """What each level has over the next, without the last level itself."""
    return [fine - _wider(coarse, fine) for fine, coarse in itertools.pairwise(pyramid)]


def _wider(coarse: Light, like: Light) -> Light:
    return opencv("tone mapping").pyrUp(coarse, dstsize=(like.shape[1], like.shape[0]))
