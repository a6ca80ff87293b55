"""What the measuring subscriber counts."""

from __future__ import annotations

import numpy as np
import pytest

from ispeed.bench.subscriber import Measurement, checksum
from ispeed.stream.frame import FLAG_DEVICE_CLOCK_IS_HOST, FrameHeader
from ispeed.stream.histogram import LatencyHistogram

MS = 1_000_000


def header(number: int, **fields: int) -> FrameHeader:
    at = 1000 * MS + number * MS
    made = FrameHeader(sequence=number, flags=FLAG_DEVICE_CLOCK_IS_HOST, device_timestamp=at - MS, grabbed_ns=at)
    return made._replace(developed_ns=at + 1, published_ns=at + 2, **fields)


@pytest.mark.parametrize("size", [0, 1, 8, 27, 640])
def test_checksum_reads_every_byte(size: int):
    data = np.arange(size, dtype=np.uint8)
    whole = size // 8 * 8
    words = int.from_bytes(data[:whole].tobytes(), "little")
    expected = sum(words >> (64 * k) & (1 << 64) - 1 for k in range(whole // 8)) % (1 << 64)
    assert checksum(data.reshape(1, -1)) == expected + int(data[whole:].sum())


def test_only_frames_of_the_window_count_and_latency_begins_at_each_stamp():
    measurement = Measurement(1005 * MS, 1015 * MS)
    for number in range(10):
        grabbed = 1000 * MS + number * MS
        measurement.frame(header(number), grabbed + 2 * MS, grabbed + 3 * MS, whole=number != 7)
    result = measurement.result()
    assert (result["frames"], result["sequences"], result["torn"]) == (5, 5, 1)
    assert result["published_fps"] == pytest.approx(1000)
    assert result["received_fps"] == pytest.approx(500)
    latency = {name: LatencyHistogram.from_json(bins) for name, bins in result["latency"].items()}
    assert {name: h.max for name, h in latency.items()} == {"device": 3 * MS, "grabbed": 2 * MS, "read": 3 * MS}


def test_a_camera_clock_of_its_own_gives_no_device_latency():
    measurement = Measurement(0, 1000 * MS)
    measurement.frame(header(0, flags=0), 1002 * MS, 1003 * MS, whole=True)
    assert sorted(measurement.result()["latency"]) == ["grabbed", "read"]


def test_losses_are_told_with_the_span_in_which_they_were_counted():
    measurement = Measurement(1002 * MS, 2000 * MS)
    lost = [0, 4, 4, 4, 9, 9]
    for number, count in enumerate(lost):
        measurement.frame(header(number, lost_superseded=count), 1100 * MS, 1101 * MS, whole=True)
    result = measurement.result()
    assert result["lost_before"] == 4
    assert result["loss_events"] == [
        {"from_ns": 1003 * MS + 1, "to_ns": 1004 * MS + 1, "lost": {"superseded": 5}},
    ]


def test_losses_between_the_last_frame_ahead_and_the_first_of_the_window_count():
    measurement = Measurement(1001 * MS, 2000 * MS)
    measurement.frame(header(0), 1001 * MS, 1001 * MS, whole=True)
    measurement.frame(header(3, lost_camera_gap=2), 1004 * MS, 1004 * MS, whole=True)
    assert [event["lost"] for event in measurement.result()["loss_events"]] == [{"camera_gap": 2}]
