"""Liveness and Custody on the words of a real ring."""

import time

import pytest

from ispeed.stream.custody import Custody
from ispeed.stream.liveness import MOST_DEATHS, Liveness
from ispeed.stream.ring import Ring, Word


@pytest.fixture
def ring():
    ring = Ring.create("raw", 8, 64, 1)
    yield ring
    ring.close()


def test_develop_hangs_only_while_it_holds_frames_and_finishes_none(ring):
    liveness = Liveness(ring, Custody(ring), 30)
    ring.words[Word.GRANT_HEAD] = 2
    assert not liveness.develop_hangs()  # the first look starts the clock, whatever lies in the queue
    time.sleep(0.05)
    assert liveness.develop_hangs()
    ring.words[Word.DEVELOPED] = 1
    assert not liveness.develop_hangs()
    time.sleep(0.05)
    liveness.develop_starts()
    assert not liveness.develop_hangs()
    ring.words[Word.ENGINE_ERROR] = 1
    time.sleep(0.05)
    assert not liveness.develop_hangs()  # idle, with nothing to do


def test_grab_hangs_only_after_a_sign_of_life_has_grown_old(ring):
    liveness = Liveness(ring, Custody(ring), 30)
    assert not liveness.grab_hangs()
    ring.words[Word.GRAB_ALIVE_NS] = time.monotonic_ns()
    assert not liveness.grab_hangs()
    time.sleep(0.05)
    assert liveness.grab_hangs()
    liveness.grab_ended()
    assert not liveness.grab_hangs()


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
