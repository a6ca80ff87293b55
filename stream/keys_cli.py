"""`isp-stream keys`: makes the keys of a publisher and of those who may connect to it."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ..engines.errors import UserError
from .key_files import (
    CLIENT,
    CLIENTS,
    CONTROL,
    PUBLIC,
    SECRET,
    SERVER,
    read_public,
    require_curve,
    require_own,
    write_new,
    write_pair,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def make_parser() -> argparse.ArgumentParser:
    """The command line of `isp-stream keys`."""
    parser = argparse.ArgumentParser(
        prog="isp-stream keys",
        description="Makes the keys with which tcp endpoints are encrypted: in FOLDER those of this publisher, and for "
        "each --client a folder to copy to the machine that shall subscribe. Nothing is ever overwritten.",
        epilog="Exit codes: 0 done, 2 bad input.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the publisher's keys")
    parser.add_argument(
        "--client", action="append", default=[], metavar="NAME", help="make a client's keys too (may be repeated)"
    )
    parser.add_argument(
        "--control", action="store_true", help="these clients may change the camera's settings, not only read frames"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs `isp-stream keys` and returns its exit code."""
    options = make_parser().parse_args(argv)
    try:
        make_keys(options.folder, options.client, control=options.control)
    except UserError as error:
        sys.stderr.write(f"isp-stream keys: error: {error}\n")
        return 2
    return 0


def make_keys(folder: Path, clients: Sequence[str], *, control: bool = False) -> None:
    """Makes the server's keys where `folder` has none, and those of `clients`; prints what to do with them.

    Raises UserError, with every file that was there left as it was.
    """
    require_curve()
    for name in clients:
        if not _NAME.fullmatch(name) or name in (CLIENTS, SERVER):
            raise UserError(f"--client {name!r} is no name for a client: use letters, digits, '.', '_' and '-'")
    if control and not clients:
        raise UserError("--control says what clients may do: name them with --client")
    made = _make_server(folder)
    if not made and not clients:
        raise UserError(f"{folder} has the server's keys already: name clients with --client, or choose another")
    for name in clients:
        _make_client(folder, name, control=control)


def _make_server(folder: Path) -> bool:
    secret, public = folder / f"{SERVER}{SECRET}", folder / f"{SERVER}{PUBLIC}"
    if secret.exists() and public.exists():
        _require_folder(folder)
        return False
    _make_folder(folder, parents=True)
    _make_folder(folder / CLIENTS)
    write_pair(secret, public)
    print(f"made {secret}, which stays here and secret, and {public}, which clients get")
    print(f"  isp-stream --publish tcp://0.0.0.0:5555 --keys {shlex.quote(str(folder))}")
    return True


def _make_client(folder: Path, name: str, *, control: bool) -> None:
    _make_folder(folder / CLIENTS)
    bundle, listed = folder / name, folder / CLIENTS / f"{name}{PUBLIC}"
    server = read_public(folder / f"{SERVER}{PUBLIC}").public.decode()
    for path in (bundle, listed):
        if path.exists():
            raise UserError(
                f"{path} is there already and is not overwritten: take it away first, or choose another name"
            )
    with ExitStack() as undo:
        _make_folder(bundle)
        undo.callback(shutil.rmtree, bundle, ignore_errors=True)
        write_new(bundle / f"{SERVER}{PUBLIC}", f'curve\n    public-key = "{server}"\n', 0o644)
        write_pair(bundle / f"{CLIENT}{SECRET}", listed, CONTROL if control else "")
        undo.pop_all()
    right = "read frames and control the camera" if control else "read frames"
    print(f"made {bundle}, with which {name} may {right}: move it to that machine, where nobody else can read it")
    print(f"  scp -rp {shlex.quote(str(bundle))} HOST: && rm -r {shlex.quote(str(bundle))}")
    print(f"  isp-view tcp://THIS_MACHINE:5555 --keys {name}")
    print(f"{listed} stays here: take it away, and {name} is let in no more")


def _make_folder(folder: Path, *, parents: bool = False) -> None:
    try:
        folder.mkdir(0o700, parents=parents, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {(error.strerror or str(error)).lower()}") from error
    _require_folder(folder)


def _require_folder(folder: Path) -> None:
    status = os.stat(folder)
    require_own(folder, status)
    if status.st_mode & 0o077:
        raise UserError(f"{folder} can be read by other users, and holds secret keys: run chmod 700 {folder}")
