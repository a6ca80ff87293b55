"""The models that ship."""

from __future__ import annotations

import numpy as np
import pytest

from ispeed.engines import RawFormat, UserError, open_engine
from ispeed.engines.core import read_core
from ispeed.engines.zoo import names, zoo_path

MODELS = {
    "light-paired": "efficientisp",
    "light-unpaired": "efficientisp",
    "lwisp": "lwisp",
    "lwisp-hdr": "lwisp",
    "lwisp-s": "lwisp-s",
    "lwisp-xs": "lwisp-xs",
}
"""Those that ship, and their networks."""

OWN_LOOK = "light-unpaired"
"""The one whose colours and tone are its own."""


def test_the_family_ships():
    assert names() == list(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_a_whole_core_with_a_card(name: str):
    path = zoo_path(name)
    core = read_core(path)
    assert (core.info.name, core.info.model) == (name, MODELS[name])
    assert core.info.output == ("srgb" if name == OWN_LOOK else "linear")
    assert core.info.inputs == ("wb_r", "wb_g", "wb_b")
    assert core.info.licence
    assert core.info.data
    card = path.with_suffix(".md").read_text()
    assert name in card.splitlines()[0]


@pytest.mark.parametrize("size", [(640, 30), (2, 2), (63, 65)])
@pytest.mark.parametrize("name", names())
def test_a_model_develops_any_size(name: str, size: tuple[int, int], rings):
    width, height = size
    fmt = RawFormat(width, height, "BayerGR8")
    raw, srgb = rings(fmt, [np.full((height, width), 128)])
    engine = open_engine(name, white_balance=(1.0, 1.0, 1.0))
    try:
        engine.prepare(fmt, 1, raw, srgb)
        engine.develop([0], [0], np.full((1, 3), np.nan, np.float32)).wait()
    finally:
        engine.close()
    grey = srgb.slot(0).astype(int)
    if name.endswith("-hdr"):  # whose tone is its own
        assert 80 < np.median(grey) < 220
        assert grey.std() < 6
    else:
        # the sRGB curve of half the white level; for the smallest networks, which see zeros beyond, 2 x 2 is all border
        assert abs(int(np.median(grey)) - 188) <= (12 if name.startswith("light") and width == 2 else 6)
    assert srgb.untouched()


@pytest.mark.parametrize("name", ["", "nobody", "../zoo/lwisp", "catalogue"])
def test_a_name_that_does_not_ship_is_one_sentence(name: str):
    with pytest.raises(UserError, match="light-paired, light-unpaired, lwisp, lwisp-hdr, lwisp-s, lwisp-xs") as error:
        zoo_path(name)
    assert "\n" not in str(error.value)
