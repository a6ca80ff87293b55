"""What must hold of a soak, while it runs and when it is over; each returns its problems as sentences."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .memory import kib_fields
from .processes import marked, named_shared_memory, wait_gone, wait_released

GONE_S = 10.0
MAIN_GROWTH = 1 << 20  # bytes, of the one process that lives from the beginning to the end
ALL_GROWTH = 8 << 20  # of all; stages are started again and again, and each start ends up a little different
LEAST_SAMPLES = 12
STARTED = "ispeed.stream."


@dataclass(frozen=True)
class Sample:
    """What the run held when all was quiet: private memory in bytes, of the main process and of all its processes, open
    descriptors of the main process, and how many processes there were."""

    frames: int
    main: int
    all: int
    descriptors: int
    processes: int


def take_sample(marker: str, main: int, frames: int) -> Sample | None:
    """Looks at every process of the run; None when one has just ended."""
    sizes = {}
    for pid in marked(marker):
        try:
            rollup = kib_fields(Path(f"/proc/{pid}/smaps_rollup").read_text())
        except OSError:
            return None
        if "Pss_Anon" not in rollup:
            return None
        sizes[pid] = rollup["Pss_Anon"]
    try:
        descriptors = len(list(Path(f"/proc/{main}/fd").iterdir()))
    except OSError:
        return None
    return Sample(frames, sizes.get(main, 0), sum(sizes.values()), descriptors, len(sizes))


def judge_memory(samples: Sequence[Sample]) -> tuple[dict[str, Any], list[str]]:
    """(account, problems) of memory, descriptors and processes over the run: the last quarter against the first.

    Few samples say nothing of growth.
    """
    if len(samples) < 2:
        return {"samples": len(samples)}, []
    quarter = max(1, len(samples) // 4)
    account: dict[str, Any] = {"samples": len(samples)}
    for name in ("main", "all", "descriptors", "processes"):
        values = [getattr(sample, name) for sample in samples]
        first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
        account[name] = {"first": first, "last": last, "growth": last - first, "highest": max(values)}
        account[name]["per_million_frames"] = round(_slope([s.frames for s in samples], values) * 1e6)
    account["series"] = [asdict(sample) for sample in samples[:: max(1, len(samples) // 60)]]
    problems = []
    if len(samples) >= LEAST_SAMPLES:
        for name, limit in (("main", MAIN_GROWTH), ("all", ALL_GROWTH), ("descriptors", 1), ("processes", 1)):
            if account[name]["growth"] >= limit:
                problems.append(f"{name} grew by {account[name]['growth']:.0f}, limit {limit}")
    return account, problems


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the straight line through the points, by least squares; 0 where they say nothing."""
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    spread = sum((value - mean_x) ** 2 for value in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread if spread else 0.0


def check_ledger(camera: int, ledger: dict[str, Any]) -> list[str]:
    """The account balances to the frame, over the run and in each segment, and the segments are all there is."""
    problems = []
    accounts = [segment["account"] for segment in ledger["segments"]]
    if earlier := ledger.get("earlier"):
        accounts.append(earlier["account"])
    for number, account in enumerate([ledger, *accounts]):
        given = account["seen"] + account["missing"]
        taken = account["published"] + sum(account["lost"].values())
        if given != taken:
            what = f"account {number} of its segments" if number else "the account"
            problems.append(f"camera {camera}: {what} does not balance: {given} frames came, {taken} are accounted for")
    for name in ("seen", "missing", "published"):
        if (parts := sum(account[name] for account in accounts)) != ledger[name]:
            problems.append(f"camera {camera}: {name} is {ledger[name]}, and {parts} in its segments")
    for reason, count in ledger["lost"].items():
        if (parts := sum(account["lost"][reason] for account in accounts)) != count:
            problems.append(f"camera {camera}: lost by {reason} are {count}, and {parts} in its segments")
    if not ledger["balanced"] or ledger["in_flight"]:
        problems.append(f"camera {camera}: isp-stream says that its account does not balance")
    return problems


def check_subscriber(name: str, account: dict[str, Any], published: int) -> list[str]:
    """A subscriber's own account: every frame that was published in its time was received, missed or lapped."""
    problems = []
    span = account["last"] - account["first"] + 1
    counted = account["received"] + account["missed"] + account["lapped"]
    if span != counted:
        problems.append(f"subscriber {name}: {span} frames were published in its time, and it counts {counted}")
    if account["last"] >= published:
        problems.append(f"subscriber {name} has frame {account['last']} of {published}")
    if account["wrong"]:
        problems.append(f"subscriber {name}: {account['wrong']} frames had another frame's pixels")
    return problems


def check_recording(file: Path) -> list[str]:
    """A recording that has ended is whole, and each of its frames is that of its number."""
    from ..stream.record import open_recording
    from .soak_subscriber import STRIP_PIXELS, number_of

    with open_recording(file) as recording:
        if not recording.complete:
            return [f"recording {file.name} is not complete"]
        ids = recording.raw_frames["frame_id"].tolist()
        for index, frame_id in enumerate(ids):
            if number_of(recording.read_raw(index)[2:STRIP_PIXELS:4]) != frame_id & 0xFFFFFFFF:
                return [f"recording {file.name}: frame {frame_id} has another frame's pixels"]
    return []


def check_left(marker: str, rings: set[tuple[int, int]], named: set[str], runtime: Path) -> list[str]:
    """Nothing of the run is left: no process, no shared memory, no socket."""
    left = wait_gone(marker, GONE_S)
    problems = [f"process {pid} outlived the run: {command}" for pid, command in left.items()]
    if keepers := wait_released(rings, GONE_S):
        problems.append(f"memory of the run is still held by {keepers}")
    if more := named_shared_memory() - named:
        problems.append(f"left in shared memory: {sorted(more)}")
    # The simulated cameras' own locks stay, as they do for a camera that is held by its driver.
    if files := [path.name for path in runtime.rglob("*") if path.is_socket() or path.name.startswith("soak")]:
        problems.append(f"left in the runtime folder: {sorted(files)}")
    return problems
