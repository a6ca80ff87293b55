"""`isp-stream`: from a camera to subscribers. Every flag is a field of StreamConfig."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..engines.errors import UserError
from .cameras import camera_indices, make_configs
from .changes import read_scalar
from .config import StreamConfig, read_yaml

_YAML_ONLY = ("cameras", "features", "realtime", "colour_matrix", "defects", "flat_field", "measured")
_MANY = {
    "camera": "CAMERA",
    "cti": "X",
    "publish": "X",
    "control": "X",
    "at": "FRAMES:NAME=VALUE",
    "monitor_host": "NAME",
    "record_on": "{start,key,line,brightness}",
}


def make_parser() -> argparse.ArgumentParser:
    """The command line, made from StreamConfig's fields and their docstrings."""
    parser = argparse.ArgumentParser(
        prog="isp-stream",
        description="Streams a GenICam camera's Bayer frames as sRGB frames to other programs, and accounts for each.",
        epilog="Exit codes: 0 done, 1 ended by a fault, 2 bad input. The YAML file has the same names, with _ for "
        f"-; there only: {', '.join(_YAML_ONLY)}.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        metavar="FILE",
        help="YAML file of settings, such as isp-calibrate writes; flags go before it (may be repeated: the last file "
        "goes before the others)",
    )
    parser.add_argument("--list", action="store_true", help="list the cameras that are there, and end")
    parser.add_argument("--check", action="store_true", help="look over this machine, say what to mend, and end")
    parser.add_argument(
        "--snap",
        type=Path,
        metavar="FILE.npy",
        help="save --frames raw frames (default 16) as the camera sends them, undeveloped, as uint16 [frames, height, "
        "width] with FILE.npy.yaml beside it, for --scene and isp-build, and end",
    )
    parser.add_argument(
        "--set", action="append", metavar="NAME=VALUE", help="set a camera feature by its name (may be repeated)"
    )
    for name, field in StreamConfig.model_fields.items():
        if name in _YAML_ONLY:
            continue
        flag = "--" + (field.alias or name).replace("_", "-")
        text = _help(field.description or "", field.default)
        if field.annotation is bool:
            parser.add_argument(flag, dest=field.alias or name, action="store_true", help=text)
        elif name in _MANY:
            parser.add_argument(flag, dest=name, action="append", metavar=_MANY[name], help=text + " (may be repeated)")
        elif name == "white_balance":
            parser.add_argument(flag, dest=name, nargs=3, metavar=("R", "G", "B"), help=text)
        else:
            parser.add_argument(flag, dest=name, metavar=_metavar(name), help=text)
    return parser


def _help(text: str, default: Any) -> str:
    shown = "" if default in (None, [], False) else f" (default {default})"
    return (" ".join(text.split()) + shown).replace("%", "%%")


def _metavar(name: str) -> str:
    choices = {"policy": "{every,latest,block}", "acquisition": "{auto,zero-copy,copy}"}
    choices |= {"record_format": "{h5,dng,mp4}", "record_what": "{raw,srgb,both}"}
    choices |= {"cfa": "{RG,GR,GB,BG}"}
    choices |= {"engine_mode": "{throughput,latency}", "engine_precision": "{auto,fp32,bf16}"}
    return choices.get(name, name.upper())


def parse(argv: Sequence[str] | None) -> tuple[list[StreamConfig], argparse.Namespace]:
    """The settings of each camera: flags over YAML over defaults. Raises UserError."""
    given = vars(make_parser().parse_args(argv)).copy()
    actions = {name: given.pop(name, None) for name in ("config", "list", "check", "snap", "set")}
    in_files: dict[str, Any] = {}
    for path in actions["config"] or []:
        in_files |= read_yaml(path)
    features: dict[str, Any] = {}
    for item in actions["set"] or []:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UserError(f"--set needs NAME=VALUE, not {item!r}")
        try:
            features[name] = read_scalar(value)
        except ValueError as error:
            raise UserError(f"--set {name}: {error}") from error
    if features:
        given["features"] = features
    configs = make_configs(in_files, given)
    return configs, argparse.Namespace(**{name: actions[name] for name in ("list", "check", "snap")})


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `isp-stream` and returns its exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["keys"]:
        from .keys_cli import main as keys

        return keys(words[1:])
    try:
        if words[:1] == ["control"]:
            from .control_cli import control

            return control(words[1:])
        configs, actions = parse(words)
        if actions.check:
            return _check(configs[0])
        if actions.list:
            return _list(configs[0])
        if actions.snap:
            from .snap import snap

            if len(configs) > 1:
                raise UserError("--snap takes frames of one camera: name one --camera")
            return snap(configs[0], actions.snap)
        return run(configs)
    except UserError as error:
        sys.stderr.write(f"isp-stream: error: {error}\n")
        return 2
    except Exception as error:  # of the system or of ZeroMQ; whoever began something has ended it on the way here
        number = getattr(error, "errno", None)
        if number not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        why = os.strerror(number).lower()
        sys.stderr.write(f"isp-stream: it cannot go on: {why}; end other programs, or raise its limits (ulimit -a)\n")
        return 1


def run(configs: Sequence[StreamConfig]) -> int:
    """Streams until the end that the settings name, a signal, or a fault. Returns the exit code. Raises UserError."""
    from .camera.replay import with_calibration
    from .control import control_beside
    from .control_server import ControlServer
    from .curve import Guard
    from .hub import Signals
    from .monitor_process import MonitorProcess
    from .notify import Notifier
    from .publish import Publisher
    from .record.plan import make_plan
    from .saver import Saver, make_folder
    from .supervisor import Supervisor
    from .telemetry import Telemetry

    signals = Signals()
    configs = [with_calibration(config) for config in configs]
    whole = configs[0]
    for config in configs:
        make_plan(config)  # what cannot be recorded is to be said before anything is started
    indices = camera_indices(configs)
    folders = _save_folders(whole.save, indices)
    for folder in folders.values():
        make_folder(folder)
    with ExitStack() as stack:  # undone in reverse: the last word first, then the rings' names, then the endpoints
        monitor = MonitorProcess(whole, [config.engine for config in configs]) if whole.monitor else None
        if monitor:
            stack.callback(monitor.end)
        if whole.keys and whole.insecure:
            raise UserError("--keys and --insecure contradict each other: leave one of them out")
        guard = Guard(whole.keys) if whole.keys else None
        if guard:
            stack.callback(guard.close)
        public: dict[str, Any] = {"insecure": whole.insecure, "guard": guard}
        publisher = Publisher(whole.publish, indices, **public)
        stack.callback(publisher.close)
        control = ControlServer(whole.control or control_beside(whole.publish, indices), **public)
        stack.callback(control.close)
        telemetry = Telemetry(_style(whole), publisher.announce)
        stack.callback(telemetry.close)
        where, keys = publisher.endpoints[0], whole.keys
        savers = {camera: Saver(where, camera, folder, keys) for camera, folder in folders.items()}
        cameras = list(zip(indices, configs, strict=True))
        notifier = Notifier()
        stack.callback(notifier.close)
        supervisor = Supervisor(cameras, publisher, telemetry, signals, control, savers, notifier, monitor, guard)
        stack.callback(supervisor.release)
        code = supervisor.run()
        for pipeline in supervisor.pipelines:
            saver = savers.get(pipeline.camera)
            if saver and saver.report:
                pipeline.meter.saved(saver.report, folders[pipeline.camera])
            if pipeline.ledger and pipeline.ledger.segments:
                pipeline.meter.final(pipeline.ledger.to_json(), code)
            pipeline.meter.write_trace()
    return code


def _save_folders(save: Path | None, indices: Sequence[int]) -> dict[int, Path]:
    """The folder for the pictures of each camera; of several, each has one inside."""
    if save is None:
        return {}
    return {index: save if len(indices) == 1 else save / str(index) for index in indices}


def _style(config: StreamConfig) -> Any:
    if config.quiet:
        return "quiet"
    if config.json_lines:
        return "json"
    return "live" if os.isatty(1) else "plain"


def _list(config: StreamConfig) -> int:
    from .camera import list_cameras

    cameras = list_cameras(config.cti)
    for c in cameras:
        print(f"{c.index:3d}  {c.serial:16s} {c.vendor} {c.model} ({c.tl_type}, {c.access})  {c.producer}")
    if not cameras:
        sys.stderr.write("isp-stream: no camera found: isp-stream --check says what is missing\n")
    return 0 if cameras else 1


def _check(config: StreamConfig) -> int:
    from .check import report

    findings = report(config.cti)
    for finding in findings:
        print(f"{finding.level:4s}  {finding.what}" + (f"\n      mend: {finding.mend}" if finding.mend else ""))
    return 1 if any(finding.level == "fail" for finding in findings) else 0


if __name__ == "__main__":
    raise SystemExit(main())
