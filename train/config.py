"""TrainConfig: everything that a recipe in `configs/train` can say, and `isp-train --set` can change.

The docstring under each field is its help; `isp-train --settings` lists them. Unknown keys are refused; all problems
are reported at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard, get_args

from pydantic import Field, field_validator, model_validator

from ..engines.errors import UserError
from ..engines.settings import Settings, make_settings, parse_yaml, read_yaml
from .adversary_settings import AdversarySettings
from .forms import Form
from .run_settings import RunSettings, ValidationSettings
from .sources import SOURCES, AnySource

Share = Annotated[float, Field(ge=0, le=1)]


class NoiseSettings(Settings):
    """How the noise level that a network is told follows from what comes with a frame: see `models.noise_level`."""

    gain_db: tuple[float, float]
    """gains of the camera in dB at which the noise level is 0 and 1"""
    exposure_us: Annotated[float, Field(gt=0)] | None = None
    """exposure in microseconds of which half counts as much as 6 dB of gain; null leaves exposure out"""

    @model_validator(mode="after")
    def _rising(self) -> NoiseSettings:
        from .models import NoiseLevel

        NoiseLevel(self.gain_db, self.exposure_us)
        return self


class ModelSettings(Settings):
    """What is trained."""

    name: str = "lwisp"
    """the network: lwisp, lwisp-s, lwisp-xs, liteisp, liteisp-s, paramisp, hdrisp, efficientisp, robustisp, rmfa-tiny;
    or mapper, which helps to align pairs"""
    form: Form = "raw"
    """what it sees: raw frames; for rgb pictures that are to be denoised or enhanced; for clean clean pictures, as a
    teacher for distillation; for mapper frames with pictures whose colours they are given (the form of mapper); for
    inverse pictures, of which it makes frames, and for cycle both in a circle (forms of paramisp)"""
    residual: bool = False
    """for the form rgb: the network gives the change of the picture"""
    output: Literal["srgb", "linear"] = "srgb"
    """what it gives: srgb learns colours and tone from the pictures; linear gives light in the camera's colours, and
    engines apply the camera's colour matrix and the tone curve to it"""
    sup: bool = False
    """the second upsampling branch of the published file (not for lwisp-xs)"""
    options: dict[str, Any] = Field(default={})
    """what else its family takes, such as {repeats: 3} of mapper or {ranges: high_speed} of paramisp"""
    noise: NoiseSettings | None = None
    """a plane beside what it sees that holds the noise level, 0 to 1, which engines make of the camera's gain (and
    exposure) at run time, such as {gain_db: [0, 24], exposure_us: null}; null for none"""
    weights: Path | None = None
    """checkpoint to start from, of the same network, or a core (.onnx), such as one that ships; null starts from
    chance"""
    parts: dict[Literal["forward", "inverse"], Path] = Field(default={}, validate_default=False)
    """for the form cycle: checkpoints of the forms raw and inverse to start from, such as {forward: FILE, inverse:
    FILE}"""

    @model_validator(mode="after")
    def _fitting_parts(self) -> ModelSettings:
        if self.parts and self.form != "cycle":
            raise ValueError(f"parts are of a network of the form cycle, not of {self.form}; give weights instead")
        return self

    @model_validator(mode="before")
    @classmethod
    def _only_form(cls, values: Any) -> Any:
        from .models import NETWORKS

        if isinstance(values, dict) and (known := NETWORKS.get(str(values.get("name")))) and len(known.forms) == 1:
            return {"form": known.forms[0], **values}
        return values

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        from .models import NETWORKS

        if name not in NETWORKS:
            raise ValueError(f"there is no such network, choose among {', '.join(NETWORKS)}")
        return name


class DataSettings(Settings):
    """What it is trained on, and measured on."""

    train: Annotated[list[AnySource], Field(min_length=1)]
    """sources of training samples; an epoch takes each sample of each once"""
    validation: Annotated[list[AnySource], Field(min_length=1)]
    """sources of the samples that the run is measured on, always the same ones"""
    batch: Annotated[int, Field(ge=1)] = 16
    """samples of a step, of all processes together"""
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """processes that make samples, for each process that trains; 0 makes them between the steps"""
    licence: str = ""
    """what the licences of the data allow the weights, for the model card"""


class DistillSettings(Settings):
    """A teacher: a network that was trained before and shows this one how."""

    teacher: Path
    """checkpoint of the teacher, or a core (.onnx): a network of the form clean with the same shapes, or a larger one
    of the same form"""
    layers: dict[str, str] = Field({}, validate_default=False)
    """layers of this network to those of the teacher that they should resemble, such as {c2: c2}; a list of names where
    they are the same"""
    distance: Literal["unit", "l1", "attention"] = "unit"
    """of features: squared, each place brought to length 1; absolute; or of the maps of where they are large, for
    networks that differ in width"""
    features: Annotated[float, Field(ge=0)] = 0.1
    """weight of that distance, summed over the layers"""
    pictures: Annotated[float, Field(ge=0)] = 0.5
    """weight of the mean absolute difference between the pictures of the two"""

    @field_validator("layers", mode="before")
    @classmethod
    def _same_names(cls, layers: Any) -> Any:
        if not isinstance(layers, list):
            return layers
        if not all(isinstance(name, str) for name in layers):
            raise ValueError("a list is of names alone; for other names of the teacher write {c1: c8, c2: c7}")
        return {name: name for name in layers}

    @model_validator(mode="after")
    def _something(self) -> DistillSettings:
        if not (self.pictures or (self.features and self.layers)):
            raise ValueError("nothing is learned from the teacher; give pictures a weight, or features with layers")
        return self


class OptimSettings(Settings):
    """How steps are made."""

    name: Literal["adam", "adamw"] = "adamw"
    """the optimiser"""
    lr: Annotated[float, Field(gt=0, le=1)] = 5e-4
    """learning rate after the warm-up"""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.99)
    """decay of the means of the gradient and of its square"""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """decay of the weights, times the learning rate for adamw"""


class ScheduleSettings(Settings):
    """How long, and the learning rate on the way: a rise over the warm-up, then half a cosine."""

    steps: Annotated[int, Field(ge=1)] = 100_000
    """steps of the whole run"""
    warmup: Annotated[int, Field(ge=0)] = 1000
    """steps over which the learning rate rises"""
    final: Share = 0.01
    """learning rate at the end, as a share of the highest"""

    @model_validator(mode="after")
    def _short_warmup(self) -> ScheduleSettings:
        if self.warmup >= self.steps:
            raise ValueError(f"warmup is {self.warmup} steps of {self.steps}; make it shorter than the run")
        return self


class EmaSettings(Settings):
    """The mean of the weights over the last steps, which is what is measured and exported."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """share of the mean that stays with a step; less in the first steps; 0 takes the weights themselves"""


class TrainConfig(Settings):
    """A recipe."""

    model: ModelSettings = ModelSettings()
    """what is trained"""
    data: DataSettings
    """what it is trained on, and measured on"""
    loss: dict[str, Any] = Field({"charbonnier": 1.0}, min_length=1)
    """names of losses to their weights, or to a mapping of weight and options, such as
    {charbonnier: 1, perceptual: {weight: 0.05, file: vgg19.pth}}"""
    frames_weight: Annotated[float, Field(ge=0)] = 1.0
    """for the form cycle: weight of the mean absolute difference of the frames, beside the loss of the pictures"""
    distill: DistillSettings | None = None
    """a teacher; null learns from the data alone"""
    adversary: AdversarySettings | None = None
    """discriminators, for pictures that look like photographs though no frame has one; null for none"""
    balance: bool = False
    """each loss, and what each discriminator says, counts by its weight alone, whatever its scale: its slope at the
    weights is brought to length 1 first"""
    optim: OptimSettings = OptimSettings()
    """how steps are made"""
    schedule: ScheduleSettings = ScheduleSettings()
    """how long, and the learning rate on the way"""
    ema: EmaSettings = EmaSettings()
    """the mean of the weights, which is what is exported"""
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    """longest gradient (norm over all weights), longer ones are shortened to it; null leaves them"""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """numbers that the network calculates in, auto: bf16 where GPU or processor have it, else fp32; weights, losses and
    the optimiser stay in fp32"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where: auto takes a GPU if there is one"""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """threads on the processor; null leaves it to torch"""
    deterministic: bool = True
    """the same result every time on the same machine; on a GPU a little slower"""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """of the first weights and of everything drawn"""
    validation: ValidationSettings = ValidationSettings()
    """how the run is measured"""
    run: RunSettings = RunSettings()
    """what the run leaves behind"""

    @model_validator(mode="after")
    def _fitting_samples(self) -> TrainConfig:
        pictures = self.model.form == "rgb"
        for source in (*self.data.train, *self.data.validation):
            if (source.source == "pictures") is not pictures:
                wants = "the source pictures" if pictures else "sources of raw frames"
                raise ValueError(f"a network of the form {self.model.form} takes {wants}, not {source.source}")
        return self

    @model_validator(mode="after")
    def _no_teacher_of_frames(self) -> TrainConfig:
        if self.distill and self.model.form in ("inverse", "cycle"):
            raise ValueError(f"a network of the form {self.model.form} has no teacher; leave distill out")
        return self

    @model_validator(mode="after")
    def _one_objective(self) -> TrainConfig:
        if not (self.adversary or self.balance):
            return self
        if self.distill or self.model.form != "raw":
            raise ValueError("adversary and balance are for networks of the form raw, and without distill")
        if self.balance and self.precision != "fp32":
            raise ValueError("balance looks at each loss's slope by itself, which needs precision fp32")
        if self.adversary and not all(source.crop for source in self.data.train):
            raise ValueError("with an adversary every source under data.train has a crop, as large as the photographs'")
        return self

    @model_validator(mode="after")
    def _fitting_choice(self) -> TrainConfig:
        self.validation.check(self.model.form, self.data.validation, self.photographs)
        return self

    @property
    def photographs(self) -> Path | None:
        """The folder of those whose colours likeness takes."""
        return self.validation.photographs or (self.adversary.photographs if self.adversary else None)

    @model_validator(mode="after")
    def _fitting_crops(self) -> TrainConfig:
        from .models import NETWORKS

        # that of the mosaic; pictures are not packed
        multiple = NETWORKS[self.model.name].multiple // (2 if self.model.form == "rgb" else 1)
        for source in (*self.data.train, *self.data.validation):
            if source.crop and (source.crop % multiple or source.crop < 2 * multiple):
                least = f"multiples of {multiple}, {2 * multiple} at least"
                raise ValueError(f"{self.model.name} takes crops in {least}, not {source.crop}")
        if any(source.crop != self.data.train[0].crop for source in self.data.train):
            raise ValueError("the sources under data.train differ in crop, but samples of a batch are of one size")
        return self


MAY_CHANGE = ("run", "device", "threads", "data.workers", "validation.beside")
"""What may differ from the recipe that a run began with when it goes on."""


def read_values(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """What a recipe says, with changes, and with a name of its run; not validated. See `read_recipe`."""
    values = read_yaml(path)
    for change in changes:
        set_value(values, change)
    if isinstance(run := values.setdefault("run", {}), dict):
        run.setdefault("name", path.stem)
    return values


def read_recipe(path: Path, changes: Sequence[str] = ()) -> TrainConfig:
    """A recipe with changes.

    Args:
        path: YAML file.
        changes: "optim.lr=1e-4", "data.train.0.crop=192": the names of nested settings and places in lists.

    Raises:
        UserError: The file cannot be read, or what is wrong with it, all of it in one line.
    """
    return make_settings(TrainConfig, read_values(path, changes), "isp-train --settings")


def differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between the JSON forms of two recipes, but for `MAY_CHANGE`: "optim.lr was 0.001, is 0.0001"."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        name, old, new = prefix + key, before.get(key), now.get(key)
        if name in MAY_CHANGE or old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, name + ".")
        else:
            found.append(f"{name} was {old!r}, is {new!r}")
    return found


def describe_settings() -> list[str]:
    """A line for each setting: its name, what it does and its default."""
    return described(TrainConfig, SOURCES, "source", "data.train.N")


def described(
    config: type[Settings], kinds: Sequence[type[Settings]] = (), key: str = "", place: str = "", prefix: str = ""
) -> list[str]:
    """A line for each setting of a configuration, and then of the kinds of entries in its list at `place`, which `key`
    tells apart."""
    lines = _described(config, prefix)
    for kind in kinds:
        name = get_args(kind.model_fields[key].annotation)[0]
        lines += _described(kind, f"{place} ({name}) ")
    return lines


def _described(kind: type[Settings], prefix: str) -> list[str]:
    lines = []
    for name, field in kind.model_fields.items():
        inner = next((part for part in get_args(field.annotation) if _is_settings(part)), field.annotation)
        if _is_settings(inner):
            lines += _described(inner, f"{prefix}{name}.")
            continue
        default = "required" if field.is_required() else f"default {field.get_default()}"
        lines.append(f"{prefix}{name}: {' '.join((field.description or '').split())} ({default})")
    return lines


def _is_settings(kind: Any) -> TypeGuard[type[Settings]]:
    return isinstance(kind, type) and issubclass(kind, Settings)


def set_value(values: dict[str, Any], change: str) -> None:
    """Change one of nested values, as `read_recipe` does. Raises UserError: no NAME=VALUE, or no such place."""
    name, equals, text = change.partition("=")
    if not equals or not name:
        raise UserError(f"--set needs NAME=VALUE, such as optim.lr=1e-4, not {change!r}")
    *path, last = name.split(".")
    place: Any = values
    for key in path:
        place = _step(place, key, name, make=True)
    try:
        value = _scalar(parse_yaml(text))
    except ValueError as error:
        raise UserError(f"--set {name}: {text!r} is no value in YAML") from error
    if isinstance(place, list):
        _step(place, last, name)
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise UserError(f"--set {name}: {'.'.join(path)} is a value and holds no settings")


def _scalar(value: Any) -> Any:
    """YAML takes 1e-4 for a text, because it has no dot; here it is a number."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", value):
        return float(value)
    return value


def _step(place: Any, key: str, name: str, make: bool = False) -> Any:
    if isinstance(place, list):
        if not key.isdigit() or int(key) >= len(place):
            raise UserError(f"--set {name}: {key!r} is no place in a list of {len(place)}, counted from 0")
        return place[int(key)]
    if isinstance(place, dict):
        if make and place.get(key) is None:
            place[key] = {}
        return place.get(key)
    raise UserError(f"--set {name}: what should hold {key!r} is a value and holds no settings")
