"""Key files of CURVE: who a publisher is, and who may read its stream.

The format is that of pyzmq and CZMQ (`zmq.auth.load_certificate`, `zcert_load`), so that programs in other languages
read the same files. Reading and writing are our own: pyzmq's writer makes a secret file that others can read for a
moment and overwrites the one before, and its reader takes whatever stands there for a key. Loads zmq only, because
subscribers load it.

    FOLDER/server.key           public half of the publisher's key
    FOLDER/server.key_secret    its secret half, mode 0600
    FOLDER/clients/NAME.key     public half of each client that may connect
    FOLDER/NAME/                what client NAME needs: client.key_secret (mode 0600) and server.key
"""

from __future__ import annotations

import os
import re
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import zmq
from zmq.utils import z85

from ..engines.errors import UserError

SERVER, CLIENT, CLIENTS = "server", "client", "clients"
PUBLIC, SECRET = ".key", ".key_secret"
CONTROL = "control"
"""What a client's file may grant besides reading: `may = control`."""

_LARGEST = 4096  # bytes; a file that is longer is none of ours
_LINE = re.compile(rb"\s*([a-z-]+)\s*=\s*[\"']?([^\"'\s]*)[\"']?\s*")
_BANNER = {
    PUBLIC: "# CURVE public key of ispeed. It may be shown to anybody.\n",
    SECRET: "# CURVE secret key of ispeed. Show it to nobody, and leave it mode 0600.\n",
}


class KeyFile(NamedTuple):
    """What a file holds: keys as 40 characters of Z85, `secret` empty in a public one; `may` is what it grants."""

    public: bytes
    secret: bytes = b""
    may: str = ""


def read_public(path: Path) -> KeyFile:
    """A public key, without a secret one even where the file holds both. Raises UserError."""
    return _parse(path, _read(path, secret=False))._replace(secret=b"")


def read_handed_over(path: Path) -> bytes:
    """The public key in a file that its owner made, and nothing else of it: what it grants is not for him to say.

    Raises UserError, and where a secret is in it, which by then is none.
    """
    found = _parse(path, _read(path, secret=False))
    if found.secret:
        raise UserError(f"{path} holds a secret key, which its owner must show to nobody: ask for a new public key")
    return found.public


def read_pair(path: Path) -> KeyFile:
    """Both halves of a key, from a file that only we can read. Raises UserError."""
    found = _parse(path, _read(path, secret=True))
    if not found.secret:
        raise UserError(f"{path} holds no secret key: give the file that isp-stream keys made, whole")
    if zmq.curve_public(found.secret) != found.public:
        raise UserError(f"{path} is damaged: its two keys do not belong together; copy it again")
    return found


def write_pair(secret_path: Path, public_path: Path, may: str = "") -> None:
    """Makes a key: both halves into `secret_path` (mode 0600), the public one into `public_path`, which grants `may`.

    Raises UserError where either is there already, or cannot be written; then neither is left.
    """
    require_curve()
    public, secret = (key.decode() for key in zmq.curve_keypair())
    write_new(secret_path, _BANNER[SECRET] + f'curve\n    public-key = "{public}"\n    secret-key = "{secret}"\n')
    try:
        write_public(public_path, public, may)
    except UserError:
        secret_path.unlink()
        raise


def write_public(path: Path, public: str, may: str = "") -> None:
    """Writes a public key that grants `may`. Raises UserError where the file is there already, or cannot be written."""
    metadata = f"metadata\n    may = {may}\n" if may else ""
    write_new(path, _BANNER[PUBLIC] + metadata + f'curve\n    public-key = "{public}"\n', 0o644)


def write_new(path: Path, text: str, mode: int = 0o600) -> None:
    """Writes a file that must not be there yet. Raises UserError; then no half of it is left."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except FileExistsError as error:
        raise UserError(
            f"{path} is there already and is not overwritten: take it away first, or choose another name"
        ) from error
    except OSError as error:
        raise UserError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error
    try:
        with open(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise UserError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error


def require_curve() -> None:
    """Raises UserError where zmq was built without CURVE."""
    if not zmq.has("curve"):
        raise UserError(
            f"this libzmq ({zmq.zmq_version()}) was built without CURVE: install pyzmq from its wheel "
            "(pip install --force-reinstall pyzmq), or do without keys"
        )


def require_own(path: Path, status: os.stat_result) -> None:
    """Raises UserError unless a folder or file that decides who may connect can be written by us (or root) alone."""
    if status.st_uid not in (0, os.geteuid()):
        raise UserError(f"{path} belongs to another user, who could change it: take it over with chown, or copy it")
    if status.st_mode & 0o022:
        raise UserError(f"{path} can be changed by other users: run chmod go-w {path}")


def _read(path: Path, *, secret: bool) -> bytes:
    try:
        # O_NONBLOCK, so that a pipe of that name holds nobody up
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise UserError(f"cannot read the key {path}: {why}; isp-stream keys makes keys") from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise UserError(f"{path} is no file: isp-stream keys makes key files")
    with open(fd, "rb") as file:
        if secret and status.st_mode & 0o077:
            raise UserError(f"{path} can be read by other users, and a secret key must not: run chmod 600 {path}")
        require_own(path, status)
        return file.read(_LARGEST + 1)


def _parse(path: Path, data: bytes) -> KeyFile:
    found: dict[str, bytes] = {}
    for line in data.splitlines() if len(data) <= _LARGEST else ():
        match = _LINE.fullmatch(line)
        if match and match[1].decode() not in found:
            found[match[1].decode()] = match[2]
    public, secret = found.get("public-key", b""), found.get("secret-key", b"")
    if not _is_key(public) or (secret and not _is_key(secret)):
        raise UserError(f"{path} is no key file, or is cut off: copy it again, or make a new one with isp-stream keys")
    return KeyFile(public, secret, found.get("may", b"").decode("ascii", "replace"))


def _is_key(text: bytes) -> bool:
    try:
        return len(text) == 40 and len(z85.decode(text)) == 32
    except (KeyError, struct.error):  # no character of Z85; a group above 32 bits
        return False
