"""`isp-stream`: from a camera to subscribers. Every flag is a field of StreamConfig."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..engines.errors import UserError
from .changes import read_scalar
from .config import StreamConfig, make_config, read_yaml

_YAML_ONLY = ("features", "realtime", "colour_matrix", "defects", "measured")
_MANY = {"cti": "X", "publish": "X", "at": "FRAMES:NAME=VALUE"}


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
    choices |= {"engine_mode": "{throughput,latency}", "engine_precision": "{auto,fp32,bf16}"}
    return choices.get(name, name.upper())


def parse(argv: Sequence[str] | None) -> tuple[StreamConfig, argparse.Namespace]:
    """Flags over YAML over defaults. Raises UserError."""
    flags = make_parser().parse_args(argv)
    given = vars(flags).copy()
    actions = {name: given.pop(name, None) for name in ("config", "list", "check", "snap", "set")}
    values: dict[str, Any] = {}
    for path in actions["config"] or []:
        values |= read_yaml(path)
    in_file = values.get("features")
    features = dict(in_file) if isinstance(in_file, dict) else {}
    for item in actions["set"] or []:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UserError(f"--set needs NAME=VALUE, not {item!r}")
        try:
            features[name] = read_scalar(value)
        except ValueError as error:
            raise UserError(f"--set {name}: {error}") from error
    values.update(given)
    if actions["set"]:
        values["features"] = features
    return make_config(values), argparse.Namespace(**{name: actions[name] for name in ("list", "check", "snap")})


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `isp-stream` and returns its exit code."""
    try:
        config, actions = parse(argv)
        if actions.check:
            return _check(config)
        if actions.list:
            return _list(config)
        if actions.snap:
            from .snap import snap

            return snap(config, actions.snap)
        return run(config)
    except UserError as error:
        sys.stderr.write(f"isp-stream: error: {error}\n")
        return 2


def run(config: StreamConfig) -> int:
    """Streams until the end that `config` names, a signal, or a fault. Returns the exit code. Raises UserError."""
    from .hub import Signals
    from .publish import Publisher, default_endpoint
    from .saver import Saver, make_folder
    from .supervisor import Supervisor
    from .telemetry import Telemetry

    signals = Signals()
    if config.save:
        make_folder(config.save)
    camera = _camera_index(config)
    with ExitStack() as stack:  # undone in reverse: the last word first, then the rings' names, then the endpoints
        publisher = Publisher(config.publish or [default_endpoint(camera)], camera, insecure=config.insecure)
        stack.callback(publisher.close)
        telemetry = Telemetry(_style(config), config.trace, config.policy)
        stack.callback(telemetry.close)
        saver = Saver(publisher.endpoints[0], config.save) if config.save else None
        supervisor = Supervisor(config, publisher, telemetry, signals, saver)
        stack.callback(supervisor.release)
        code = supervisor.run()
        if saver and saver.report:
            telemetry.saved(saver.report, config.save)
        if supervisor.ledger and supervisor.ledger.segments:
            telemetry.final(supervisor.ledger.to_json(), code)
        telemetry.write_trace()
    return code


def _style(config: StreamConfig) -> Any:
    if config.quiet:
        return "quiet"
    if config.json_lines:
        return "json"
    return "live" if os.isatty(1) else "plain"


def _camera_index(config: StreamConfig) -> int:
    """The index that names endpoint and topics; a serial number has to be looked up."""
    if config.camera.isdecimal() and len(config.camera) < 4:
        return int(config.camera)
    from .camera import list_cameras

    for camera in list_cameras(config.cti):
        if camera.serial == config.camera:
            return camera.index
    return 0  # the grab stage says in its own words which cameras there are


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
