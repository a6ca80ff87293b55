"""`isp-stream control`: asks a running isp-stream for something, and prints its answer as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engines.errors import UserError
from .changes import read_scalar
from .control import Control, ControlError

_LONGEST_MS = 86_400_000  # a day
_TEXTS = ("feature", "engine", "engine_mode", "action", "reason")  # arguments that are text, also where it is digits

_EXAMPLES = """commands, each with its arguments:
  status
  features names=ExposureTime,Gain
  set feature=ExposureTime value=200
  trigger
  engine engine=lwisp-xs white_balance=2,1,1.6     (or white_balance=auto, engine_mode=latency)
  record action=start                              (or stop, or trigger reason=TEXT)
  stop
"""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="isp-stream control",
        description="Asks a running isp-stream for something.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("command", help="what is asked for, see below")
    parser.add_argument("arguments", nargs="*", metavar="NAME=VALUE", help="of the command, see below")
    parser.add_argument("--camera", type=int, default=0, help="index of the camera (default 0)")
    parser.add_argument("--endpoint", help="where isp-stream listens; left out: the default of the camera")
    parser.add_argument("--keys", type=Path, metavar="DIR", help="folder of keys for a tcp endpoint that has keys")
    parser.add_argument("--timeout-ms", type=float, default=60_000, help="longest wait for an answer (default 60000)")
    return parser


def control(argv: Sequence[str]) -> int:
    """Runs the command and returns the exit code: 0 done, 1 refused or not answered. Raises UserError."""
    options = make_parser().parse_args(argv)
    arguments = dict(_argument(item) for item in options.arguments)
    if not 0 < options.timeout_ms <= _LONGEST_MS:
        raise UserError(f"--timeout-ms {options.timeout_ms:g} cannot be: give milliseconds, at most {_LONGEST_MS}")
    try:
        with Control(
            options.endpoint, camera=options.camera, timeout_ms=options.timeout_ms, keys=options.keys
        ) as asked:
            _require_listener(asked.endpoint)
            answer = asked.call(options.command, **arguments)
    except (ControlError, TimeoutError) as error:
        sys.stderr.write(f"isp-stream control: {error}\n")
        return 1
    sys.stdout.write(json.dumps({name: value for name, value in answer.items() if name not in ("id", "ok")}) + "\n")
    return 0


def _require_listener(endpoint: str) -> None:
    """Raises ControlError where nobody can be there, rather than to wait for an answer. Waiting is for programs."""
    path = endpoint.removeprefix("ipc://")
    if path != endpoint and not path.startswith("@") and not Path(path).exists():
        raise ControlError(f"nobody listens at {endpoint}: is isp-stream running there?")


def _argument(item: str) -> tuple[str, Any]:
    name, equals, text = item.partition("=")
    if not equals or not name or name in ("id", "cmd", "camera"):
        raise UserError(f"write NAME=VALUE, not {item!r}: see isp-stream control --help")
    if name in _TEXTS:
        return name, text
    try:
        if name in ("names", "white_balance") and text != "auto":
            return name, [read_scalar(part) for part in text.split(",")]
        return name, read_scalar(text)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
