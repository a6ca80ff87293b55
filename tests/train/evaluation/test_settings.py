"""What an evaluation can be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from ispeed.engines import UserError
from ispeed.train.evaluation.settings import EvalConfig, PhotosSet, describe_settings, read_config

SCENES = {"name": "a", "kind": "scenes"}
UNPAIRED = {"name": "a", "kind": "unpaired", "data_set": "raws", "root": "y", "photographs": "p"}
CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "eval").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_those_that_ship_are_read(path: Path):
    config = read_config(path)
    assert config.sets
    assert all(each.name for each in config.sets)


def test_what_ships():
    shipped = ["charts", "deblur", "hdr", "histogram", "misisp", "paramisp", "photos", "quick", "rhid", "unpaired"]
    assert [path.stem for path in CONFIGS] == shipped


def test_settings_are_changed_by_name(write_config):
    config = read_config(write_config(SCENES), ["sets.0.limit=3", "seed=9", "sets.0.options.exposure=[1, 2]"])
    first = config.sets[0]
    assert (first.kind, config.seed) == ("scenes", 9)
    assert first.kind == "scenes"
    assert first.limit == 3
    assert first.unprocessing().light == (1, 2)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"name": "a", "kind": "films"}, "films"),
        ({"name": "a", "kind": "scenes", "folder": "x"}, "unknown setting 'sets.0.folder'"),
        ({"name": "a", "kind": "scenes", "protocol": "best"}, "protocol"),
        ({"name": "a", "kind": "scenes", "options": {"colours": "cameras"}}, "one colour matrix"),
        ({"name": "a", "kind": "scenes", "noise": "loud"}, "noise is 'loud'"),
        ({"name": "a", "kind": "scenes", "options": {"blur": 1}}, "no option 'blur'"),
        ({"name": "a", "kind": "scenes", "crop": 33}, "crop"),
        ({"name": "../a", "kind": "scenes"}, "name"),
        ({"name": "a", "kind": "edge", "dark": 0.5, "bright": 0.5}, "bright must be above dark"),
        ({"name": "a", "kind": "pairs", "data_set": "x", "root": "y", "listed": "z", "hold_out": 0.5}, "both choose"),
        ({"name": "a", "kind": "pairs", "data_set": "raws", "root": "y"}, "for sets of the kind unpaired"),
        ({"name": "a", "kind": "unpaired", "data_set": "raws", "root": "y"}, "photographs"),
        (
            {"name": "a", "kind": "unpaired", "data_set": "x", "root": "y", "photographs": "p", "protocol": "flow"},
            "unknown setting 'sets.0.protocol'",
        ),
        (
            {**UNPAIRED, "listed": "z", "hold_out": 0.5},
            "both choose",
        ),
        ({"name": "a", "kind": "chart", "charts": "c.json", "format": "BayerRG8", "white_balance": "warm"}, "white_b"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(write_config, values: dict, says: str):
    with pytest.raises(UserError) as caught:
        read_config(write_config(values))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_problems_are_told_at_once(write_config):
    with pytest.raises(UserError) as caught:
        read_config(write_config({**SCENES, "crop": 1, "colour": 2}, seed=-1, others=3))
    for part in ("crop", "colour", "seed", "others", "isp-eval --settings"):
        assert part in str(caught.value)


def test_names_tell_sets_apart(write_config):
    with pytest.raises(UserError, match="two sets have the name 'a'"):
        read_config(write_config(SCENES, SCENES))


def test_every_setting_is_described():
    lines = "\n".join(describe_settings())
    for kind in ("photos", "scenes", "hdr", "pairs", "unpaired", "chart", "edge", "flicker"):
        assert f"sets.N ({kind}) " in lines
    for name in {*EvalConfig.model_fields, *PhotosSet.model_fields}:
        assert f"{name}: " in lines
    assert ":  (" not in lines, "a setting without words"
