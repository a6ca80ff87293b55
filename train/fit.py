"""From a recipe to a checkpoint: `setup` puts everything together, `fit` trains, `validate` measures.

What a step does follows from the weights, the optimiser's state (and those of discriminators, if there are any) and the
number of the step alone: the samples, their
order, the learning rate and every random number are drawn from (seed, step). So a run that was killed goes on from its
last checkpoint to the same weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import hashlib
import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..engines.errors import UserError
from .checkpoint import Checkpoint, load_checkpoint
from .config import ModelSettings, ScheduleSettings, TrainConfig
from .devices import StopRequest, make_fabric, quickened, steady, steady_pads
from .ema import WeightMean
from .feed import Batch, Feed
from .metrics import psnr
from .models import BothISPs, Module, form_of, make_module, make_network
from .objectives import Objective, make_objective, see, wanted
from .report import Report, picture_row
from .runs import RunFolder, code_version
from .sources import Opened, SampleSet, beside_photographs, open_sources
from .tally import Tally, sum_over_processes

_PICTURES = 4

_LAST_TENSORS_S = 0.5
"""What is left to the threads of a process group before it ends, in seconds."""


class TrainingFault(Exception):
    """The run cannot go on, though nothing was wrong with the recipe's form: its loss is no number any more."""


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        checkpoint: The file.
        steps: How many were taken.
        start_db, end_db: PSNR on the validation samples before and after, in dB.
        improved: By as much as the recipe asks.
    """

    checkpoint: Path
    steps: int
    start_db: float
    end_db: float
    improved: bool


@dataclass
class Job:
    """A run under way. `network` is `core` as Fabric wraps it; `folder` and `report` are those of the first process."""

    config: TrainConfig
    fabric: Fabric
    core: Module
    network: nn.Module
    mean: WeightMean
    optimiser: Any
    scaler: torch.amp.GradScaler | None
    objective: Objective
    feed: Feed
    held_out: SampleSet
    facts: dict[str, Any]
    about: str
    folder: RunFolder | None
    report: Report | None = None
    step: int = 0
    start_db: float | None = None
    end_db: float = math.nan


def train(config: TrainConfig, *, resume: bool = False) -> Outcome:
    """Train as a recipe says, or go on where an earlier run of it stopped.

    Args:
        config: The recipe.
        resume: Go on from the last checkpoint in the run's folder, from the start if there is none.

    Raises:
        UserError: Data, device, folder or disk are not as the recipe needs them.
        TrainingFault: The loss is no number any more.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; a checkpoint was written.
    """
    with ExitStack() as stack:
        stack.enter_context(quickened())
        stack.enter_context(steady(config.deterministic, config.threads))
        fabric, scaler = make_fabric(config.device, config.precision)
        stack.callback(_leave_group)
        folder = stack.enter_context(RunFolder(config, resume=resume)) if fabric.is_global_zero else None
        job = setup(config, fabric, scaler, folder)
        if folder:
            job.report = stack.enter_context(Report(folder, config, job.step))
        try:
            fit(job)
        except torch.OutOfMemoryError as error:
            kept = f"; {folder.last_good()}" if folder else ""
            raise UserError(f"the GPU's memory is too small: set data.batch or crop lower{kept}") from error
    start_db = math.nan if job.start_db is None else job.start_db
    wanted = config.validation.improve_db
    improved = wanted is None or job.end_db - start_db >= wanted
    return Outcome(config.run.folder / config.run.name / "last.pt", job.step, start_db, job.end_db, improved)


def setup(config: TrainConfig, fabric: Fabric, scaler: torch.amp.GradScaler | None, folder: RunFolder | None) -> Job:
    """Put a run together, as its folder says where it stopped. Raises UserError."""
    train_set = open_sources(config.data.train, config.seed, held_out=False)
    if (config.adversary or config.balance) and fabric.world_size > 1:
        raise UserError(
            f"adversary and balance are for one process, not for {fabric.world_size}; start isp-train without torchrun"
        )
    if config.adversary:
        train_set = beside_photographs(train_set, config)
    held_out = open_sources(config.data.validation, config.seed, held_out=True)
    core = _module(config).to(fabric.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if config.deterministic and fabric.device.type == "cuda":
        steady_pads(core)
    kind = torch.optim.AdamW if config.optim.name == "adamw" else torch.optim.Adam
    optim = config.optim
    optimiser = kind(core.parameters(), optim.lr, betas=optim.betas, weight_decay=optim.weight_decay)
    mean = WeightMean(core, config.ema.decay)
    network, wrapped = fabric.setup(core, optimiser)
    loader = {"workers": config.data.workers, "pin": fabric.device.type == "cuda"}
    feed = Feed(
        train_set.samples, config.data.batch, config.seed, rank=fabric.global_rank, world=fabric.world_size, **loader
    )
    objective = make_objective(config, core, fabric.autocast).to(fabric.device)
    facts = _facts(config, train_set, held_out)
    job = Job(
        config=config,
        fabric=fabric,
        core=core,
        network=network,
        mean=mean,
        optimiser=wrapped,
        scaler=scaler,
        objective=objective,
        feed=feed,
        held_out=held_out.samples,
        facts=facts,
        about=train_set.about,
        folder=folder,
    )
    begun = fabric.broadcast(folder.begun.training if folder and folder.begun else None)
    if begun:
        _continue(job, begun)
    return job


def fit(job: Job) -> None:
    """Train to the end of the schedule. Raises as `train`."""
    every, steps = job.config.run, job.config.schedule.steps
    if job.start_db is None:
        job.start_db = job.end_db = validate(job)
    batches, tally = job.feed.batches(job.step), Tally(job.fabric)
    with StopRequest() as stop:
        while job.step < steps:
            begun = time.monotonic()
            batch = job.fabric.to_device(next(batches))
            tally.waited(time.monotonic() - begun)
            tally.add(_take_step(job, batch), len(batch["target"]))
            if job.report:
                job.report.step(job.step)
            last, due = job.step == steps, job.step % every.checkpoint_every == 0
            asked = _asked(job, stop)
            if last or due or asked or job.step % every.log_every == 0:
                _log(job, tally)
            if last or job.step % job.config.validation.every == 0:
                job.end_db = validate(job)
            if last or due or asked:
                save(job)
            if asked and not last:
                raise KeyboardInterrupt


def _take_step(job: Job, batch: Batch) -> dict[str, Tensor]:
    """Make the objective a little smaller. Returns it, its parts and the length of the gradient."""
    config = job.config
    # losses may draw numbers; seeded by the step, their state is nothing that a checkpoint would have to hold
    torch.manual_seed(int(np.random.SeedSequence([config.seed, job.step, job.fabric.global_rank]).generate_state(1)[0]))
    for group in job.optimiser.param_groups:
        group["lr"] = config.optim.lr * learning_rate_share(config.schedule, job.step)
    total, parts = job.objective(job.network, batch)
    job.fabric.backward(total)
    longest = config.clip or math.inf
    norm = job.fabric.clip_gradients(job.network, job.optimiser, max_norm=longest, error_if_nonfinite=False)
    job.optimiser.step()
    job.optimiser.zero_grad()
    job.mean.update(job.core, job.step)
    parts = parts | job.objective.stepped(batch, job.step)
    job.step += 1
    return {"loss": total.detach(), **parts, "grad_norm": norm.detach()}  # pyright: ignore[reportOptionalMemberAccess]


@torch.inference_mode()
def validate(job: Job) -> float:
    """Mean PSNR in dB of the mean weights, in float32, over the validation samples; the same on every process. Where
    pictures are made better, that of the pictures that are given is logged besides."""
    job.held_out.set_epoch(0)
    scores, given, rows = [], [], []
    for index in range(job.fabric.global_rank, len(job.held_out), job.fabric.world_size):
        sample = {name: tensor[None].to(job.fabric.device) for name, tensor in job.held_out[index].items()}
        picture = see(job.mean.module, job.core.takes, sample, job.config.model.output)
        target = wanted(job.core, sample)
        scores.append(psnr(picture.cpu(), target.cpu().clamp(0.0, 1.0)))
        if "input" in sample:
            given.append(psnr(sample["input"].cpu(), sample["target"].cpu()))
        if job.report and job.report.shows_pictures and len(rows) < _PICTURES and job.core.wants == "target":
            rows.append(picture_row(sample, picture, target))
    sums = [sum(scores), sum(given), len(scores)]
    summed = torch.tensor(sums, dtype=torch.float64, device=job.fabric.device)
    total, total_given, count = sum_over_processes(job.fabric, summed).tolist()
    if job.report:
        values = {"psnr_db": total / count} | ({"input_db": total_given / count} if given else {})
        job.report.log(job.step, values)
        job.report.pictures(job.step, rows)
    return total / count


def save(job: Job) -> None:
    """Write a checkpoint. Raises UserError: it cannot be written. TrainingFault: some weights are no numbers."""
    if not job.folder:
        return
    if not all(bool(torch.isfinite(weights).all()) for weights in job.core.parameters()):
        raise TrainingFault(_advice(job, f"there are weights that are no finite numbers at step {job.step}"))
    config = job.config
    job.folder.save(
        Checkpoint(
            network=job.mean.module.network,  # pyright: ignore[reportArgumentType]
            model=config.model.name,
            options=_options(config.model),
            output=config.model.output,
            run=f"{config.run.name}: {job.step} of {config.schedule.steps} steps, seed {config.seed}, "
            f"validation {job.end_db:.2f} dB; ispeed {job.facts['code']}",
            data=job.about,
            licence=config.data.licence,
            training={
                **job.facts,
                "step": job.step,
                "start_db": job.start_db,
                "end_db": job.end_db,
                "weights": job.core.state_dict(),
                "mean": job.mean.module.state_dict(),
                "optimiser": job.optimiser.state_dict(),
                "scaler": job.scaler.state_dict() if job.scaler else None,
                "objective": job.objective.state(),
            },
        )
    )


def learning_rate_share(schedule: ScheduleSettings, step: int) -> float:
    """Of the highest rate, at a step from 0 on: a straight rise, then half a cosine."""
    if step < schedule.warmup:
        return (step + 1) / (schedule.warmup + 1)
    done = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * done)) / 2


# ---- parts -------------------------------------------------------------------------------------------------


def _module(config: TrainConfig) -> Module:
    model = config.model
    torch.manual_seed(config.seed)
    try:
        module = make_module(make_network(model.name, **_options(model)), model.output)
    except ValueError as error:
        raise UserError(f"model: {error}") from error
    except TypeError as error:
        raise UserError(f"model.options: {model.name} does not take all of {', '.join(model.options)}") from error
    if model.weights:
        module.network.load_state_dict(_begun(model, model.weights, "weights", {}).state_dict())
    if isinstance(both := module.network, BothISPs):
        for part, network in (("forward", both.forth), ("inverse", both.back)):
            if part in model.parts:
                begun = _begun(model, model.parts[part], f"parts.{part}", {"form": form_of(network)})
                network.load_state_dict(begun.state_dict())
    return module.train()


def _begun(model: ModelSettings, path: Path, setting: str, own: dict[str, Any]) -> nn.Module:
    """The network in a checkpoint, which is like the one in the settings but for some options."""
    begun, wanted = load_checkpoint(path), _shape(_without_raw(_options(model) | own))
    if (begun.model, _shape(begun.options)) != (model.name, wanted):
        raise UserError(
            f"model.{setting} is a checkpoint of {begun.model} {begun.options}, not of {model.name} {wanted}"
        )
    if begun.output != model.output:
        raise UserError(f"model.{setting} is of a network that gives {begun.output}; set model.output to that")
    return begun.network


def _options(model: ModelSettings) -> dict[str, Any]:
    """What `make_network` takes besides the name, without defaults."""
    noise = model.noise and model.noise.model_dump(mode="json", exclude_none=True)
    given = {"sup": model.sup, "form": model.form, "residual": model.residual, "noise": noise}
    return _without_raw({name: value for name, value in given.items() if value}) | model.options


def _without_raw(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if (name, value) != ("form", "raw")}


def _shape(options: dict[str, Any]) -> dict[str, Any]:
    """Options that weights must have in common: another camera has other gains, for which they may be trained on, what
    is dropped in training is no weight, and networks of several levels have those of all."""
    shape = {name: value for name, value in options.items() if name not in ("dropped", "all_dropped", "level")}
    return shape | ({"noise": True} if "noise" in options else {})


def _facts(config: TrainConfig, train_set: Opened, held_out: Opened) -> dict[str, Any]:
    manifest = {"train": train_set.manifest, "validation": held_out.manifest}
    seen = {"teacher": config.distill.teacher} if config.distill else {}
    if config.adversary:
        seen |= {"texture": config.adversary.texture, "colour": config.adversary.colour}
    manifest |= {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in seen.items() if path}
    versions = {"code": code_version(), "torch": str(torch.__version__)}
    return {"config": config.model_dump(mode="json"), "manifest": manifest, **versions}


def _continue(job: Job, begun: dict[str, Any]) -> None:
    """Stand where an earlier run stopped."""
    if begun["manifest"] != job.facts["manifest"]:
        raise UserError(
            "the data, the teacher or what sees for the adversary is not what the run began with: files were added, "
            "removed or changed; bring them back, or set run.name to another name"
        )
    job.core.load_state_dict(begun["weights"])
    job.mean.module.load_state_dict(begun["mean"])
    job.optimiser.load_state_dict(begun["optimiser"])
    if job.scaler:
        job.scaler.load_state_dict(begun["scaler"])
    if begun.get("objective"):
        job.objective.restore(begun["objective"])
    job.step, job.start_db, job.end_db = begun["step"], begun["start_db"], begun["end_db"]


def _asked(job: Job, stop: StopRequest) -> bool:
    """Whether any of the processes was asked to stop: all of them must do so after the same step."""
    if job.fabric.world_size == 1:
        return stop.asked
    asked = torch.tensor([float(stop.asked)], dtype=torch.float64, device=job.fabric.device)
    return bool(sum_over_processes(job.fabric, asked).item())


def _log(job: Job, tally: Tally) -> None:
    """A line of metrics. Raises TrainingFault: the loss was no number in one of the steps since the last."""
    values = tally.take()
    if not math.isfinite(values["loss"]):
        raise TrainingFault(_advice(job, f"the loss is no finite number any more at step {job.step}"))
    if job.report:
        job.report.log(job.step, {"lr": job.optimiser.param_groups[0]["lr"], **values})


def _advice(job: Job, what: str) -> str:
    kept = f"; {job.folder.last_good()}" if job.folder else ""
    return f"{what}: set optim.lr or clip lower, or schedule.warmup longer{kept}"


def _leave_group() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # Gloo's threads need Python's lock to let go of the last tensors, and when the group ends torch waits for these
        # threads while it holds that lock: on a busy machine they have not come round to it yet.
        time.sleep(_LAST_TENSORS_S)
        torch.distributed.destroy_process_group()
