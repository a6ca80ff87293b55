"""Which GenTL producers and cameras there are, and opening one of them.

Every producer gets a Harvester of its own, so that a broken one spoils no other. Cameras of real producers come first,
the simulated ones last. Harvesters and the genicam binding are imported when they are needed: the binding cannot load
on every machine, and then the user shall read a sentence.
"""

from __future__ import annotations

import ctypes
import difflib
import logging
import os
import re
import signal
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from ...engines.errors import UserError
from .simcam import producer_path

PRODUCER_PATH = "GENICAM_GENTL64_PATH"
MAX_NOTES = 20
_ACCESS = {1: "free", 2: "read-only", 3: "unreachable", 4: "busy", 5: "busy", 6: "busy"}


@dataclass(frozen=True)
class CameraInfo:
    """A camera that can be seen.

    `index` is its place in the list, `access` one of free, busy, read-only, unreachable, unknown; `producer` the .cti
    file that sees it.
    """

    index: int
    serial: str
    vendor: str
    model: str
    tl_type: str
    access: str
    producer: Path

    @property
    def simulated(self) -> bool:
        """Whether it is the simulated camera that ships with ispeed."""
        return self.vendor == "ispeed" and self.model == "SimCam"

    @property
    def alone(self) -> str:
        """The choice that means this camera and no other, see `name_alone`."""
        return name_alone(self.serial, self.producer)


class OpenCamera:
    """An opened camera: Harvesters' handle on it and what the data path needs to go past Harvesters.

    `acquirer` is the ImageAcquirer, `node_map` the remote device's, `stream` the genicam data stream, `library` the
    producer itself, `stream_handle` and `event_handle` its GenTL handles.
    """

    def __init__(self, info: CameraInfo, harvester: Any, acquirer: Any) -> None:
        self.info = info
        self._harvester = harvester
        self.acquirer = acquirer
        self.node_map = acquirer.remote_device.node_map
        self.stream = acquirer.data_streams[0].module
        self.library = ctypes.CDLL(str(info.producer))  # loaded already: the loader returns the same instance
        monitor = next(iter(acquirer._new_buffer_event_monitor_dict.values()))
        self.stream_handle = int(self.stream._handle)
        self.event_handle = int(monitor._get_handle())

    def close(self) -> None:
        """Closes the device and its producer. Raises the binding's exceptions where the device is gone."""
        try:
            self.acquirer.destroy()
        finally:
            self._harvester.reset()


class Discovery:
    """The producers that could be loaded and the cameras they see. A context manager: leaving it unloads them.

    `cameras` is the list, `warnings` are sentences about producers that did not work. Raises UserError for a producer
    that was asked for by name and does not load.
    """

    def __init__(self, cti: Sequence[Path | str] = ()) -> None:
        self.warnings: list[str] = []
        self._harvesters: list[Any] = []
        found: list[tuple[Any, Any, Path]] = []
        wanted = {Path(path).resolve() for path in cti}
        try:
            for path in producer_files(cti, self.warnings):
                harvester, why = _load(path)
                if harvester is None:
                    if path in wanted:
                        raise UserError(f"the GenTL producer {path} does not load: {why}")
                    self.warnings.append(f"the GenTL producer {path} does not load: {why}")
                    continue
                self._harvesters.append(harvester)
                found.extend((harvester, device, path) for device in harvester.device_info_list)
                if why:
                    self.warnings.append(f"the GenTL producer {path} has a fault: {why}")
        except BaseException:
            self.close()
            raise
        described = [(harvester, device, _describe(device, path)) for harvester, device, path in found]
        described.sort(key=lambda entry: entry[2].simulated)  # stable: the order of the producers stays
        self._found = [(h, device, replace(info, index=index)) for index, (h, device, info) in enumerate(described)]

    @property
    def cameras(self) -> list[CameraInfo]:
        """All cameras, real ones first."""
        return [info for _, _, info in self._found]

    def choose(self, choice: str) -> CameraInfo:
        """The camera that `find_camera` finds. Raises UserError that lists what there is."""
        cameras = self.cameras
        if found := find_camera(cameras, choice):
            return found
        if not cameras:
            raise UserError(
                f"no camera {choice}: no GenTL producer sees any; name one with --cti or in {PRODUCER_PATH}, "
                "and look at isp-stream --check"
            )
        listed = ", ".join(f"{info.index} ({info.serial})" for info in cameras)
        close = difflib.get_close_matches(choice, [info.serial for info in cameras], 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"no camera {choice}: there are {listed}{hint}")

    def open(self, choice: str) -> OpenCamera:
        """Opens the camera that `choose` chooses; the others are let go.

        The caller closes the result; this object is then empty. Raises UserError when there is no such camera, or
        another process has it.
        """
        info = self.choose(choice)
        harvester, device, _ = self._found[info.index]
        self._harvesters.remove(harvester)
        self.close()
        try:
            acquirer = _create(harvester, device, info)
            return OpenCamera(info, harvester, acquirer)
        except BaseException:
            harvester.reset()
            raise

    def close(self) -> None:
        """Unloads the producers."""
        self._found = []
        for harvester in self._harvesters:
            harvester.reset()
        self._harvesters = []

    def __enter__(self) -> Discovery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def list_cameras(cti: Sequence[Path | str] = ()) -> list[CameraInfo]:
    """The cameras that the producers in `cti`, on GENICAM_GENTL64_PATH and the shipped one see, real ones first."""
    with Discovery(cti) as discovery:
        return discovery.cameras


def is_index(choice: str) -> bool:
    """Whether a camera may be meant by its place in the list; what begins with a zero is a serial number."""
    return choice.isascii() and choice.isdecimal() and len(choice) < 4 and str(int(choice)) == choice


def name_alone(serial: str, producer: Path | str) -> str:
    """The choice that means the camera with this serial number as this producer's file sees it, and never an index."""
    return f"{serial}@{producer}"


def find_camera(cameras: Sequence[CameraInfo], choice: str) -> CameraInfo | None:
    """The camera with this index, else the first with this serial number or `name_alone`; None where there is none."""
    if is_index(choice) and int(choice) < len(cameras):
        return cameras[int(choice)]
    return next((info for info in cameras if choice in (info.serial, info.alone)), None)


def producer_files(cti: Iterable[Path | str] = (), warnings: list[str] | None = None) -> list[Path]:
    """The .cti files to load, each once: those in `cti`, those on GENICAM_GENTL64_PATH, the shipped simulated one.

    Raises UserError for a file in `cti` that does not exist. Anything wrong with the others is added to `warnings`.
    """
    notes = warnings if warnings is not None else []
    files: list[Path] = []
    for named in cti:
        if not Path(named).is_file():
            raise UserError(f"there is no GenTL producer {named}: give the path of a .cti file")
        files.append(Path(named).resolve())
    for folder in filter(None, os.environ.get(PRODUCER_PATH, "").split(os.pathsep)):
        if not Path(folder).is_dir():
            notes.append(f"{PRODUCER_PATH} names {folder}, which is no folder")
            continue
        files.extend(sorted(path.resolve() for path in Path(folder).glob("*.cti")))
    try:
        files.append(producer_path().resolve())
    except UserError as error:
        notes.append(str(error))
    return list(dict.fromkeys(files))


def import_harvesters() -> Any:
    """The module harvesters.core. Raises UserError that says what to install when the binding does not load."""
    try:
        import harvesters.core
    except ImportError as error:
        if "libpython" in str(error):
            raise UserError(
                "the GenICam binding needs libpython3.11.so.1.0, which is not installed: apt install libpython3.11, "
                "or put the folder of any Python 3.11's libpython on LD_LIBRARY_PATH"
            ) from error
        raise UserError(f"the GenICam packages do not load ({error}): reinstall ispeed with pip") from error
    return harvesters.core


class _Notes(logging.Handler):
    """Keeps what Harvesters warns about, which otherwise is a traceback on stderr."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.lines) < MAX_NOTES:  # Harvesters goes on to log every incomplete frame
            self.lines.append(plain_text(record.getMessage()))


def plain_text(error: object) -> str:
    """What an exception of the binding says, without the remarks that the binding wraps around it."""
    text = " ".join(str(error).split()) or type(error).__name__
    source = re.search(r"\(Message from the source: (.*?)\)? \(ID: -?\d+\)", text)
    if source:  # the binding does not always get hold of the producer's own words
        text = source.group(1) or text[: source.start()].removeprefix("GenTL exception: ").rstrip()
    return re.split(r" : \w+Exception thrown ", text)[0].rstrip(".")


def _load(path: Path) -> tuple[Any, str]:
    """(a Harvester that has loaded the producer or None, what went wrong)."""
    core = import_harvesters()
    try:
        if not hasattr(ctypes.CDLL(str(path)), "GCInitLib"):
            return None, "it is no GenTL producer (it has no GCInitLib)"
    except OSError as error:
        return None, plain_text(error).replace(f"{path}: ", "")
    notes = _Notes()
    logger = logging.Logger(f"harvesters.{path.name}", logging.WARNING)
    logger.addHandler(notes)
    harvester = core.Harvester(config=core.ParameterSet({core.ParameterKey.LOGGER: logger}))
    harvester.add_file(str(path))
    try:
        harvester.update()
    except Exception as error:  # whatever a foreign producer provokes in the binding
        notes.lines.append(plain_text(error))
    why = notes.lines[0] if notes.lines else ""
    if why and not harvester.device_info_list:
        harvester.reset()
        return None, why
    return harvester, why


def _describe(device: Any, path: Path) -> CameraInfo:
    def ask(name: str) -> str:
        try:
            return str(getattr(device, name) or "")
        except Exception:  # optional in GenTL: each producer refuses in its own way
            return ""

    access = ask("access_status")
    return CameraInfo(
        index=-1,
        serial=ask("serial_number") or ask("id_"),
        vendor=ask("vendor"),
        model=ask("model"),
        tl_type=ask("tl_type"),
        access=_ACCESS.get(int(access), "unknown") if access.isdigit() else "unknown",
        producer=path,
    )


def _create(harvester: Any, device: Any, info: CameraInfo) -> Any:
    from genicam import gentl
    from harvesters.core import ParameterKey, ParameterSet

    # By itself Harvesters attaches chunk data in whatever thread fetches; see nodes.Features on why it must not.
    config = ParameterSet({ParameterKey.ENABLE_AUTO_CHUNK_DATA_UPDATE: False})
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if in_main_thread else None
    try:
        return harvester.create(harvester.device_info_list.index(device), config=config)
    except (gentl.ResourceInUseException, gentl.BusyException) as error:
        raise UserError(_in_use(info, error)) from error
    except gentl.AccessDeniedException as error:
        raise UserError(_in_use(info, error) if info.access == "busy" else _denied(info, error)) from error
    except gentl.GenericException as error:
        raise UserError(f"camera {info.serial} cannot be opened: {plain_text(error)}") from error
    finally:
        if in_main_thread:  # create() puts in a handler that destroys the acquirer without a word
            signal.signal(signal.SIGINT, handler or signal.SIG_DFL)


def _in_use(info: CameraInfo, error: Exception) -> str:
    return (
        f"camera {info.serial} is in use by another process: end that one, or choose another camera "
        f"(isp-stream --list); its producer says: {plain_text(error)}"
    )


def _denied(info: CameraInfo, error: Exception) -> str:
    """Producers deny access for many reasons, and few say which."""
    causes = {
        "U3V": "this user may not use its USB device (a udev rule permits it)",
        "GEV": "its address is in another subnet than this computer's network card",
    }
    likely = [causes[info.tl_type]] if info.tl_type in causes else list(causes.values())
    return (
        f"camera {info.serial} cannot be opened, access is denied: another process has it, or {', or '.join(likely)}; "
        f"its producer lists it as {info.access} and says: {plain_text(error)}"
    )
