"""What is said about an engine that is slower than the camera, and when."""

import pytest

from ispeed.stream.pace import Pace
from ispeed.stream.ring import Word


def interval(seen=200, superseded=180, developed=20, busy=0.99, no_buffer=0):
    delta = [0] * 64
    delta[Word.SEEN], delta[Word.SUPERSEDED], delta[Word.DEVELOPED] = seen, superseded, developed
    delta[Word.DEVELOP_BUSY_NS], delta[Word.NO_FREE_BUFFER] = round(busy * 1e9), no_buffer
    return delta


def test_it_is_said_once_with_both_rates_and_what_to_do():
    pace = Pace("every")
    said = [pace.look(interval(), 1.0, "lwisp") for _ in range(5)]
    assert [text is not None for text in said] == [False, True, False, False, False]
    for part in ("lwisp develops 20", "sends 200", "--fps", "lwisp-xs", "classic", "--policy latest"):
        assert part in said[1]
    assert "\n" not in said[1]


def test_frames_without_a_buffer_count_as_well():
    pace = Pace("block")
    delta = interval(seen=30, superseded=0, no_buffer=170)
    assert pace.look(delta, 1.0, "lwisp") is None
    assert "sends 200" in pace.look(delta, 1.0, "lwisp")


@pytest.mark.parametrize(("engine", "advice"), [("classic", "smaller"), ("lwisp-xs", "such as lwisp-xs")])
def test_nobody_is_advised_to_take_what_he_has(engine, advice):
    pace = Pace("every")
    pace.look(interval(), 1.0, engine)
    assert advice not in pace.look(interval(), 1.0, engine)


@pytest.mark.parametrize(
    "delta", [interval(superseded=2), interval(busy=0.5), interval(superseded=0)], ids=["hiccup", "idle", "no loss"]
)
def test_nothing_is_said_when_the_engine_is_not_behind(delta):
    pace = Pace("every")
    assert [pace.look(delta, 1.0, "lwisp") for _ in range(4)] == [None] * 4


def test_one_bad_second_between_good_ones_is_no_pace():
    pace = Pace("every")
    assert [pace.look(delta, 1.0, "lwisp") for delta in [interval(), interval(superseded=0)] * 3] == [None] * 6


def test_an_engine_that_takes_seconds_for_a_frame_is_behind():
    pace = Pace("every")
    nothing, end = interval(developed=0, busy=0), interval(developed=1, busy=3)
    said = [pace.look(delta, 1.0, "lwisp") for delta in [nothing, nothing, end] * 2]
    assert [text is not None for text in said] == [False] * 5 + [True]
    assert "lwisp develops 0.33 frames" in said[-1]
    assert "sends 200" in said[-1]


def test_a_pause_of_the_develop_process_is_no_pace():
    pace = Pace("every")
    pause, after = interval(developed=0, busy=0), interval(developed=20, busy=0.5)
    assert [pace.look(delta, 1.0, "lwisp") for delta in [pause, pause, after] * 2] == [None] * 6


def test_with_the_policy_latest_the_rest_is_meant_to_be_lost():
    pace = Pace("latest")
    assert [pace.look(interval(), 1.0, "lwisp") for _ in range(4)] == [None] * 4
