"""What every command says of settings that cannot be: names as in the file, and nothing but what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, model_validator

from ispeed.engines.errors import UserError
from ispeed.engines.settings import Settings, make_settings, parse_yaml, read_yaml


class Square(Settings):
    kind: Literal["square"]
    edge: Annotated[int, Field(ge=1)]
    colour: Literal["none"] | tuple[float, float] = "none"

    @model_validator(mode="after")
    def _even(self) -> Square:
        if self.edge % 2:
            raise ValueError("edge must be even")
        return self


class Circle(Settings):
    kind: Literal["circle"]
    radius: int
    circle: list[int] = Field([])


class Drawing(Settings):
    shapes: list[Annotated[Square | Circle, Field(discriminator="kind")]]
    named: dict[str, int] = Field({})


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ({"kind": "square"}, "shapes.0.edge: field required"),
        ({"kind": "square", "edge": 0}, "shapes.0.edge: input should be greater than or equal to 1 (got 0)"),
        ({"kind": "square", "edge": 3}, "shapes.0: edge must be even"),
        ({"kind": "square", "edge": 2, "radius": 1}, "unknown setting 'shapes.0.radius': it lists those that exist"),
        ({"kind": "circle", "radius": "square"}, "shapes.0.radius: input should be a valid integer"),
        ({"kind": "circle", "radius": "x", "circle": [1]}, "shapes.0.radius: input should be a valid integer"),
        ({"kind": "circle", "radius": 1, "circle": [1, "x"]}, "shapes.0.circle.1: input should be a valid integer"),
        ({"kind": "circle", "radius": 1, "circle": 3}, "shapes.0.circle: input should be a valid list"),
        ({"kind": "circle", "circle": [1]}, "shapes.0.radius: field required"),
        ({"kind": "line"}, "shapes.0: input tag 'line' found using 'kind' does not match any of the expected tags"),
        ({"kind": "square", "edge": 2, "colour": [1, "x"]}, "; shapes.0.colour.1: input should be a valid number"),
        (3, "shapes.0: input should be a valid dictionary"),
    ],
)
def test_a_setting_is_named_as_in_the_file(shape: Any, says: str):
    with pytest.raises(UserError) as caught:
        make_settings(Drawing, {"shapes": [shape]}, "it")
    assert says in str(caught.value)
    assert "kind'" not in str(caught.value).replace("using 'kind'", ""), "what is around it is not repeated"


def test_values_that_are_too_long_to_show():
    with pytest.raises(UserError, match=r"got a value that is too long to show"):
        make_settings(Drawing, {"shapes": 1 << 50_000}, "it")


def test_what_a_sentence_quotes_cannot_steer_a_terminal_or_fill_it():
    assert str(UserError("a\nb\x1b[2J\udcff")) == r"a\nb\x1b[2J\udcff"
    assert str(UserError("é – 画")) == "é – 画"
    long = str(UserError("begin" + "x" * 10_000 + "end"))
    assert (long[:5], long[-3:], len(long) < 2100) == ("begin", "end", True)


def test_aliases_that_grow_beyond_measure_are_refused_before_they_do():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    with pytest.raises(ValueError, match="it stands for more than 1000000 values"):
        parse_yaml("\n".join(lines))
    assert parse_yaml("a: &a [1, 2]\nb: [*a, *a]") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


def test_all_problems_are_said_once():
    values = {"shapes": [{"kind": "circle"}, {"kind": "square", "edge": -1}], "named": {"a": "b"}}
    with pytest.raises(UserError) as caught:
        make_settings(Drawing, values, "it")
    names = [sentence.partition(":")[0] for sentence in str(caught.value).split("; ")]
    assert names == ["shapes.0.radius", "shapes.1.edge", "named.a"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [", "is no valid YAML: while parsing"),
        (b"a: 2024-13-45", "is no valid YAML: month must be in 1..12"),
        (b"a: &a [*a]", "is no valid YAML: an alias in it stands for what it is in"),
        (b"a: &a {b: *a}", "is no valid YAML: an alias in it stands for what it is in"),
        (b"a: " + b"[" * 5000, "is no valid YAML: it is nested too deeply"),
        (b"\xff\xd8\xff\xe0", "is no text file"),
        (b"- 1", "must hold 'name: value' lines"),
    ],
)
def test_files_that_are_no_settings(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    assert f"the config {path} {says}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"), [("", None), ("a: &a [1]\nb: *a", {"a": [1], "b": [1]}), ("2024-01-02", ...)]
)
def test_what_is_yaml(text: str, value: Any):
    found = parse_yaml(text)
    assert found == value if value is not ... else found is not None
