"""The models that ship."""

from __future__ import annotations

import pytest

from ispeed.engines import UserError
from ispeed.engines.core import read_core
from ispeed.engines.zoo import names, zoo_path


def test_the_family_ships():
    assert names() == ["lwisp", "lwisp-s", "lwisp-xs"]


@pytest.mark.parametrize("name", ["lwisp", "lwisp-s", "lwisp-xs"])
def test_a_model_is_a_whole_core_with_a_card(name: str):
    path = zoo_path(name)
    core = read_core(path)
    assert core.info.model == name
    assert core.info.inputs == ("wb_r", "wb_g", "wb_b")
    assert core.info.licence
    assert core.info.data
    card = path.with_suffix(".md").read_text()
    assert name in card.splitlines()[0]


@pytest.mark.parametrize("name", ["", "nobody", "../zoo/lwisp", "catalogue"])
def test_a_name_that_does_not_ship_is_one_sentence(name: str):
    with pytest.raises(UserError, match="lwisp, lwisp-s, lwisp-xs") as error:
        zoo_path(name)
    assert "\n" not in str(error.value)
