"""Raw frames from a camera: isp-stream takes them, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .bayer import RawFormat
from .errors import UserError

_TIMEOUT_S = 120.0


def snap(file: Path, count: int, camera: str, settings: Mapping[str, object], remedy: str = "") -> RawFormat:
    """Have a camera's raw frames written to `file` (.npy, with its sidecar), and return the format they were sent in.

    Args:
        file: To be written.
        count: How many frames.
        camera: Index or serial number, as isp-stream takes it.
        settings: Further flags of isp-stream by name, such as {"pixel-format": "BayerRG12p"}.
        remedy: What else the user may do, to end a message with.

    Raises:
        UserError: The camera is not there, refuses, or sends nothing.
    """
    command = [sys.executable, "-m", "ispeed.stream", "--snap", str(file), "--frames", str(count), "--camera", camera]
    command += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    remedy = f"; {remedy}" if remedy else ""
    try:
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"camera {camera} sent no {count} frames in {_TIMEOUT_S:g} s{remedy}") from error
    if done.returncode != 0 or not file.is_file():
        said = done.stderr.strip().splitlines() or [f"isp-stream ended with code {done.returncode}"]
        reason = said[-1].removeprefix("isp-stream: ").removeprefix("error: ")
        raise UserError(f"no frames from camera {camera}: {reason}{remedy}")
    try:
        return RawFormat.from_json(json.loads(done.stdout.strip().splitlines()[-1])["raw_format"])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"isp-stream does not say what camera {camera} sends{remedy}") from error
