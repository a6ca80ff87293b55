"""The machine a run is on: Lightning Fabric, the same result every time, and how it is asked to stop."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor, nn

from ..engines.errors import UserError

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Options of glibc's mallopt."""

_PRECISIONS = {"bf16": "bf16-mixed", "fp16": "16-mixed"}


class _Mixed(MixedPrecision):
    """Autocast alone decides what is calculated in few bits. Lightning would round all that a network is given before,
    in which frames of 12 bits and colour matrices lose what they have."""

    def convert_input(self, data: Any) -> Any:
        return data


def make_fabric(device: str, precision: str) -> tuple[Fabric, torch.amp.GradScaler | None]:
    """Fabric on this process's device; under torchrun, one of its processes.

    Args:
        device: "auto", "cpu" or "cuda".
        precision: "fp32", "bf16", "fp16", or "auto": bf16 where the device has it, else fp32.

    Returns:
        Fabric, launched, and what scales the losses of fp16, whose state goes into checkpoints.

    Raises:
        UserError: There is no such device.
    """
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise UserError("device is cuda, but torch finds no GPU here; set device to cpu or auto")
    kind = "cuda" if there and device != "cpu" else "cpu"
    if precision == "auto":
        precision = "bf16" if _has_bf16(kind) else "fp32"
    scaler = torch.amp.GradScaler(kind) if precision == "fp16" else None
    plugins: Any = [_Mixed(_PRECISIONS[precision], kind, scaler)] if precision in _PRECISIONS else None  # pyright: ignore[reportArgumentType]
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    world, local = (int(os.environ[name]) if under_torchrun else 1 for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if kind == "cuda" and local > torch.cuda.device_count():
        raise UserError(f"{local} processes need as many GPUs, but here are {torch.cuda.device_count()}; start fewer")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it says which precision was asked for
    fabric = Fabric(
        accelerator=kind,
        devices=local,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        plugins=plugins,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
        fabric.launch()
    return fabric, scaler


def _has_bf16(kind: str) -> bool:
    """Whether a device calculates in bfloat16 itself: processors that do not emulate it, slower than fp32."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        return "_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


@contextmanager
def steady(deterministic: bool, threads: int | None) -> Iterator[None]:
    """Torch calculates the same every time, on so many threads; as it was before, afterwards."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, many = torch.backends.cudnn.benchmark, torch.get_num_threads()
    try:
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA begins
            torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = not deterministic
        if threads:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
        torch.set_num_threads(many)


def quicken_processor() -> None:
    """For a process that calculates on the processor from now on: memory that was freed stays with it, and numbers too
    small to be normal are 0.

    Tensors of many MB are made and freed in every step. By its default the C library gives them back to the system each
    time, which then fills them with zeros anew: that took more than a third of the time of a step of a small network.
    """
    torch.set_flush_denormal(True)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # of another C library
        return
    for option, value in (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20):
        mallopt(option, value)


@contextmanager
def quickened() -> Iterator[None]:
    """`quicken_processor`; numbers are as they were afterwards, memory stays with the process."""
    quicken_processor()
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class SteadyPad(nn.Module):
    """`nn.ReflectionPad2d` of slices, because on CUDA the slopes of torch's own are summed in any order.

    Args:
        padding: Left, right, top and bottom, in pixels.
    """

    def __init__(self, padding: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W], larger than the padding, to [B, C, top + H + bottom, left + W + right]."""
        left, right, top, bottom = self.padding
        for dim, before, after in ((3, left, right), (2, top, bottom)):
            size = x.shape[dim]
            first = x.narrow(dim, 1, before).flip(dim)
            last = x.narrow(dim, size - 1 - after, after).flip(dim)
            x = torch.cat([first, x, last], dim)
        return x


def steady_pads(module: nn.Module) -> None:
    """Put a `SteadyPad` in place of every reflection pad; weights keep their names."""
    for name, child in module.named_children():
        if isinstance(child, nn.ReflectionPad2d):
            setattr(module, name, SteadyPad(child.padding))
        else:
            steady_pads(child)


class StopRequest:
    """Whether Ctrl-C or SIGTERM came while this context was entered; a second one works as it did before."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
