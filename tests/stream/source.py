"""A stream for tests: a real ring and a real Publisher, with frames that tell on themselves when they are torn.

Every byte of frame n is n & 0xFF. As a script (`python source.py '{"endpoints": [...], ...}'`) it is a process of its
own that obeys lines on stdin, each answered by one JSON line, and ends with its stdin.
"""

from __future__ import annotations

import io
import json
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ispeed.stream import FrameHeader, Publisher, Ring
from ispeed.stream.curve import Guard


class Source:
    """Writes and publishes frames in this process."""

    def __init__(
        self,
        endpoints: list[str] | None = None,
        *,
        camera: int = 0,
        width: int = 64,
        height: int = 48,
        slots: int = 16,
        stream_id: int = 0x1234,
        name: str | None = None,
        info: dict[str, Any] | None = None,
        keys: str | None = None,
    ) -> None:
        self.warnings: list[str] = []
        self.guard = Guard(Path(keys), self.warnings.append) if keys else None
        self.publisher = Publisher(endpoints or [], camera, guard=self.guard)
        self.camera, self.width, self.height, self.stream_id = camera, width, height, stream_id
        self.ring = Ring.create("srgb", slots, width * height * 3, stream_id, name)
        self.published = 0
        settings = {
            "stream_id": f"{stream_id:016x}",
            "width": width,
            "height": height,
            "stride": width * 3,
            "engine": "none",
            "fps": 0.0,
            "serial": "TEST",
            "clock": "",
        }
        self.publisher.attach(self.ring, {**settings, **(info or {})})

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def write(self, sequence: int, **header: Any) -> None:
        """Develops a frame, so to say: pixels, header (with other fields where they are given), generation."""
        slot = sequence % self.ring.slots
        self.ring.begin_write(slot, sequence)
        self.ring.slot(slot)[:] = sequence & 0xFF
        FrameHeader(
            stream_id=self.stream_id,
            camera=self.camera,
            slot=slot,
            segment=1,
            generation=2 * sequence + 2,
            sequence=sequence,
            frame_id=sequence + 100,
            grabbed_ns=time.monotonic_ns(),
            realtime_offset_ns=time.time_ns() - time.monotonic_ns(),
            width=self.width,
            height=self.height,
            stride=self.width * 3,
            exposure_us=250.0,
            wb_r=2.0,
        )._replace(**header).pack_into(self.ring.memory, self.ring.header_offset(slot))
        self.ring.end_write(slot, sequence)

    def publish(self, count: int = 1, **header: Any) -> None:
        """Writes and publishes the next `count` frames, one by one."""
        for _ in range(count):
            self.write(self.published, **header)
            self.publisher.publish(self.published, self.published + 1)
            self.published += 1
            self.attend()

    def attend(self) -> None:
        """Answers who connects and who subscribes."""
        if self.guard:
            self.guard.poll()
        self.publisher.poll_subscriptions()

    def burst(self, count: int) -> None:
        """Writes the next `count` frames and then publishes them at once."""
        first, self.published = self.published, self.published + count
        for sequence in range(first, self.published):
            self.write(sequence)
        self.publisher.publish(first, self.published)

    def await_subscribers(self, descriptors: int = 0, pixels: int = 0, timeout_s: float = 20) -> None:
        """Waits for exactly that many subscriptions."""
        deadline = time.monotonic() + timeout_s
        wanted = {"descriptors": descriptors, "pixels": pixels}
        while self.publisher.subscribers() != wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.publisher.subscribers()} subscribers, not {wanted}")
            time.sleep(0.002)
            self.attend()

    def close(self) -> None:
        """Ends the stream."""
        self.publisher.close()
        if self.guard:
            self.guard.close()
        self.ring.close()
        self.ring.unlink()


class RemoteSource:
    """The same in a process of its own."""

    def __init__(self, endpoints: list[str] | None = None, **settings: Any) -> None:
        command = [sys.executable, __file__, json.dumps({"endpoints": endpoints, **settings})]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.endpoints: list[str] = self.answer()["endpoints"]

    def __enter__(self) -> RemoteSource:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill() if exc[0] else self.close()

    def tell(self, command: str, **arguments: Any) -> None:
        """Gives an order."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([command, arguments]) + "\n")
        self.process.stdin.flush()

    def answered(self) -> bool:
        """Whether an answer is there."""
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def answer(self) -> dict[str, Any]:
        """Waits for the answer to an order."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the source ended")
        return json.loads(line)

    def do(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Gives an order and waits until it is done."""
        self.tell(command, **arguments)
        return self.answer()

    def run(self, fps: float) -> None:
        """Publishes at `fps` frames per second until `halt`."""
        self.tell("run", fps=fps)

    def halt(self) -> dict[str, Any]:
        """Ends `run`."""
        self.tell("rest")
        self.answer()
        return self.answer()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self._reap()

    def close(self) -> None:
        """Lets it end in order."""
        self._reap()

    def _reap(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait(20)


_ORDERS = io.FileIO(0, closefd=False)  # unbuffered: an order that was read ahead would wake no select


def _run(source: Source, fps: float) -> None:
    """Publishes at `fps` until the next line comes."""
    start, first = time.monotonic(), source.published
    while True:
        due = start + (source.published - first) / fps
        if select.select([_ORDERS], [], [], max(0.0, due - time.monotonic()))[0]:
            return
        source.publish()


def _next_line(source: Source) -> bytes:
    """The next order; meanwhile new subscribers are answered."""
    while not select.select([_ORDERS], [], [], 0.02)[0]:
        source.attend()
    return _ORDERS.readline()


def main() -> None:
    """Obeys stdin."""
    with Source(**json.loads(sys.argv[1])) as source:
        sys.stdout.write(json.dumps({"endpoints": source.publisher.endpoints}) + "\n")
        sys.stdout.flush()
        while line := _next_line(source):
            command, arguments = json.loads(line)
            if command == "publish":
                source.publish(**arguments)
            elif command == "await":
                source.await_subscribers(**arguments)
            elif command == "run":
                _run(source, **arguments)
            elif command == "burst":
                source.burst(**arguments)
            elif command == "announce":
                source.publisher.poll_subscriptions()
                source.publisher.announce(arguments, source.camera)
            answer = {"published": source.published, "subscribers": source.publisher.subscribers()}
            answer["warnings"] = source.warnings
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


def whole(image: np.ndarray, sequence: int) -> bool:
    """Whether `image` is frame `sequence`, every byte of it."""
    return bool((image == sequence & 0xFF).all())


if __name__ == "__main__":
    main()
