"""Recordings as MP4: the sRGB frames as a video that plays at the speed of the scene, with a .csv of its frames beside.

H.264 where the encoder is there, else MPEG-4 part 2. The file is written in fragments, so that one whose writer was
killed still plays. Times are those at which frames reached this host, to the microsecond. Colours are BT.709 with the
curve of sRGB, in the limited range, and the file says so.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...engines.errors import UserError, reason
from .hdf import Contents
from .table import CsvTable

_AT_ONCE = 8  # frames that are copied out of the ring before they are encoded
_NEWEST = 0.1  # share of the newest frame in what is known of their rate
_CODECS = (  # name, options, and ticks of a second, of which MPEG-4 part 2 allows fewer than 65536
    ("libx264", {"preset": "ultrafast", "crf": "18"}, 1_000_000),
    ("mpeg4", {"qscale": "3", "flags": "qscale"}, 60_000),
)
_MUXING = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}


class Mp4Writer:
    """Writes one recording.

    Attributes:
        thinned: Frames that were left out because more came than `record_fps`.

    Args:
        path: A file that is not there yet.
        contents: What it is of.
        fps: The camera's frame rate, 0 where it is not known.
        record_fps: Most frames a second; 0 sets no limit.

    Raises:
        OSError: The file cannot be made.
    """

    def __init__(self, path: Path, contents: Contents, *, fps: float, record_fps: float) -> None:
        av = require_av()
        if contents.srgb_size is None:
            raise ValueError("a video holds sRGB frames")
        self.path = path
        width, height = contents.srgb_size
        self._shape = (height, width, 3)
        self._even = (height // 2 * 2, width // 2 * 2)  # chroma has half the size
        self._period_ns = 1e9 / record_fps if record_fps else 0.0
        self._gap_ns = 1e9 / fps if fps else self._period_ns  # between frames as they come, on average
        self._due_ns, self._start_ns, self._last_ns = -1.0, -1, -1
        self._dues: list[float | None] = []  # of the frames that were written: when the next is due; None left out
        self._copies = [np.empty(self._shape, np.uint8) for _ in range(_AT_ONCE)]
        self._count = self.nbytes = self.thinned = 0
        self._last_pts = -1
        self._closed = False
        self._container: Any = None
        self._table = CsvTable(path.with_suffix(".csv"))
        try:
            # Of our own, because libav leaves its file open for ever where the end could not be written.
            self._file = path.open("xb")
            with _os_errors(av):
                self._container = av.open(self._file, "w", format="mp4", options=dict(_MUXING))
                self._stream = self._begin(av, min(fps or record_fps or 30.0, record_fps or 1e6))
        except OSError:
            self.discard()
            raise

    def _begin(self, av: Any, rate: float) -> Any:
        name, options, ticks = next(codec for codec in _CODECS if codec[0] in av.codecs_available)
        stream = self._container.add_stream(name, rate=Fraction(rate).limit_denominator(1000), options=options)
        stream.width, stream.height, stream.pix_fmt = self._even[1], self._even[0], "yuv420p"
        context = stream.codec_context
        self._tick_s = context.time_base = stream.time_base = Fraction(1, ticks)
        context.gop_size = max(1, round(rate))
        context.color_range, context.colorspace = 1, 1  # limited, BT.709
        context.color_primaries, context.color_trc = 1, 13  # those of sRGB
        context.open()  # now, rather than at the first frame: it may refuse
        return stream

    @property
    def counts(self) -> dict[str, int]:
        return {"srgb": self._count}

    def room(self, kind: str) -> int:
        return _AT_ONCE

    def write(self, kind: str, pieces: Sequence[memoryview], rows: npt.NDArray[Any]) -> None:
        self._dues, due_ns = [], self._due_ns
        # On a grid, so that the mean rate is the one asked for: the frame that is nearest to each of its points. Where
        # the camera has that rate itself none is left out because it came a little early.
        early_ns = min(self._gap_ns, self._period_ns) / 2
        for copy, piece, time_ns in zip(self._copies, pieces, rows["grabbed_ns"].tolist(), strict=False):
            wanted = time_ns >= due_ns - early_ns
            if wanted:
                copy.reshape(-1)[:] = np.frombuffer(piece, np.uint8, copy.size)
                due_ns = self._after(due_ns, time_ns)
            self._dues.append(due_ns if wanted else None)

    def commit(self, kind: str, rows: npt.NDArray[Any]) -> None:
        for copy, due_ns, row in zip(self._copies, self._dues, rows, strict=False):
            time_ns = int(row["grabbed_ns"])
            if self._last_ns >= 0:
                self._gap_ns += (time_ns - self._last_ns - self._gap_ns) * _NEWEST
            self._last_ns = time_ns
            if due_ns is None:
                self.thinned += 1
                continue
            self._due_ns = due_ns
            self._start_ns = time_ns if self._start_ns < 0 else self._start_ns
            self._encode(copy, time_ns)
            self._table.add(row)
            self._count += 1
        self._file.flush()
        self._table.flush()

    def event(self, row: npt.NDArray[Any]) -> None:
        self._table.note(row)

    def finish(self) -> None:
        try:
            with _os_errors(require_av()):
                if self._count:
                    self._mux(self._stream.encode(None))
                self._closed = True
                self._container.close()
            self._file.close()
            self._table.close()
        finally:
            self.abandon()

    def abandon(self) -> None:
        if not self._closed:
            self._closed = True
            with suppress(Exception):  # a codec says in many ways that it cannot end what it could not begin
                self._container.close()  # which may not be there
        with suppress(OSError, AttributeError):
            self._file.close()
        self._table.abandon()

    def discard(self) -> None:
        self.abandon()
        for path in (self.path, self.path.with_suffix(".csv")):
            with suppress(OSError):
                path.unlink()

    def _after(self, due_ns: float, time_ns: int) -> float:
        """When the frame after this one is due. What fell behind the grid is not made up for."""
        if not self._period_ns or due_ns < 0:
            return time_ns + self._period_ns
        return due_ns + (max(0, (time_ns - due_ns) // self._period_ns) + 1) * self._period_ns

    def _encode(self, image: npt.NDArray[np.uint8], time_ns: int) -> None:
        av, (height, width) = require_av(), self._even
        with _os_errors(av):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            ticks = (time_ns - self._start_ns) * self._tick_s.denominator / 1e9
            self._last_pts = max(self._last_pts + 1, round(ticks))
            frame.pts, frame.time_base = self._last_pts, self._tick_s
            self._mux(self._stream.encode(frame))

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            self.nbytes += packet.size
            self._container.mux(packet)


@contextmanager
def _os_errors(av: Any) -> Iterator[None]:
    """What the encoder raises, some of which are ValueErrors and the like, as an OSError."""
    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise OSError(errno.EIO, f"the encoder cannot go on: {reason(error)}") from error


def require_av() -> Any:
    """The package PyAV. Raises UserError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise UserError("MP4 files need PyAV: pip install 'ispeed[record]'") from error
    return av
