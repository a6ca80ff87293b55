"""Recipes of several stages, each of which takes up what those before it left, as one run that can go on.

A recipe with `stages` has the settings of each stage under its name, in order, and beside `stages` what holds for all
that train. A stage trains, or has `align`: pairs that are brought to lie on each other, as by isp-align; `pairs`: pairs
that are made, to try a recipe on; or `invert`: raw frames of photographs, as by isp-invert. Texts may name `$run`, the
folder of the whole run, in which each stage has a folder of its own, and the recipe's `variables`, which may name
`$run` themselves:

    run: {name: misisp}
    variables: {pairs: data/paired/rhid}
    stages:
      mapper: {model: {name: mapper}, data: ...}
      align: {align: {data_set: rhid, root: $pairs, mapper: $run/mapper/last.pt}}
      isp: {model: {name: lwisp}, data: {train: [{source: pairs, data_set: folder, root: $run/align}], ...}, ...}
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from pydantic import Field
from torch import nn

from ..engines.errors import UserError
from ..engines.settings import Settings, make_settings, read_yaml
from .alignment.settings import AlignSettings
from .checkpoint import load_checkpoint
from .config import RunSettings, TrainConfig, described, differences, read_values
from .config import describe_settings as describe_recipe
from .data.made_pairs import RECORD as MADE
from .data.made_pairs import MadePairs, make_pairs
from .data.profile import read_profile
from .invert import RECORD as INVERTED
from .invert import InvertSettings, invert_photos
from .models import form_of, make_module

_LISTED_BY = "isp-train --settings"

_LOOK_AGAIN_S = 0.5
"""How often processes that wait for the first one look whether it is done, in seconds."""


class AlignStage(AlignSettings):
    """Settings of isp-align, and of what it works on."""

    root: Path
    """folder that holds the pairs"""
    mapper: Path | None = None
    """checkpoint of a mapper, which makes frames look like their pictures; null develops them and matches colours"""


class InvertStage(InvertSettings):
    """Settings of isp-invert, and of what it works on."""

    photographs: Path
    """folder of photographs (JPEG, PNG)"""
    network: Path
    """checkpoint of paramisp, of the form inverse or cycle"""
    camera: Path
    """profile of the camera, such as configs/cameras/track.yaml"""


class _Other(Settings):
    run: RunSettings


class _Align(_Other):
    align: AlignStage


class _Pairs(_Other):
    pairs: MadePairs


class _Invert(_Other):
    invert: InvertStage


OtherStage = AlignStage | MadePairs | InvertStage

_OTHERS: dict[str, type[Settings]] = {"align": _Align, "pairs": _Pairs, "invert": _Invert}
"""What a stage may have that does not train, each with nothing beside it."""


Value = str | int | float | None
Names = dict[str, Value]
"""Values of a recipe's variables."""


class _Whole(Settings):
    """What of a recipe with stages holds for the whole run."""

    run: RunSettings = RunSettings()
    variables: dict[str, Value] = Field({})


_AS_ONE = ("loss", "options")
"""Settings that are mappings by themselves, with names that the user chooses: a stage that has its own has no other."""


@dataclass(frozen=True)
class Stage:
    """One of the stages, or all of a recipe that has none.

    Attributes:
        name: "" for a recipe without stages.
        config: Its settings.
        folder: What it leaves is there.
    """

    name: str
    config: TrainConfig | OtherStage
    folder: Path


def read_stages(path: Path, changes: Sequence[str] = (), variables: Sequence[str] = ()) -> list[Stage]:
    """The stages of a recipe, with changes.

    Args:
        path: YAML file.
        changes: "optim.lr=1e-4", or of one stage "stages.isp.optim.lr=1e-4": as of `config.read_recipe`.
        variables: "pairs=FOLDER": of the recipe's `variables`.

    Raises:
        UserError: The file cannot be read, or what is wrong with it, all of it in one line.
    """
    values = read_values(path, changes)
    whole = make_settings(_Whole, {"run": values["run"], "variables": values.pop("variables", {})}, _LISTED_BY)
    declared = read_yaml(path).get("variables") or {}
    if unknown := whole.variables.keys() - declared.keys():
        raise UserError(
            f"{path} has no variable {', '.join(sorted(unknown))}{_known(whole.variables.keys() - unknown)}"
        )
    folder = whole.run.folder / whole.run.name
    names = _changed(
        {name: _like(name, value, declared[name]) for name, value in whole.variables.items()}, variables, path
    )
    names = {name: _in_run(value, folder) for name, value in names.items()} | {"run": str(folder)}
    stages = values.pop("stages", None)
    if stages is None:
        config = make_settings(TrainConfig, _filled(values, names), _LISTED_BY)
        return [Stage("", config, folder)]
    if not isinstance(stages, dict) or not stages or not all(isinstance(each, dict) for each in stages.values()):
        raise UserError("stages holds the settings of each stage under its name, such as isp: {model: {name: lwisp}}")
    found, wrong = [], []
    for name, own in stages.items():
        try:
            found.append(_stage(str(name), own, values, names, folder))
        except UserError as error:
            wrong.append(f"stages.{name}: {error}")
    if wrong:
        raise UserError("; ".join(wrong))
    return found


def _stage(name: str, own: dict[str, Any], shared: dict[str, Any], names: Names, folder: Path) -> Stage:
    for key, kind in _OTHERS.items():
        if key in own:
            checked = make_settings(kind, {"run": {"name": name}, **_filled(own, names)}, _LISTED_BY)
            return Stage(name, getattr(checked, key), folder / name)
    values = _filled(_over(shared, own), names)
    values["run"] = {**values["run"], "folder": folder, "name": name}
    return Stage(name, make_settings(TrainConfig, values, _LISTED_BY), folder / name)


def _changed(names: Names, changes: Sequence[str], path: Path) -> Names:
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals or name not in names:
            raise UserError(f"{change!r} sets no variable of {path}{_known(names)}")
        names = names | {name: _number(name, value) if isinstance(names[name], int | float) else value}
    return names


def _like(name: str, value: Value, declared: Value) -> Value:
    """`value`, but a text where one was declared: a folder may be called 2024. Raises UserError: no number for one."""
    if isinstance(declared, int | float) and isinstance(value, str):
        return _number(name, value)
    return str(value) if isinstance(declared, str) and value is not None else value


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise UserError(f"the variable {name} is a number, not {value!r}") from error


def _in_run(value: Value, folder: Path) -> Value:
    return Template(value).safe_substitute(run=folder) if isinstance(value, str) else value


def _known(names: Iterable[str]) -> str:
    listed = ", ".join(sorted(names))
    return f"; it has {listed}" if listed else ", and it has none"


def _over(shared: Any, own: Any) -> Any:
    """Settings of a stage over those that hold for all; groups of settings are joined, all else is replaced."""
    if not isinstance(shared, dict) or not isinstance(own, dict):
        return own
    joined = {key: value if key in _AS_ONE else _over(shared.get(key), value) for key, value in own.items()}
    return {**shared, **joined}


def _filled(values: Any, names: Names) -> Any:
    """Nested values with variables put into the texts; what is nothing but a variable may be null, or a number."""
    if isinstance(values, dict):
        return {key: _filled(value, names) for key, value in values.items()}
    if isinstance(values, list):
        return [_filled(value, names) for value in values]
    if not isinstance(values, str):
        return values
    for name, value in names.items():
        if not isinstance(value, str) and values in (f"${name}", f"${{{name}}}"):
            return value
    try:
        return Template(values).substitute(names)
    except KeyError as error:
        raise UserError(f"{values!r} names no variable of the recipe; it has {', '.join(names)}") from error
    except ValueError as error:
        raise UserError(f"{values!r} has a $ that names nothing; write $$ for the sign itself") from error


def check_inputs(stages: Sequence[Stage]) -> None:
    """See that what later stages take is there, unless an earlier one makes it: hours may pass until their turn comes.
    The first tells by itself.

    Raises:
        UserError: What is missing, all of it.
    """
    missing = []
    trained = [(stage, stage.config.validation) for stage in stages if isinstance(stage.config, TrainConfig)]
    unchosen = {stage.folder / "best.pt": stage.name for stage, validation in trained if not validation.choose}
    for stage in stages[1:]:
        for name, path in _paths(stage.config):
            if path in unchosen:
                raise UserError(
                    f"stages.{stage.name}: {name}: the stage {unchosen[path]} chooses no best.pt: set its "
                    "validation.choose, or take its last.pt"
                )
            if not path.is_relative_to(stage.folder.parent) and not os.path.exists(path):
                missing.append(f"stages.{stage.name}: {name}: there is no {path}")
    if missing:
        raise UserError(f"{'; '.join(missing)}: make it first (the comment of the recipe says how), or name another")


def _paths(values: Any, name: str = "") -> Iterator[tuple[str, Path]]:
    """Of nested settings, but for where a run goes."""
    if isinstance(values, Path):
        yield name, values
    elif isinstance(values, Settings) and not isinstance(values, RunSettings):
        for key in type(values).model_fields:
            yield from _paths(getattr(values, key), f"{name}.{key}" if name else key)
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _paths(value, f"{name}.{key}")
    elif isinstance(values, list | tuple):
        for place, value in enumerate(values):
            yield from _paths(value, f"{name}.{place}")


def other_stage(settings: OtherStage, folder: Path, *, resume: bool) -> int:
    """Do what a stage asks for that does not train, unless it is done already. Of several processes the first one does
    it, and the others wait.

    Args:
        settings: Of the stage.
        folder: Where what it makes goes.
        resume: Leave what an earlier run left there, if it was made with these settings.

    Returns:
        An exit code; that of isp-align, or 0.

    Raises:
        UserError: What is asked for cannot be read, the mapper is none, or the folder holds something else.
    """
    from .alignment.page import RECORD as ALIGNED

    record = folder / {AlignStage: ALIGNED, MadePairs: MADE, InvertStage: INVERTED}[type(settings)]
    if int(os.environ.get("RANK", 0)):
        while not record.exists():
            time.sleep(_LOOK_AGAIN_S)
        return 0
    if resume and record.exists():
        kept, now = json.loads(record.read_text()), settings.model_dump(mode="json")
        before = kept["settings"]
        if isinstance(settings, InvertStage):
            # the record has these apart, and of the camera all that its profile said
            before |= {"photographs": kept["photos"][0], "network": kept["network"]["file"], "camera": kept["profile"]}
            now["camera"] = read_profile(settings.camera).model_dump(mode="json")
        if changed := differences(before, now):
            raise UserError(
                f"{folder} was made with other settings ({'; '.join(changed)}); set run.name to another name"
            )
        return 0
    if isinstance(settings, AlignStage):
        return _align(settings, folder)
    if isinstance(settings, InvertStage):
        photos, frames = invert_photos(
            [settings.photographs], settings.network, read_profile(settings.camera), settings, folder
        )
        sys.stdout.write(f"{folder}: {frames} frames of {photos} photographs\n")
        return 0
    sys.stdout.write(f"{folder}: {make_pairs(settings, folder)} pairs made\n")
    return 0


def _align(settings: AlignStage, folder: Path) -> int:
    from .align_cli import align_folder, say

    look = load_mapper(settings.mapper) if settings.mapper else None
    return say(align_folder(settings.root, folder, settings, look=look), folder)


def load_mapper(path: Path) -> nn.Module:
    """The mapper in a checkpoint, as isp-align takes it. Raises UserError: it holds something else."""
    checkpoint = load_checkpoint(path)
    if form_of(checkpoint.network) != "mapper":
        raise UserError(f"mapper: {path} holds a {checkpoint.model}; give the checkpoint of a mapper")
    return make_module(checkpoint.network, checkpoint.output).eval()


def describe_settings() -> list[str]:
    """A line for each setting of a recipe, of stages too: its name, what it does and its default."""
    return [
        *describe_recipe(),
        *described(AlignStage, prefix="stages.NAME.align."),
        *described(MadePairs, prefix="stages.NAME.pairs."),
        *described(InvertStage, prefix="stages.NAME.invert."),
    ]
