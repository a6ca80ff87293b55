"""`isp-develop`: its command line. Every flag is a field of DevelopConfig."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from ...engines.errors import UserError
from .config import DevelopConfig, Format, make_config, read_config

_YAML_ONLY = ("colour_matrix", "defects", "flat_field", "measured")
_SHORT = {"output": ("-o",), "mp4_fps": ("--fps",)}
_CHOICES = {"format": ",".join(get_args(Format)), "engine_precision": "auto,fp32,bf16", "cfa": "RG,GR,GB,BG"}


def make_parser() -> argparse.ArgumentParser:
    """The command line, made from DevelopConfig's fields and their docstrings."""
    parser = argparse.ArgumentParser(
        prog="isp-develop",
        description="Develops raw frames from a file into pictures, on all cores or on a cluster. A run that was ended "
        "in any way goes on where it was when the same command is given again.",
        epilog="Exit codes: 0 done, 1 ended by a fault, 2 bad input, 130 interrupted. A YAML file has the same names, "
        f"with _ for -; there only: {', '.join(_YAML_ONLY)}.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        metavar="FILE",
        help="YAML file of settings, such as isp-calibrate writes and isp-stream takes; flags go before it (may be "
        "repeated: the last file goes before the others)",
    )
    for name, field in DevelopConfig.model_fields.items():
        text = " ".join((field.description or "").split()).replace("%", "%%")
        if name == "footage":
            parser.add_argument(name, metavar="FOOTAGE", help=text)
            continue
        if name in _YAML_ONLY:
            continue
        flags = ("--" + (field.alias or name).replace("_", "-"), *_SHORT.get(name, ()))
        if field.annotation is bool:
            parser.add_argument(*flags, dest=field.alias or name, action="store_true", help=text)
            continue
        needed = field.is_required()
        shown = "" if needed or field.default is None else f" (default {field.default})"
        metavar: Any = f"{{{_CHOICES[name]}}}" if name in _CHOICES else name.upper()
        many: dict[str, Any] = (
            {"nargs": 3, "metavar": ("R", "G", "B")} if name == "white_balance" else {"metavar": metavar}
        )
        parser.add_argument(*flags, dest=name, help=text + shown, **many)
    return parser


def parse(argv: Sequence[str] | None) -> DevelopConfig:
    """Flags over YAML over defaults. Raises UserError."""
    given = vars(make_parser().parse_args(argv)).copy()
    values: dict[str, Any] = {}
    for path in given.pop("config", []):
        values |= read_config(path)
    values |= given
    if "output" not in values:
        raise UserError("name the folder for what is made: -o FOLDER")
    return make_config(values)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `isp-develop` and returns its exit code."""
    from .job import RunFailed
    from .run import run

    try:
        return run(parse(argv))
    except UserError as error:
        sys.stderr.write(f"isp-develop: error: {error}\n")
        return 2
    except RunFailed as error:
        sys.stderr.write(f"isp-develop: {error}\n")
        return 1
