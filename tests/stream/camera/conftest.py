"""`driver`: a real grab process, with the test in the place of the main process and of develop."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ispeed.stream.channel import Channel, ChannelClosed
from ispeed.stream.config import make_config
from ispeed.stream.frame import FrameRecord
from ispeed.stream.queues import GrantQueue, ReturnQueue
from ispeed.stream.ring import Owner, Ring, Word

SMALL = {"width": 64, "height": 48, "pixel_format": "BayerRG8", "fps": 200}


class Driver:
    """Starts grab processes, one after the other, on one ring."""

    def __init__(self) -> None:
        self.ring: Ring | None = None
        self.granted_fd, self.returned_fd = os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK)
        self.poll = select.poll()
        self.poll.register(self.granted_fd, select.POLLIN)
        self.epoch = 0
        self.processes: list[subprocess.Popen[str]] = []
        self.channels: list[Channel] = []
        self.errors = ""

    def spawn(self) -> Driver:
        """Starts another grab process; the calls go to it from now on."""
        ours, theirs = Channel.pair()
        self.channels.append(ours)
        command = [sys.executable, "-m", "ispeed.stream.grab", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True)
        theirs.close()
        self.processes.append(process)
        return self

    @property
    def channel(self) -> Channel:
        return self.channels[-1]

    @property
    def process(self) -> subprocess.Popen[str]:
        return self.processes[-1]

    def call(self, command: str, fds: tuple[int, ...] = (), **arguments: Any) -> dict[str, Any]:
        try:
            return self.channel.call(command, 20, fds, **arguments)
        except ChannelClosed:
            raise ChannelClosed(f"the process ended with {self.ended()} in {command}: {self.errors}") from None

    def open(self, **settings: Any) -> dict[str, Any]:
        """Opens a camera; without a scene, with small frames."""
        whole = {"scene", "cti"} & settings.keys() or str(settings.get("camera")).startswith("file:")
        config = make_config(settings if whole else {**SMALL, **settings})
        return self.call("open", config=config.model_dump(mode="json"))["geometry"]

    def attach(self, payload: int, slots: int = 32, **options: Any) -> None:
        """Hands the ring to the grab process, made now if there is none yet."""
        if self.ring is None:
            self.ring = Ring.create("raw", slots, payload, stream_id=1)
            self.grants, self.returns = GrantQueue(self.ring), ReturnQueue(self.ring)
        chosen = {"policy": "every", "reserve": 4, "history": 0, "depth": 8, "limit": 0, "timeout_ms": 500, **options}
        self.call("attach", (self.ring.fd, self.granted_fd, self.returned_fd), **chosen)

    def consumer(self) -> None:
        """A develop process with a new epoch is ready."""
        self.epoch += 1
        self.call("consumer", epoch=self.epoch)

    def begin(self, slots: int = 32, segment: int = 1, config: dict[str, Any] | None = None, **options: Any) -> dict:
        """Everything up to running frames. Returns the geometry."""
        geometry = self.spawn().open(**(config or {}))
        self.attach(geometry["payload"], slots, **options)
        self.consumer()
        self.call("start", segment=segment)
        return geometry

    def take(self, timeout_s: float = 0.1) -> list[FrameRecord]:
        """What was granted, taken out of the queue but not given back."""
        if self.poll.poll(timeout_s * 1000):
            os.eventfd_read(self.granted_fd)
        records = self.grants.peek(1000)
        self.grants.take(len(records))
        return records

    def give(self, records: list[FrameRecord]) -> None:
        """Gives slots back."""
        for record in records:
            self.returns.put(record.slot, self.epoch)
        if records:
            os.eventfd_write(self.returned_fd, 1)

    def develop(self, count: int, look: Callable[[FrameRecord], None] | None = None) -> list[FrameRecord]:
        """Takes and gives back frames until there were `count`."""
        got: list[FrameRecord] = []
        deadline = time.monotonic() + 20
        while len(got) < count:
            assert time.monotonic() < deadline, f"{len(got)} of {count} frames came; {self.counts()}"
            records = self.take()
            for record in records:
                if look:
                    look(record)
            self.give(records)
            got += records
        return got

    def stop(self, drain: bool = False) -> list[FrameRecord]:
        """Stops the acquisition, developing meanwhile. Returns what came in the end."""
        self.channel.send({"cmd": "stop", "call": -1, "drain": drain})
        got: list[FrameRecord] = []
        answered = False
        while not answered:
            message = self.channel.receive(0.01)
            if message is not None and message[0].get("call") == -1:
                answered = True
            elif message is not None:
                self.channel.backlog.append(message[0])
            records = self.take(0)
            self.give(records)
            got += records
        return got

    def event(self, name: str, timeout_s: float) -> dict[str, Any]:
        """The next event of this name."""
        deadline = time.monotonic() + timeout_s
        while True:
            for message in self.channel.backlog:
                if message.get("event") == name:
                    self.channel.backlog.remove(message)
                    return message
            got = self.channel.receive(max(0.0, deadline - time.monotonic()))
            assert got is not None, f"no event {name} within {timeout_s} s"
            self.channel.backlog.append(got[0])

    def wait_for(self, reached: Callable[[], bool], timeout_s: float = 10) -> None:
        """Waits without developing anything."""
        deadline = time.monotonic() + timeout_s
        while not reached():
            assert time.monotonic() < deadline, f"{self.counts()}, {self.owners()}"
            time.sleep(0.01)

    def close(self) -> int:
        """Closes the camera and waits for the process. Returns its exit code."""
        self.call("close")
        return self.ended()

    def ended(self) -> int:
        """Waits for the process and returns its exit code; what it wrote to stderr is kept in `errors`."""
        self.errors += self.process.communicate(timeout=20)[1]
        return self.process.returncode

    def count(self, word: Word) -> int:
        assert self.ring is not None
        return self.ring.words[word]

    def counts(self) -> dict[str, int]:
        return {word.name: self.count(word) for word in Word if self.ring and self.ring.words[word]}

    def owners(self) -> dict[str, int]:
        """How many slots each owner has."""
        assert self.ring is not None
        kinds = [Owner(entry & 0xFF).name for entry in self.ring.table]
        return {name: kinds.count(name) for name in dict.fromkeys(kinds)}

    def unaccounted(self) -> int:
        """Frames seen that are in none of the sums, once nothing waits any more."""
        gone = (Word.INCOMPLETE, Word.SUPERSEDED, Word.STOPPED_GRAB, Word.GRANT_HEAD)
        return self.count(Word.SEEN) - sum(self.count(word) for word in gone)

    def release(self) -> None:
        """Ends what still runs and gives everything back."""
        for channel in self.channels:
            channel.close()
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            if process.stderr is not None and not process.stderr.closed:
                self.errors += process.communicate()[1]
        for fd in (self.granted_fd, self.returned_fd):
            os.close(fd)
        if self.ring is not None:
            del self.grants, self.returns
            self.ring.close()


@pytest.fixture
def driver(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """Starts grab processes; none may have written to stderr."""
    monkeypatch.delenv("GENICAM_GENTL64_PATH", raising=False)
    made = Driver()
    yield made
    made.release()
    assert made.errors == ""
