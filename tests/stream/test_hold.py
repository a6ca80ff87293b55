"""The bookkeeping of the grab stage, against a real ring; the producer is the list of slots that it was offered."""

from __future__ import annotations

import os

import pytest

from ispeed.engines.errors import UserError
from ispeed.stream.camera.sources import Arrival, SourceFailed
from ispeed.stream.hold import Hold, HoldOptions
from ispeed.stream.ledger import read_account
from ispeed.stream.log import ArrivalLog
from ispeed.stream.queues import GrantQueue, ReturnQueue
from ispeed.stream.ring import Owner, Ring, Word

SLOTS = 12


class Bench:
    """A Hold with both of its neighbours played by the test."""

    def __init__(self, ring: Ring, **options) -> None:
        self.ring, self.words = ring, ring.words
        self.offered: list[int] = []  # what lies queued at the producer, oldest first
        self.underruns: int | None = 0
        self.undelivered: int | None = 0
        self.grant_fd = os.eventfd(0, os.EFD_NONBLOCK)
        chosen = {"policy": "every", "depth": 2, "reserve": 4, **options}
        self.warnings: list[str] = []
        self.hold = Hold(
            ring,
            HoldOptions(**chosen),
            self.offered.append,
            self.grant_fd,
            lambda: (self.underruns, self.undelivered),
            self.warnings.append,
        )
        self.grants, self.returns = GrantQueue(ring), ReturnQueue(ring)
        self.next_id = 1

    @property
    def lost(self) -> dict[str, int]:
        return {reason: count for reason, count in read_account(self.words).lost.items() if count}

    def frame(self, frame_id: int | None = None, **changes) -> int:
        """The producer fills its oldest slot."""
        arrival = Arrival()
        arrival.frame_id = self.next_id if frame_id is None else frame_id
        arrival.size = 100
        for name, value in changes.items():
            setattr(arrival, name, value)
        self.next_id = arrival.frame_id + 1
        slot = self.offered.pop(0)
        self.hold.arrived(slot, arrival, 1234, 500.0, 3.0)
        return slot

    def take(self):
        """Develop takes everything that was granted to it."""
        records = self.grants.peek(1000)
        self.grants.take(len(records))
        return records

    def give(self, records, epoch: int = 1) -> None:
        for record in records:
            self.returns.put(record.slot, epoch)
        self.hold.take_returns()

    def owners(self) -> dict[str, int]:
        kinds = [Owner(entry & 0xFF).name for entry in self.ring.table]
        return {name: kinds.count(name) for name in dict.fromkeys(kinds)}

    def unaccounted(self) -> int:
        """Frames seen that are neither waiting, granted nor counted as lost."""
        w = self.words
        counted = w[Word.INCOMPLETE] + w[Word.SUPERSEDED] + w[Word.STOPPED_GRAB] + w[Word.GRANT_HEAD]
        return w[Word.SEEN] - counted - self.hold.waiting


@pytest.fixture
def ring():
    ring = Ring.create("raw", SLOTS, 100, stream_id=1)
    yield ring
    ring.close()


@pytest.fixture
def bench(ring):
    benches: list[Bench] = []

    def make(**options) -> Bench:
        made = Bench(ring, **options)
        benches.append(made)
        return made

    yield make
    for made in benches:
        os.close(made.grant_fd)


def running(bench, **options) -> Bench:
    made = bench(**options)
    made.hold.start(segment=3)
    made.hold.consumer(epoch=1)
    return made


def test_start_offers_every_slot_with_odd_generations(bench, ring):
    made = running(bench)
    assert made.offered == list(range(SLOTS))
    assert made.owners() == {"QUEUED": SLOTS}
    assert all(generation % 2 for generation in ring.generations)


def test_record_carries_what_is_known_about_the_frame(bench, ring):
    made = running(bench)
    slot = made.frame(frame_id=41, timestamp=99, flags=5)
    (record,) = made.take()
    assert record[:3] == (slot, 5, 41)
    assert (record.device_timestamp, record.grabbed_ns, record.segment, record.size) == (99, 1234, 3, 100)
    assert (record.exposure_us, record.gain_db, record.grant) == (500.0, 3.0, 0)
    assert ring.generations[slot] % 2 == 0
    assert ring.table[slot] == 1 << 8 | Owner.GRANTED
    assert os.eventfd_read(made.grant_fd) == 1


def test_no_more_than_depth_are_granted_at_once_and_returns_let_more_through(bench):
    made = running(bench, depth=2)
    for _ in range(5):
        made.frame()
    first = made.take()
    assert [record.frame_id for record in first] == [1, 2]
    assert made.hold.waiting == made.words[Word.WAITING] == 3
    made.give(first[:1])
    assert [record.frame_id for record in made.take()] == [3]
    assert made.unaccounted() == 0


def test_every_supersedes_the_oldest_when_the_reserve_is_touched(bench):
    made = running(bench, depth=1, reserve=4)
    for _ in range(20):
        made.frame()
    assert len(made.offered) == made.words[Word.QUEUED] == 4
    assert made.words[Word.SUPERSEDED] == 20 - (SLOTS - 4)
    taken = made.take()
    made.give(taken)
    # the first was granted at once; of the others the oldest are gone and the newest are left in order
    assert [record.frame_id for record in taken + made.take()] == [1, 20 - 6]
    assert made.unaccounted() == 0


def test_latest_keeps_only_the_newest_waiting(bench):
    made = running(bench, policy="latest", depth=1)
    for _ in range(10):
        made.frame()
    assert made.hold.waiting == 1
    assert made.words[Word.SUPERSEDED] == 8
    made.give(made.take())
    assert [record.frame_id for record in made.take()] == [10]
    assert made.unaccounted() == 0


def test_block_supersedes_nothing_and_lets_the_producer_run_dry(bench):
    made = running(bench, policy="block", depth=1)
    for _ in range(SLOTS):
        made.frame()
    assert made.offered == []
    assert made.words[Word.SUPERSEDED] == 0
    made.give(made.take())
    assert len(made.offered) == 1
    assert [record.frame_id for record in made.take()] == [2]


def test_incomplete_frames_are_counted_and_their_slot_offered_again(bench):
    made = running(bench)
    slot = made.frame(incomplete=True)
    assert made.offered[-1] == slot
    assert made.words[Word.SEEN] == made.words[Word.INCOMPLETE] == 1
    assert made.take() == []


def test_incomplete_buffers_without_an_id_are_no_gap(bench):
    made = running(bench)
    made.frame(frame_id=1)
    made.hold.passed_over(1)
    made.hold.passed_over(2)
    made.frame(frame_id=5)
    assert (made.words[Word.SEEN], made.words[Word.INCOMPLETE], made.words[Word.CAMERA_GAP]) == (4, 2, 1)


@pytest.mark.parametrize("incomplete", [False, True])
def test_late_frames_stay_missing_and_are_told(bench, incomplete):
    made = running(bench)
    made.frame(frame_id=1)
    made.frame(frame_id=3)
    made.frame(frame_id=2, incomplete=incomplete)
    assert (made.words[Word.SEEN], made.words[Word.CAMERA_GAP], made.words[Word.LATE]) == (2, 1, 1)
    assert read_account(made.words).late == 1
    assert made.unaccounted() == 0


@pytest.mark.parametrize("ids", [[0] * 1000, [number % 20 for number in range(1000)]])
def test_no_frame_is_dropped_because_of_ids_that_are_none(bench, ids):
    made = running(bench)
    taken = []
    for frame_id in ids:
        made.frame(frame_id=frame_id)
        records = made.take()
        taken += records
        made.give(records)
    assert [record.frame_id for record in taken] == list(range(1000))
    assert made.words[Word.SEEN] == made.words[Word.GRANT_HEAD] == 1000
    assert made.words[Word.LATE] == 0
    assert len(made.warnings) == 1
    assert "frames are numbered here" in made.warnings[0]
    made.hold.stop()
    made.hold.start(segment=4)
    made.frame(frame_id=0)
    made.frame(frame_id=0)
    assert len(made.warnings) == 1


def test_an_incomplete_frame_that_lost_its_id_is_no_gap(bench):
    made = running(bench)
    for frame_id, incomplete in ((999, False), (1000, False), (0, True), (1002, False), (1003, False)):
        made.frame(frame_id=frame_id, incomplete=incomplete)
    assert made.lost == {"incomplete": 1}
    assert (made.words[Word.SEEN], made.words[Word.LAST_FRAME_ID]) == (5, 1003)
    assert made.unaccounted() == 0


def test_an_incomplete_frame_without_its_id_hides_no_other_gap(bench):
    made = running(bench)
    for frame_id, incomplete in ((1, False), (0, True), (2, False), (4, False), (0, True), (7, True), (8, False)):
        made.frame(frame_id=frame_id, incomplete=incomplete)
    # of 5 and 6 one came without its id
    assert made.lost == {"camera_gap": 2, "incomplete": 3}
    assert made.words[Word.SEEN] == 7


def test_an_incomplete_first_frame_says_nothing_about_ids(bench):
    made = running(bench)
    made.frame(frame_id=0, incomplete=True)
    for frame_id in (1001, 1002):
        made.frame(frame_id=frame_id)
    assert made.lost == {"incomplete": 1}
    assert made.unaccounted() == 0


def test_buffers_that_found_no_slot_until_the_end_are_counted_as_stopped(bench):
    made = running(bench)
    made.frame()
    made.hold.left_behind(5)
    assert (made.words[Word.SEEN], made.words[Word.STOPPED_GRAB]) == (6, 5)
    assert made.unaccounted() == 0


def test_missing_ids_are_split_by_the_producers_underruns(bench):
    made = running(bench)
    made.frame(frame_id=1)
    made.underruns = 3
    made.frame(frame_id=7)
    assert (made.words[Word.NO_FREE_BUFFER], made.words[Word.CAMERA_GAP]) == (3, 2)
    made.frame(frame_id=9)
    assert (made.words[Word.NO_FREE_BUFFER], made.words[Word.CAMERA_GAP]) == (3, 3)


def test_underruns_behind_frames_still_to_be_fetched_belong_to_the_next_gap(bench):
    made = running(bench)
    made.frame(frame_id=1)
    made.underruns, made.undelivered = 4, 2
    made.frame(frame_id=3)
    made.undelivered = 0
    made.frame(frame_id=7)
    assert (made.words[Word.NO_FREE_BUFFER], made.words[Word.CAMERA_GAP]) == (4, 0)


def test_underruns_that_left_no_gap_are_not_blamed_for_later_ones(bench):
    made = running(bench)
    made.frame(frame_id=1)
    made.underruns = 5
    made.frame(frame_id=3)
    made.frame(frame_id=7)
    assert (made.words[Word.NO_FREE_BUFFER], made.words[Word.CAMERA_GAP]) == (1, 3)


def test_without_the_statistic_an_empty_queue_is_the_reason(bench):
    made = running(bench, policy="block", depth=1)
    made.underruns = None
    for _ in range(SLOTS):
        made.frame()
    made.give(made.take())
    made.frame(frame_id=made.next_id + 2)
    assert (made.words[Word.NO_FREE_BUFFER], made.words[Word.CAMERA_GAP]) == (2, 0)
    made.give(made.take())
    made.give(made.take())
    made.frame()
    made.frame(frame_id=made.next_id + 1)
    assert (made.words[Word.NO_FREE_BUFFER], made.words[Word.CAMERA_GAP]) == (2, 1)


def test_limit_grants_no_more_and_counts_what_comes_after(bench):
    made = running(bench, depth=4, limit=3)
    for _ in range(5):
        made.frame()
    assert len(made.take()) == 3
    assert made.words[Word.STOPPED_GRAB] == 2
    assert not made.hold.can_drain()


def test_limit_makes_up_for_frames_that_the_engine_refused(bench):
    made = running(bench, depth=8, limit=3)
    for _ in range(3):
        made.frame()
    made.words[Word.ENGINE_ERROR] = 1
    made.words[Word.DIED_GRANTED] = 1
    for _ in range(3):
        made.frame()
    assert made.words[Word.GRANT_HEAD] == 5
    assert made.words[Word.STOPPED_GRAB] == 1


def test_nothing_is_granted_without_a_consumer(bench):
    made = bench()
    made.hold.start(segment=1)
    made.frame()
    assert made.take() == []
    made.hold.consumer(epoch=2)
    assert len(made.take()) == 1


def test_consumer_lost_takes_everything_back_and_a_late_return_does_no_harm(bench):
    made = running(bench, depth=4)
    for _ in range(6):
        made.frame()
    taken = made.take()
    made.returns.put(taken[0].slot, 1)
    assert made.hold.consumer_lost() == 3
    assert made.hold.granted == 0
    assert len(made.grants) == 0
    assert made.owners() == {"QUEUED": SLOTS - 2, "WAITING": 2}
    made.give(taken[1:2], epoch=1)
    assert made.owners() == {"QUEUED": SLOTS - 2, "WAITING": 2}
    made.hold.consumer(epoch=2)
    assert [record.frame_id for record in made.take()] == [5, 6]


def test_a_kept_history_holds_superseded_frames_too_and_is_not_given_up_for_waiting_ones(bench):
    made = running(bench, depth=1, history=3, keep_history=True)
    slots = [made.frame() for _ in range(10)]  # one granted, none returned: the others wait until the reserve is short
    assert made.owners().get("QUEUED") == 4
    assert made.words[Word.SUPERSEDED] == 5
    assert made.owners()["HISTORY"] == 3
    assert [slot for slot in slots if made.ring.table[slot] & 0xFF == Owner.HISTORY] == slots[3:6]
    assert_balanced_log(made, 10)


def assert_balanced_log(made: Bench, count: int) -> None:
    """Every frame that came is in the log, with the generation that its slot had then."""
    first, records = ArrivalLog(made.ring).since(0, 100)
    assert first == 0
    assert records["frame_id"].tolist() == list(range(1, count + 1))
    whole = [made.ring.generations[int(r["slot"])] == r["generation"] for r in records]
    assert whole == [made.ring.table[int(r["slot"])] & 0xFF != Owner.QUEUED for r in records]


def test_history_keeps_developed_frames_until_the_producer_needs_their_slots(bench):
    made = running(bench, depth=2, history=3)
    for _ in range(5):
        made.frame()
        made.give(made.take())
    assert made.owners() == {"HISTORY": 3, "QUEUED": SLOTS - 3}
    assert made.hold.granted == 0
    made.hold.consumer_lost()
    for _ in range(SLOTS - 4):
        made.frame()
    assert made.owners() == {"WAITING": SLOTS - 4, "QUEUED": 4}
    assert made.words[Word.SUPERSEDED] == 0


def test_stop_frees_what_was_queued_and_waiting_frames_can_still_be_granted(bench):
    made = running(bench, depth=1)
    for _ in range(3):
        made.frame()
    made.offered.clear()
    made.hold.stop()
    assert made.hold.can_drain()
    for _ in range(3):
        made.give(made.take())
    assert not made.hold.can_drain()
    assert made.offered == []
    assert made.owners() == {"FREE": SLOTS}


def test_abandoned_frames_are_counted_as_stopped(bench):
    made = running(bench, depth=1)
    for _ in range(4):
        made.frame()
    made.hold.stop()
    made.hold.abandon_waiting()
    assert made.words[Word.STOPPED_GRAB] == 3
    assert made.unaccounted() == 0


def test_a_new_grab_process_leaves_develop_what_it_holds(bench, ring):
    first = running(bench, depth=2)
    for _ in range(5):
        first.frame()
    held = first.take()
    second = bench(depth=2)
    assert second.hold.granted == 2
    assert second.owners() == {"GRANTED": 2, "FREE": SLOTS - 2}
    second.hold.start(segment=4)
    assert sorted(second.offered + [record.slot for record in held]) == list(range(SLOTS))
    second.hold.consumer(epoch=1)
    second.give(held)
    assert second.owners() == {"QUEUED": SLOTS}


def test_a_grant_that_was_not_published_when_grab_died_is_no_grant(bench, ring, monkeypatch):
    first = running(bench)
    monkeypatch.setattr(first.hold._grants, "publish", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):  # stands for kill -9 between the mark in the table and the queue's head
        first.frame()
    assert first.owners()["GRANTED"] == 1
    second = bench()
    assert second.hold.granted == 0
    assert second.owners() == {"FREE": SLOTS}


def test_returns_taken_by_a_process_that_then_died_are_taken_again(bench, monkeypatch):
    first = running(bench, depth=2)
    first.frame()
    monkeypatch.setattr(first.hold._returns, "drop", lambda count: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        first.give(first.take())
    second = bench()
    second.hold.take_returns()
    assert second.hold.granted == 0
    assert second.owners() == {"FREE": SLOTS}


def test_account_balances_with_what_the_ledger_reads(bench):
    made = running(bench, depth=2)
    for frame_id in (1, 2, 5, 6, 7, 8, 9, 20, 21, 22):
        made.frame(frame_id=frame_id, incomplete=frame_id == 7)
    account = read_account(made.words)
    assert account.seen + account.missing == 22
    assert account.in_flight == made.words[Word.GRANT_HEAD] + made.hold.waiting


@pytest.mark.parametrize("bad", [{"policy": "newest"}])
def test_unknown_policy_is_a_user_error(bad):
    with pytest.raises(UserError, match="choose one of every, latest, block"):
        HoldOptions(**{"depth": 1, **bad})


def test_options_that_cannot_be_are_refused():
    with pytest.raises(ValueError):
        HoldOptions("every", depth=0)


def test_a_return_that_the_producer_refuses_is_not_taken_twice(bench):
    """What stayed in the queue would be taken for the return of a later grant of that slot."""
    made = running(bench, depth=4, reserve=0, policy="block")
    for _ in range(2):
        made.frame()
    kept, refused = made.take()

    def queue(slot: int) -> None:
        if slot == refused.slot:
            raise SourceFailed("the producer refuses it")
        made.offered.append(slot)

    made.hold._queue = queue
    with pytest.raises(SourceFailed):
        made.give([kept, refused])
    while made.frame() != kept.slot:  # until that slot is filled again
        pass
    made.hold._queue = made.offered.append
    owner = made.ring.table[kept.slot]
    assert owner & 0xFF != Owner.QUEUED
    made.hold.take_returns()
    assert made.ring.table[kept.slot] == owner


@pytest.mark.parametrize("history", [0, 4])
def test_a_stalled_develop_costs_a_frame_for_each_that_comes(bench, history: int):
    made = running(bench, depth=2, reserve=4, history=history)
    lost = []
    for _ in range(30):
        before = made.words[Word.SUPERSEDED]
        made.frame()
        lost.append(made.words[Word.SUPERSEDED] - before)
    assert max(lost) == 1
    assert made.unaccounted() == 0


@pytest.mark.parametrize("policy", ["every", "latest"])
@pytest.mark.parametrize("depth", [1, 4])
def test_what_is_recorded_stays_until_so_many_have_come_after_it(policy: str, depth: int) -> None:
    """The recorder tells by that (Shared.sure_history) whether it was too slow. An engine that keeps some frames for
    long lets later ones go into the history first."""
    history, free = 20, 8
    ring = Ring.create("raw", history + 2 * free, 100, stream_id=1)
    bench = Bench(ring, policy=policy, depth=depth, reserve=free, history=history, keep_history=True)
    bench.hold.start(1)
    bench.hold.consumer(1)
    log, kept, held, fewest = ArrivalLog(ring), {}, [], 1000
    for number in range(200):
        bench.frame()
        kept[number] = log.since(number, 1)[1][0]
        held += bench.take()
        if number % 7 == 6:
            bench.give(held)
            held = []
        for gone in [n for n, record in kept.items() if ring.generations[record["slot"]] != record["generation"]]:
            del kept[gone]
            fewest = min(fewest, log.count - gone)
    assert history - depth < fewest < 1000
    del log
    ring.close()
