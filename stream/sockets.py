"""A subscriber's ZeroMQ sockets: made, and waited for, in a thread of one's own or in an asyncio loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import zmq

T = TypeVar("T")


def make_socket(context: zmq.Context, topic: bytes, *, most_bytes: int, queue: int, ipv6: bool) -> zmq.Socket:
    """A SUB socket for a topic, not connected yet.

    Args:
        context: Of the subscriber.
        topic: Beginning of the messages that are wanted.
        most_bytes: Whoever sends a longer message is disconnected.
        queue: Messages that may wait; 0 keeps the last one only, which must be of one part.
        ipv6: Whether the endpoint is such an address.
    """
    made = context.socket(zmq.SUB)
    made.set(zmq.LINGER, 0)
    made.set(zmq.RECONNECT_IVL, 50)
    made.set(zmq.RECONNECT_IVL_MAX, 250)
    made.set(zmq.MAXMSGSIZE, most_bytes)
    made.set(zmq.IPV6, int(ipv6))
    made.set(*((zmq.RCVHWM, queue) if queue else (zmq.CONFLATE, 1)))
    made.subscribe(topic)
    return made


def received(receive: Callable[..., T], **options: Any) -> T | None:
    """What `recv` or the like of a socket has; None where nothing has come."""
    try:
        return receive(zmq.NOBLOCK, **options)
    except zmq.Again:
        return None


def make_poller(sockets: Sequence[zmq.Socket]) -> zmq.Poller:
    """A poller that wakes when any of them has something."""
    poller = zmq.Poller()
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
    return poller


async def readable(sockets: Sequence[zmq.Socket], timeout_ms: float | None) -> None:
    """Returns when a socket may have something, or after `timeout_ms` milliseconds; None waits for ever.

    Their descriptors signal edges: each socket must have been found empty before.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    woken = asyncio.Event()
    descriptors = [socket.fileno() for socket in sockets]
    for fd in descriptors:
        loop.add_reader(fd, woken.set)
    try:
        if not any(int(socket.get(zmq.EVENTS)) & zmq.POLLIN for socket in sockets):
            await asyncio.wait_for(woken.wait(), None if timeout_ms is None else timeout_ms / 1e3)
    except asyncio.TimeoutError:
        pass
    finally:
        for fd in descriptors:
            loop.remove_reader(fd)
