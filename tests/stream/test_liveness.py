"""Liveness and Custody on the words of a real ring."""

import time

import pytest

from ispeed.stream.custody import Custody
from ispeed.stream.liveness import MOST_DEATHS, Activity, Liveness
from ispeed.stream.ring import Ring, Word


@pytest.fixture
def ring():
    ring = Ring.create("raw", 8, 64, 1)
    yield ring
    ring.close()


def look_for(liveness, seconds):
    """Looks as often as the main loop does: so many times, for of a pause in between hardly anything counts."""
    pause_s = liveness.look_s / 2
    for _ in range(round(seconds / pause_s)):
        liveness.look()
        time.sleep(pause_s)
    liveness.look()


def test_develop_hangs_only_while_it_holds_frames_and_finishes_none(ring):
    liveness = Liveness(ring, Custody(ring), 40)
    ring.words[Word.GRANT_HEAD] = 2
    liveness.look()  # the first look starts the clock, whatever lies in the queue
    assert not liveness.develop_hangs()
    look_for(liveness, 0.1)
    assert liveness.develop_hangs()
    assert liveness.states()["develop"]["state"] == "stuck"
    ring.words[Word.DEVELOPED] = 1
    liveness.look()
    assert not liveness.develop_hangs()
    assert liveness.states()["develop"]["state"] == "working"
    look_for(liveness, 0.1)
    assert liveness.develop_hangs()
    liveness.develop_starts()
    assert not liveness.develop_hangs()
    ring.words[Word.ENGINE_ERROR] = 1
    look_for(liveness, 0.1)
    assert not liveness.develop_hangs()  # idle, with nothing to do
    assert liveness.states(develop="starting")["develop"]["state"] == "starting"


def test_who_did_not_look_for_long_blames_nobody_for_it(ring):
    liveness = Liveness(ring, Custody(ring), 40)
    ring.words[Word.GRANT_HEAD] = 2
    liveness.look()
    time.sleep(0.2)  # the main process was stopped: nothing was published, so nothing could be developed
    liveness.look()
    assert not liveness.develop_hangs()


def test_grab_hangs_only_after_a_sign_of_life_has_grown_old(ring):
    liveness = Liveness(ring, Custody(ring), 60_000)
    assert not liveness.grab_hangs()
    assert liveness.states()["grab"]["state"] == "starting"
    ring.words[Word.GRAB_ALIVE_NS] = time.monotonic_ns()
    liveness.look()
    assert not liveness.grab_hangs()
    assert liveness.states()["grab"]["state"] == "idle"  # no frames come, which is not its fault
    ring.words[Word.GRAB_ALIVE_NS] -= 31_000_000_000
    told = liveness.states()["grab"]
    assert told["state"] == "stuck"
    assert told["for_s"] >= 31
    assert not liveness.grab_hangs()
    ring.words[Word.GRAB_ALIVE_NS] -= 30_000_000_000
    assert liveness.grab_hangs()
    liveness.grab_ended()
    assert not liveness.grab_hangs()
    assert liveness.states(grab="gone")["grab"]["state"] == "gone"


def test_a_stage_works_while_its_count_moves_and_idles_when_it_does_not():
    activity = Activity(60_000_000_000)
    activity.look(0, more=False)
    assert activity.state()["state"] == "idle"
    activity.look(1, more=True)
    assert activity.state()["state"] == "working"
    activity.look(1, more=True)
    assert activity.state()["state"] == "working"  # something to do, and not yet out of patience
    assert activity.state("gone") == {"state": "gone", "for_s": 0.0}


def test_deaths_count_only_without_a_frame_in_between(ring):
    liveness = Liveness(ring, Custody(ring), 30)
    assert not any(liveness.died_too_often("grab") for _ in range(MOST_DEATHS))
    assert not liveness.died_too_often("develop")
    ring.words[Word.PUBLISHED] = 1
    assert not any(liveness.died_too_often("grab") for _ in range(MOST_DEATHS))
    assert liveness.died_too_often("grab")


def test_custody_counts_what_the_dead_held_once_each(ring):
    words, custody = ring.words, Custody(ring)
    words[Word.SEEN], words[Word.INCOMPLETE], words[Word.SUPERSEDED], words[Word.GRANT_HEAD] = 20, 2, 3, 10
    words[Word.DEVELOPED], words[Word.ENGINE_ERROR], words[Word.GRANT_TAIL] = 6, 1, 7
    assert (custody.waiting, custody.held, custody.busy, custody.progress) == (5, 3, True, 7)
    custody.develop_died()
    assert (custody.held, custody.busy, words[Word.STAGE_DIED], words[Word.DIED_GRANTED]) == (0, False, 3, 3)
    custody.grab_died()
    assert (custody.waiting, words[Word.STAGE_DIED]) == (0, 8)
    custody.develop_died()
    custody.grab_died()
    assert words[Word.STAGE_DIED] == 8
