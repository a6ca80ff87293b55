"""Processes of a run: finding them again, what they use, and what they left behind."""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

RUN_VARIABLE = "ISPEED_RUN"
_MEMFD = re.compile(r"/memfd:ispeed-")


def marked(marker: str) -> dict[int, str]:
    """Every living process whose environment carries `marker`: pid -> command line."""
    wanted = f"{RUN_VARIABLE}={marker}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # gone meanwhile, or another user's
            continue
    return found


def stage_pid(marker: str, stage: str) -> int | None:
    """The process that runs `stage` ("grab", "develop") of the marked run, None if there is none at the moment."""
    return next(iter(stage_pids(marker, stage)), None)


def stage_pids(marker: str, stage: str) -> list[int]:
    """Every process that runs `stage` of the marked run; with several cameras there are several."""
    needle = f"ispeed.stream.{stage} "
    return [pid for pid, command in marked(marker).items() if needle in command]


def end_marked(marker: str) -> None:
    """Kills what is left of the marked run. Only processes that this benchmark started can carry the marker."""
    for pid in marked(marker):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def wait_gone(marker: str, timeout_s: float) -> dict[int, str]:
    """What is still alive of the marked run after at most `timeout_s` seconds; empty as soon as nothing is."""
    deadline = time.monotonic() + timeout_s
    while (left := marked(marker)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def ring_memory(pid: int) -> set[tuple[int, int]]:
    """The rings that a process holds, each as (device, inode) of its memfd. Empty if the process is gone."""
    found = set()
    try:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            if _MEMFD.match(os.readlink(fd)):
                status = fd.stat()
                found.add((status.st_dev, status.st_ino))
    except OSError:
        pass
    return found


def mapped_rings(pid: int) -> set[tuple[int, int]]:
    """The rings that a process maps, whether or not it holds their descriptors."""
    found = set()
    try:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and _MEMFD.match(fields[5]):
                major, minor = (int(part, 16) for part in fields[3].split(":"))
                found.add((os.makedev(major, minor), int(fields[4])))
    except OSError:
        pass
    return found


def holders(rings: set[tuple[int, int]]) -> list[int]:
    """Every process that still holds or maps one of `rings`."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if rings & (ring_memory(pid) | mapped_rings(pid))]


def wait_released(rings: set[tuple[int, int]], timeout_s: float) -> list[int]:
    """Every process that still holds or maps one of `rings` after at most `timeout_s` seconds.

    A process that ends loses its environment, by which it is found, a moment before its descriptors.
    """
    deadline = time.monotonic() + timeout_s
    while (keepers := holders(rings)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return keepers


def named_shared_memory() -> set[str]:
    """Names in /dev/shm that look like ours."""
    return {path.name for path in Path("/dev/shm").glob("ispeed*")}  # noqa: S108 (where named rings lie)


@dataclass(frozen=True)
class Use:
    """What a process had used when it was looked at."""

    cpu_s: float
    pss: int
    at_ns: int


def use_of(pid: int) -> Use | None:
    """CPU seconds (user and system) and proportional memory (bytes) of a process; None when it is gone."""
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return Use(times.user + times.system, process.memory_full_info().pss, time.monotonic_ns())
    except psutil.Error:
        return None


class UseSampler:
    """CPU and memory of named processes over a span of time."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self._samples: dict[str, list[Use]] = {name: [] for name in pids}

    def sample(self) -> None:
        """Looks at every process once. Reading proportional memory walks page tables: seconds apart, not more often."""
        for name, pid in self._pids.items():
            if (use := use_of(pid)) is not None:
                self._samples[name].append(use)

    def summary(self, frames: int) -> dict[str, dict[str, float]]:
        """Per process: CPU per cent of one core, core-ms per frame (of `frames` in that span), highest PSS in MiB."""
        result = {}
        for name, samples in self._samples.items():
            if len(samples) < 2:
                continue
            cpu_s = samples[-1].cpu_s - samples[0].cpu_s
            span_s = (samples[-1].at_ns - samples[0].at_ns) * 1e-9
            result[name] = {
                "pid": self._pids[name],
                "cpu_percent": round(100 * cpu_s / span_s, 1),
                "core_ms_per_frame": round(1e3 * cpu_s / frames, 4) if frames else 0.0,
                "pss_mib": round(max(use.pss for use in samples) / 2**20, 1),
            }
        return result
