"""An mp4, in H.264, 4:2:0, BT.709: segments of a chunk each, encoded by the workers, put together without encoding.

A segment begins with a key frame and refers to nothing outside of it, so its bytes do not depend on who made others.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...engines.errors import UserError, reason
from ..footage import Footage
from .job import Job, RunFailed
from .sinks import FRAMES_TABLE, PART, PARTS, Picture, Sink, parts_folder, put_in_place, write_frames_table

_CODEC = "libx264"


class FilmSink(Sink):
    """See `Sink`."""

    def __init__(self, job: Job) -> None:
        """Raises UserError: there is no PyAV, or it has no encoder for H.264."""
        super().__init__(job)
        self._av = require_av()
        self._path = self.folder / f"{job.stem}.mp4"

    def names(self) -> Iterable[str]:
        """See `Sink.names`."""
        return (FRAMES_TABLE, self._path.name)

    def done(self) -> npt.NDArray[np.bool_]:
        """See `Sink.done`."""
        count, size = self.job.count, self.job.segment
        if self._path.is_file():
            return np.ones(count, np.bool_)  # whatever segments are left
        there = [_is_there(self.folder / PARTS / _segment(start)) for start in range(0, count, size)]
        return np.repeat(np.array(there, np.bool_), size)[:count]

    def chunks(self, done: npt.NDArray[np.bool_], size: int) -> list[list[int]]:
        """See `Sink.chunks`: a segment each."""
        return super().chunks(done, self.job.segment)

    def open(self, footage: Footage) -> None:
        """See `Sink.open`."""
        super().open(footage)
        write_frames_table(self.job, footage)
        parts_folder(self.folder)

    def conclude(self) -> None:
        """See `Sink.conclude`."""
        part = self.folder / f".{self._path.name}{PART}"
        segments = [self.folder / PARTS / _segment(start) for start in range(0, self.job.count, self.job.segment)]
        try:
            if not self._path.is_file():
                self._join(part, segments)
                put_in_place(part, self._path)  # before the segments go
            for segment in segments:
                segment.unlink(missing_ok=True)
        except (OSError, self._av.FFmpegError) as error:
            part.unlink(missing_ok=True)  # the room that it takes is what is missing
            raise RunFailed(
                f"cannot write {self._path}: {reason(error)}; mend that, and run the same command again"
            ) from error

    def close(self) -> None:
        """See `Sink.close`."""
        super().close()
        with suppress(OSError):  # there are segments in it
            (self.folder / PARTS).rmdir()

    def _join(self, path: Path, segments: Sequence[Path]) -> None:
        """Packet after packet; times are counted in frames."""
        unit = 1 / _rate(self.job)
        with self._av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as film:
            out = None
            for number, (stream, packet) in enumerate(self._packets(segments)):
                if out is None:
                    out = film.add_stream_from_template(stream)
                    out.time_base = unit
                packet.stream, packet.time_base = out, unit
                packet.pts = packet.dts = number
                packet.duration = 1
                film.mux(packet)

    def _packets(self, segments: Sequence[Path]) -> Iterator[tuple[Any, Any]]:
        """Each packet with its stream. Raises RunFailed for a segment that cannot be read."""
        for segment in segments:
            try:
                with self._av.open(str(segment), format="mp4") as piece:
                    stream = piece.streams.video[0]
                    for packet in piece.demux(stream):
                        if packet.size:  # the last one has nothing in it, and says that there are no more
                            yield stream, packet
            except (OSError, IndexError, self._av.FFmpegError) as error:
                raise RunFailed(
                    f"{segment} is damaged ({reason(error)}): remove it, and run the same command again"
                ) from error


class FilmWriter:
    """Encodes segments. See `Writer`."""

    def __init__(self, job: Job) -> None:
        """Raises UserError: there is no PyAV, or it has no encoder for H.264."""
        self._av, self._job = require_av(), job
        self._film: Any = None
        self._number = 0
        self._one_thread = _one_thread(self._av)

    def begin(self, positions: Sequence[int], places: Sequence[int]) -> None:
        """See `Writer.begin`."""
        self._path = self._job.folder / PARTS / _segment(positions[0])
        self._part = self._path.with_name(f".{self._path.name}.{os.uname().nodename}-{os.getpid()}{PART}")
        width, height = self._job.raw_format["width"], self._job.raw_format["height"]
        self._close()
        self._film = self._av.open(str(self._part), "w", format="mp4")
        # No frames that refer to later ones: then times are those of the order, across segments too.
        options = {"crf": str(self._job.mp4_crf), "preset": "medium", "bf": "0", "threads": "1"}
        stream = self._film.add_stream(_CODEC, rate=_rate(self._job), options=options)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.gop_size = len(positions)
        context = stream.codec_context
        context.color_range, context.colorspace = 1, 1  # limited, BT.709
        context.color_primaries, context.color_trc = 1, 13  # those of sRGB
        self._stream, self._number = stream, 0

    def put(self, position: int, picture: Picture) -> None:
        """See `Writer.put`."""
        height, width, _ = picture.shape
        even = (
            np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), "edge") if height % 2 or width % 2 else picture
        )
        frame = self._av.VideoFrame.from_ndarray(even, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", **self._one_thread)
        frame.pts, frame.time_base = self._number, 1 / _rate(self._job)
        self._number += 1
        for packet in self._stream.encode(frame):
            self._film.mux(packet)

    def end(self) -> None:
        """See `Writer.end`."""
        for packet in self._stream.encode():
            self._film.mux(packet)
        self._close()
        put_in_place(self._part, self._path)

    def _close(self) -> None:
        film, self._film = self._film, None
        if film is not None:
            film.close()


def require_av() -> Any:
    """The package av. Raises UserError where it is not installed, or has no encoder for H.264."""
    try:
        import av
    except ImportError as error:
        raise UserError("films need PyAV: pip install 'ispeed[record]'") from error
    if _CODEC not in av.codecs_available:
        raise UserError(f"this PyAV has no {_CODEC}: pip install --force-reinstall 'ispeed[record]', or make png files")
    return av


def _one_thread(av: Any) -> dict[str, int]:
    """Has colours converted by one thread, where PyAV would take as many as there are cores: workers share those."""
    one: dict[str, int] = {"threads": 1}
    try:
        av.VideoFrame(16, 16, "rgb24").reformat(format="yuv420p", **one)
    except TypeError:  # earlier releases have but one
        return {}
    return one


def _rate(job: Job) -> Fraction:
    return Fraction(job.mp4_fps).limit_denominator(1001)


def _is_there(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _segment(start: int) -> str:
    return f"{start:08d}.mp4"
