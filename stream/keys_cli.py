"""`isp-stream keys`: makes the keys of a publisher and of those who may connect to it, or takes in theirs."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from ..engines.errors import UserError
from .key_files import (
    CLIENT,
    CLIENTS,
    CONTROL,
    PUBLIC,
    SECRET,
    SERVER,
    read_handed_over,
    read_public,
    require_curve,
    require_own,
    write_new,
    write_pair,
    write_public,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def make_parser() -> argparse.ArgumentParser:
    """The command line of `isp-stream keys`."""
    parser = argparse.ArgumentParser(
        prog="isp-stream keys",
        description="Makes the keys with which tcp endpoints are encrypted: in FOLDER those of this publisher, and for "
        "each --client a folder to copy to the machine that shall subscribe. --accept takes in the public key of a "
        "client that has made its own. Nothing is ever overwritten.",
        epilog="Exit codes: 0 done, 2 bad input.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the publisher's keys")
    parser.add_argument(
        "--client", action="append", default=[], metavar="NAME", help="make a client's keys too (may be repeated)"
    )
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="let in the client NAME whose public key is in FILE, NAME.key; of what else is in it nothing is taken "
        "(may be repeated)",
    )
    parser.add_argument(
        "--control", action="store_true", help="these clients may change the camera's settings, not only read frames"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs `isp-stream keys` and returns its exit code."""
    options = make_parser().parse_args(argv)
    try:
        make_keys(options.folder, options.client, options.accept, control=options.control)
    except UserError as error:
        sys.stderr.write(f"isp-stream keys: error: {error}\n")
        return 2
    return 0


def make_keys(folder: Path, clients: Sequence[str], accept: Sequence[Path] = (), *, control: bool = False) -> None:
    """Makes the server's keys where `folder` has none, and those of `clients`, and lists those in the files `accept`.

    Prints what to do with them. Raises UserError, with every file that was there left as it was.
    """
    require_curve()
    for name in clients:
        _require_name("--client", name)
    if control and not clients and not accept:
        raise UserError("--control says what clients may do: name them with --client, or give their keys with --accept")
    accepted = _read_accepted(folder, accept)
    made = _make_server(folder)
    if not made and not clients and not accept:
        raise UserError(f"{folder} has the server's keys already: name clients with --client, or choose another")
    for name in clients:
        _make_client(folder, name, control=control)
    for name, public in accepted.items():
        _list_client(folder, name, public, control=control)


def _require_name(option: str, name: str) -> None:
    if not _NAME.fullmatch(name) or name in (CLIENTS, SERVER):
        raise UserError(f"{option} {name!r} is no name for a client: use letters, digits, '.', '_' and '-'")


def _read_accepted(folder: Path, files: Sequence[Path]) -> dict[str, bytes]:
    """The public keys in these files, by the name that each file gives. Raises UserError for one that is listed."""
    listed: dict[bytes, Path] = {}
    for path in (folder / f"{SERVER}{PUBLIC}", *sorted((folder / CLIENTS).glob(f"*{PUBLIC}"))):
        with suppress(UserError):  # a damaged one lets nobody in, and the publisher tells of it
            listed[read_public(path).public] = path
    accepted: dict[str, bytes] = {}
    for file in files:
        name = file.name.removesuffix(PUBLIC)
        _require_name("--accept", name)
        public, path = read_handed_over(file), folder / CLIENTS / f"{name}{PUBLIC}"
        if path.exists() or name in accepted:
            raise UserError(f"{path} is there already and is not overwritten: take it away first, or rename {file}")
        if public in listed:  # under two names it would be unclear what it may
            raise UserError(f"the key in {file} is that of {listed[public]}: its owner must make one of his own")
        accepted[name] = public
        listed[public] = file
    return accepted


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
    right = _right(control=control)
    print(f"made {bundle}, with which {name} may {right}: move it to that machine, where nobody else can read it")
    print(f"  scp -rp {shlex.quote(str(bundle))} HOST: && rm -r {shlex.quote(str(bundle))}")
    print(f"  isp-view tcp://THIS_MACHINE:5555 --keys {name}")
    print(f"{listed} stays here: take it away, and {name} is let in no more")


def _list_client(folder: Path, name: str, public: bytes, *, control: bool) -> None:
    """Lists a client that has made its key itself, with what it may from here and not from its file."""
    _make_folder(folder / CLIENTS)
    listed = folder / CLIENTS / f"{name}{PUBLIC}"
    write_public(listed, public.decode(), CONTROL if control else "")
    print(f"made {listed}, with which {name} may {_right(control=control)}: take it away, and {name} is let in no more")
    print(f"  {name} needs {folder / f'{SERVER}{PUBLIC}'} beside its own {CLIENT}{SECRET}")


def _right(*, control: bool) -> str:
    return "read frames and control the camera" if control else "read frames"


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
