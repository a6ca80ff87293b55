"""Hold: which raw slot is whose, and which frame goes on to develop. The bookkeeping of the grab stage.

Every slot has one owner, written in the ring's table: queued (producer), waiting (here), granted (develop), history
(developed, readable until it is needed) or free. A frame that came is either granted, superseded, or counted as stopped
in the end; each exactly once, so the ledger balances. Counters are bumped in an order that leaves a truthful account
if the process dies between any two lines: SEEN first, and an entry in the grant queue only after its slot is marked.

Nothing here locks: callers hold one lock around every method.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from ..engines.errors import UserError
from .camera.frame_ids import FrameIds
from .frame import FrameRecord
from .log import ArrivalLog
from .queues import GrantQueue, ReturnQueue
from .ring import Owner, Ring, Word

POLICIES = ("every", "latest", "block")

# Plain ints: an IntEnum member costs a call each time it indexes.
_SEEN, _INCOMPLETE, _SUPERSEDED, _STOPPED, _LATE = (
    int(w) for w in (Word.SEEN, Word.INCOMPLETE, Word.SUPERSEDED, Word.STOPPED_GRAB, Word.LATE)
)
_QUEUED, _WAITING, _LAST_ID = int(Word.QUEUED), int(Word.WAITING), int(Word.LAST_FRAME_ID)
_LAST_SEEN_NS = int(Word.LAST_SEEN_NS)
_GRANT_HEAD, _ENGINE_ERROR, _DIED = int(Word.GRANT_HEAD), int(Word.ENGINE_ERROR), int(Word.DIED_GRANTED)
_FREE, _IS_QUEUED, _IS_WAITING, _IS_GRANTED, _IS_HISTORY = (int(owner) for owner in Owner)
_OWNER_MASK = 0xFF
_NO_IDS = (
    "its frame ids stand still or come again: frames are numbered here from now on, and those that are lost on the way "
    "go unnoticed"
)


@dataclass(frozen=True)
class HoldOptions:
    """How frames are handed on; the arguments of the `attach` command.

    `depth`: most frames granted and not yet returned. `reserve`: slots that stay queued at the producer. `history`:
    frames kept readable that develop is done with, or that were superseded. `limit`: frames to grant in all, 0 for no
    limit. `keep_history`: the history is not given up for frames that wait, because somebody records it.
    """

    policy: str
    depth: int
    reserve: int = 4
    history: int = 0
    limit: int = 0
    keep_history: bool = False

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise UserError(f"there is no queue policy {self.policy!r}: choose one of {', '.join(POLICIES)}")
        if self.depth < 1 or self.reserve < 0 or self.history < 0 or self.limit < 0:
            raise ValueError(f"impossible options of the grab stage: {self}")


class Hold:
    """Keeps the slots of one ring.

    Args:
        ring: The raw ring, mapped writable.
        options: See HoldOptions.
        queue: Offers a slot to the producer.
        grant_fd: eventfd that wakes develop.
        statistics: (frames without a buffer, buffers filled but not fetched) as the producer counts them, None each
            where it does not.
        warn: Takes what the user should know.
    """

    def __init__(
        self,
        ring: Ring,
        options: HoldOptions,
        queue: Callable[[int], None],
        grant_fd: int,
        statistics: Callable[[], tuple[int | None, int | None]],
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.ring, self.options = ring, options
        self._queue, self._grant_fd, self._statistics = queue, grant_fd, statistics
        self._words, self._table, self._generations = ring.words, ring.table, ring.generations
        self._grants, self._returns, self._log = GrantQueue(ring), ReturnQueue(ring), ArrivalLog(ring)
        self._waiting: deque[tuple[Any, ...]] = deque()  # FrameRecord without its grant number, oldest first
        self._history: deque[int] = deque()
        self._tell_of_ids = cache(partial(warn, _NO_IDS))  # once: the next segment will be no different
        self._ids = FrameIds(self._tell_of_ids)
        self._unseen = 0  # incomplete buffers since the last id: they are among the ids that will seem missing
        self._epoch = 0  # of the develop process that is ready; 0 while there is none
        self._segment = 0
        self._streaming = False
        self._starved = False  # whether no slot was queued at some time since the last frame
        self._underruns = 0  # how many of the producer's underruns are accounted for
        self.queued = 0
        self.granted = 0
        self._fills = max(self._generations, default=0) // 2 + 1  # number of the next fill of any slot
        self._adopt()

    @property
    def waiting(self) -> int:
        """Frames that wait to be granted."""
        return len(self._waiting)

    def start(self, segment: int) -> None:
        """An acquisition begins: all free slots are offered, records carry `segment`."""
        self._segment, self._streaming, self._starved = segment, True, False
        self._ids, self._unseen = FrameIds(self._tell_of_ids), 0
        self._underruns = self._statistics()[0] or 0
        for slot, owner in enumerate(self._table):
            if owner & _OWNER_MASK == _FREE:
                self._offer(slot)

    def arrived(self, slot: int, arrival: Any, grabbed_ns: int, exposure_us: float, gain_db: float) -> None:
        """A delivered buffer: counts it, and grants it, keeps it waiting, or offers its slot again.

        `arrival` is a camera.sources.Arrival; exposure and gain are what the record shall say.
        """
        words = self._words
        self._generations[slot] += 1
        self.queued -= 1
        if arrival.incomplete:
            self._count_incomplete(arrival.frame_id, grabbed_ns)
            self._give_back(slot)
            return
        frame_id, gap = self._ids.feed(arrival.frame_id)
        if gap < 0:
            words[_LATE] += 1
            self._give_back(slot)
            return
        words[_SEEN] += 1
        if gap:
            self._count_missing(gap)
        self._unseen = 0
        self._starved = False
        words[_LAST_ID] = frame_id
        words[_LAST_SEEN_NS] = grabbed_ns
        limit = self.options.limit
        if limit and self._counted_grants() >= limit:
            words[_STOPPED] += 1
            self._give_back(slot)
            return
        self._table[slot] = _IS_WAITING
        entry = (
            slot,
            arrival.flags,
            frame_id,
            arrival.timestamp,
            grabbed_ns,
            self._segment,
            arrival.size,
            exposure_us,
            gain_db,
        )
        self._waiting.append(entry)
        self._log.add(entry, self._generations[slot])
        self._grant()
        if self._waiting or self.queued < self.options.reserve:
            self._make_room()
        self._starved = self.queued == 0
        words[_WAITING], words[_QUEUED] = len(self._waiting), self.queued

    def refused(self, slot: int, *_: Any) -> None:
        """As `arrived`, for a frame that nobody may have: counts it as stopped."""
        self._generations[slot] += 1
        self.queued -= 1
        self._words[_SEEN] += 1
        self._words[_STOPPED] += 1
        self._give_back(slot)

    def passed_over(self, now_ns: int) -> None:
        """An incomplete buffer has come and gone back, without a slot of ours and without its id."""
        words = self._words
        words[_SEEN] += 1
        words[_INCOMPLETE] += 1
        words[_LAST_SEEN_NS] = now_ns
        self._unseen += 1

    def left_behind(self, count: int) -> None:
        """So many buffers were filled and found no slot until the acquisition ended: counts them as stopped."""
        self._words[_SEEN] += count
        self._words[_STOPPED] += count

    def take_returns(self) -> None:
        """Takes back what develop has returned, and grants what waits."""
        for slot, epoch in self._returns.peek_all():
            # First: an entry that stayed, where the producer fails, would be taken for a later return of that slot.
            self._returns.drop(1)
            if self._table[slot] == epoch << 8 | _IS_GRANTED:  # else it was taken back before
                self._release(slot)
        self._grant()
        words = self._words
        words[_WAITING], words[_QUEUED] = len(self._waiting), self.queued

    def consumer(self, epoch: int, depth: int = 0) -> None:
        """The develop process `epoch` is ready: grants flow, up to `depth` at once (0: as many as before).

        Epoch 0 pauses them; what was granted stays so.
        """
        self._epoch = epoch
        if depth:
            self.options = replace(self.options, depth=depth)
        self._grant()

    def consumer_lost(self) -> int:
        """The develop process has died: takes back every slot it held, and says how many. Grants stop."""
        self._epoch = 0
        self.take_returns()
        held = [slot for slot, owner in enumerate(self._table) if owner & _OWNER_MASK == _IS_GRANTED]
        for slot in held:
            self._release(slot)
        self._grants.take(len(self._grants))
        self._words[_QUEUED] = self.queued
        return len(held)

    def stop(self) -> None:
        """The acquisition has ended and the producer's queues are flushed: what was queued is free."""
        self._streaming = False
        for slot, owner in enumerate(self._table):
            if owner == _IS_QUEUED:
                self._table[slot] = _FREE
        self.queued = 0
        self._words[_QUEUED] = 0

    def ended(self, last_id: int) -> None:
        """No frame comes any more, and `last_id` was the last: counts as missing what there was after the newest."""
        gap = self._ids.feed(last_id + 1)[1]
        if gap > 0:
            self._count_missing(gap)

    @property
    def sated(self) -> bool:
        """Whether as many frames as may be granted are granted, or wait for it."""
        limit = self.options.limit
        return bool(limit) and self._counted_grants() + len(self._waiting) >= limit

    def can_drain(self) -> bool:
        """Whether what waits may still be granted, now or when develop returns something."""
        limit = self.options.limit
        return bool(self._waiting) and not (limit and self._counted_grants() >= limit)

    def abandon_waiting(self) -> None:
        """Counts what waits as stopped."""
        while self._waiting:
            self._words[_STOPPED] += 1
            self._give_back(self._waiting.popleft()[0])
        self._words[_WAITING] = 0

    def _adopt(self) -> None:
        """Takes over the table of an earlier grab process: what develop holds stays, all else is free."""
        unpublished = self._grants.unpublished()
        kept = []
        for slot, owner in enumerate(self._table):
            kind = owner & _OWNER_MASK
            if kind == _IS_GRANTED and slot != unpublished:
                self.granted += 1
            elif kind == _IS_HISTORY:
                kept.append(slot)
            else:
                self._table[slot] = _FREE
        self._history.extend(sorted(kept, key=self._generations.__getitem__))

    def _counted_grants(self) -> int:
        words = self._words
        return words[_GRANT_HEAD] - words[_ENGINE_ERROR] - words[_DIED]

    def _grant(self) -> None:
        """Grants what waits, oldest first, as far as depth, limit and a consumer allow."""
        waiting, options = self._waiting, self.options
        if not waiting or not self._epoch:
            return
        mark = self._epoch << 8 | _IS_GRANTED
        before = self.granted
        while waiting and self.granted < options.depth:
            if options.limit and self._counted_grants() >= options.limit:
                break
            entry = waiting.popleft()
            self._grants.write(FrameRecord._make((*entry, self._words[_GRANT_HEAD])))
            self._table[entry[0]] = mark
            self._grants.publish()
            self.granted += 1
        if self.granted != before:
            os.eventfd_write(self._grant_fd, 1)

    def _make_room(self) -> None:
        """Keeps the reserve queued: with history first, then with waiting frames as the policy asks, oldest first."""
        policy, waiting = self.options.policy, self._waiting
        reserve = self.options.reserve
        while self.queued < reserve and self._history and not self.options.keep_history:
            self._give_back(self._history.popleft())
        if policy == "every":
            while self.queued < reserve and waiting:
                self._drop_oldest()
                if self._history and not self.options.keep_history:  # or what was dropped would only fill that
                    self._give_back(self._history.popleft())
        elif policy == "latest":
            while len(waiting) > 1:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        slot = self._waiting.popleft()[0]
        self._words[_SUPERSEDED] += 1
        self._retire(slot)

    def _release(self, slot: int) -> None:
        """A granted slot comes back: into the history, or straight to the producer."""
        self.granted -= 1
        self._retire(slot)

    def _retire(self, slot: int) -> None:
        if not self.options.history:
            self._give_back(slot)
            return
        self._table[slot] = _IS_HISTORY
        self._history.append(slot)
        if len(self._history) > self.options.history:
            self._give_back(self._history.popleft())

    def _count_incomplete(self, raw_id: int, now_ns: int) -> None:
        """Counts an incomplete frame, whose id may be lost too: then it says anything."""
        believed = self._ids.feed_incomplete(raw_id)
        if believed is None:
            self.passed_over(now_ns)
            return
        words, (frame_id, gap) = self._words, believed
        if gap < 0:
            words[_LATE] += 1
            return
        words[_SEEN] += 1
        if gap:
            self._count_missing(gap)
        self._unseen = 0
        self._starved = False
        words[_LAST_ID] = frame_id
        words[_LAST_SEEN_NS] = now_ns
        words[_INCOMPLETE] += 1

    def _give_back(self, slot: int) -> None:
        if self._streaming:
            self._offer(slot)
        else:
            self._table[slot] = _FREE

    def _offer(self, slot: int) -> None:
        self._table[slot] = _IS_QUEUED
        self._generations[slot] = 2 * self._fills + 1  # odd before the producer may write
        self._fills += 1
        self.queued += 1
        self._queue(slot)

    def _count_missing(self, gap: int) -> None:
        """Splits `gap` ids that never came into those without a buffer and those lost on the way."""
        gap -= self._unseen
        if gap <= 0:
            return
        underruns, undelivered = self._statistics()
        if underruns is None:
            without = gap if self._starved else 0
        else:
            without = min(gap, max(0, underruns - self._underruns))
            # Underruns behind frames that are still to be fetched belong to later gaps; any others to none.
            self._underruns = self._underruns + without if undelivered else underruns
        self._words[Word.NO_FREE_BUFFER] += without
        self._words[Word.CAMERA_GAP] += gap - without
