"""Subscriber: receives the frames of an isp-stream in any program. Loads only numpy and zmq.

    from ispeed.stream import Subscriber

    with Subscriber() as frames:
        for frame in frames:
            with frame as image:       # uint8 [height, width, 3], a live view of shared memory
                print(frame.frame_id, image.mean())

On the publisher's machine only a description of each frame travels, and the pixels are looked at where they are. From
elsewhere the pixels come in the message. A slow subscriber slows nobody: it loses frames, and counts them.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import zmq

from ..engines.errors import UserError
from .curve import Watch, read_client, use_keys
from .endpoint import default_endpoint, parse_endpoint
from .frame import HEADER_SIZE, TOPIC_SIZE, FrameHeader, topic
from .reader import (
    Frame,
    MappedRing,
    StreamError,
    StreamInfo,
    StreamTimeout,
    frame_from_message,
    header_from_message,
)
from .sockets import Receiver, make_poller, make_socket, readable, received

if TYPE_CHECKING:
    from .synchronised import Synchronised

Mode = Literal["newest", "every"]
Pixels = Literal["auto", "shared", "message"]

_QUEUE = 4096  # descriptors that may wait here in mode `every`: 1 MiB
_PIXEL_QUEUE = 16  # frames, with their pixels
_SMALL_MESSAGE = 1 << 16  # bytes; whoever sends more on a descriptor or info topic is disconnected
_LARGE_MESSAGE = 1 << 30
_RENEW_S = 0.5  # silence after which a subscription is asked for again
_INFO_PATIENCE_S = 2.0  # how long descriptors may come without any stream info
_MOST_RINGS = 3


class Subscriber(Receiver[Frame]):
    """An iterator over the frames of one camera. A context manager; used by one thread.

    Args:
        endpoint: Where the stream is published; None is the default endpoint of `camera`.
        camera: Index of the camera. None takes camera 0 at the default endpoint, or whatever comes at a given one.
        mode: "newest" skips to the newest frame at each look; "every" takes them in order, as far as they last.
        timeout_ms: Longest wait for a frame, in milliseconds; None waits for ever.
        pixels: "shared" looks into the publisher's memory and fails where that cannot be, "message" has the pixels
            sent, "auto" takes the first that works.
        keys: Folder of keys, for a tcp endpoint whose publisher has keys: the one that `isp-stream keys FOLDER
            --client NAME` made there.
        synchronised: True makes a Synchronised of it, which takes `cameras` and gives frames of several that belong
            together.

    Attributes:
        received: Frames handed out.
        missed: Frames that were published and never came here, known by their sequence.
        lapped: Frames that were announced, but overwritten before they were looked at.
        restarts: How often the stream began anew; `missed` counts within a stream only.
        info: The StreamInfo that came last, None before.

    Raises:
        UserError: An endpoint, a folder of keys or an option that cannot be.
    """

    @overload
    def __new__(cls, *args: Any, synchronised: Literal[True], **options: Any) -> Synchronised: ...

    @overload
    def __new__(cls, *args: Any, synchronised: Literal[False] = False, **options: Any) -> Subscriber: ...

    def __new__(cls, *args: Any, synchronised: bool = False, **options: Any) -> Subscriber | Synchronised:
        if not synchronised:
            return super().__new__(cls)
        from .synchronised import Synchronised

        return Synchronised(*args, **options)

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        camera: int | None = None,
        mode: Mode = "newest",
        timeout_ms: float | None = None,
        pixels: Pixels = "auto",
        keys: Path | str | None = None,
        synchronised: Literal[False] = False,
    ) -> None:
        if mode not in ("newest", "every"):
            raise UserError(f"mode {mode!r} is unknown: use newest or every")
        if pixels not in ("auto", "shared", "message"):
            raise UserError(f"pixels {pixels!r} is unknown: use auto, shared or message")
        if endpoint is None:
            camera = camera or 0
            endpoint = default_endpoint(camera)
        parse_endpoint(endpoint)
        self.endpoint, self.mode, self.timeout_ms, self._pixels = endpoint, mode, timeout_ms, pixels
        self.received = self.missed = self.lapped = self.restarts = 0
        self.info: StreamInfo | None = None
        self._camera = camera
        self._stream: int | None = None  # stream id of the frames that come now
        self._expected = 0  # the next sequence
        self._rings: dict[int, MappedRing] = {}
        self._held: FrameHeader | None = None  # a descriptor of a stream whose info has not come yet
        self._held_since = self._renew_at = 0.0
        self._refusal: StreamError | None = None  # why the ring that was told last cannot be mapped
        self._keys = None if keys is None else read_client(keys)
        self._context = zmq.Context()
        try:
            self._infos = self._connect("i")
            self._open_frames(by_message=pixels == "message")
        except UserError:
            self._context.destroy(linger=0)
            raise
        self._info_poller = make_poller(self.info_sockets)  # for a held descriptor

    @property
    def transport(self) -> Literal["shared", "message"]:
        """How pixels come at the moment: "shared" memory, or in the "message"."""
        return "message" if self._by_message else "shared"

    def receive(self, timeout_ms: float | Literal["default"] | None = "default") -> Frame:
        """The next frame.

        Waits up to `timeout_ms` milliseconds, None for ever; left out, as long as the Subscriber was told.
        Raises StreamTimeout (a TimeoutError) when none came, StreamError for a stream that cannot be read; the next
        call goes on after either.
        """
        deadline = self._deadline(timeout_ms)
        while (frame := self._next()) is None:
            self._require_welcome()
            poller = self._info_poller if self._held else self._poller
            if poller.poll(self._wait_ms(deadline)):
                self._read_infos()
        return frame

    async def receive_async(self, timeout_ms: float | Literal["default"] | None = "default") -> Frame:
        """The same for asyncio: `async for frame in subscriber`, or one at a time."""
        deadline = self._deadline(timeout_ms)
        while (frame := self._next()) is None:
            self._require_welcome()
            if not self._read_infos():
                await readable(self.sockets, self._wait_ms(deadline))
        return frame

    def poll(self) -> Frame | None:
        """The next frame where one has come; None where none has. Raises StreamError as `receive` does."""
        frame = self._next()
        if frame is None:
            self._require_welcome()
            frame = self._next() if self._read_infos() else None
        now = time.monotonic()
        if frame is not None:
            self._renew_at = now + _RENEW_S
        elif self._held or self._by_message:
            self._renew_if_due(now)
        return frame

    def look(self) -> StreamInfo | None:
        """What is known of the stream by now, without waiting for it. Raises StreamError as `receive` does."""
        self._require_welcome()
        self._read_infos()
        return self.info

    @property
    def info_sockets(self) -> list[zmq.Socket]:
        """What to wait for until `look` may know more."""
        return [*self._watch.sockets, self._infos]

    @property
    def sockets(self) -> list[zmq.Socket]:
        """What to wait for, among other things, until `poll` may have a frame; to be asked for anew each time."""
        # With a held descriptor not the frames, of which more must wake nobody.
        return self.info_sockets if self._held else [*self.info_sockets, self._frames]

    def announce(self, topic: bytes) -> None:
        """Subscribes to a topic on which nothing comes. The publisher sees it after the subscription to frames."""
        self._frames.subscribe(topic)

    def close(self) -> None:
        """Ends the subscription. Arrays of frames stay readable. Harmless when called twice."""
        self._watch.close()
        self._infos.close()
        self._frames.close()
        self._context.term()
        self._rings.clear()

    # -- frames -------------------------------------------------------------------------------------------------

    def _next(self) -> Frame | None:
        return self._next_sent() if self._by_message else self._next_shared()

    def _next_shared(self) -> Frame | None:
        while True:
            header, self._held = self._held or self._receive_descriptor(), None
            if header is None:
                return None
            ring = self._ring_of(header)
            if ring is None:
                return self._next_sent() if self._by_message else None
            frame = ring.frame(header)  # checked before it is counted, so that a false one does not move the count
            if not self._count(header):
                continue
            if frame.overwritten:
                self.lapped += 1
                continue
            self.received += 1
            return frame

    def _next_sent(self) -> Frame | None:
        """The next frame that came with its pixels; in mode `newest` the last of those that wait."""
        parts: Any = None
        while (got := received(self._frames.recv_multipart, copy=False)) is not None:
            parts = got
            if self.mode == "every":
                break
        if parts is None:
            return None
        if len(parts) != 2 or len(parts[0]) != TOPIC_SIZE + HEADER_SIZE:
            raise StreamError("a message with pixels has not the two parts that it must have")
        header = self._unpack(parts[0].bytes)
        if header is None or (header.stream_id != self._stream and self._replaced()):
            return None
        frame = frame_from_message(header, parts[1].buffer)
        if not self._count(header):
            return None
        self.received += 1
        return frame

    def _receive_descriptor(self) -> FrameHeader | None:
        """The next descriptor of our camera, None when none waits."""
        while (message := received(self._frames.recv)) is not None:
            if len(message) != TOPIC_SIZE + HEADER_SIZE:
                raise StreamError(f"a descriptor has {len(message)} bytes, not {TOPIC_SIZE + HEADER_SIZE}")
            header = self._unpack(message)
            if header is not None:
                return header
        return None

    def _unpack(self, message: bytes) -> FrameHeader | None:
        """The header in a message; None for another camera's."""
        header = header_from_message(message)
        if self._camera is None:
            self._camera = header.camera
        return header if header.camera == self._camera else None

    def _count(self, header: FrameHeader) -> bool:
        """Books the frame by its sequence; False for one that came before."""
        if header.stream_id != self._stream:
            if self._stream is not None:
                self.restarts += 1
                self._rings.pop(self._stream, None)
            self._stream, self._expected = header.stream_id, header.sequence
        gap = header.sequence - self._expected
        if gap < 0:
            return False
        self.missed += gap
        self._expected = header.sequence + 1
        return True

    # -- stream info --------------------------------------------------------------------------------------------

    def _ring_of(self, header: FrameHeader) -> MappedRing | None:
        """The ring of a descriptor; None while its info has not come, with the descriptor held back till then."""
        ring = self._rings.get(header.stream_id)
        if ring is None:
            if self._held_since == 0.0:
                self._held_since = time.monotonic()
            self._held = header
            self._read_infos()
            ring = self._rings.get(header.stream_id)
        if ring is not None or self._by_message:
            self._held, self._held_since = None, 0.0
        elif self._refusal or time.monotonic() - self._held_since > _INFO_PATIENCE_S:
            self._held, self._held_since = None, 0.0
            self._fall_back(self._refusal or StreamError("frames come, but nothing that says where their memory is"))
        return ring

    def _replaced(self) -> bool:
        """Looks for the info of a new stream; True when that brought us back to shared memory."""
        self._read_infos()
        return not self._by_message

    def _read_infos(self) -> bool:
        """Takes in the stream infos that wait; whether there were any."""
        came = False
        while (message := received(self._infos.recv)) is not None:
            came = True
            info = StreamInfo.parse(message[TOPIC_SIZE:])
            if self._camera in (None, info.camera):
                self._learn(info)
        return came

    def _learn(self, info: StreamInfo) -> None:
        if info == self.info:
            return
        self.info = info
        if self._pixels == "message":
            return
        try:
            ring, self._refusal = MappedRing(info), None
        except StreamError as error:
            self._refusal = error
            self._fall_back(error)
            return
        self._rings[info.stream_number] = ring
        while len(self._rings) > _MOST_RINGS:
            del self._rings[next(iter(self._rings))]
        self._switch(by_message=False)

    def _fall_back(self, error: StreamError) -> None:
        if self._pixels == "shared":
            raise error
        self._held = None
        self._switch(by_message=True)

    # -- sockets ------------------------------------------------------------------------------------------------

    def _switch(self, *, by_message: bool) -> None:
        if by_message != self._by_message:
            self._frames.close()
            self._open_frames(by_message=by_message)

    def _open_frames(self, *, by_message: bool) -> None:
        self._by_message = by_message
        self._frames = self._connect("p" if by_message else "d")
        self._poller = make_poller([*self.info_sockets, self._frames])

    def _topic(self, kind: str) -> bytes:
        return f"{kind}/".encode() if self._camera is None else topic(kind, self._camera)

    def _connect(self, kind: str) -> zmq.Socket:
        queue = _PIXEL_QUEUE if kind == "p" else 0 if kind == "d" and self.mode == "newest" else _QUEUE
        most = _LARGE_MESSAGE if kind == "p" else _SMALL_MESSAGE
        ipv6 = "[" in self.endpoint
        made = make_socket(self._context, self._topic(kind), most_bytes=most, queue=queue, ipv6=ipv6)
        use_keys(made, self._keys, self.endpoint)
        if kind == "i":  # whoever is let in for one is let in for all
            self._watch = Watch(made, self.endpoint, self._keys)
        try:
            made.connect(self.endpoint)
        except zmq.ZMQError as error:
            raise UserError(f"cannot connect to {self.endpoint}: {error.strerror.lower()}") from error
        return made

    def _require_welcome(self) -> None:
        """Raises StreamError where the publisher does not take us; we then knock again."""
        if why := self._watch.turn((self._infos, self._frames)):
            raise StreamError(why)

    def _renew(self) -> None:
        """Asks again for what ought to come: the info of a held descriptor, or pixels after a silence.

        Anybody's false "unsubscribe" takes one off the publisher's count of pixel subscribers; this puts it back.
        """
        socket, kind = (self._infos, "i") if self._held else (self._frames, "p")
        socket.unsubscribe(self._topic(kind))
        socket.subscribe(self._topic(kind))

    def _renew_if_due(self, now: float) -> None:
        if now >= self._renew_at:
            self._renew()
            self._renew_at = now + _RENEW_S

    # -- time ---------------------------------------------------------------------------------------------------

    def _deadline(self, timeout_ms: Any) -> float | None:
        self._renew_at = time.monotonic() + _RENEW_S
        return super()._deadline(timeout_ms)

    def _wait_ms(self, deadline: float | None) -> int | None:
        """Milliseconds to wait now, None for ever. Raises StreamTimeout when the deadline is over."""
        now = time.monotonic()
        if deadline is not None and now >= deadline:
            raise StreamTimeout(f"no frame came from {self.endpoint} in time: is isp-stream running there?")
        until = min(math.inf if deadline is None else deadline, self._watch.retry_at)
        if self._held or self._by_message:
            self._renew_if_due(now)
            until = min(until, self._renew_at)
        return None if until == math.inf else max(1, math.ceil((until - now) * 1e3))
