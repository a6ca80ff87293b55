"""Endpoints: the addresses that streams are published on, checked, and held against a second publisher.

Imports nothing outside the standard library and the errors, because every subscriber loads it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

from ..engines.errors import UserError

IPC_PATH_MAX = 107  # bytes of a Unix socket's path, without the closing NUL


def runtime_folder() -> Path:
    """The user's own folder for sockets: `$XDG_RUNTIME_DIR/ispeed`, or `/tmp/ispeed-UID` where that is not set."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(base):
        return Path(base) / "ispeed"
    return Path(f"/tmp/ispeed-{os.geteuid()}")  # noqa: S108 (checked to be ours alone before it is used)


def default_endpoint(camera: int) -> str:
    """The endpoint of a camera (index) when none is given."""
    return f"ipc://{runtime_folder() / str(camera)}"


def parse_endpoint(endpoint: str) -> tuple[str, str]:
    """(transport, address) of an endpoint. Raises UserError for one that no stream can have."""
    try:
        endpoint.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"endpoint {endpoint!r} is no valid text: write it in UTF-8") from error
    transport, found, address = endpoint.partition("://")
    if not found or transport not in ("ipc", "tcp"):
        raise UserError(
            f"endpoint {endpoint!r} is of no known transport: write ipc:///path/of/socket or tcp://127.0.0.1:5555"
        )
    if transport == "ipc":
        if not os.path.isabs(address) or "\0" in address or address.endswith("/"):
            raise UserError(f"endpoint {endpoint!r} needs the absolute path of a socket: ipc:///path/of/socket")
        if (length := len(os.fsencode(address))) > IPC_PATH_MAX:
            raise UserError(
                f"the path of endpoint {endpoint!r} has {length} bytes and a socket's path at most {IPC_PATH_MAX}: "
                "choose a shorter one"
            )
    else:
        host, _, port = address.rpartition(":")
        if not host or not (port == "*" or (port.isascii() and port.isdigit() and int(port[:6]) <= 65535)):
            raise UserError(f"endpoint {endpoint!r} needs a host and a port: tcp://127.0.0.1:5555")
    return transport, address


def require_local(endpoint: str) -> None:
    """Raises UserError for a tcp endpoint that other hosts can reach."""
    import ipaddress

    transport, address = parse_endpoint(endpoint)
    host = address.rpartition(":")[0].strip("[]")
    try:
        local = transport == "ipc" or host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, an interface, or *
        local = False
    if not local:
        raise UserError(
            f"endpoint {endpoint!r} can be reached from other hosts: use 127.0.0.1, give --keys FOLDER (isp-stream "
            "keys makes one), or --insecure"
        )


def find_port(endpoint: str) -> str:
    """A tcp endpoint, with a free port in the place of `*`. Raises UserError when it could not be bound now.

    It does not listen: nobody can connect to it yet.
    """
    host, _, port = parse_endpoint(endpoint)[1].rpartition(":")
    with socket.socket(socket.AF_INET6 if "[" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as libzmq does
        try:
            probe.bind(("" if host == "*" else host.strip("[]"), 0 if port == "*" else int(port)))
        except socket.gaierror:  # the name of an interface, which only libzmq resolves
            return endpoint
        except OSError as error:
            raise UserError(why_not_bound(endpoint, error.errno)) from error
        return f"tcp://{host}:{probe.getsockname()[1]}"


def why_not_bound(endpoint: str, number: int | None) -> str:
    """The sentence for an endpoint that cannot be bound because of error `number`."""
    if number == errno.EADDRINUSE:
        return f"endpoint {endpoint} is in use by another program: stop it, or choose another one with --publish"
    if number in (errno.ENODEV, errno.EADDRNOTAVAIL):
        return f"endpoint {endpoint} is no address of this machine: use 127.0.0.1, or an address of its own"
    return f"cannot publish on {endpoint}: {os.strerror(number or 0).lower()}; choose another one with --publish"


def boot_id() -> str:
    """The running kernel's own id: equal in two processes only when they run on the same machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class EndpointLock:
    """Holds an ipc endpoint for this process, because a second bind on its path would silently steal it.

    Makes the folder where it is the default one, and clears away a socket that a killed publisher left. Raises
    UserError when somebody else publishes there, or the path cannot be used.
    """

    def __init__(self, endpoint: str) -> None:
        self._path = Path(parse_endpoint(endpoint)[1])
        self._lock_path = Path(f"{self._path}.lock")
        _prepare_folder(self._path.parent, endpoint)
        self._path_is_ours = False
        self._fd = self._acquire(endpoint)
        try:
            _clear(self._path, endpoint)
        except UserError:
            self.release()
            raise
        self._path_is_ours = True

    def release(self) -> None:
        """Removes the socket and the lock file. Harmless when called twice."""
        if self._fd >= 0:
            if self._path_is_ours and self._path.is_socket():
                self._path.unlink(missing_ok=True)
            self._lock_path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1

    def _acquire(self, endpoint: str) -> int:
        while True:
            try:
                fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise UserError(f"cannot publish on {endpoint}: {self._lock_path}: {error.strerror}") from error
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(fd)
                raise UserError(
                    f"endpoint {endpoint} is taken by another isp-stream (process {holder}): stop it, or choose "
                    "another one with --publish"
                ) from error
            if _is_file(fd, self._lock_path):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                return fd
            os.close(fd)  # its holder removed it between our open and our lock


def _is_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _prepare_folder(folder: Path, endpoint: str) -> None:
    if folder == runtime_folder():
        if not folder.parent.is_dir():
            raise UserError(
                f"XDG_RUNTIME_DIR is {folder.parent}, which does not exist: unset it, or choose an endpoint with "
                "--publish"
            )
        try:
            folder.mkdir(0o700, exist_ok=True)
            status = os.lstat(folder)
            ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            if ours and status.st_mode & 0o077:
                folder.chmod(0o700)
        except OSError as error:
            raise UserError(f"cannot make the folder {folder}: {error.strerror}; use --publish") from error
        if not ours:
            raise UserError(f"{folder} belongs to somebody else: choose another endpoint with --publish")
    elif not folder.is_dir():
        raise UserError(f"the folder of endpoint {endpoint} does not exist: make {folder} first")


def _clear(path: Path, endpoint: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"cannot publish on {endpoint}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise UserError(f"endpoint {endpoint} is the path of a file that is no socket: choose another one")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:  # nobody listens: a killed publisher left it
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass
    raise UserError(f"endpoint {endpoint} is in use by another program: choose another one with --publish")
