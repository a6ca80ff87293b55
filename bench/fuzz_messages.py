"""Targets: what comes over the network, and text that a user types."""

from __future__ import annotations

import fcntl
import io
import json
import os
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from ..engines.bayer import RawFormat
from ..engines.errors import UserError
from ..stream.changes import Schedule, read_scalar
from ..stream.cli import parse
from ..stream.config import StreamConfig, make_config, read_yaml
from ..stream.control import ControlError
from ..stream.control import _parse as read_answer
from ..stream.endpoint import boot_id, parse_endpoint, require_local
from ..stream.frame import FrameHeader, HeaderError
from ..stream.reader import MappedRing, StreamError, StreamInfo, frame_from_message
from ..stream.requests import EngineRequest, parse_request
from ..stream.ring import KINDS, RING_MAGIC, RING_VERSION, Ring
from .fuzz_target import Target

Prepared = tuple[Callable[[bytes], object], list[bytes]]

_WIDTH, _HEIGHT, _SLOTS, _STREAM = 16, 4, 4, 0x1234


def _ring(stack: ExitStack) -> tuple[Ring, dict[str, Any]]:
    """A ring, and the stream info that describes it."""
    ring = Ring.create("srgb", _SLOTS, _WIDTH * _HEIGHT * 3, _STREAM)
    stack.callback(ring.close)
    layout = ring.layout
    info = {"version": 1, "camera": 0, "boot_id": boot_id(), "pid": os.getpid(), "ring_fd": ring.fd, "slots": _SLOTS}
    info |= {"slot_stride": layout.slot_stride, "payload": layout.payload, "data_offset": layout.data_offset}
    info |= {"generations_offset": layout.generations_offset, "total": layout.total, "stream_id": f"{_STREAM:016x}"}
    info |= {"width": _WIDTH, "height": _HEIGHT, "stride": _WIDTH * 3, "engine": "classic", "fps": 100.0}
    return ring, info


def _look(ring: MappedRing, header: FrameHeader) -> None:
    frame = ring.frame(header)
    frame.array.max()
    _ = frame.overwritten, frame.losses, frame.time_ns, repr(frame)


def _header(folder: Path, stack: ExitStack) -> Prepared:
    _, info = _ring(stack)
    ring = MappedRing(StreamInfo.parse(json.dumps(info).encode()))
    whole = FrameHeader(sequence=6, slot=2, generation=14, stream_id=_STREAM, exposure_us=100.0)
    whole = whole._replace(width=_WIDTH, height=_HEIGHT, stride=_WIDTH * 3)

    def read(data: bytes) -> None:
        header = FrameHeader.unpack(data)
        try:
            frame_from_message(header, memoryview(data)[256:]).array.max()
        except StreamError:
            pass
        _look(ring, header)

    small = whole._replace(width=1, height=2, stride=5)
    return read, [whole.pack(), whole.pack() + bytes(whole.nbytes), small.pack() + bytes(small.nbytes)]


def _info(folder: Path, stack: ExitStack) -> Prepared:
    _, info = _ring(stack)

    def read(data: bytes) -> None:
        told = StreamInfo.parse(data)
        _ = told.stream_number
        MappedRing(told)

    named = {**info, "ring_path": "/dev/shm/ispeed-no-such-ring"}  # noqa: S108
    return read, [json.dumps(info).encode(), json.dumps(named).encode()]


def _ring_header(folder: Path, stack: ExitStack) -> Prepared:
    """A hostile publisher: the ring's own header is the input, and its stream info says the same."""
    ring, info = _ring(stack)
    from ..stream.reader import _RING_HEADER

    def read(data: bytes) -> None:
        fd = os.memfd_create("ispeed-srgb", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, ring.layout.total)
            os.posix_fallocate(fd, 0, ring.layout.total)
            os.pwrite(fd, data[: ring.layout.total], 0)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
            _, _, _, slots, payload, stride, generations, _, data_offset, _, total, stream = _RING_HEADER.unpack(
                data[: _RING_HEADER.size].ljust(_RING_HEADER.size, b"\0")
            )
            told = {**info, "ring_fd": fd, "slots": slots, "payload": payload, "slot_stride": stride, "total": total}
            told |= {"generations_offset": generations, "data_offset": data_offset, "stream_id": f"{stream:016x}"}
            mapped = MappedRing(StreamInfo.parse(json.dumps(told).encode()))
            for sequence in {0, 1, slots - 1}:
                width = max(1, min(65535, payload // 3))
                header = FrameHeader(slot=sequence % slots, sequence=sequence, generation=2 * sequence + 2)
                height = max(1, payload // (3 * width))
                _look(mapped, header._replace(width=width, height=height, stride=3 * width))
        finally:
            os.close(fd)

    return read, [os.pread(ring.fd, 4096, 0), _RING_HEADER.pack(RING_MAGIC, RING_VERSION, KINDS["srgb"], *[8] * 9)]


def _config(folder: Path, stack: ExitStack) -> Prepared:
    path = folder / "camera.yaml"
    fmt = RawFormat(64, 48, "BayerRG8")

    def read(data: bytes) -> None:
        path.write_bytes(data)
        config = make_config(read_yaml(path))
        if config.measured:
            config.measured.require_like(fmt, "SIM0001")
        config.model_dump(mode="json")

    names = ", ".join(StreamConfig.model_fields)
    seeds = [
        b"camera: 0\nfps: 500\nwidth: 640\nfeatures: {Gain: 3, TriggerMode: On}\nat: ['500:ExposureTime=200']\n",
        b"white_balance: [2, 1, 1.5]\ncolour_matrix: [[1, 0, 0], [0, 1, 0], [0, 0, 1]]\ndefects: [[1, 2], [3, 4]]\n",
        b"measured: {serial: A1, pixel_format: BayerRG8, width: 64, height: 48, dark: {frames: 16}}\nhistory: 5\n",
        b"flat_field: {R: &a [[1, 1.5], [1.25, 1]], Gr: *a, Gb: *a, B: *a}\n",
        b"a: &a [x, x]\nb: &b [*a, *a]\ndefects: *b\nrealtime: {cpu: 1, fifo: 10}\npublish: ['ipc:///run/x/y']\n",
        f"{{{names}}}".encode(),
    ]
    return read, seeds


def _flags(folder: Path, stack: ExitStack) -> Prepared:
    """Flags as the shell would hand them over, one a line."""
    config = folder / "c.yaml"
    config.write_text("camera: 0\n")
    nowhere = io.StringIO()

    def read(data: bytes) -> None:
        lines = os.fsdecode(data.replace(b"\0", b"")).split("\n")
        nowhere.seek(0)
        nowhere.truncate()
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            try:
                parse(lines)
            except SystemExit as end:
                if end.code not in (0, 2):
                    raise

    seeds = [
        "--at\n500:ExposureTime=200\n--at\n7:Gain=1\n--fps\n30",
        f"--config\n{config}\n--json\n--white-balance\n1\n1\n1",
    ]
    return read, [
        seed.encode() for seed in (*seeds, "--set\nGain=3\n--set\nTriggerMode=On", "--publish\ntcp://[::1]:*")
    ]


def _control(folder: Path, stack: ExitStack) -> Prepared:
    """What comes over the control socket, and what a client makes of an answer."""

    def read(data: bytes) -> None:
        try:
            read_answer(data)
        except ControlError:
            pass
        request = parse_request(data)
        if isinstance(request, EngineRequest):
            request.changes()
        repr(request)

    asked = [
        {"cmd": "status"},
        {"cmd": "features", "names": ["ExposureTime", "Gain"]},
        {"cmd": "set", "feature": "ExposureTime", "value": 200.5},
        {"cmd": "set", "feature": "TriggerMode", "value": "On"},
        {"cmd": "trigger"},
        {"cmd": "engine", "engine": "lwisp-xs", "white_balance": [2, 1, 1.5], "engine_mode": "latency"},
        {"cmd": "record", "action": "trigger", "reason": "it came loose"},
        {"cmd": "stop"},
    ]
    return read, [json.dumps({"id": 1, "camera": 0, **request}).encode() for request in asked]


def _at(folder: Path, stack: ExitStack) -> Prepared:
    def read(data: bytes) -> None:
        text = os.fsdecode(data)
        read_scalar(text)
        Schedule([text]).due(10)

    return read, [b"500:ExposureTime=200", b"0: Gain = 1.5", b"7:TriggerMode=On", b"8:X=1:2:3", b"9:D=2026-02-03"]


def _endpoint(folder: Path, stack: ExitStack) -> Prepared:
    def read(data: bytes) -> None:
        text = os.fsdecode(data)
        parse_endpoint(text)
        require_local(text)

    return read, [
        b"ipc:///run/user/1/x",
        b"tcp://127.0.0.1:5555",
        b"tcp://[::1]:*",
        b"tcp://*:1",
        b"tcp://localhost:80",
    ]


MESSAGES = (
    Target("header", "frame headers, and the frames that they describe", (HeaderError, StreamError), _header),
    Target("info", "stream infos, and the rings that they name", (StreamError,), _info, (b'"ring_path":', b'"pid":')),
    Target("ring", "rings of a hostile publisher", (StreamError,), _ring_header),
    Target(
        "config",
        "YAML files of isp-stream",
        (UserError,),
        _config,
        tuple(f"{name}: ".encode() for name in StreamConfig.model_fields),
        share=0.2,
    ),
    Target(
        "flags",
        "flags of isp-stream",
        (UserError,),
        _flags,
        tuple(f"\n--{name.replace('_', '-')}\n".encode() for name in StreamConfig.model_fields),
        share=0.1,
    ),
    Target("control", "messages to and from the control socket", (UserError,), _control, (b'"cmd": ', b'"value": ')),
    Target("at", "changes of features: --at, --set", (ValueError,), _at, share=0.2),
    Target("endpoint", "endpoints", (UserError,), _endpoint, (b"ipc://", b"tcp://", b":*", b"[::]")),
)
