"""`isp-bench pretrigger`: triggers in a row, and whether every frame around each is in its recording, byte for byte.

The simulated camera plays a file of frames of noise, no two alike, so it is known what every byte of the frame with a
certain id has to be, and a frame that is torn or in the wrong place shows.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines.bayer import RawFormat, pack
from ..engines.errors import UserError
from ..stream.control import Control
from ..stream.record import open_recording
from .machine import describe, in_words
from .pipeline import START_TIMEOUT_S, Pipeline, PipelineError, Settings
from .rate import write_report

_PLAYED = 61  # frames in the file: a prime, so that no period of anything else hides a wrong one
_ENDED_S = 120.0


def run_pretrigger(
    settings: Settings, triggers: int, pre_s: float, post_s: float, folder: Path, out: Path | None
) -> int:
    """Measures, prints, writes `out`, and returns 0 when every frame was right, else 1. Raises as `measure` does."""
    machine = describe()
    print(f"machine    {in_words(machine)}")
    result = measure(settings, triggers, pre_s, post_s, folder)
    why = _judge(result)
    write_report({"command": "pretrigger", "ok": not why, "missed_target": why, "machine": machine, **result}, out)
    print("target     " + ("reached" if not why else "MISSED: " + "; ".join(why)))
    return 1 if why else 0


def measure(settings: Settings, triggers: int, pre_s: float, post_s: float, folder: Path) -> dict[str, Any]:
    """Runs the pipeline and triggers as soon as the recording before has ended. Returns a JSON-able account.

    The recordings are checked at the end, each deleted then, so that nothing but the pipeline is at work before.

    Raises:
        UserError: isp-stream refuses the settings, or the folder cannot hold the recordings.
        PipelineError: The pipeline does not do its part.
    """
    fmt = RawFormat(settings.width or 640, settings.height or 480, settings.pixel_format or "BayerRG12p")
    fps = settings.fps or 1000.0
    _require_room(folder, int(triggers * (pre_s + post_s) * fps * fmt.payload_size * 1.1))
    with ExitStack() as stack:
        # Absolute: endpoints are made of it.
        place = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="ispeed-pretrigger-", dir=folder.resolve()))
        )
        played = _write_scene(place / "noise.npy", fmt)
        options = ("--scene", f"{place / 'noise.npy'}?format={fmt.pixel_format.rstrip('p')}&black=0")
        options += ("--record", str(place), "--pre-trigger-s", f"{pre_s:g}", "--post-trigger-s", f"{post_s:g}")
        options += ("--control", f"ipc://{place}/control")
        run_s = 60 + triggers * (_ENDED_S + pre_s + post_s)
        pipeline = stack.enter_context(
            Pipeline(replace(settings, fps=fps, extra=(*settings.extra, *options)), f"ipc://{place}/bench", run_s)
        )
        started = pipeline.wait_for("started", START_TIMEOUT_S)
        time.sleep(pre_s + 1)  # the ring fills
        with Control(f"ipc://{place}/control") as control:
            told = [_trigger(pipeline, control, number) for number in range(triggers)]
        final = pipeline.finish()
        recordings = [_check(one, played, fmt, pre_s, post_s) for one in told]
    return {
        "geometry": started["geometry"],
        "pre_trigger_s": pre_s,
        "post_trigger_s": post_s,
        "fps": fps,
        "recordings": recordings,
        "ledger": final["ledger"],
    }


def _trigger(pipeline: Pipeline, control: Control, number: int) -> dict[str, Any]:
    """Triggers, and waits until that recording has ended; what was told of it."""
    seen = len(pipeline.events)
    control.call("record", action="trigger", reason=f"trigger {number}")
    deadline = time.monotonic() + _ENDED_S
    while time.monotonic() < deadline:
        told = pipeline.wait_for("recording", _ENDED_S, after=seen)
        seen = pipeline.events.index(told) + 1
        if told["change"] == "ended":
            return told
    raise PipelineError(f"the recording did not end within {_ENDED_S:g} s")


def _check(
    told: dict[str, Any], played: npt.NDArray[np.uint8], fmt: RawFormat, pre_s: float, post_s: float
) -> dict[str, Any]:
    """Looks at every byte of a recording, and deletes it."""
    file = Path(told["file"])
    with open_recording(file) as recording:
        ids = recording.raw_frames["frame_id"].astype(np.int64)
        buffer = np.empty(fmt.payload_size, np.uint8)
        wrong = sum(
            not np.array_equal(recording.read_raw(i, buffer), played[(frame_id - 1) % len(played)])
            for i, frame_id in enumerate(ids.tolist())
        )
        times, trigger_ns = recording.raw_frames["grabbed_ns"], int(recording.events["time_ns"][0])
        before_s = (trigger_ns - int(times[0])) * 1e-9
        after_s = (int(times[-1]) - trigger_ns) * 1e-9
        complete = recording.complete
    file.unlink()
    return {
        "frames": len(ids),
        "first_id": int(ids[0]),
        "missing_ids": int(ids[-1] - ids[0]) + 1 - len(ids),
        "wrong_frames": int(wrong),
        "lapped": sum(told["lapped"].values()),
        "short_s": told.get("short_s", 0),
        "complete": complete,
        "before_s": round(before_s, 4),
        "after_s": round(after_s, 4),
        "short": bool(told.get("short_s") or before_s < pre_s - 0.1 or after_s < post_s - 0.1),
        "ended_by": told["reason"],
    }


def _write_scene(path: Path, fmt: RawFormat) -> npt.NDArray[np.uint8]:
    """Writes the frames that the camera shall play; returns their bytes as it must send them: uint8 [n, payload]."""
    shape = (_PLAYED, fmt.height, fmt.width)
    samples = np.random.default_rng(7).integers(0, 1 << fmt.depth, shape, np.uint16)
    np.save(path, samples if fmt.depth > 8 else samples.astype(np.uint8))
    return np.stack([pack(frame, fmt) for frame in samples])


def _require_room(folder: Path, nbytes: int) -> None:
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder} is no folder that can be written: choose another --folder")
    status = os.statvfs(folder)
    if status.f_bavail * status.f_frsize < nbytes:
        raise UserError(
            f"{folder} has less than {nbytes >> 20} MiB free: ask for fewer --triggers, or another --folder"
        )


def _judge(result: dict[str, Any]) -> list[str]:
    geometry, recordings = result["geometry"], result["recordings"]
    print(f"camera     {geometry['width']}x{geometry['height']} {geometry['pixel_format']} at {result['fps']:g} fps")
    print(f"recordings {len(recordings)} in a row, {result['pre_trigger_s']:g} s before and ", end="")
    print(f"{result['post_trigger_s']:g} s after each trigger")
    totals = {
        name: sum(one[name] for one in recordings) for name in ("frames", "missing_ids", "wrong_frames", "lapped")
    }
    result["totals"] = totals
    print(f"  frames {totals['frames']}, ids missing {totals['missing_ids']}, frames with a wrong byte ", end="")
    print(f"{totals['wrong_frames']}, lapped {totals['lapped']}")
    print(f"  before the trigger {min(one['before_s'] for one in recordings):.3f} s at the least, ", end="")
    print(f"after it {min(one['after_s'] for one in recordings):.3f} s")
    lost = {reason: count for reason, count in result["ledger"]["lost"].items() if count}
    print(f"  the stream meanwhile lost {lost or 'nothing'}")
    why = [
        f"{totals[name]} {name.replace('_', ' ')}" for name in ("missing_ids", "wrong_frames", "lapped") if totals[name]
    ]
    if short := sum(one["short"] for one in recordings):
        why.append(f"{short} recordings are shorter than asked for")
    if broken := sum(not one["complete"] for one in recordings):
        why.append(f"{broken} recordings are not complete")
    return why
