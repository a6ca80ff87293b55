"""Pictures: the newest frame as a small JPEG with its histogram, encoded once for all who ask for the same.

One thread makes them, and only while somebody who has shown the last one waits for the next: otherwise it sleeps. It
looks into the sRGB ring itself, so that no message travels for it.
"""

from __future__ import annotations

import io
import json
import math
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..reader import Frame, FrameOverwritten, MappedRing, StreamError

QUALITY = 80
LARGEST = 1920  # pixels of a live picture's width
_TRIES = 20  # for a frame that is not overwritten while it is read
_BOX_BELOW = 2 << 20  # pixels of a frame that are averaged to shrink it; of larger ones every n-th is taken
_HEAD = struct.Struct("<I")


class Encoded(NamedTuple):
    """A picture as it is sent: 4 bytes with the length of a JSON header, that header, and what it counts up: 768 u32 of
    histogram (red, green, blue), a JPEG, and a PNG of clipped pixels where asked for."""

    key: tuple[int, int]
    data: bytes


@dataclass
class View:
    """What one client looks at. `camera` None is nothing at the moment."""

    deliver: Callable[[Encoded], None]
    camera: int | None = None
    width: int = 960
    fps: float = 10.0
    overlay: bool = False
    ready: bool = True  # it has shown what it was sent before
    due_at: float = 0.0
    last: tuple[int, int] | None = None  # stream and sequence of what it was sent before

    def book(self, now: float) -> None:
        """Plans its next turn. Turns lie at multiples of the period, so those of one rate fall together."""
        self.due_at = (math.floor(now * self.fps) + 1) / self.fps


class Pictures(threading.Thread):
    """Makes pictures for the views that wait for one. `made` counts them."""

    def __init__(self, on_fault: Callable[[BaseException], None]) -> None:
        super().__init__(name="pictures", daemon=True)
        self._changed = threading.Condition()
        self._views: list[View] = []
        self._rings: dict[int, MappedRing] = {}
        self._stopping = False
        self._on_fault = on_fault
        self.made = 0

    # -- from the server's thread -------------------------------------------------------------------------------

    def map(self, camera: int, ring: MappedRing) -> None:
        """Takes the frames of a camera from `ring` from now on."""
        with self._changed:
            self._rings[camera] = ring
            self._changed.notify()

    def add(self, view: View) -> None:
        """Begins to serve a view."""
        with self._changed:
            self._views.append(view)

    def remove(self, view: View) -> None:
        """Ends it."""
        with self._changed:
            self._views.remove(view)

    def update(self, view: View, **values: Any) -> None:
        """Changes what a view asks for, or says that it is ready."""
        with self._changed:
            for name, value in values.items():
                setattr(view, name, value)
            if "fps" in values:
                view.book(time.monotonic())
            self._changed.notify()

    def stop(self) -> None:
        """Ends the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self.join()

    def frame(self, camera: int) -> tuple[Frame, npt.NDArray[np.uint8]]:
        """The newest frame with a copy of its own, uint8 [height, width, 3]. Raises StreamError where there is none."""
        with self._changed:
            ring = self._rings.get(camera)
        for _ in range(_TRIES):
            frame = ring.newest() if ring else None
            if frame is None:
                raise StreamError(f"camera {camera} has sent no frame yet")
            try:
                return frame, frame.copy()
            except FrameOverwritten:
                continue
        raise StreamError(f"camera {camera} overwrites its frames faster than they can be read: give it more --slots")

    # -- the thread ---------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Waits for views that are due and serves them."""
        while (due := self._wait()) is not None:
            for camera in {view.camera for view in due}:
                try:
                    self._serve(camera, [view for view in due if view.camera == camera])
                except Exception as error:  # a frame that cannot be shown must not end the page
                    self._on_fault(error)

    def _wait(self) -> list[View] | None:
        with self._changed:
            while not self._stopping:
                waiting = [view for view in self._views if view.ready and view.camera in self._rings]
                now = time.monotonic()
                due = [view for view in waiting if view.due_at <= now]
                if due:
                    for view in due:
                        view.book(now)
                    return due
                self._changed.wait(min(view.due_at for view in waiting) - now if waiting else None)
        return None

    def _serve(self, camera: int | None, views: list[View]) -> None:
        ring = self._rings.get(-1 if camera is None else camera)
        for _ in range(_TRIES):
            frame = ring.newest() if ring else None
            if frame is None:
                return
            key = (frame.header.stream_id, frame.header.sequence)
            asked = [(view, (view.width, view.overlay)) for view in views if view.last != key]
            try:
                made = {how: self._encode(frame, key, *how) for how in {how for _, how in asked}}
            except FrameOverwritten:
                continue
            for view, how in asked:
                with self._changed:
                    if view.camera != camera or not view.ready:
                        continue
                    view.ready, view.last = False, key
                view.deliver(made[how])
            return

    def _encode(self, frame: Frame, key: tuple[int, int], width: int, overlay: bool) -> Encoded:
        self.made += 1
        return Encoded(key, encode(frame, width, overlay))


def encode(frame: Frame, width: int, overlay: bool) -> bytes:
    """A picture at most `width` pixels wide, with its histogram. Raises FrameOverwritten.

    The histogram, the shares of clipped pixels and the overlay are of the frame's own values: of every pixel, or of
    every n-th in both directions where the picture is smaller by n.
    """
    from PIL import Image

    h, full = frame.header, frame.array
    step = -(-h.width // width)
    sample = np.ascontiguousarray(full[::step, ::step])
    shown = Image.fromarray(sample)
    counts = shown.histogram()
    if step > 1 and h.width * h.height <= _BOX_BELOW:
        shown = Image.fromarray(full).reduce(step)
    marks = _clipped(sample) if overlay else None
    frame.check()  # from here on nothing is read from the frame
    jpeg, mask = io.BytesIO(), b""
    shown.save(jpeg, "JPEG", quality=QUALITY)
    if marks is not None:
        mask = _paint(marks)
    total = sample.shape[0] * sample.shape[1]
    histogram = np.array(counts, "<u4")
    header = {
        **describe(frame),
        "shown": [shown.width, shown.height],
        "step": step,
        "sampled": total,
        "clipped_low": [counts[256 * channel] / total for channel in range(3)],
        "clipped_high": [counts[256 * channel + 255] / total for channel in range(3)],
        "jpeg": jpeg.tell(),
        "mask": len(mask),
    }
    return pack(header, histogram.tobytes(), jpeg.getbuffer(), mask)


def pack(header: dict[str, Any], *parts: bytes | memoryview) -> bytes:
    """The length of the header, the header as JSON, and the parts."""
    text = json.dumps(header).encode()
    return b"".join([_HEAD.pack(len(text)), text, *parts])


def unpack(data: bytes) -> tuple[dict[str, Any], bytes]:
    """(header, all that follows it), of what `pack` made."""
    (length,) = _HEAD.unpack_from(data)
    return json.loads(data[_HEAD.size : _HEAD.size + length]), data[_HEAD.size + length :]


def describe(frame: Frame) -> dict[str, Any]:
    """What the page says of a frame. What is not known is None."""
    h = frame.header
    return {
        "camera": h.camera,
        "stream": f"{h.stream_id:016x}",
        "sequence": h.sequence,
        "frame_id": h.frame_id,
        "segment": h.segment,
        "time_ms": frame.time_ns // 1_000_000,
        "width": h.width,
        "height": h.height,
        "exposure_us": _known(h.exposure_us),
        "gain_db": _known(h.gain_db),
        "white_balance": [round(gain, 4) for gain in frame.white_balance],
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _clipped(sample: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """1 where a channel is 0, 2 where one is 255, 3 where both are, else 0."""
    red, green, blue = sample[..., 0], sample[..., 1], sample[..., 2]
    low = ((red == 0) | (green == 0) | (blue == 0)).view(np.uint8)
    high = ((red == 255) | (green == 255) | (blue == 255)).view(np.uint8)
    return low | high << 1


def _paint(marks: npt.NDArray[np.uint8]) -> bytes:
    """A PNG over the picture: blue where a channel is 0, red where one is 255, magenta where both are."""
    from PIL import Image

    image = Image.frombuffer("P", (marks.shape[1], marks.shape[0]), marks, "raw", "P", 0, 1)
    image.putpalette([0, 0, 0, 40, 120, 255, 255, 40, 40, 255, 60, 255])
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1, bits=2, transparency=b"\0\xff\xff\xff")
    return out.getvalue()
