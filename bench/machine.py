"""What the benchmark ran on, so that a figure never travels without its machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = (
    *("ispeed", "numpy", "numba", "pyzmq", "harvesters", "genicam", "opencv-python-headless", "imagezmq"),
    *("openvino", "onnx", "onnxruntime", "torch", "tensorrt", "tensorrt-rtx", "pycuda"),
)


def describe() -> dict[str, Any]:
    """CPU model, usable cores, memory, kernel, Python, and the versions of the packages that matter (None: absent)."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "ram_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def in_words(machine: dict[str, Any]) -> str:
    """The same in one line."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['ram_gib']} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}"
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
