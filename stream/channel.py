"""Channel: the control connection between the main process and a stage, one JSON object a message.

A SOCK_SEQPACKET socketpair: messages keep their bounds, file descriptors travel beside them, and the end of either
process reads as end of file.
"""

from __future__ import annotations

import json
import os
import select
import socket
from array import array
from typing import Any

from ..engines.errors import UserError

MAX_FDS = 16
_MAX_PACKET = 1 << 15  # bytes; well below what a socket's buffer takes at once
_IN_MEMFD = b"memfd"  # a packet that says: the message is in the last of the descriptors


class ChannelClosed(Exception):
    """The process at the other end has ended."""


class Channel:
    """Sends and receives dicts. `fileno()` lets a poll wait for it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._last_call = 0
        self.backlog: list[dict[str, Any]] = []  # events that came while `call` waited for its answer

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """(our end, the socket to pass to a child)."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    @classmethod
    def from_fd(cls, fd: int) -> Channel:
        """The child's end, from the number it was started with."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """The descriptor, for poll."""
        return self._socket.fileno()

    def send(self, message: dict[str, Any], fds: tuple[int, ...] = (), *, wait: bool = True) -> None:
        """Sends one message, with copies of the descriptors `fds`. Raises ChannelClosed.

        A message that is too long for a packet travels in a memfd. Without `wait`, raises BlockingIOError where the
        other end has read so little that there is no room.
        """
        data = json.dumps(message).encode()
        carrier = None
        if len(data) > _MAX_PACKET:
            carrier = os.memfd_create("ispeed-message", os.MFD_CLOEXEC)
            os.write(carrier, data)
            data, fds = _IN_MEMFD, (*fds, carrier)
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))]
            self._socket.sendmsg([data], rights, 0 if wait else socket.MSG_DONTWAIT)  # send_fds() ignores its flags
        except BlockingIOError:
            raise
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosed from error
        except OSError as error:
            if self._socket.fileno() >= 0:
                raise
            raise ChannelClosed from error  # this end has been closed
        finally:
            if carrier is not None:
                os.close(carrier)

    def receive(self, timeout_s: float | None = None) -> tuple[dict[str, Any], list[int]] | None:
        """The next message and its descriptors; None after `timeout_s` seconds without one. Raises ChannelClosed."""
        if timeout_s is not None:
            poll = select.poll()  # select() knows no descriptor above 1023
            poll.register(self._socket, select.POLLIN)
            if not poll.poll(timeout_s * 1e3):
                return None
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, _MAX_PACKET, MAX_FDS)
        except ConnectionResetError as error:
            raise ChannelClosed from error
        if not data:
            raise ChannelClosed
        if data == _IN_MEMFD and fds:
            with open(fds.pop(), "rb") as carrier:
                carrier.seek(0)
                data = carrier.read()
        return json.loads(data), fds

    def call(self, command: str, timeout_s: float, fds: tuple[int, ...] = (), **arguments: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer; events that come before are kept in `backlog`.

        Raises UserError with the stage's own sentence where it answers with one, TimeoutError, or ChannelClosed.
        """
        self._last_call += 1
        self.send({"cmd": command, "call": self._last_call, **arguments}, fds)
        while True:
            got = self.receive(timeout_s)
            if got is None:
                raise TimeoutError(f"no answer to {command!r} within {timeout_s:g} s")
            if got[0].get("call") == self._last_call:
                return check(got[0])
            self.backlog.append(got[0])

    def answer(self, request: dict[str, Any], **result: Any) -> None:
        """Answers `request`."""
        self.send({"call": request.get("call"), **result})

    def shut(self) -> None:
        """Ends the connection and closes this end, also while another thread waits in it."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other end has gone before
        self._socket.close()

    def close(self) -> None:
        """Closes this end."""
        self._socket.close()


def check(answer: dict[str, Any]) -> dict[str, Any]:
    """`answer` itself, or the UserError that it carries."""
    if "user_error" in answer:
        raise UserError(answer["user_error"])
    return answer


def close_fds(fds: list[int]) -> None:
    """Closes received descriptors that are not wanted."""
    for fd in fds:
        os.close(fd)
