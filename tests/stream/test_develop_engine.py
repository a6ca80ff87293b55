"""The engine of the develop stage, as settings have it."""

from __future__ import annotations

import logging

import pytest

from ispeed.engines import UserError
from ispeed.stream.config import make_config
from ispeed.stream.develop_engine import open_as_set

MATRIX = [[1.5, -0.5, 0.0], [0.0, 1.0, 0.0], [0.0, -0.25, 1.25]]


def test_a_measured_matrix_is_left_out_where_the_engine_has_learned_its_colours(caplog: pytest.LogCaptureFixture):
    values = {"engine": "light-unpaired", "colour_matrix": MATRIX, "measured": {"colour": {"frames": 1}}}
    with caplog.at_level(logging.WARNING):
        open_as_set(make_config(values).model_dump(mode="json")).close()
    assert "the colour matrix of the calibration is left out: light-unpaired has learned its colours" in caplog.text
    caplog.clear()
    open_as_set(make_config({**values, "engine": "lwisp-xs"}).model_dump(mode="json")).close()  # which takes it
    assert caplog.text == ""
    with pytest.raises(UserError, match="there is no engine 'nope'"):
        open_as_set(make_config({**values, "engine": "nope"}).model_dump(mode="json"))


def test_a_matrix_of_the_users_own_is_not_passed_over():
    for measured in (None, {"dark": {"frames": 4}}):
        values = {"engine": "light-unpaired", "colour_matrix": MATRIX, "measured": measured}
        with pytest.raises(UserError, match="leave the colour matrix"):
            open_as_set(make_config(values).model_dump(mode="json"))
