"""Take: one recording, from its first frame to its last, and the account of its frames."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .feed import Feed
from .layout import EVENT, pages
from .sinks import Sink

BATCH_BYTES = 16 << 20  # most that is written in one call
GRACE_NS = 100_000_000  # after its end a frame may still be on its way into the ring
PATIENCE_NS = 10_000_000_000  # and an sRGB frame in the engine
_ALL = 1 << 40


class Lapped(Exception):
    """Frames were overwritten in the ring before they were written. The message is one sentence."""


class Take:
    """One recording.

    Attributes:
        end_ns: CLOCK_MONOTONIC after which no frame belongs to it; infinite where that is not known yet.
        short_s: Seconds at its beginning whose frames were gone from the ring before one was written. They count
            nowhere.

    Args:
        sink: Where the frames go.
        feeds: Where they come from.
        start_ns: CLOCK_MONOTONIC of the first frame that belongs to it; 0 is the first of the run, whose loss counts.
        end_ns: See above.
        longest_ns: At most so long after its first frame.
        in_flight: Tells whether frames are still being developed.
    """

    def __init__(
        self,
        sink: Sink,
        feeds: Sequence[Feed],
        start_ns: float,
        end_ns: float,
        longest_ns: float,
        in_flight: Callable[[], bool],
    ) -> None:
        self.sink, self.end_ns = sink, end_ns
        self._feeds, self._in_flight = feeds, in_flight
        self._longest_ns, self._limit_ns = longest_ns, math.inf
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self._start_ns, self.short_s = start_ns, 0.0
        self._newest_ns = 0  # of the triggers that belong to it
        self._first: dict[str, int] = {}
        self._next: dict[str, int] = {}
        self._passed = {feed.kind: False for feed in feeds}  # whether a frame behind the end has come
        self._missing = {feed.kind: 0 for feed in feeds}
        self._ids: dict[str, tuple[int, int, int]] = {}  # segment and id of the last frame, and id of the first
        self._late: set[str] = set()  # kinds whose first frames were gone when they were to be written
        for feed in feeds:
            self._find_first(feed)

    def pump(self) -> bool:
        """Writes what has come, at most a batch of each kind. Whether more may wait.

        Raises Lapped, or OSError where it cannot be written.
        """
        more = [self._move(feed) for feed in self._feeds]
        return any(more)

    def prolong(self, end_ns: float) -> None:
        """Moves the end to a later time, as far as it may be."""
        if end_ns > self.end_ns:
            self.end_ns = min(end_ns, self._limit_ns)
            self._passed = dict.fromkeys(self._passed, False)

    def includes(self, time_ns: int, start_ns: float) -> bool:
        """Whether a trigger of that time belongs to it, which wants what came since `start_ns`.

        As long as nothing is written it begins earlier for it, where no other trigger is then too late. To one that
        goes on until it is stopped earlier triggers belong in any case, or they would have to wait for that.
        """
        if start_ns < self._start_ns and not self.begun and self._newest_ns <= start_ns + self._longest_ns:
            self._start_ns, self.short_s, self._limit_ns = start_ns, 0.0, math.inf
            self._late.clear()
            self._passed = dict.fromkeys(self._passed, False)
            for feed in self._feeds:
                self._find_first(feed)
        known = self._limit_ns < math.inf or not self._start_ns
        limit_ns = self._limit_ns if known else self._start_ns + self._longest_ns  # not before its first frame
        included = time_ns <= limit_ns and (self._start_ns <= time_ns or math.isinf(self.end_ns))
        if included:
            self._newest_ns = max(self._newest_ns, time_ns)
        return included

    @property
    def begun(self) -> bool:
        """Whether a frame is written."""
        return bool(self._ids)

    @property
    def limited(self) -> bool:
        """Whether it ends because it is as long as it may be."""
        return self.end_ns >= self._limit_ns

    @property
    def done(self) -> bool:
        """Whether every frame that belongs to it is written."""
        after_ns = time.monotonic_ns() - self.end_ns
        return all(self._is_done(feed, after_ns) for feed in self._feeds)

    def note(self, kind: str, text: str, time_ns: int = 0) -> None:
        """Writes an event into the recording. Raises OSError."""
        row = np.zeros(1, EVENT)
        ids = [ids[1] for ids in self._ids.values()]
        row["time_ns"], row["frame_id"] = time_ns or time.monotonic_ns(), max(ids, default=0)
        row["kind"], row["text"] = kind.encode(), text.encode()[:200]
        self.sink.event(row)

    def account(self) -> dict[str, Any]:
        """The frames of it so far, by kind: wanted = frames + lapped (+ thinned, which the format leaves out)."""
        counts, thinned = self.sink.counts, self._thinned
        wanted = {feed.kind: self._wanted(feed) for feed in self._feeds}
        return {
            "frames": counts,
            "wanted": wanted,
            "lapped": {kind: wanted[kind] - counts[kind] - thinned for kind in wanted},
            "thinned": thinned,
            "missing": self._missing,
            "ids": {kind: [first, last] for kind, (_, last, first) in self._ids.items()},
            "bytes": self.sink.nbytes,
            **({"short_s": round(self.short_s, 3)} if self.short_s else {}),
        }

    # -- inside -------------------------------------------------------------------------------------------------

    @property
    def _thinned(self) -> int:
        return getattr(self.sink, "thinned", 0)

    def _find_first(self, feed: Feed) -> None:
        start_ns, (first, records) = self._start_ns, feed.since(0, _ALL)
        number = first + int(np.searchsorted(records["grabbed_ns"], start_ns))
        if 0 < first == number and len(records):  # there were others, perhaps of its time
            oldest_ns = int(records["grabbed_ns"][0]) or start_ns
            self.short_s = max(self.short_s, (oldest_ns - start_ns) * 1e-9)
        self._first[feed.kind] = self._next[feed.kind] = number

    def _move(self, feed: Feed) -> bool:
        kind, sink = feed.kind, self.sink
        number = self._next[kind]
        if feed.count == number:
            return False
        room = min(sink.room(kind), max(1, BATCH_BYTES // pages(feed.frame_bytes)))
        first, records = feed.since(number, room)
        if first > number:
            return self._skip(feed, first - number)
        began_ns = int(records["grabbed_ns"][0])  # 0 of an sRGB frame that is gone
        if self._limit_ns == math.inf and began_ns:
            self._limit_ns = began_ns + self._longest_ns
            self.end_ns = min(self.end_ns, self._limit_ns)
        inside = int(np.searchsorted(records["grabbed_ns"], self.end_ns, "right"))
        whole = feed.intact(records[:inside])
        if inside and not whole[0]:
            return self._skip(feed, _leading(~whole))
        written = self._write(feed, records[: _leading(whole)])
        self._passed[kind] = written == inside < len(records)
        return not self._passed[kind] and (written < inside or len(records) == room)

    def _write(self, feed: Feed, records: npt.NDArray[Any]) -> int:
        """Writes frames that were whole a moment ago. How many of them still were."""
        if not len(records):
            return 0
        kind, rows = feed.kind, feed.rows(records, self._offset_ns)
        self.sink.write(kind, [feed.pieces[slot] for slot in records["slot"].tolist()], rows)
        written = _leading(feed.intact(records))
        if written:
            before = self.sink.counts[kind] + self._thinned
            try:
                self.sink.commit(kind, rows[:written])
            finally:  # where the disk failed, some may be in it nevertheless
                done = self.sink.counts[kind] + self._thinned - before
                self._count(kind, records[:done])
        return written

    def _skip(self, feed: Feed, count: int) -> bool:
        """Frames are gone from the ring. Before the first one is written, the recording begins later; else it ends.

        Frames that a grab process held when it died are gone as well, but newer than any that had to make room.
        """
        kind = feed.kind
        behind = feed.count - self._next[kind]
        if behind >= feed.depth:
            if kind in self._ids:
                raise Lapped(f"{behind} {kind} frames came faster than they could be written")
            if self._start_ns:
                self._first[kind] += count
                self._late.add(kind)
        self._next[kind] += count
        return True

    def _count(self, kind: str, records: npt.NDArray[Any]) -> None:
        """These frames are written."""
        if not len(records):
            return
        self._next[kind] += len(records)
        if kind in self._late:
            self._late.discard(kind)
            self.short_s = max(self.short_s, (int(records["grabbed_ns"][0]) - self._start_ns) * 1e-9)
        self._count_ids(kind, records)

    def _count_ids(self, kind: str, records: npt.NDArray[Any]) -> None:
        segments, ids = records["segment"].astype(np.int64), records["frame_id"].astype(np.int64)
        if kind in self._ids:
            segment, last, first = self._ids[kind]
            segments, ids = np.concatenate(([segment], segments)), np.concatenate(([last], ids))
        else:
            first = int(ids[0])
        steps = np.diff(ids)[np.diff(segments) == 0]
        self._missing[kind] += int(steps.sum() - len(steps))
        self._ids[kind] = int(segments[-1]), int(ids[-1]), first

    def _is_done(self, feed: Feed, after_ns: float) -> bool:
        if self._passed[feed.kind]:
            return True
        if after_ns < GRACE_NS or feed.count != self._next[feed.kind]:
            return False
        return feed.kind == "raw" or not self._in_flight() or after_ns > PATIENCE_NS

    def _wanted(self, feed: Feed) -> int:
        number = self._next[feed.kind]
        first, records = feed.since(number, _ALL)
        rest = int(np.searchsorted(records["grabbed_ns"], min(self.end_ns, time.monotonic_ns()), "right"))
        return first + rest - self._first[feed.kind]


def _leading(flags: npt.NDArray[np.bool_]) -> int:
    """How many are true before the first that is not."""
    return len(flags) if flags.all() else int(np.argmin(flags))
