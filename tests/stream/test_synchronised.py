"""Subscriber(..., synchronised=True): frames of several cameras that belong together, from real streams."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ispeed.engines.errors import UserError
from ispeed.stream import FrameOverwritten, StreamTimeout, Subscriber, Synchronised
from ispeed.stream.frame import FLAG_DEVICE_CLOCK_IS_HOST

PERIOD_NS = 2_000_000


class Cameras:
    """Streams of two cameras at endpoints of their own, with frames 2 ms apart by their time stamps."""

    def __init__(
        self, source: ModuleType, folder: Any, clock: str = "host", fps: float = 500.0, **options: Any
    ) -> None:
        self.endpoints = [f"ipc://{folder}/{camera}" for camera in range(2)]
        info = {"clock": clock, "fps": fps}
        self.sources = [
            source.Source([endpoint], camera=camera, stream_id=0x10 + camera, info=info, **options)
            for camera, endpoint in enumerate(self.endpoints)
        ]

    def subscribe(self, **options: Any) -> Synchronised:
        chosen = {"mode": "every", "timeout_ms": 20_000, **options}
        made = Subscriber(self.endpoints, synchronised=True, **chosen)
        for one in self.sources:
            one.await_subscribers(**{"pixels" if options.get("pixels") == "message" else "descriptors": 1})
        return made

    def publish(self, camera: int, *periods: int, skew_ns: int = 0, **header: Any) -> None:
        """A frame at each of these periods."""
        for period in periods:
            fields = {"flags": FLAG_DEVICE_CLOCK_IS_HOST, "frame_id": period, **header}
            self.sources[camera].publish(device_timestamp=period * PERIOD_NS + skew_ns, **fields)

    def close(self) -> None:
        for one in self.sources:
            one.close()


@pytest.fixture
def cameras(source: ModuleType, runtime_dir: Any) -> Iterator[Callable[..., Cameras]]:
    """Makes pairs of cameras."""
    made: list[Cameras] = []

    def make(**options: Any) -> Cameras:
        made.append(Cameras(source, runtime_dir, **options))
        return made[-1]

    yield make
    for pair in made:
        pair.close()


def ids(frames: Any) -> tuple[int, ...]:
    return tuple(frame.frame_id for frame in frames)


def balanced(pairs: Synchronised) -> bool:
    """Whether every frame received is accounted for."""
    parts = zip(pairs.subscribers, pairs.unpaired, pairs.overwritten, pairs.waiting, strict=True)
    return all(one.received == pairs.paired + sum(others) for one, *others in parts)


def test_pairs_come_with_their_pictures_and_what_has_no_partner_is_counted(cameras):
    pair = cameras()
    with pair.subscribe() as pairs:
        pair.publish(0, 1, 2, 3, 4, 5)
        pair.publish(1, 2, 3, 5, skew_ns=300_000)
        got = [pairs.receive() for _ in range(3)]
        assert [ids(frames) for frames in got] == [(2, 2), (3, 3), (5, 5)]
        assert {frames.skew_us for frames in got} == {300.0}
        assert [frame.camera for frame in got[0]] == [0, 1]
        with got[0] as (left, right):
            assert (left[0, 0, 0], right[0, 0, 0]) == (1, 0)  # the second and the first that were published
        assert [image[0, 0, 0] for image in got[2].copy()] == [4, 2]
        assert (pairs.by, pairs.tolerance_us, pairs.paired) == ("timestamp", 1000.0, 3)
        assert (pairs.unpaired, pairs.waiting, pairs.overwritten) == ((2, 0), (0, 0), (0, 0))
        assert balanced(pairs)


def test_the_newest_pair_is_given_and_those_before_it_are_counted(cameras):
    pair = cameras()
    with pair.subscribe(mode="newest") as pairs:
        pair.publish(0, *range(1, 8))
        pair.publish(1, *range(1, 8))
        first = pairs.receive()
        while ids(first) != (7, 7):  # as far as the messages have come
            first = pairs.receive()
        assert pairs.paired == 7
        assert balanced(pairs)


def test_frames_too_far_apart_are_no_pair(cameras):
    pair = cameras()
    with pair.subscribe(tolerance_us=200, timeout_ms=300) as pairs:
        pair.publish(0, 1, 2, 3)
        pair.publish(1, 1, 2, skew_ns=300_000)
        pair.publish(1, 3, skew_ns=100_000)
        assert ids(pairs.receive(20_000)) == (3, 3)
        assert pairs.unpaired == (2, 2)
        with pytest.raises(StreamTimeout, match=rf"nothing waits from {pair.endpoints[0]}, {pair.endpoints[1]}"):
            pairs.receive()


@pytest.mark.parametrize(
    ("clock", "by", "asked"),
    [
        ("host", "timestamp", "auto"),
        ("ptp", "timestamp", "auto"),
        ("", "frame_id", "auto"),
        ("host", "frame_id", "frame_id"),
        ("", "timestamp", "timestamp"),
    ],
)
def test_what_frames_are_paired_by(cameras, clock, by, asked):
    pair = cameras(clock=clock)
    with pair.subscribe(by=asked) as pairs:
        pair.publish(0, 1, 2, 3)
        pair.sources[1].publish(device_timestamp=2 * PERIOD_NS, frame_id=1)
        pair.sources[1].publish(device_timestamp=3 * PERIOD_NS, frame_id=2)
        got = [ids(pairs.receive()) for _ in range(2)]
        assert pairs.by == by
        assert got == ([(2, 1), (3, 2)] if by == "timestamp" else [(1, 1), (2, 2)])
        assert balanced(pairs)


def test_clocks_of_two_kinds_or_two_machines_are_not_common(cameras, source, runtime_dir):
    pair = cameras(clock="ptp")
    other = source.Source([f"ipc://{runtime_dir}/9"], camera=0, info={"clock": "host", "fps": 500.0})
    with other, Subscriber([pair.endpoints[0], f"ipc://{runtime_dir}/9"], synchronised=True, mode="every") as pairs:
        pair.sources[0].await_subscribers(descriptors=1)
        other.await_subscribers(descriptors=1)
        pair.publish(0, 100)
        other.publish()  # of id 100
        assert ids(pairs.receive(20_000)) == (100, 100)
        assert pairs.by == "frame_id"


def test_a_triggered_camera_has_a_tolerance_of_a_millisecond(cameras):
    pair = cameras(fps=0.0)
    with pair.subscribe() as pairs:
        pair.publish(0, 1, 50, 51)
        pair.publish(1, 1, 51, skew_ns=900_000)
        assert [ids(pairs.receive()) for _ in range(2)] == [(1, 1), (51, 51)]
        assert pairs.tolerance_us == 1000.0


def test_what_is_overwritten_while_it_waits_is_counted(cameras):
    pair = cameras(slots=4)
    with pair.subscribe(timeout_ms=300) as pairs:
        pair.publish(0, 1, 2)
        with pytest.raises(StreamTimeout, match=f"nothing waits from {pair.endpoints[1]}"):
            pairs.receive()
        assert pairs.waiting == (2, 0)
        pair.publish(0, 3, 4, 5)  # in the slot of the first
        pair.publish(1, 1, 2)
        got = pairs.receive(20_000)
        assert ids(got) == (2, 2)
        assert (pairs.overwritten, pairs.unpaired) == ((1, 0), (0, 1))
        assert balanced(pairs)
        pair.publish(0, 6)
        with pytest.raises(FrameOverwritten):
            got.copy()


def test_few_frames_wait_for_a_camera_that_is_silent(cameras):
    pair = cameras(slots=64)
    with pair.subscribe(depth=5, timeout_ms=300) as pairs:
        pair.publish(0, *range(1, 41))
        with pytest.raises(StreamTimeout):
            pairs.receive()
        assert (pairs.waiting, pairs.unpaired) == ((5, 0), (35, 0))
        pair.publish(1, *range(1, 41))
        assert ids(pairs.receive(20_000)) == (36, 36)
        assert balanced(pairs)


def test_a_camera_that_was_lost_is_paired_again(cameras):
    pair = cameras()
    with pair.subscribe() as pairs:
        for period in range(1, 6):
            for camera in (0, 1):
                pair.publish(camera, period)
            assert ids(pairs.receive()) == (period, period)
        pair.publish(0, *range(6, 9))  # the other one is away; then it counts anew
        pair.publish(0, 9)
        pair.publish(1, 9, segment=2, frame_id=1)
        assert ids(pairs.receive()) == (9, 1)
        assert pairs.unpaired == (3, 0)
        assert balanced(pairs)


def test_a_stream_that_began_anew_is_paired_again(cameras, source):
    pair = cameras()
    with pair.subscribe() as pairs:
        pair.publish(0, 1)
        pair.publish(1, 1)
        assert ids(pairs.receive()) == (1, 1)
        pair.sources[1].close()
        info = {"clock": "host", "fps": 500.0}
        pair.sources[1] = source.Source([pair.endpoints[1]], camera=1, stream_id=0x99, info=info)
        while not pair.sources[1].publisher.subscribers()["descriptors"]:
            with pytest.raises(StreamTimeout):  # ZeroMQ subscribes anew only while somebody receives
                pairs.receive(20)
            pair.sources[1].attend()
        pair.publish(0, 2)
        pair.publish(1, 2)
        assert ids(pairs.receive()) == (2, 2)
        assert [one.restarts for one in pairs.subscribers] == [0, 1]
        assert balanced(pairs)


def back(pair: Cameras, pairs: Synchronised, **of_second: int) -> list[tuple[int, ...]]:
    """What is paired of 16 frames of a camera that is back, all of which come before the first of the other."""

    def arrived(period: int) -> dict[str, int]:
        return {"grabbed_ns": period * PERIOD_NS, "realtime_offset_ns": 0}

    def second(period: int) -> dict[str, int]:
        up_ns = of_second.get("up_ns", 0)
        return {"grabbed_ns": period * PERIOD_NS + up_ns + 200_000, "realtime_offset_ns": -up_ns}

    for period in range(1, 4):
        pair.publish(0, period, **arrived(period))
        pair.publish(1, period, **second(period))
        assert ids(pairs.receive()) == (period, period)
    for period in range(4, 24):
        pair.publish(0, period, **arrived(period))
        with pytest.raises(StreamTimeout):
            pairs.receive(5)
    for period in range(24, 40):
        pair.publish(1, period, **{**second(period), "segment": 2, "frame_id": period - 23})
    with pytest.raises(StreamTimeout):
        pairs.receive(300)
    for period in range(24, 36):
        pair.publish(0, period, **arrived(period))
    return [ids(pairs.receive()) for _ in range(10)]


def test_a_camera_that_is_back_is_paired_by_id_whichever_is_read_first(cameras):
    pair = cameras(clock="", slots=256)
    with pair.subscribe() as pairs:
        assert back(pair, pairs) == [(number + 23, number) for number in range(1, 11)]
        assert pairs.unpaired == (20, 0)
        assert balanced(pairs)


def test_what_comes_of_the_others_is_taken_first_when_enough_is_there_of_one_that_is_back(cameras):
    pair = cameras(clock="", slots=512)
    with pair.subscribe(depth=20) as pairs:
        for camera in (0, 1):
            pair.publish(camera, 1, grabbed_ns=PERIOD_NS)
        assert ids(pairs.receive()) == (1, 1)
        for period in range(2, 101):
            pair.publish(1, period, grabbed_ns=period * PERIOD_NS)
        with pytest.raises(StreamTimeout):  # so many wait that the first would be read before them
            pairs.receive(300)
        for period in range(101, 201):  # while nobody receives, and more than may wait
            pair.publish(1, period, grabbed_ns=period * PERIOD_NS)
        for period in range(101, 201):
            pair.publish(0, period, segment=2, frame_id=period - 100, grabbed_ns=period * PERIOD_NS)
        time.sleep(0.5)  # until all of it has come
        assert [ids(pairs.receive()) for _ in range(100)] == [(number, number + 100) for number in range(1, 101)]
        assert balanced(pairs)


def test_cameras_of_two_hosts_are_paired_by_real_time(cameras, source):
    pair = cameras(clock="", slots=256)
    pair.sources[1].close()
    info = {"clock": "", "fps": 500.0, "boot_id": "of another machine"}
    pair.sources[1] = source.Source([pair.endpoints[1]], camera=1, slots=256, info=info)
    with Subscriber(pair.endpoints, synchronised=True, mode="every", timeout_ms=20_000) as pairs:
        pair.sources[0].await_subscribers(descriptors=1)
        while pair.sources[1].publisher.subscribers()["pixels"] == 0:
            with pytest.raises(StreamTimeout):  # it learns while it receives that the memory is elsewhere
                pairs.receive(20)
            pair.sources[1].attend()
        assert back(pair, pairs, up_ns=86_400_000_000_000) == [(number + 23, number) for number in range(1, 11)]
        pair.publish(0, 36, grabbed_ns=36 * PERIOD_NS, realtime_offset_ns=0)
        assert pairs.receive().skew_us == 200.0


def test_pixels_by_message(cameras):
    pair = cameras()
    with pair.subscribe(pixels="message") as pairs:
        pair.publish(0, 1, 2)
        pair.publish(1, 1, 2)
        got = [pairs.receive() for _ in range(2)]
        assert [ids(frames) for frames in got] == [(1, 1), (2, 2)]
        assert [int(image[0, 0, 0]) for image in got[1].copy()] == [1, 1]
        assert balanced(pairs)


def test_async_for(cameras):
    pair = cameras()

    async def collect(pairs: Synchronised) -> list[tuple[int, ...]]:
        got = []
        async for frames in pairs:
            got.append(ids(frames))
            if len(got) == 3:
                break
        with pytest.raises(StreamTimeout):
            await pairs.receive_async(50)
        later = asyncio.create_task(pairs.receive_async(20_000))
        await asyncio.sleep(0)
        pair.publish(0, 4)
        pair.publish(1, 4)
        return [*got, ids(await later)]

    with pair.subscribe() as pairs:
        pair.publish(0, 1, 2, 3)
        pair.publish(1, 1, 2, 3)
        assert asyncio.run(collect(pairs)) == [(n, n) for n in range(1, 5)]


def test_one_publisher_may_have_both_cameras(source, runtime_dir):
    endpoint = f"ipc://{runtime_dir}/both"
    with (
        source.Source([endpoint], camera=1, info={"fps": 500.0}) as one,
        Subscriber(endpoint, cameras=[1, 5], synchronised=True, timeout_ms=300) as pairs,
    ):
        one.await_subscribers(descriptors=1)
        one.publish()
        with pytest.raises(StreamTimeout):
            pairs.receive()
        assert pairs.waiting == (0, 0)  # nothing is taken before it is known what it is paired by


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"which cameras are to be synchronised\? Give cameras=\[0, 1\], or a list of endpoints"),
        ({"cameras": [0]}, "1 cameras at 1 endpoints cannot be synchronised: give two or more"),
        ({"cameras": [0, 0]}, "a camera is named twice: name each camera once"),
        ({"cameras": [0, 1], "endpoint": ["ipc:///a", "ipc:///b", "ipc:///c"]}, "2 cameras at 3 endpoints cannot be"),
        ({"cameras": [0, 1], "by": "luck"}, "frames cannot be paired by 'luck': use auto, timestamp or frame_id"),
        ({"cameras": [0, 1], "mode": "all"}, "mode 'all' is unknown: use newest or every"),
        ({"cameras": [0, 1], "pixels": "all"}, "pixels 'all' is unknown"),
        ({"cameras": [0, 1], "tolerance_us": -1}, "tolerance_us -1 cannot be"),
        ({"cameras": [0, 1], "depth": 0}, "depth 0 cannot be"),
    ],
)
def test_what_cannot_be_is_one_sentence(runtime_dir, options, message):
    with pytest.raises(UserError, match=message):
        Subscriber(synchronised=True, **options)


def test_it_loads_numpy_and_zmq_only():
    code = """
import sys
from ispeed.stream import Subscriber
Subscriber(cameras=[0, 1], synchronised=True).close()
print(sorted({name.partition(".")[0] for name in sys.modules} & {"pydantic", "yaml", "PIL", "h5py", "rich", "numba"}))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_two_simulated_cameras_at_500_fps(isp_stream, tmp_path):
    (tmp_path / "two.yaml").write_text("cameras: {0: {}, 1: {features: {SimSkipEvery: 10}}}")  # one in ten never comes
    run = isp_stream("--config", str(tmp_path / "two.yaml"), "--engine", "classic", size="64x48", fps=500)
    run.until("started", camera=1)
    with Subscriber(cameras=[0, 1], synchronised=True, mode="every", timeout_ms=20_000) as pairs:
        got = [pairs.receive() for _ in range(500)]
        assert (pairs.by, pairs.tolerance_us, pairs.paired) == ("timestamp", 1000.0, 500)
        assert balanced(pairs)
        assert pairs.unpaired[0] > 20
    stamps = np.array([[frame.device_timestamp for frame in frames] for frames in got])
    assert (np.abs(np.diff(stamps, axis=1)) <= 1_000_000).all()
    assert (np.diff(stamps, axis=0) > 0).all()
    assert [frames.skew_us for frames in got] == (np.abs(np.diff(stamps, axis=1))[:, 0] / 1e3).tolist()
    assert all([frame.camera for frame in frames] == [0, 1] for frames in got)
    run.signal()
    for camera in (0, 1):
        ledger = run.until("final", camera=camera)["ledger"]
        assert ledger["balanced"]
    assert run.process.wait(30) == 0
