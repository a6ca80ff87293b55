"""What subscribers are made of: their ZeroMQ sockets, and waiting for these, in a thread of one's own or in asyncio."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Generic, Literal, TypeVar

import zmq

T = TypeVar("T")
Self = TypeVar("Self", bound="Receiver[Any]")


class Receiver(Generic[T]):
    """What can be received from one by one: an iterator, for threads and for asyncio, and a context manager.

    Attributes:
        timeout_ms: Longest wait in milliseconds; None waits for ever.
    """

    timeout_ms: float | None

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return self.receive()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        return await self.receive_async()

    def receive(self, timeout_ms: float | Literal["default"] | None = "default") -> T:
        """The next one."""
        raise NotImplementedError

    async def receive_async(self, timeout_ms: float | Literal["default"] | None = "default") -> T:
        """The same for asyncio."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends it."""
        raise NotImplementedError

    def _deadline(self, timeout_ms: Any) -> float | None:
        """When to give up, in time.monotonic seconds; None is never."""
        if timeout_ms == "default":
            timeout_ms = self.timeout_ms
        return None if timeout_ms is None else time.monotonic() + timeout_ms / 1e3


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
