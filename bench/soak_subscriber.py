"""A subscriber of the soak: takes every frame that it can, looks whether the pixels are those of its number, and keeps
its own account.

`python -m ispeed.bench.soak_subscriber ENDPOINT --camera 0 --pause-ms 5` prints one JSON object when its first frame
has come, and one at the end, which is when its standard input closes. The simulated camera burns the number of each
frame into its picture.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from ..stream.reader import Frame, FrameOverwritten
from ..stream.subscribe import Subscriber

FIRST_FRAME_S = 120.0
STRIP_PIXELS = 128  # the number's 32 cells of 4x4 pixels, highest bit first


def burnt_number(picture: npt.NDArray[np.uint8]) -> int:
    """The number in the first rows of a developed frame (uint8 [H, W >= 128, 3]) of the simulated camera."""
    return number_of(picture[1, 2:STRIP_PIXELS:4, 1])


def number_of(cells: npt.NDArray[np.uint8]) -> int:
    """The number whose bits are bright cells, highest first: uint8 [32]."""
    return int.from_bytes(np.packbits(cells > 127).tobytes(), "big")


def follow(endpoint: str, camera: int, pause_s: float, stop: threading.Event) -> dict[str, Any]:
    """Takes frames until `stop`, and returns the account. Raises TimeoutError without a first frame.

    `first` and `last` are sequences; received + missed + lapped = last - first + 1. `wrong` frames had another frame's
    pixels, `overwritten` ones were received, and overwritten while they were looked at.
    """
    wrong = overwritten = 0
    with Subscriber(endpoint, camera=camera, mode="every") as frames:
        frame = frames.receive(timeout_ms=FIRST_FRAME_S * 1e3)
        first = frame.header.sequence - frames.missed - frames.lapped
        _say({"event": "first", "pid": os.getpid(), "first": first})
        while True:
            # Taken with the frame: what is lapped behind the last one belongs to no span that is known here.
            last, counts = frame.header.sequence, (frames.received, frames.missed, frames.lapped)
            number = burnt_number(frame.array)
            try:
                frame.check()
                wrong += number != frame.frame_id & 0xFFFFFFFF
            except FrameOverwritten:
                overwritten += 1
            if pause_s:
                time.sleep(pause_s)
            following = _next(frames, stop)
            if following is None:
                break
            frame = following
    account = dict(zip(("received", "missed", "lapped"), counts, strict=True))
    return {"event": "account", "first": first, "last": last, **account, "wrong": wrong, "overwritten": overwritten}


def _next(frames: Subscriber, stop: threading.Event) -> Frame | None:
    while not stop.is_set():
        try:
            return frames.receive(timeout_ms=100)
        except TimeoutError:
            continue
    return None


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> int:
    """The process. Exit code 1 when no frame came."""
    parser = argparse.ArgumentParser(prog="python -m ispeed.bench.soak_subscriber", description=__doc__)
    parser.add_argument("endpoint")
    parser.add_argument("--camera", type=int, default=0)
    parser.add_argument("--pause-ms", type=float, default=0.0, help="how long it dawdles over each frame")
    options = parser.parse_args()
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    try:
        _say(follow(options.endpoint, options.camera, options.pause_ms / 1e3, stop))
    except TimeoutError:
        _say({"why": f"no frame came from {options.endpoint} within {FIRST_FRAME_S:g} s"})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
