"""From a recipe to a checkpoint: `setup` puts everything together, `fit` trains, `validate` measures.

What a step does follows from the weights, the optimiser's state (and those of discriminators, if there are any) and the
number of the step alone: the samples, their
order, the learning rate and every random number are drawn from (seed, step). So a run that was killed goes on from its
last checkpoint to the same weights, bit for bit, as one that was not. Validations beside training (`beside`) change
nothing of that: a checkpoint is written when all that was given to them before is measured.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..engines.errors import UserError
from .begin import begin_module
from .beside import Beside, Measured
from .config import ScheduleSettings, TrainConfig
from .data.unpaired import Colours, colours_of
from .devices import StopRequest, make_fabric, quickened, steady, steady_pads
from .ema import WeightMean
from .feed import Batch, Feed
from .judging import Judge
from .models import Module
from .objectives import Objective, make_objective
from .report import Report
from .runs import RunFolder, code_version
from .selection import Best, checkpoint_of
from .sources import Opened, beside_photographs, open_sources
from .tally import Tally, sum_over_processes

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
        best: Step and score of best.pt, for people; "" where nothing is chosen.
    """

    checkpoint: Path
    steps: int
    start_db: float
    end_db: float
    improved: bool
    best: str = ""


@dataclass
class Job:
    """A run under way. `network` is `core` as Fabric wraps it; `folder`, `report` and `best` are those of the first
    process. `late` is a checkpoint that waits for a validation: the step of that, and what `_write` takes."""

    config: TrainConfig
    fabric: Fabric
    core: Module
    network: nn.Module
    mean: WeightMean[Module]
    optimiser: Any
    scaler: torch.amp.GradScaler | None
    objective: Objective
    feed: Feed
    judge: Judge
    facts: dict[str, Any]
    about: str
    folder: RunFolder | None
    report: Report | None = None
    best: Best | None = None
    beside: Beside | None = None
    late: tuple[int, nn.Module, dict[str, Any]] | None = None
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
        if job.beside:
            stack.enter_context(job.beside)
        try:
            fit(job)
        except torch.OutOfMemoryError as error:
            _write_what_waits(job)
            kept = f"; {folder.last_good()}" if folder else ""
            raise UserError(f"the GPU's memory is too small: set data.batch or crop lower{kept}") from error
        except UserError:
            _write_what_waits(job)
            raise
    start_db = math.nan if job.start_db is None else job.start_db
    wanted = config.validation.improve_db
    improved = wanted is None or job.end_db - start_db >= wanted
    best = str(job.best) if job.best and job.best.chosen else ""
    return Outcome(config.run.folder / config.run.name / "last.pt", job.step, start_db, job.end_db, improved, best)


def setup(config: TrainConfig, fabric: Fabric, scaler: torch.amp.GradScaler | None, folder: RunFolder | None) -> Job:
    """Put a run together, as its folder says where it stopped. Raises UserError."""
    _check_alone(config, fabric.world_size)
    train_set = open_sources(config.data.train, config.seed, held_out=False)
    if config.adversary:
        train_set = beside_photographs(train_set, config)
    held_out = open_sources(config.data.validation, config.seed, held_out=True)
    colours = colours_of(config.photographs) if config.validation.choose == "likeness" and config.photographs else None
    core = begin_module(config).to(fabric.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
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
    judge = Judge(held_out.samples, colours and colours.mean)
    facts = _facts(config, train_set, held_out, colours)
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
        judge=judge,
        facts=facts,
        about=train_set.about,
        folder=folder,
    )
    if config.validation.choose and folder:
        job.best = Best(config.validation.choose, mean.module, partial(_keep, job, "best"))
    if config.validation.beside:
        job.beside = Beside(judge, mean.module, fabric.device, config.deterministic)
    begun = fabric.broadcast(folder.begun.training if folder and folder.begun else None)
    if begun:
        _continue(job, begun)
    return job


def fit(job: Job) -> None:
    """Train to the end of the schedule. Raises as `train`."""
    every, steps = job.config.run, job.config.schedule.steps
    if job.start_db is None:
        validate(job)
    batches, tally = job.feed.batches(job.step), Tally(job.fabric)
    with StopRequest() as stop:
        while job.step < steps:
            begun = time.monotonic()
            batch = job.fabric.to_device(next(batches))
            tally.waited(time.monotonic() - begun)
            tally.add(_take_step(job, batch), len(batch["target"]))
            if job.report:
                job.report.step(job.step)
            if job.beside:
                _take_in(job, job.beside.done())
            last, due = job.step == steps, job.step % every.checkpoint_every == 0
            asked = _asked(job, stop)
            if last or due or asked or job.step % every.log_every == 0:
                _log(job, tally)
            if last or job.step % job.config.validation.every == 0:
                validate(job)
            if every.keep_every and job.step % every.keep_every == 0:
                _check_weights(job)
                _keep(job, f"step-{job.step:06d}", job.mean.module.network, job.step)
            if last or asked:
                _wait_for_validations(job)
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


def validate(job: Job) -> None:
    """Have the mean weights measured, beside training if the recipe says so; then pictures are not shown."""
    if job.beside:
        _take_in(job, job.beside.give(job.step, job.mean.module.state_dict()))
        return
    fabric, rows = job.fabric, [] if job.report and job.report.shows_pictures else None
    spread = {"rank": fabric.global_rank, "world": fabric.world_size, "sum_up": partial(sum_over_processes, fabric)}
    values = job.judge.measure(job.mean.module, fabric.device, rows=rows, **spread)
    _take_in(job, [Measured(job.step, values, job.mean.module.state_dict())])
    if job.report and rows:
        job.report.pictures(job.step, rows)


def save(job: Job) -> None:
    """Write a checkpoint; if weights are being measured, a copy of all that it takes, once that is done. Raises
    UserError: it cannot be written. TrainingFault: some weights are no numbers."""
    if not job.folder:
        return
    _check_weights(job)
    if job.late:
        _wait_for_validations(job)
    state = {
        "step": job.step,
        "weights": job.core.state_dict(),
        "mean": job.mean.module.state_dict(),
        "optimiser": job.optimiser.state_dict(),
        "scaler": job.scaler.state_dict() if job.scaler else None,
        "objective": job.objective.state(),
    }
    if job.beside and (behind := job.beside.pending) is not None:
        job.late = behind, *copy.deepcopy((job.mean.module.network, state))
    else:
        _write(job, job.mean.module.network, state)


def learning_rate_share(schedule: ScheduleSettings, step: int) -> float:
    """Of the highest rate, at a step from 0 on: a straight rise, then half a cosine."""
    if step < schedule.warmup:
        return (step + 1) / (schedule.warmup + 1)
    done = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * done)) / 2


# ---- parts -------------------------------------------------------------------------------------------------


def _check_alone(config: TrainConfig, world: int) -> None:
    """Raises UserError: the recipe has something that is for one process, and there are others."""
    validation = config.validation
    for there, what in (
        (config.adversary or config.balance, "adversary and balance are"),
        (validation.beside, "validation.beside is"),
        (validation.choose == "likeness", "validation.choose: likeness is"),
    ):
        if there and world > 1:
            raise UserError(f"{what} for one process, not for {world}; start isp-train without torchrun")


def _facts(config: TrainConfig, train_set: Opened, held_out: Opened, colours: Colours | None) -> dict[str, Any]:
    manifest = {"train": train_set.manifest, "validation": held_out.manifest}
    seen = {"teacher": config.distill.teacher} if config.distill else {}
    if config.adversary:
        seen |= {"texture": config.adversary.texture, "colour": config.adversary.colour}
    manifest |= {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in seen.items() if path}
    manifest |= {"photographs": colours.manifest} if colours else {}
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
    if job.best and begun.get("best"):
        job.best.restore(begun["best"])
    job.step, job.start_db, job.end_db = begun["step"], begun["start_db"], begun["end_db"]


def _take_in(job: Job, measured: Sequence[Measured]) -> None:
    """What came of validations, by step."""
    for step, values, weights in measured:
        job.end_db = values["psnr_db"]
        job.start_db = job.end_db if job.start_db is None else job.start_db
        if job.report:
            job.report.log(step, values)
        if job.best:
            job.best.consider(step, values, weights)
        if job.late and job.late[0] == step:
            _, network, state = job.late
            job.late = None
            _write(job, network, state)


def _wait_for_validations(job: Job) -> None:
    if job.beside:
        _take_in(job, job.beside.rest())


def _write_what_waits(job: Job) -> None:
    """Where a run ends on a fault: its last checkpoint, if that waits for a validation that can still be done."""
    with suppress(UserError):
        _wait_for_validations(job)


def _write(job: Job, network: nn.Module, state: Mapping[str, Any]) -> None:
    """Replace last.pt by a state of training, to which the last of what was measured belongs."""
    if job.folder:
        measured = {"start_db": job.start_db, "end_db": job.end_db, "best": job.best.state() if job.best else None}
        told, training = f"validation {job.end_db:.2f} dB", {**job.facts, **measured, **state}
        job.folder.save(checkpoint_of(job.config, job.about, network, state["step"], told, training))


def _keep(job: Job, name: str, network: nn.Module, step: int, told: str = "") -> None:
    """Write a checkpoint of weights alone. Raises UserError: it cannot be written."""
    if job.folder:
        job.folder.keep(name, checkpoint_of(job.config, job.about, network, step, told))


def _check_weights(job: Job) -> None:
    if not all(bool(torch.isfinite(weights).all()) for weights in job.core.parameters()):
        _write_what_waits(job)
        raise TrainingFault(_advice(job, f"there are weights that are no finite numbers at step {job.step}"))


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
        _write_what_waits(job)
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
