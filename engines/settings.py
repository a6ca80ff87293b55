"""What the settings of every command have in common: YAML files, unknown keys refused, all problems at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import UserError, shown

_MOST_VALUES = 1_000_000  # a calibration of many defects has some 10,000
_DEEPEST = 64
_NO_TEXT = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "timestamp"))
_BRACKETS = re.compile(r"[][{}]")

Model = TypeVar("Model", bound=BaseModel)


class Settings(BaseModel):
    """Fields with a docstring each, which is their help; nothing but them, and no infinite numbers."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False)


def make_settings(kind: type[Model], values: dict[str, Any], listed_by: str) -> Model:
    """Validates `values`, named as in the YAML file.

    Args:
        kind: The settings to make.
        values: Of its fields.
        listed_by: The command that lists them all, for the sentence about an unknown one.

    Raises:
        UserError: Every problem, in one line.
    """
    try:
        return kind.model_validate(values)
    except UnicodeEncodeError as error:
        raise UserError(f"{error.object[:200]!r} is no valid text: write it in UTF-8") from error
    except ValidationError as error:
        sentences = (_sentence(problem, values, listed_by) for problem in error.errors())
        raise UserError("; ".join(dict.fromkeys(sentences))) from error


def read_yaml(path: Path, as_text: Collection[str] = ()) -> dict[str, Any]:
    """The mapping in a YAML file, with `as_text` as in `parse_yaml`.

    Raises UserError when there is no such file or no mapping in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the config {path} is no text file") from error
    try:
        values = parse_yaml(text, as_text)
    except ValueError as error:
        raise UserError(f"the config {path} is no valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"the config {path} must hold 'name: value' lines")
    return values


def parse_yaml(text: str, as_text: Collection[str] = ()) -> Any:
    """What a text in YAML says.

    Args:
        text: The text.
        as_text: Settings whose value, or whose keys where it is a mapping, are names: they are taken as they stand,
            though they may look like numbers (to YAML 0123 is 83).

    Raises:
        ValueError: It is no YAML, or holds itself, as aliases may; in one line.
    """
    _require_shallow(text)
    try:
        values = _load(text, as_text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError comes of dates that no calendar has
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    _size(values, {})
    return values


def _load(text: str, as_text: Collection[str]) -> Any:
    loader = yaml.SafeLoader(text)
    try:
        whole = loader.get_single_node()
        for name, value in whole.value if isinstance(whole, yaml.MappingNode) else ():
            if name.value in as_text:
                _take_as_text([key for key, _ in value.value] if isinstance(value, yaml.MappingNode) else [value])
        return None if whole is None else loader.construct_document(whole)
    finally:
        loader.dispose()


def _take_as_text(nodes: Iterable[yaml.Node]) -> None:
    for node in nodes:
        if node.tag in _NO_TEXT:
            node.tag = "tag:yaml.org,2002:str"


def _require_shallow(text: str) -> None:
    """Raises ValueError where brackets are nested so deeply that PyYAML takes seconds to give up. Those in texts and
    comments are counted as well, which closing ones make good."""
    depth = 0
    for bracket in _BRACKETS.finditer(text):
        depth = max(0, depth + (1 if bracket[0] in "[{" else -1))
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")


def _size(value: Any, sizes: dict[int, int]) -> int:
    """How many values `value` stands for, each alias counted as often as it is used. `sizes` has those of its parts, by
    identity; -1 while they are being counted."""
    if not isinstance(value, (dict, list, tuple, set)):
        return 1
    if id(value) not in sizes:
        sizes[id(value)] = -1
        parts = (*value.keys(), *value.values()) if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(_size(part, sizes) for part in parts)
    if sizes[id(value)] < 0:
        raise ValueError("an alias in it stands for what it is in")
    if sizes[id(value)] > _MOST_VALUES:
        raise ValueError(f"with its aliases it stands for more than {_MOST_VALUES} values")
    return sizes[id(value)]


def _sentence(problem: Any, values: Any, listed_by: str) -> str:
    name = ".".join(_named(problem, values)) or "config"
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {name!r}: {listed_by} lists those that exist"
    said = problem["msg"].removeprefix("Value error, ")
    # of a missing setting, or of several that do not go together, pydantic gives all that is around them
    got = "" if isinstance(problem["input"], dict) else f" (got {shown(problem['input'])})"
    return f"{name}: {said[0].lower()}{said[1:]}{got}"


def _named(problem: Any, values: Any) -> Iterator[str]:
    """The parts of the name of a setting as it is in the file: pydantic names, besides, which member of a union it took
    an entry for."""
    place = values
    for number, part in enumerate(problem["loc"], 1):
        missing = problem["type"] == "missing" and number == len(problem["loc"])
        if isinstance(place, dict) and part in list(place.values()) and not missing:
            following = problem["loc"][number : number + 1]
            leads_on = isinstance(_inner(place, part), dict) or not isinstance(next(iter(following), 0), str)
            if part not in place or not leads_on:  # a member may be called as one of its own settings is
                continue
        if isinstance(part, str) and not isinstance(place, dict) and place is not None:
            continue
        yield str(part)
        place = _inner(place, part)


def _inner(place: Any, part: Any) -> Any:
    try:
        return place[part]
    except (KeyError, IndexError, TypeError):
        return None
