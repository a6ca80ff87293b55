"""All networks by name, whatever their family. A further family is a line in `NETWORKS` for each of its members."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from torch import nn

from ..forms import FORMS, Form
from .core import CleanModule, CoreModule, Output, PictureModule
from .hdrisp import MULTIPLE as HDR_MULTIPLE
from .hdrisp import WIDTH as HDR_WIDTH
from .hdrisp import make_hdrisp
from .light import MULTIPLES, WIDTHS, make_light
from .liteisp import LITE_VARIANTS, make_liteisp
from .liteisp import MULTIPLE as LITE_MULTIPLE
from .lwisp import VARIANTS, make_lwisp
from .misisp import FIRST_CHANNELS, Mapper, MapperModule
from .noise_level import make_noise_level
from .param_modules import CycleModule, ForwardModule, InverseModule
from .paramisp import Direction, make_paramisp


@dataclass(frozen=True)
class Network:
    """What is known of a network before it is made.

    Attributes:
        make: Makes it with fresh weights, from options by name; raises ValueError or TypeError where it has no such
            option. What it makes has an attribute `form`.
        width: Channels at its highest resolution.
        multiple: What width and height of the mosaic must be divisible by, in pixels; even.
        forms: Those that it has, of `FORMS`. One with a single form is made without the option `form`.
        noise: Whether it can be made with `noise_plane`, in the form "raw".
    """

    make: Callable[..., nn.Module]
    width: int
    multiple: int
    forms: tuple[Form, ...] = ("raw",)
    noise: bool = False


def _lwisp(name: str) -> Network:
    variant = VARIANTS[name]
    forms: tuple[Form, ...] = ("raw", "clean") if variant.half_resolution else ("raw", "rgb", "clean")
    return Network(partial(make_lwisp, name), variant.width, variant.multiple, forms, noise=True)


def _liteisp(name: str) -> Network:
    return Network(partial(make_liteisp, name), LITE_VARIANTS[name].width, LITE_MULTIPLE, noise=True)


NETWORKS: dict[str, Network] = {
    **{name: _lwisp(name) for name in VARIANTS},
    **{name: _liteisp(name) for name in LITE_VARIANTS},
    "mapper": Network(Mapper, FIRST_CHANNELS, 2, ("mapper",)),
    "paramisp": Network(make_paramisp, 64, 4, ("raw", "inverse", "cycle")),
    "hdrisp": Network(make_hdrisp, HDR_WIDTH, HDR_MULTIPLE),
    **{name: Network(partial(make_light, name), WIDTHS[name], MULTIPLES[name]) for name in WIDTHS},
}
"""By name."""

Module = CoreModule | CleanModule | PictureModule | MapperModule | ForwardModule | InverseModule | CycleModule
"""A network as training calls it: with what it `takes` of a sample and what of it it `wants` to give, `network` and
`output`. One that gives several gives last what it wants."""

_MODULES: dict[Form, type[Module]] = {
    "raw": CoreModule,
    "clean": CleanModule,
    "rgb": PictureModule,
    "mapper": MapperModule,
    "inverse": InverseModule,
    "cycle": CycleModule,
}
"""By the form of the network."""


def make_module(network: nn.Module, output: Output = "srgb") -> Module:
    """A network of `make_network` as training and export call it. Raises ValueError: it has no such output."""
    if isinstance(network, Direction) and network.form == "raw":
        return ForwardModule(network, output)
    return _MODULES[form_of(network)](network, output)


def form_of(network: nn.Module) -> Form:
    """Of a network that `make_network` made."""
    return cast(Form, network.form)


def make_network(name: str, *, noise: dict[str, Any] | None = None, **options: Any) -> nn.Module:
    """A network with fresh weights.

    Args:
        name: Of `NETWORKS`.
        noise: How the noise level that it is told follows from gain and exposure (see `noise_level`); None for a
            network that is told none.
        options: What else it is made with: `form`, and what its family has.

    Returns:
        The network, with the attributes `form` and `noise`, a `NoiseLevel` or None.

    Raises:
        ValueError: No such name or form, or a value out of range.
        TypeError: An option that the family does not have.
    """
    if name not in NETWORKS:
        raise ValueError(f"there is no {name!r}; choose one of {', '.join(NETWORKS)}")
    known, given = NETWORKS[name], dict(options)
    form = given.get("form", known.forms[0])
    if len(known.forms) == 1 and form in FORMS:
        if form not in known.forms:
            raise ValueError(f"{name} has no form {form}; it has {known.forms[0]} alone")
        given.pop("form", None)
    if noise is not None:
        if form != "raw" or not known.noise:
            raise ValueError(f"{name} of the form {form} is told no noise level; leave noise out")
        given["noise_plane"] = True
    network = known.make(**given)
    network.noise = None if noise is None else make_noise_level(noise)  # pyright: ignore[reportArgumentType]
    return network
