"""What the settings of every command have in common: YAML files, unknown keys refused, all problems at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import UserError

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
    except ValidationError as error:
        raise UserError("; ".join(_sentence(problem, listed_by) for problem in error.errors())) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError when there is no such file or no mapping in it."""
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the config {path}: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"the config {path} is no valid YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"the config {path} must hold 'name: value' lines")
    return values


def _sentence(problem: Any, listed_by: str) -> str:
    name = ".".join(str(part) for part in problem["loc"]) or "config"
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {name!r}: {listed_by} lists those that exist"
    return f"{name}: {problem['msg'][0].lower()}{problem['msg'][1:]} (got {problem['input']!r})"
