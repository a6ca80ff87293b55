"""The process that develops for several cameras: when it is replaced, and what stays behind in it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from ispeed.engines import RawFormat
from ispeed.stream import develop, develop_host
from ispeed.stream.channel import Channel
from ispeed.stream.host import DevelopHost
from ispeed.stream.hub import Hub, Signals
from ispeed.stream.ring import Ring
from ispeed.stream.stage import StageProcess

FORMAT = RawFormat(64, 48, "BayerRG12", 64.0)


@pytest.fixture
def hub(signals: Signals) -> Hub:
    return Hub(lambda: None, signals)


def fail(hub: Hub, *stages: StageProcess) -> None:
    """Has threads end by their own fault, as an engine's error would."""
    for stage in stages:
        stage.post("open", config={})
    deadline = time.monotonic() + 30
    while not all(stage.dead for stage in stages):
        assert time.monotonic() < deadline
        hub.pump(0.05)


def test_a_process_whose_stages_fail_gets_no_new_ones(hub: Hub) -> None:
    """What is broken may be the process itself, such as its context on a GPU."""
    host = DevelopHost()
    first, second = hub.adopt(host.spawn()), hub.adopt(host.spawn())
    broken = first.pid
    assert second.pid == broken
    fail(hub, first, second)
    hub.retire(first)
    first = hub.adopt(host.spawn())
    assert first.pid != broken
    hub.retire(second)
    second = hub.adopt(host.spawn())
    assert second.pid == first.pid
    with pytest.raises(ProcessLookupError):
        os.kill(broken, 0)
    for stage in (first, second):
        hub.retire(stage)
        hub.retire(stage)  # harmless
    with pytest.raises(ProcessLookupError):
        os.kill(first.pid, 0)


def test_a_stage_that_was_asked_to_end_leaves_the_process_to_others(hub: Hub) -> None:
    host = DevelopHost()
    first, second = hub.adopt(host.spawn()), hub.adopt(host.spawn())
    first.post("stop")
    hub.retire(first, grace_s=10)
    third = hub.adopt(host.spawn())
    assert third.pid == second.pid
    for stage in (second, third):
        hub.retire(stage)


@pytest.fixture
def rings() -> Iterator[tuple[int, ...]]:
    """Descriptors as `prepare` brings them."""
    raw = Ring.create("raw", 8, FORMAT.payload_size, 1)
    srgb = Ring.create("srgb", 8, FORMAT.width * FORMAT.height * 3, 1)
    events = [os.eventfd(0) for _ in range(3)]
    yield raw.fd, srgb.fd, *events
    for fd in events:
        os.close(fd)
    raw.close()
    srgb.close()


def test_a_stage_that_is_given_up_while_it_prepares_leaves_nothing(
    rings: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dict.fromkeys(("white_balance", "colour_matrix", "flat_field", "f_number", "focal_length_mm"))
    config |= {"engine": "classic", "engine_mode": "throughput", "engine_precision": "auto", "threads": 1}
    config |= {"defects": [], "policy": "every", "base_iso": 100}
    prepared, may_go_on = develop.Developer._prepared, threading.Event()

    def slowly(*given: object) -> object:
        engine = prepared(*given)  # type: ignore[arg-type]
        assert may_go_on.wait(20)
        return engine

    monkeypatch.setattr(develop.Developer, "_prepared", slowly)
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = Channel.pair()
    serving = threading.Thread(target=develop_host._serve, args=(Channel(theirs),))
    serving.start()
    ours.call("open", 20, config=config)
    geometry = {"camera": 0, "offset_x": 0, "offset_y": 0}
    request = {"geometry": geometry, "format": FORMAT.to_json(), "stream_id": 1, "epoch": 1}
    ours.send({"cmd": "prepare", "call": 2, **request}, rings)
    ours.close()
    may_go_on.set()
    serving.join(20)
    assert not serving.is_alive()
    assert len(os.listdir("/proc/self/fd")) == before
