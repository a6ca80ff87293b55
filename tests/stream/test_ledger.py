"""The ledger balances, whatever happens in whatever order; and it shows it when it does not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ispeed.stream.frame import LOSS_REASONS
from ispeed.stream.ledger import MOST_SEGMENTS, FrameLedger, read_account, read_losses
from ispeed.stream.ring import Word

_FROM_GRAB = (Word.INCOMPLETE, Word.SUPERSEDED, Word.STOPPED_GRAB)
_FROM_DEVELOP = (Word.ENGINE_ERROR, Word.STAGE_DIED, Word.STOPPED_MAIN)
_REASON = {
    Word.CAMERA_GAP: "camera_gap",
    Word.NO_FREE_BUFFER: "no_free_buffer",
    Word.INCOMPLETE: "incomplete",
    Word.SUPERSEDED: "superseded",
    Word.STOPPED_GRAB: "stopped",
    Word.STOPPED_MAIN: "stopped",
    Word.ENGINE_ERROR: "engine_error",
    Word.STAGE_DIED: "stage_died",
}


class Pipeline:
    """The counters as the stages would leave them: each frame that was seen has one end."""

    def __init__(self) -> None:
        self.words = [0] * 64
        self.in_grab = self.granted = 0
        self.ended: dict[str, int] = dict.fromkeys(LOSS_REASONS, 0)

    def see(self, count: int) -> None:
        self.words[Word.SEEN] += count
        self.in_grab += count

    def miss(self, word: Word, count: int) -> None:
        self._lose(word, count)

    def lose_in_grab(self, word: Word, count: int) -> None:
        count = min(count, self.in_grab)
        self.in_grab -= count
        self._lose(word, count)

    def grant(self, count: int) -> None:
        count = min(count, self.in_grab)
        self.in_grab -= count
        self.granted += count

    def lose_granted(self, word: Word, count: int) -> None:
        count = min(count, self.granted)
        self.granted -= count
        self._lose(word, count)

    def publish(self, count: int) -> None:
        count = min(count, self.granted)
        self.granted -= count
        self.words[Word.PUBLISHED] += count

    def _lose(self, word: Word, count: int) -> None:
        self.words[word] += count
        self.ended[_REASON[word]] += count


_count = st.integers(0, 9)
_events = st.one_of(
    st.tuples(st.just("see"), _count),
    st.tuples(st.just("miss"), st.sampled_from([Word.CAMERA_GAP, Word.NO_FREE_BUFFER]), _count),
    st.tuples(st.just("lose_in_grab"), st.sampled_from(_FROM_GRAB), _count),
    st.tuples(st.just("grant"), _count),
    st.tuples(st.just("lose_granted"), st.sampled_from(_FROM_DEVELOP), _count),
    st.tuples(st.just("publish"), _count),
)


@given(st.lists(st.lists(_events, max_size=30), min_size=1, max_size=4))
def test_every_segment_balances(segments: list[list[tuple]]) -> None:
    pipeline = Pipeline()
    ledger = FrameLedger(pipeline.words)
    for number, events in enumerate(segments):
        assert ledger.open_segment(number * 1000, 100.0) == number + 1
        for name, *arguments in events:
            getattr(pipeline, name)(*arguments)
            account = read_account(pipeline.words)
            assert account.in_flight == pipeline.in_grab + pipeline.granted
            assert account.lost == pipeline.ended
        pipeline.lose_in_grab(Word.STOPPED_GRAB, pipeline.in_grab)
        pipeline.publish(pipeline.granted)
        assert ledger.close_segment(number * 1000 + 500, "stopped").account.in_flight == 0
    assert ledger.balanced
    total = ledger.to_json()
    assert total["in_flight"] == 0
    assert total["seen"] + total["missing"] == total["published"] + sum(total["lost"].values())
    for name in ("seen", "missing", "published"):
        assert total[name] == sum(s["account"][name] for s in total["segments"])
    for reason in LOSS_REASONS:
        assert total["lost"][reason] == sum(s["account"]["lost"][reason] for s in total["segments"])
    assert len(total["outages"]) == len(segments) - 1
    assert json.loads(json.dumps(total)) == total


def test_late_frames_are_told_of_each_segment_and_of_all() -> None:
    pipeline = Pipeline()
    ledger = FrameLedger(pipeline.words)
    for late in (2, 3):
        ledger.open_segment(0, 100.0)
        pipeline.miss(Word.CAMERA_GAP, 5)
        pipeline.words[Word.LATE] += late
        ledger.close_segment(10, "stopped")
    told = ledger.to_json()
    assert told["balanced"]
    assert told["late"] == 5
    assert [segment["account"]["late"] for segment in told["segments"]] == [2, 3]


@pytest.mark.parametrize("word", [Word.SEEN, Word.INCOMPLETE, Word.PUBLISHED, Word.STOPPED_MAIN])
def test_a_frame_too_many_or_too_few_shows(word: Word) -> None:
    pipeline = Pipeline()
    ledger = FrameLedger(pipeline.words)
    ledger.open_segment(0, 100.0)
    pipeline.see(5)
    pipeline.grant(5)
    pipeline.publish(5)
    pipeline.words[word] += 1
    ledger.close_segment(10, "stopped")
    assert not ledger.balanced
    assert not ledger.to_json()["balanced"]


def test_outages_are_estimated_and_in_no_sum() -> None:
    ledger = FrameLedger([0] * 64)
    ledger.open_segment(0, 1000.0)
    ledger.close_segment(1_000_000_000, "camera lost")
    ledger.open_segment(3_500_000_000, 1000.0)
    assert [o.estimated_frames for o in ledger.outages] == [2500]
    ledger.close_segment(4_000_000_000, "stopped")
    told = ledger.to_json()
    assert told["outages"] == [{"duration_s": 2.5, "estimated_frames": 2500}]
    assert told["missing"] == 0
    assert [s["ended_by"] for s in told["segments"]] == ["camera lost", "stopped"]
    assert [s["duration_s"] for s in told["segments"]] == [1.0, 0.5]


def test_a_camera_that_comes_and_goes_for_ever_is_kept_in_bounds() -> None:
    pipeline = Pipeline()
    ledger = FrameLedger(pipeline.words)
    for number in range(MOST_SEGMENTS + 50):
        ledger.open_segment(number * 1_000_000_000, 100.0)
        pipeline.see(3)
        pipeline.miss(Word.CAMERA_GAP, 2)
        pipeline.lose_in_grab(Word.SUPERSEDED, 1)
        pipeline.grant(2)
        pipeline.publish(2)
        ledger.close_segment(number * 1_000_000_000 + 500_000_000, "camera lost")
    assert ledger.balanced
    told = ledger.to_json()
    assert (len(told["segments"]), len(told["outages"])) == (MOST_SEGMENTS, MOST_SEGMENTS)
    earlier = told["earlier"]
    assert (earlier["segments"], earlier["outages"]) == (50, 49)
    assert (earlier["duration_s"], earlier["outage_s"], earlier["estimated_frames"]) == (25.0, 24.5, 49 * 50)
    accounts = [earlier["account"], *(segment["account"] for segment in told["segments"])]
    for name in ("seen", "missing", "published"):
        assert told[name] == sum(account[name] for account in accounts)
    for reason in LOSS_REASONS:
        assert told["lost"][reason] == sum(account["lost"][reason] for account in accounts)


def test_segments_open_and_close_in_turn() -> None:
    ledger = FrameLedger([0] * 64)
    with pytest.raises(RuntimeError, match="no segment"):
        ledger.close_segment(0, "stopped")
    ledger.open_segment(0, 1.0)
    assert ledger.segment_open
    with pytest.raises(RuntimeError, match="open already"):
        ledger.open_segment(1, 1.0)
    ledger.close_segment(2, "stopped")
    assert not ledger.segment_open


def test_losses_are_in_the_headers_order() -> None:
    words = [0] * 64
    for value, word in enumerate(_REASON, start=1):
        words[word] = 10**value
    assert dict(zip(LOSS_REASONS, read_losses(words), strict=True)) == {
        reason: sum(words[word] for word in _REASON if _REASON[word] == reason) for reason in LOSS_REASONS
    }
