"""The folder of a run: `runs/NAME` with the recipe, the metrics and the last checkpoint.

config.yaml      the recipe with all its settings
metrics.jsonl    a JSON object on a line for every few steps and for every measurement
last.pt          the last checkpoint: `isp-export` reads it, and the run goes on from it
best.pt          the best of all measurements, weights alone; only where the recipe says what to choose by
step-000500.pt   the weights alone of that step, and more such; only where the recipe keeps them
tensorboard/     only where the recipe asks for it
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import yaml

from ..engines.errors import UserError
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .config import TrainConfig, differences
from .files import make_folder, remove_empty, why, write_whole


class RunFolder:
    """A run's folder, held by one process. Close it, or use it as a context."""

    def __init__(self, config: TrainConfig, *, resume: bool) -> None:
        """Make the folder, or take up what is in it. A folder that was made is removed again where an exception ends
        the context before a step was taken.

        Raises:
            UserError: Another process holds it; there is a run already and `resume` is not asked for; the run there
                began with another recipe; or the folder cannot be written.
        """
        self.path = config.run.folder / config.run.name
        self.checkpoint = self.path / "last.pt"
        self._metrics_path = self.path / "metrics.jsonl"
        self._values = config.model_dump(mode="json")
        self._metrics: TextIO | None = None
        self._made: list[Path] = []
        self._began = False
        self._lock = self._held()
        try:
            self.begun = self._load(resume)
            text = yaml.safe_dump(self._values, sort_keys=False)
            write_whole(self.path / "config.yaml", text.encode(), "the recipe of the run")
            before = (self.begun and self.begun.training) or {"step": -1}
            self._cut_metrics(before["step"])
            # training writes what was chosen by then again
            chosen = bool(before.get("best")) or (self.begun is not None and not config.validation.choose)
            self._cut_kept(before["step"], best=not chosen)
        except BaseException:
            self._undo()
            self.close()
            raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is not None:
            self._undo()
        self.close()

    def close(self) -> None:
        """Let go of the folder. May be called again."""
        for file in (self._metrics, self._lock):
            if file:
                file.close()

    def log(self, values: dict[str, Any]) -> None:
        """Append a line to the metrics. Raises UserError: it cannot be written."""
        self._began = self._began or bool(values.get("step"))
        if self._metrics is None:
            return
        try:
            self._metrics.write(json.dumps(values) + "\n")
            self._metrics.flush()
        except OSError as error:
            raise UserError(f"cannot write {self._metrics_path}: {error.strerror}") from error

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the last checkpoint. Raises UserError: it cannot be written; the one before it is left as it was."""
        self.keep(self.checkpoint.stem, checkpoint)

    def keep(self, name: str, checkpoint: Checkpoint) -> None:
        """Write a checkpoint to NAME.pt. Raises UserError: it cannot be written; what was there is left as it was."""
        try:
            save_checkpoint(self.path / f"{name}.pt", checkpoint)
        except UserError as error:
            raise UserError(f"{error}; {self.last_good()}") from error

    def last_good(self) -> str:
        """What there is to go on from."""
        if not self.checkpoint.exists():
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self.checkpoint}, from which --resume goes on"

    def _undo(self) -> None:
        """Remove what was made for nothing, as for a recipe whose data are not there; what was there before stays."""
        if self.path in self._made and not self._began and not self.checkpoint.exists():
            shutil.rmtree(self.path, ignore_errors=True)
            remove_empty(self._made)

    def _held(self) -> TextIO:
        try:
            self._made = make_folder(self.path)
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise UserError(f"cannot make the folder {self.path} of the run: {why(error)}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise UserError(f"{self.path} is in use by another isp-train; set run.name to another name") from error
        return lock

    def _load(self, resume: bool) -> Checkpoint | None:
        if not self.checkpoint.exists():
            return None  # nothing there, or killed before its first checkpoint
        if not resume:
            raise UserError(f"{self.path} holds a run; go on with it by --resume, or set run.name to another name")
        begun = load_checkpoint(self.checkpoint)
        if begun.training is None:
            raise UserError(f"{self.checkpoint} holds weights alone, from which no run goes on; set run.name")
        changed = differences(_completed(begun.training["config"]), self._values)
        if changed:
            raise UserError(
                f"the run in {self.path} began with another recipe ({'; '.join(changed)}); go on with that one, "
                "or set run.name to another name"
            )
        return begun

    def _cut_metrics(self, step: int) -> None:
        """Forget what was logged after the checkpoint, which is done again, and a last line that was cut off."""
        try:
            lines = self._metrics_path.read_text().splitlines() if self._metrics_path.exists() else []
            # not in the order of steps where validations went on beside training
            kept = [line + "\n" for line in lines if _is_until(line, step)]
            write_whole(self._metrics_path, "".join(kept).encode(), "the metrics")
            self._metrics = self._metrics_path.open("a")
        except OSError as error:
            raise UserError(f"cannot write {self._metrics_path}: {error.strerror}") from error

    def _cut_kept(self, step: int, *, best: bool) -> None:
        """Remove what was kept after the checkpoint, which is done again, and best.pt where it is of another run, or
        newer than anything that was chosen."""
        steps = ((path, re.fullmatch(r"step-(\d{6,})", path.stem)) for path in self.path.glob("step-*.pt"))
        late = [path for path, found in steps if found and int(found[1]) > step]
        try:
            for path in [*late, *[self.path / "best.pt"] * best]:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot remove {error.filename}: {error.strerror}") from error


def _completed(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe as it would be written today: with the defaults of settings that came later."""
    try:
        return TrainConfig.model_validate(values).model_dump(mode="json")
    except ValueError:  # it says what is not valid any more: then it differs in any case
        return values


def _is_until(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False


@cache
def code_version() -> str:
    """The version of ispeed and a digest of the code that training runs, as it was at the first call:
    "0.1.0+0123456789ab"."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for room in (here, here.parent / "engines"):  # the two lie side by side, in the repository and installed
        for path in sorted(room.rglob("*.py")):
            digest.update(f"{room.name}/{path.relative_to(room)}\0".encode() + path.read_bytes())
    try:
        version = importlib.metadata.version("ispeed")
    except importlib.metadata.PackageNotFoundError:  # run from the source, not installed
        version = "0"
    return f"{version}+{digest.hexdigest()[:12]}"
