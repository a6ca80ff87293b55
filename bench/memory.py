"""Memory of the running pipeline over time: does it grow, and does anything allocate a frame per frame?

Growth: the proportional set size (PSS) summed over all processes of the run, median of the samples after the first
minute against the median of the last ones. Judged is its anonymous and shared-memory part: that of mapped files is
clean code of libraries, and moves by megabytes when some other program on the machine starts or ends that uses the same
ones. The whole sum is printed beside it.

Frame-sized allocations are looked for by three signs, because each alone has a blind spot. All begin when the first
minute is over:
- a mapping of at least a raw frame that was not there before (a leak, or a new buffer);
- the high-water mark of a process (reset at that moment through /proc/PID/clear_refs) a frame above its resident size
  (a buffer that came and went);
- page faults: a buffer that is mapped and given back for every frame faults in all of its pages each time, so faults of
  a tenth of a frame's pages for each frame are too many.
A buffer that malloc serves again and again from memory it already holds shows in none; it costs no memory either.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .machine import describe, in_words
from .pipeline import START_TIMEOUT_S, Pipeline, Settings
from .processes import marked
from .rate import start_subscriber, write_report

GROWTH_LIMIT = 1 << 20
FAULT_SHARE = 0.1
_PAGE = 4096
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ *(.*)$")


@dataclass(frozen=True)
class Footprint:
    """What a process holds: sizes in bytes, mappings of a frame or more as {start: size}, minor faults so far.

    `pss` is all of the proportional set size, `own` its anonymous and shared-memory part.
    """

    pss: int
    own: int
    rss: int
    peak: int
    faults: int
    mappings: dict[int, int]


def footprint(pid: int, frame_bytes: int) -> Footprint | None:
    """Looks at a process; None when it is gone."""
    try:
        rollup = kib_fields(Path(f"/proc/{pid}/smaps_rollup").read_text())
        status = kib_fields(Path(f"/proc/{pid}/status").read_text())
        # The command name in parentheses may hold spaces: the fields are counted from behind it.
        faults = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return None
    if "Pss" not in rollup or "VmHWM" not in status:  # a process about to end
        return None
    own = rollup["Pss_Anon"] + rollup["Pss_Shmem"]
    large = _large_mappings(maps, frame_bytes)
    return Footprint(rollup["Pss"], own, status["VmRSS"], status["VmHWM"], faults, large)


def kib_fields(text: str) -> dict[str, int]:
    """The "Name: 12 kB" lines of a /proc file, in bytes."""
    return {name: int(value) * 1024 for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def _large_mappings(lines: Iterable[str], frame_bytes: int) -> dict[int, int]:
    found = {}
    for line in lines:
        if match := _MAPPING.match(line):
            start, end = int(match[1], 16), int(match[2], 16)
            # Only writable memory can be a buffer; the heap grows in place and shows in the resident size.
            if end - start >= frame_bytes and "w" in match[3] and match[4] != "[heap]":
                found[start] = end - start
    return found


def reset_peak(pid: int) -> None:
    """Starts the high-water mark of a process anew. Raises OSError when the process is not ours or gone."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def findings(name: str, before: Footprint, samples: Sequence[Footprint], frame_bytes: int, frames: int) -> list[str]:
    """Signs of a frame-sized allocation in one process since `before`, one sentence each. `frames` passed meanwhile."""
    found = []
    new = {start: size for s in samples for start, size in s.mappings.items() if before.mappings.get(start, 0) < size}
    if new:
        found.append(f"{name} mapped {len(new)} new area(s) of a frame or more, the largest {max(new.values())} bytes")
    rise = max(s.peak for s in samples) - before.rss
    if rise >= frame_bytes:
        found.append(f"{name} rose {rise} bytes above its resident size")
    faults = samples[-1].faults - before.faults
    if frames and faults * _PAGE > FAULT_SHARE * frame_bytes * frames:
        found.append(f"{name} had {faults / frames:.1f} page faults for each frame")
    return found


def watch(
    pids: dict[str, int],
    frame_bytes: int,
    settle_s: float,
    seconds: float,
    frames: Callable[[], int],
    sample_s: float = 5.0,
) -> dict[str, Any]:
    """Watches processes for `seconds` after `settle_s`; `frames` tells how many frames have passed so far.

    Returns a JSON-able account with `growth_bytes` (of summed PSS without files) and `findings`.
    """
    time.sleep(settle_s)
    for pid in pids.values():
        reset_peak(pid)
    before = _look(pids, frame_bytes)
    first_frame, start_s = frames(), time.monotonic()
    series: list[tuple[float, dict[str, Footprint]]] = [(0.0, before)]
    while (elapsed := time.monotonic() - start_s) < seconds:
        time.sleep(min(sample_s, max(0.1, seconds - elapsed)))
        series.append((time.monotonic() - start_s, _look(pids, frame_bytes)))
    passed = frames() - first_frame
    why = [
        sentence
        for name in pids
        for sentence in findings(name, before[name], [s[name] for _, s in series[1:]], frame_bytes, passed)
    ]
    own = [sum(look.own for look in looks.values()) for _, looks in series]
    edge = max(1, min(6, len(own) // 4))
    growth = statistics.median(own[-edge:]) - statistics.median(own[:edge])
    return {
        "settle_s": settle_s,
        "seconds": seconds,
        "frames": passed,
        "growth_bytes": int(growth),
        "growth_by_process": {n: series[-1][1][n].own - before[n].own for n in pids},
        "faults_per_frame": {n: round((series[-1][1][n].faults - before[n].faults) / max(passed, 1), 3) for n in pids},
        "own_pss": own,
        "total_pss": [sum(look.pss for look in looks.values()) for _, looks in series],
        "sampled_at_s": [round(at, 1) for at, _ in series],
        "findings": why,
    }


def _look(pids: dict[str, int], frame_bytes: int) -> dict[str, Footprint]:
    looks = {}
    for name, pid in pids.items():
        look = footprint(pid, frame_bytes)
        if look is None:
            raise ProcessLookupError(f"the {name} process ended while its memory was watched")
        looks[name] = look
    return looks


def measure_memory(settings: Settings, seconds: float, settle_s: float) -> dict[str, Any]:
    """Runs the pipeline with one subscriber and watches all of its processes from `settle_s` to `seconds`.

    Raises UserError for settings that isp-stream refuses, PipelineError or ProcessLookupError when a process ends.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ispeed-"))
        endpoint = f"ipc://{folder}/bench"
        pipeline = stack.enter_context(Pipeline(settings, endpoint, START_TIMEOUT_S + seconds + 60))
        started = pipeline.wait_for("started", START_TIMEOUT_S)
        reader = stack.enter_context(start_subscriber(endpoint, 1.0, seconds + 60))
        reader.read()
        pids = {**started["pids"], "subscriber": reader.pid}
        others = sorted(set(marked(pipeline.marker)) - set(pids.values()))
        pids |= {f"other {number}": pid for number, pid in enumerate(others)}

        def frames() -> int:
            status = pipeline.last("status")
            return status["account"]["published"] if status else 0

        frame_bytes = started["geometry"]["payload"]
        account = watch(pids, frame_bytes, settle_s, seconds - settle_s, frames)
        final = pipeline.finish()
    return {"geometry": started["geometry"], "frame_bytes": frame_bytes, **account, "ledger": final["ledger"]}


def run_memory(settings: Settings, minutes: float, settle_s: float, out: Path | None) -> int:
    """Measures, prints, writes `out`, and returns 0 when memory held still, else 1."""
    machine = describe()
    print(f"machine    {in_words(machine)}")
    account = measure_memory(settings, minutes * 60, settle_s)
    why = list(account["findings"])
    if account["growth_bytes"] >= GROWTH_LIMIT:
        why.insert(0, f"memory grew by {account['growth_bytes']} bytes")
    if not account["frames"]:
        why.insert(0, "no frame passed meanwhile")
    geometry = account["geometry"]
    print(f"frame      {geometry['width']}x{geometry['height']} {geometry['pixel_format']}, ", end="")
    print(f"raw {account['frame_bytes']} bytes; {account['frames']} frames in {account['seconds']:g} s ", end="")
    print(f"after {account['settle_s']:g} s")
    for label, series in (("PSS", account["total_pss"]), ("without files", account["own_pss"])):
        print(
            f"{label:14s} {series[0] / 2**20:8.2f} MiB at first, {series[-1] / 2**20:8.2f} MiB at last, all processes"
        )
    print(f"growth         {account['growth_bytes'] / 1024:.0f} KiB without files, limit {GROWTH_LIMIT // 1024} KiB")
    for name, growth in account["growth_by_process"].items():
        print(f"  {name:14s} {growth / 1024:+8.0f} KiB, {account['faults_per_frame'][name]:g} page faults a frame")
    report = {"command": "memory", "ok": not why, "missed_target": why, "machine": machine, **account}
    write_report({**report, "settings": asdict(settings)}, out)
    print("target     " + ("reached" if not why else "MISSED: " + "; ".join(why)))
    return 1 if why else 0
