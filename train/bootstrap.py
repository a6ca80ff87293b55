"""First weights: fits a member of the LW-ISP family to the classic engine on rendered scenes of the simulated sensor.

    python -m ispeed.train.bootstrap lwisp-xs --minutes 10 -o runs/lwisp-xs.pt

The student sees noisy, coarsely converted mosaics and learns what the classic engine makes of them without noise.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, l1_loss

from ..engines.errors import UserError
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .cli import run
from .data import Batches
from .metrics import HELD_OUT_SEED, mean_psnr
from .models import VARIANTS, CoreModule, make_lwisp

DATA = "rendered scenes, seen by the simulated camera's sensor; target: the classic engine without noise"


def fit(core: CoreModule, seed: int, minutes: float, steps: int, rate: float) -> int:
    """Adam with a short warm-up, then a cosine to 0 over so many steps, or where that is 0 over the minutes."""
    batches, start = Batches(seed), time.monotonic()
    optimiser = torch.optim.Adam(core.train().parameters(), rate, betas=(0.9, 0.99))
    for step in itertools.count():
        progress = step / steps if steps else (time.monotonic() - start) / (60 * minutes)
        if progress >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, 0.01 + 50 * progress) * (1 + np.cos(np.pi * progress)) / 2
        planes, gains, wanted = batches.draw()
        with torch.autocast("cpu", torch.bfloat16):
            shown = core(planes.contiguous(memory_format=torch.channels_last), gains).float()
        # besides the values: their steps to the right and down, for edges, and means, for the colours of areas
        loss = l1_loss(shown, wanted) + l1_loss(avg_pool2d(shown, 8), avg_pool2d(wanted, 8))
        loss = loss + sum(0.5 * l1_loss(shown.diff(dim=d), wanted.diff(dim=d)) for d in (2, 3))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(core.parameters(), 0.3)  # about the median: a rare large step ruins everything
        optimiser.step()
        if step % 200 == 0:
            sys.stderr.write(f"{progress:4.0%} step {step} loss {loss.item():.4f}\n")
    return step


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m ispeed.train.bootstrap", description="Fits first weights.")
    parser.add_argument("model", choices=list(VARIANTS))
    parser.add_argument("-o", "--output", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=0, help="end after so many instead, whatever time they take")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate after warm-up")
    parser.add_argument("--resume", type=Path, metavar="CHECKPOINT", help="start from its weights")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    begun = load_checkpoint(args.resume) if args.resume else Checkpoint(make_lwisp(args.model), args.model)
    if begun.model != args.model:
        raise UserError(f"{args.resume} is of {begun.model}, not of {args.model}; give another checkpoint")
    core = CoreModule(begun.network.to(memory_format=torch.channels_last))  # pyright: ignore[reportCallIssue]
    steps = fit(core, args.seed, args.minutes, args.steps, args.rate)
    score = mean_psnr(torch.inference_mode()(core), Batches(HELD_OUT_SEED))
    log = f"{begun.run or 'bootstrap'}; seed {args.seed}, {steps} steps at {args.rate:g}, held-out PSNR {score:.2f} dB"
    save_checkpoint(args.output, Checkpoint(begun.network, args.model, run=log, data=DATA, licence="Apache-2.0"))
    sys.stdout.write(log + "\n")


if __name__ == "__main__":
    sys.exit(run("bootstrap", main))
