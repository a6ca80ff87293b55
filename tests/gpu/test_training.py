"""A run on a GPU learns, repeats itself to the bit, and goes on to the same weights after a stop."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from ispeed.train.config import TrainConfig  # noqa: E402
from ispeed.train.fit import train  # noqa: E402

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def needs_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")


def config(folder: Path, name: str, precision: str, model: str = "lwisp-xs") -> TrainConfig:
    scenes = {"source": "scenes", "count": 64, "crop": 64, "scenes": 4}
    return TrainConfig.model_validate(
        {
            "model": {"name": model},
            "data": {"train": [scenes], "validation": [{**scenes, "count": 4}], "batch": 8},
            "optim": {"lr": 5e-3},
            "schedule": {"steps": 300, "warmup": 10},
            "ema": {"decay": 0.9},
            "precision": precision,
            "device": "cuda",
            "run": {"name": name, "folder": folder, "log_every": 1, "checkpoint_every": 1000},
        }
    )


def weights(folder: Path, name: str) -> dict[str, Any]:
    return torch.load(folder / name / "last.pt", map_location="cpu", weights_only=True)["weights"]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_learns(tmp_path: Path, precision: str):
    done = train(config(tmp_path, "a", precision))
    assert done.end_db > done.start_db + 2


@pytest.mark.parametrize("model", ["lwisp-xs", "lwisp"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_stopped_it_goes_on_to_the_same_weights(tmp_path: Path, model: str, precision: str):
    train(config(tmp_path, "whole", precision, model))
    log = tmp_path / "stopped/metrics.jsonl"

    def stop() -> None:
        deadline = time.monotonic() + 60
        while not (log.exists() and '"step": 20,' in log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path, "stopped", precision, model))
    thread.join()
    assert train(config(tmp_path, "stopped", precision, model), resume=True).steps == 300
    one, other = weights(tmp_path, "whole"), weights(tmp_path, "stopped")
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_validation_beside_changes_nothing(tmp_path: Path):
    """The process that measures shares the GPU."""
    found = {}
    for name, beside in (("before", False), ("beside", True)):
        settings = config(tmp_path, name, "fp32")
        validation = settings.validation.model_copy(update={"every": 50, "choose": "psnr", "beside": beside})
        train(settings.model_copy(update={"validation": validation}))
        lines = (json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        found[name] = {line["step"]: line["psnr_db"] for line in lines if "psnr_db" in line}
        assert (tmp_path / name / "best.pt").exists()
    assert found["beside"].keys() == found["before"].keys()
    for step, value in found["before"].items():
        assert found["beside"][step] == pytest.approx(value, abs=1e-3)
    for name, value in weights(tmp_path, "before").items():
        torch.testing.assert_close(weights(tmp_path, "beside")[name], value, rtol=0, atol=0)
