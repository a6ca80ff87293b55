"""StreamConfig: everything that `isp-stream` can be told, by flag or by YAML file, under the same names.

The docstring under each field is its `--help`. Unknown keys are refused; all problems are reported at once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from ..engines.engine import Mode
from ..engines.errors import UserError
from ..engines.flat_field import checked_mesh, to_json
from ..engines.measured import Measured
from ..engines.settings import Settings, make_settings
from ..engines.settings import read_yaml as read_settings
from .changes import Scalar, read_change

__all__ = ["Measured", "MeshOfGains", "Realtime", "StreamConfig", "make_config", "read_yaml"]


_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?")
"""A host by its name or IPv4 address, with a port or without."""

RECORDING = "file:"
"""What `camera` begins with where it is a recording."""


def _checked_change(text: str) -> str:
    read_change(text)
    return text


def _checked_host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError("it must be NAME or NAME:PORT, without https:// before it")
    return text


def checked_flat_field(flat_field: Any) -> Any:
    """A flat field of a config, as it is kept in one. Raises ValueError with one sentence."""
    if flat_field is None:
        return None
    try:
        return to_json(checked_mesh(flat_field))
    except UserError as error:  # one sentence, where pydantic would have one for each gain
        raise ValueError(error) from error


MeshOfGains = Annotated[dict[str, list[list[float]]] | None, BeforeValidator(checked_flat_field)]
"""A flat field: R, Gr, Gb, B, each as rows of gains."""


class Realtime(Settings):
    """Scheduling of the grab process."""

    cpu: Annotated[int, Field(ge=0, le=4095)] | None = None
    """CPU core that the grab process is bound to; null leaves it to the scheduler"""
    fifo: Annotated[int, Field(ge=0, le=99)] = 0
    """SCHED_FIFO priority of the grab process, 1-99 (needs CAP_SYS_NICE); 0 keeps the normal scheduler"""


class StreamConfig(Settings):
    """Settings of `isp-stream`."""

    camera: Annotated[str, Field(min_length=1, coerce_numbers_to_str=True)] = "0"
    """camera to open: its index in --list, its serial number (SERIAL@PRODUCER, with the whole path of the .cti file,
    where several see it), or file:PATH, a recording that is played; several are streamed side by side, each on topics
    of its own"""
    cameras: dict[str, Any] = Field({})
    """a section for each camera of the run, by index or serial number, with the settings in which it differs (YAML
    only)"""
    cti: list[Path] = Field([])
    """GenTL producer file(s) (.cti) to load before those on GENICAM_GENTL64_PATH and the shipped simulated camera"""
    engine: str = "auto"
    """what develops the frames: classic (no network); auto (a built plan that fits this machine's GPU and the camera's
    format, else classic); a learned model by its name, on the processor: lwisp, lwisp-s, lwisp-xs, light-paired (the
    fastest), light-unpaired (a look of its own), or lwisp-hdr, which tone-maps; or the path of a model core (.onnx), a
    TensorRT plan that isp-build made (.plan), or an exported torch model (.pt2)"""
    engine_mode: Mode = "throughput"
    """what a learned engine is set up for: throughput (most frames a second, several in flight), latency (each frame
    as soon as may be)"""
    engine_precision: Literal["auto", "fp32", "bf16"] = "auto"
    """what a learned model computes in on the processor: auto (bf16 where the processor has it, which is faster, else
    fp32), fp32 (the same on every processor but for rounding), bf16"""
    share_engine: bool = False
    """develop all cameras of the run in one process, instead of one for each: on a GPU they then share its context and
    overlap; what ends that process ends it for all until it is started again"""
    fps: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """AcquisitionFrameRate in Hz, with a trigger the highest rate at which it comes; null leaves the camera's own, and
    plays a recording by its time stamps"""
    replay_speed: Annotated[float, Field(ge=0, le=1000)] = 1
    """factor on the rate that a recording is played at; 0 plays it as fast as frames are taken, and loses none"""
    cfa: Literal["RG", "GR", "GB", "BG"] | None = None
    """order of the colour filters of a recording: RG, GR, GB or BG; null is as the file says"""
    loop: bool = False
    """begin a recording again when it has ended; frame ids and time stamps go on"""
    width: Annotated[int, Field(gt=0, le=65535)] | None = None
    """Width in pixels; null leaves the camera's own"""
    height: Annotated[int, Field(gt=0, le=65535)] | None = None
    """Height in pixels; null leaves the camera's own"""
    offset_x: Annotated[int, Field(ge=0, le=65535)] | None = None
    """OffsetX in pixels; null leaves the camera's own"""
    offset_y: Annotated[int, Field(ge=0, le=65535)] | None = None
    """OffsetY in pixels; null leaves the camera's own"""
    pixel_format: str | None = None
    """PixelFormat by its PFNC name, such as BayerRG8 or BayerRG12p; null leaves the camera's own"""
    exposure_us: Annotated[float, Field(gt=0)] | None = None
    """ExposureTime in microseconds; null leaves the camera's own"""
    gain_db: float | None = None
    """Gain in decibels; null leaves the camera's own"""
    features: dict[str, Scalar] = Field({})
    """further camera features by name, set in this order before the stream opens (YAML only; flag --set NAME=VALUE)"""
    at: list[Annotated[str, AfterValidator(_checked_change)]] = Field([])
    """set a camera feature during the run, once so many frames were seen, such as 500:ExposureTime=200; those of one
    number in the order given"""
    trigger: bool = False
    """wait for the camera's trigger (TriggerMode On): silence is then idle, not a fault"""
    black_level: Annotated[float, Field(ge=0)] | None = None
    """black level in digital numbers of the pixel format; null reads the camera's BlackLevel, 0 where it has none"""
    white_level: Annotated[float, Field(gt=0)] | None = None
    """white level in digital numbers of the pixel format; null is the format's highest value"""
    white_balance: tuple[float, float, float] | None = None
    """gains of red, green and blue; null lets the engine find them (grey world, smoothed over time)"""
    colour_matrix: list[list[float]] | None = None
    """3x3 matrix, camera RGB to linear sRGB, rows sum to 1 for a neutral grey; null is the identity"""
    base_iso: Annotated[float, Field(ge=1, le=1e6)] = 100
    """ISO sensitivity of the camera at a gain of 0 dB, for models that are told the ISO: that of a frame is base_iso
    times 10^(gain/20)"""
    f_number: Annotated[float, Field(ge=0.5, le=128)] | None = None
    """f-number that the lens is set to, for models that are told it; null is not known"""
    focal_length_mm: Annotated[float, Field(ge=0.5, le=5000)] | None = None
    """focal length of the lens in millimetres, for models that are told it; null is not known"""
    defects: list[tuple[int, int]] = Field([])
    """defect pixels as (x, y), replaced by their neighbours of the same colour"""
    flat_field: MeshOfGains = None
    """gains that make up for the shading of the lens: R, Gr, Gb and B, each 2 to 65 rows of 2 to 65 gains from 0.25 to
    16, spread evenly over the frame, as isp-calibrate flat writes; null is none. A plan has it built in"""
    measured: Measured | None = None
    """what isp-calibrate measured of the camera, and on which frames; those of the camera must be like them"""
    policy: Literal["every", "latest", "block"] = "every"
    """which frames are developed when the engine is behind: every (in order, oldest dropped when the ring is full),
    latest (only the newest), block (nothing is dropped here; the camera runs out of buffers)"""
    acquisition: Literal["auto", "zero-copy", "copy"] = "auto"
    """data path: zero-copy (the camera writes into the ring), copy (portable, for producers that misbehave), auto
    (zero-copy, and copy where the producer refuses it)"""
    slots: Annotated[int, Field(ge=8, le=4096)] | None = None
    """slots in each ring; null holds 100 ms of frames, at least 16, at most 512"""
    history: Annotated[int, Field(ge=0, le=4096)] = 0
    """developed raw frames that stay readable in the ring, in addition to the slots"""
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    """threads of an engine on the processor; null chooses by frame size and cores"""
    timeout_ms: Annotated[int, Field(ge=50)] = 2000
    """silence after which a free-running camera counts as lost and is re-opened"""
    stage_timeout_ms: Annotated[int, Field(ge=500)] = 10_000
    """time without a sign of life after which a stage process is killed and started again"""
    realtime: Realtime = Realtime()
    """scheduling of the grab process: {cpu, fifo} (YAML only)"""
    publish: list[str] = Field([])
    """endpoint(s) to publish on, such as ipc:///run/me/cam or tcp://127.0.0.1:5555; empty is
    ipc://$XDG_RUNTIME_DIR/ispeed/CAMERA"""
    control: list[str] = Field([])
    """endpoint(s) to take commands on, such as tcp://127.0.0.1:5556; empty is beside the socket files of publish, as
    ipc://$XDG_RUNTIME_DIR/ispeed/CAMERA.control"""
    keys: Path | None = None
    """folder of keys that isp-stream keys FOLDER made: tcp endpoints are then encrypted, and for those clients only
    whose keys are in it"""
    monitor: str | None = None
    """serve a page with the live picture, figures and settings at [HOST]:PORT, such as :8080; without a host this
    machine alone reaches it, with another one a token is asked for; port 0 takes a free one; null serves none"""
    monitor_token: Path | None = None
    """file with the token that the page asks for, its owner's alone; null makes one where the host is not this
    machine's own loopback or monitor_host is given, and asks for none elsewhere"""
    monitor_host: list[Annotated[str, AfterValidator(_checked_host)]] = Field([])
    """host under which a proxy, such as one with TLS, hands the page on: NAME, or NAME:PORT where the port is not the
    usual one; a token is then asked for"""
    monitor_fps: Annotated[float, Field(ge=0.1, le=60)] = 10
    """pictures a second that the page is sent at the most"""
    monitor_clients: Annotated[int, Field(ge=1, le=256)] = 16
    """pages and programs that may be connected to the monitor at once"""
    insecure: bool = False
    """allow a tcp endpoint that other hosts can reach, unencrypted and for anybody"""
    shm_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")] | None = None
    """put the sRGB ring into /dev/shm/NAME, for readers in another PID namespace; null keeps it anonymous"""
    frames: Annotated[int, Field(ge=0)] = 0
    """end after this many published frames; 0 runs until stopped (with --snap: 16)"""
    seconds: Annotated[float, Field(ge=0)] = 0
    """end after this many seconds; 0 runs until stopped"""
    scene: str | None = None
    """what the simulated camera plays: target, or a file of raw frames (.raw, .png, .npy),
    FILE?width=512&height=512&format=BayerRG12 where no FILE.yaml says so"""
    save: Path | None = None
    """folder for a PNG of each frame"""
    record: Path | None = None
    """folder for recordings, each a file (or a folder of DNG files) named by camera and time; see record_on"""
    record_format: Literal["h5", "dng", "mp4"] = "h5"
    """what recordings are: h5 (HDF5, raw and sRGB frames, at the disk's full rate), dng (a file for each raw frame),
    mp4 (a video of the sRGB frames)"""
    record_what: Literal["raw", "srgb", "both"] | None = None
    """frames that are recorded: raw (the bytes as they came), srgb, both (h5 only); null is raw, and srgb for mp4"""
    record_on: list[Literal["start", "key", "line", "brightness"]] = Field([])
    """what begins a recording: start (the first frame; it goes on to the end), key (Enter in the terminal), line (a
    rising edge on a line of the camera), brightness (a jump of the mean, see brightness_jump); a control message always
    does. Empty is start, or key where pre_trigger_s or post_trigger_s is given"""
    pre_trigger_s: Annotated[float, Field(ge=0, le=3600)] = 0
    """seconds before a trigger that are recorded, out of the ring, which is made as large as they need"""
    post_trigger_s: Annotated[float, Field(ge=0, le=86400)] | None = None
    """seconds after a trigger that are recorded, after the last one where more come meanwhile; null is 1"""
    record_seconds: Annotated[float, Field(ge=0, le=1e6)] = 0
    """longest recording in seconds, with what is before the trigger; 0 sets no limit"""
    record_slack_s: Annotated[float, Field(ge=0.05, le=60)] = 1.0
    """seconds that the disk may stand still while frames are recorded; the ring is made larger by so much"""
    record_line: Annotated[int, Field(ge=0, le=15)] = 0
    """line of the camera that triggers: its bit in LineStatusAll"""
    brightness_jump: Annotated[float, Field(gt=0, le=1000)] = 0.3
    """change of the mean above black that triggers, up or down, as a fraction of the mean of the last second"""
    record_fps: Annotated[float, Field(ge=0, le=1e6)] = 60
    """most frames a second in an MP4, which plays at the speed of the scene; those between are left out, and counted;
    0 leaves none out"""
    trace: Path | None = None
    """file for each frame's five time stamps, as Chrome-trace JSON (the last 200,000 frames)"""
    json_lines: Annotated[bool, Field(alias="json")] = False
    """print one JSON object a second and the final ledger, instead of the status line"""
    quiet: bool = False
    """print nothing but errors"""

    model_config = ConfigDict(populate_by_name=True)

    @property
    def recording(self) -> str:
        """The file that is played in the place of a camera; empty where it is a camera."""
        return self.camera.removeprefix(RECORDING) if self.camera.startswith(RECORDING) else ""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; cameras are named in it as they stand there, as with --camera.

    Raises UserError when there is no such file or no mapping in it.
    """
    return read_settings(path, as_text=("camera", "cameras"))


def make_config(values: dict[str, Any]) -> StreamConfig:
    """Validates `values` (names as in the YAML file). Raises UserError that lists every problem in one line."""
    return make_settings(StreamConfig, values, "isp-stream --help")
