"""`isp-stream --check`: what this machine lacks for high-speed cameras, each with the command that mends it.

Every check is a function of what it looks at, so that it can be tried on a made-up machine; `report` applies them to
this one. Nothing here changes anything.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ..engines.cuda.driver import Gpu, NoGpu, gpus
from ..engines.errors import UserError
from .camera.discovery import PRODUCER_PATH, CameraInfo, Discovery, import_harvesters
from .camera.simcam import producer_path

Level = Literal["ok", "warn", "fail"]

MIB = 1 << 20
RMEM_MAX = 32 * MIB  # bytes of socket buffer that carry a GigE Vision camera over a pause of this host
JUMBO_MTU = 8000
USBFS_MB = 256
MEMLOCK = 64 * MIB
OPEN_FILES = 1024
FREE_MEMORY = 512 * MIB
_CAP_SYS_NICE = 23
_OPTIONAL = {
    "cv2": ("isp-view in a window", "pip install 'ispeed[view]'"),
    "onnxruntime": ("isp-build, and the processor where openvino has no wheel", "pip install 'ispeed[onnxruntime]'"),
    "tensorrt": ("plans (.plan) for any NVIDIA GPU, data-centre ones too", "pip install 'ispeed[tensorrt]'"),
    "tensorrt_rtx": ("plans (.plan) for RTX GPUs, built without one", "pip install 'ispeed[rtx]'"),
    "pycuda": ("running plans on an NVIDIA GPU", "pip install pycuda"),
    "ray": ("isp-develop on a cluster", "pip install 'ispeed[ray]'"),
    "torch": ("exported models (.pt2) on an NVIDIA GPU, and for training", "pip install 'ispeed[train]'"),
}
_LIMITS_FILE = "/etc/security/limits.d/ispeed.conf"


@dataclass(frozen=True)
class Finding:
    """One line of the report. `what` is a sentence; `mend` the command that mends it, empty where nothing need be done.

    `level`: ok, warn (something works less well, or not with every camera), fail (isp-stream cannot run).
    """

    level: Level
    what: str
    mend: str = ""


def report(cti: Sequence[Path | str] = ()) -> list[Finding]:
    """Looks over this machine; `cti` are further producers to try."""
    root = Path("/")
    return [
        *check_machine(platform.machine()),
        *check_binding(import_harvesters),
        *check_simulated_camera(producer_path),
        *check_cameras(cti),
        *check_limits(read_limits(), may_use_fifo()),
        *check_memory(root),
        *check_sockets(root),
        *check_mtu(root),
        *check_usb(root),
        *check_governor(root),
        *check_gpu(gpus),
        *check_packages(lambda name: find_spec(name) is not None),
    ]


def check_machine(machine: str) -> Iterator[Finding]:
    """The processor's architecture."""
    if machine in ("x86_64", "AMD64"):
        yield Finding("ok", f"the processor is {machine}")
    else:
        yield Finding("fail", f"the processor is {machine}; the rings need x86-64")


def check_binding(load: Callable[[], object]) -> Iterator[Finding]:
    """Whether the GenICam binding loads."""
    try:
        load()
        yield Finding("ok", "the GenICam binding loads")
    except UserError as error:
        needs_python = "libpython" in str(error)
        mend = "sudo apt install libpython3.11" if needs_python else "pip install --force-reinstall genicam harvesters"
        yield Finding("fail", str(error), mend)


def check_simulated_camera(find: Callable[[], Path]) -> Iterator[Finding]:
    """Whether the simulated camera was built."""
    try:
        yield Finding("ok", f"the simulated camera is there: {find()}")
    except UserError as error:
        yield Finding("warn", str(error), "sudo apt install gcc && pip install --force-reinstall --no-deps ispeed")


def check_cameras(cti: Sequence[Path | str] = ()) -> list[Finding]:
    """The producers and the cameras they see."""
    try:
        with Discovery(cti) as discovery:
            return [*describe_cameras(discovery.cameras, discovery.warnings)]
    except UserError as error:
        return [Finding("fail", str(error))]


def describe_cameras(cameras: Sequence[CameraInfo], warnings: Sequence[str]) -> Iterator[Finding]:
    """Findings about cameras and about producers that did not work."""
    for text in warnings:
        yield Finding("warn", text)
    for camera in cameras:
        what = f"camera {camera.index}: {camera.serial}, {camera.vendor} {camera.model}, {camera.access}"
        yield Finding("ok" if camera.access in ("free", "unknown") else "warn", what)
    if not cameras:
        yield Finding("fail", "no producer sees any camera", f"export {PRODUCER_PATH}=FOLDER_OF_YOUR_CAMERAS_CTI")
    elif all(camera.simulated for camera in cameras):
        yield Finding(
            "ok",
            "only the simulated camera is there: for a real one, install its vendor's GenTL producer (.cti) and name "
            f"its folder in {PRODUCER_PATH}",
        )


def read_limits() -> dict[str, int]:
    """This process's soft limits: rtprio, memlock (bytes) and nofile; -1 is unlimited."""
    numbers = {"rtprio": resource.RLIMIT_RTPRIO, "memlock": resource.RLIMIT_MEMLOCK, "nofile": resource.RLIMIT_NOFILE}
    return {name: resource.getrlimit(number)[0] for name, number in numbers.items()}


def may_use_fifo() -> bool:
    """Whether this process has CAP_SYS_NICE, which makes the rtprio limit irrelevant."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_NICE & 1)
    return False


def check_limits(limits: dict[str, int], fifo: bool) -> Iterator[Finding]:
    """The limits that real-time priority, pinned memory and many cameras run into."""

    def enough(name: str, least: int) -> bool:
        return limits[name] == resource.RLIM_INFINITY or limits[name] >= least

    def raise_to(name: str, value: object) -> str:
        return f"echo '{_user()} - {name} {value}' | sudo tee -a {_LIMITS_FILE}, then log in again"

    if fifo or enough("rtprio", 1):
        yield Finding("ok", "the grab process may use SCHED_FIFO")
    else:
        yield Finding("warn", "the grab process may not use SCHED_FIFO (realtime: fifo)", raise_to("rtprio", 50))
    if enough("memlock", MEMLOCK):
        yield Finding("ok", "memory can be locked")
    else:
        what = f"only {limits['memlock'] // MIB} MiB of memory can be locked; some producers and GPUs need more"
        yield Finding("warn", what, raise_to("memlock", "unlimited"))
    if enough("nofile", OPEN_FILES):
        yield Finding("ok", f"{_amount(limits['nofile'])} files can be open")
    else:
        yield Finding("warn", f"only {limits['nofile']} files can be open", raise_to("nofile", 65536))


def check_memory(root: Path) -> Iterator[Finding]:
    """Memory that is free for the rings."""
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
            level: Level = "ok" if free >= FREE_MEMORY else "warn"
            yield Finding(level, f"{free // MIB} MiB of memory are free for the rings")


def check_sockets(root: Path) -> Iterator[Finding]:
    """The largest receive buffer, which GigE Vision producers use up."""
    text = _read(root / "proc/sys/net/core/rmem_max")
    if not text.isdigit():
        return
    if int(text) >= RMEM_MAX:
        yield Finding("ok", f"sockets may buffer {int(text) // MIB} MiB")
    else:
        yield Finding(
            "warn",
            f"sockets may buffer only {int(text) / MIB:.1f} MiB: GigE Vision cameras lose packets",
            f"sudo sysctl -w net.core.rmem_max={RMEM_MAX}",
        )


def check_mtu(root: Path) -> Iterator[Finding]:
    """The packet size of wired interfaces that are up."""
    for interface in sorted((root / "sys/class/net").glob("*")):
        wired = (interface / "device").exists() and not (interface / "wireless").exists()
        mtu = _read(interface / "mtu")
        if not wired or not mtu.isdigit() or _read(interface / "operstate") == "down":
            continue
        if int(mtu) >= JUMBO_MTU:
            yield Finding("ok", f"{interface.name} takes packets of {mtu} bytes")
        else:
            what = f"{interface.name} takes packets of {mtu} bytes: a GigE Vision camera on it needs jumbo frames"
            yield Finding("warn", what, f"sudo ip link set {interface.name} mtu 9000")


def check_usb(root: Path) -> Iterator[Finding]:
    """Memory that the kernel grants to USB transfers."""
    text = _read(root / "sys/module/usbcore/parameters/usbfs_memory_mb")
    if not text.isdigit():
        return
    if int(text) == 0 or int(text) >= USBFS_MB:
        yield Finding("ok", "USB transfers have enough memory")
    else:
        what = f"USB transfers have {text} MB: USB3 Vision cameras lose frames"
        yield Finding("warn", what, "echo 1000 | sudo tee /sys/module/usbcore/parameters/usbfs_memory_mb")


def check_governor(root: Path) -> Iterator[Finding]:
    """Whether the processor slows down between frames."""
    files = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"))
    governors = {_read(file) for file in files} - {""}
    if not governors:
        yield Finding("ok", "the processor's clock is not governed here")
    elif governors == {"performance"}:
        yield Finding("ok", "the processor runs at full clock")
    else:
        what = f"the CPU governor is {', '.join(sorted(governors))}: the processor is slow to wake for a frame"
        yield Finding("warn", what, "sudo cpupower frequency-set -g performance")


def check_gpu(find: Callable[[], Sequence[Gpu]]) -> Iterator[Finding]:
    """The GPU and its driver."""
    try:
        found = find()
        what = f"{found[0].name}, compute capability {found[0].compute_capability}, with CUDA {found[0].driver}"
        yield Finding("ok", f"{len(found)} NVIDIA GPU{'s' if len(found) > 1 else ''} with a working driver: {what}")
    except NoGpu as error:
        yield Finding("ok", f"{error}")
    except UserError as error:
        yield Finding("warn", str(error), "nvidia-smi")


def check_packages(installed: Callable[[str], bool]) -> Iterator[Finding]:
    """What engines run on, and other optional packages; none is imported."""
    if installed("openvino"):
        yield Finding("ok", "openvino is installed, for learned engines on the processor")
    else:
        what = "openvino is not installed: learned engines do not run on the processor, or slowly on onnxruntime"
        yield Finding("warn", what, "pip install openvino")
    for name, (purpose, mend) in _OPTIONAL.items():
        if installed(name):
            yield Finding("ok", f"{name} is installed, for {purpose}")
        else:
            yield Finding("ok", f"{name} is not installed: needed only for {purpose}", mend)
    for name, mend in (("tensorrt", "pip install 'ispeed[tensorrt]'"), ("tensorrt_rtx", "pip install 'ispeed[rtx]'")):
        if installed(name) and not installed("pycuda"):
            yield Finding("warn", f"{name} builds plans here, but without pycuda none can run", mend)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _user() -> str:
    return os.environ.get("USER") or "YOUR_USER"


def _amount(limit: int) -> str:
    return "any number of" if limit == resource.RLIM_INFINITY else str(limit)
