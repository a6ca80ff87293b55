"""isp-view: looks at a stream, in a window or as PNG files."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..engines.errors import UserError
from .reader import Frame, FrameOverwritten, StreamError, StreamTimeout
from .save import Stop, save_frames
from .subscribe import Subscriber

_LOOK_MS = 50  # longest time that the window's own events wait
_TITLE_S = 0.5
_LARGEST = 1280  # pixels of a window's longer side at first
_NO_WINDOW = "use --save DIR, or install ispeed[view] on a machine with a display"


class Screen(Protocol):
    """What shows frames."""

    def show(self, image: npt.NDArray[np.uint8]) -> None:
        """Shows uint8 [height, width, 3], sRGB. The image may be overwritten as soon as this returns."""
        ...

    def title(self, text: str) -> None:
        """Sets the title."""
        ...

    def closed(self) -> bool:
        """Handles the window's events; whether the user ended it."""
        ...

    def close(self) -> None:
        """Takes the window away."""
        ...


class Window:
    """An OpenCV window; q, Esc and its close button end it. Raises UserError where there can be none."""

    def __init__(self, name: str) -> None:
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError(f"isp-view has no display to open a window on: {_NO_WINDOW}")
        try:
            import cv2
        except ImportError as error:
            raise UserError(f"isp-view needs OpenCV for a window: {_NO_WINDOW}") from error
        self._cv2: Any = cv2
        self._name = name
        self._bgr: npt.NDArray[np.uint8] | None = None
        try:
            cv2.namedWindow(name, cv2.WINDOW_NORMAL | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:  # the headless build of OpenCV has no windows
            raise UserError(f"this OpenCV cannot open a window: {_NO_WINDOW}") from error

    def show(self, image: npt.NDArray[np.uint8]) -> None:
        """See Screen."""
        if self._bgr is None:  # a window of its own choice of size would shrink the first picture
            height, width = image.shape[:2]
            scale = min(1.0, _LARGEST / max(width, height))
            self._cv2.resizeWindow(self._name, round(width * scale), round(height * scale))
        self._bgr = self._cv2.cvtColor(image, self._cv2.COLOR_RGB2BGR, self._bgr)
        self._cv2.imshow(self._name, self._bgr)

    def title(self, text: str) -> None:
        """See Screen."""
        self._cv2.setWindowTitle(self._name, text)

    def closed(self) -> bool:
        """See Screen."""
        key = self._cv2.waitKey(1) & 0xFF
        return key in (ord("q"), 27) or self._cv2.getWindowProperty(self._name, self._cv2.WND_PROP_VISIBLE) < 1

    def close(self) -> None:
        """See Screen."""
        self._cv2.destroyWindow(self._name)


class Rates:
    """The title's numbers, renewed twice a second."""

    def __init__(self, now_s: float) -> None:
        self._since_s, self._shown, self._sequence = now_s, 0, -1

    def feed(self, frame: Frame, now_s: float, missed: int) -> str | None:
        """Books a frame shown at `now_s` (CLOCK_MONOTONIC); the new title when it is time for one."""
        self._shown += 1
        if self._sequence < 0:
            self._sequence = frame.sequence
        span = now_s - self._since_s
        if span < _TITLE_S:
            return None
        published = (frame.sequence - self._sequence) / span
        latency_ms = now_s * 1e3 - frame.grabbed_ns * 1e-6
        text = (
            f"camera {frame.camera} - {published:.0f} fps, shown {self._shown / span:.0f} fps, "
            f"latency {latency_ms:.1f} ms, missed {missed}"
        )
        self._since_s, self._shown, self._sequence = now_s, 0, frame.sequence
        return text


def view(
    subscriber: Subscriber,
    screen: Screen,
    *,
    frames: int = 0,
    timeout_ms: float = 0,
    stop: Callable[[], int] = lambda: 0,
) -> int:
    """Shows frames until `frames` are shown (0: no limit), the user closes the screen, or `stop` is not 0.

    Returns how many were shown. Raises StreamTimeout after `timeout_ms` (0: never) without a frame.
    """
    shown, last_s = 0, time.monotonic()
    rates = Rates(last_s)
    while not (stop() or screen.closed() or (frames and shown >= frames)):
        try:
            frame = subscriber.receive(_LOOK_MS)
        except StreamTimeout:
            if timeout_ms and (time.monotonic() - last_s) * 1e3 > timeout_ms:
                raise
            continue
        try:
            with frame as image:
                screen.show(image)
        except FrameOverwritten:  # a torn picture was on the screen until the next one
            continue
        shown, last_s = shown + 1, time.monotonic()
        text = rates.feed(frame, last_s, subscriber.missed + subscriber.lapped)
        if text:
            screen.title(text)
    return shown


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `isp-view` and returns its exit code."""
    options = _parser().parse_args(argv)
    try:
        _run(options)
    except (UserError, StreamError, StreamTimeout) as error:
        sys.stderr.write(f"isp-view: error: {error}\n")
        return 2 if isinstance(error, UserError) else 1
    return 0


def _run(options: argparse.Namespace) -> None:
    mode = options.mode or ("every" if options.save else "newest")
    until = {"frames": options.frames, "timeout_ms": options.timeout_ms}
    with (
        Stop() as stop,
        Subscriber(options.endpoint, camera=options.camera, mode=mode, keys=options.keys) as subscriber,
    ):
        if options.save:
            report = save_frames(subscriber, options.save, stop=stop, **until)
            sys.stdout.write(f"saved {report['saved']} frames to {options.save}, missed {report['missed']}\n")
            return
        screen = Window(f"isp-view {subscriber.endpoint}")
        try:
            view(subscriber, screen, stop=stop, **until)
        finally:
            screen.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="isp-view",
        description="Shows the frames that isp-stream publishes, in a window (q or Esc ends) or as PNG files.",
    )
    parser.add_argument(
        "endpoint",
        nargs="?",
        help="where the stream is published, such as ipc:///run/me/cam or tcp://host:5555; left out, the default "
        "endpoint of the camera on this machine",
    )
    parser.add_argument(
        "--camera", type=_whole, metavar="N", help="index of the camera; left out, 0, or whatever ENDPOINT carries"
    )
    parser.add_argument(
        "--mode",
        choices=("newest", "every"),
        help="newest: skip to the newest frame at each look; every: all in order, as far as they last (default: "
        "newest in a window, every with --save)",
    )
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="DIR",
        help="folder of keys for a tcp endpoint, made there by isp-stream keys FOLDER --client NAME",
    )
    parser.add_argument(
        "--save", type=Path, metavar="DIR", help="save each frame as DIR/FRAME_ID.png; needs no display"
    )
    parser.add_argument(
        "--frames", type=_whole, default=0, metavar="N", help="end after N frames; 0 goes on (default 0)"
    )
    parser.add_argument(
        "--timeout-ms",
        type=_whole,
        default=10000,
        metavar="MS",
        help="end with exit code 1 after this long without a frame; 0 waits for ever (default 10000)",
    )
    return parser


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
