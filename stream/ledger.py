"""FrameLedger: every frame accounted for.

Within a segment (one acquisition, from start to end)

    ids seen + ids missing = published + lost, by reason

exactly. The counts are single-writer words in the raw ring, so they survive any process; the ledger only takes
differences of snapshots. Between segments lies an outage with its duration and an estimate of the frames that a
camera at its rate would have sent meanwhile; it is never added to the sums.

A camera with a loose plug may come back for months: the last thousand segments are kept one by one, the earlier ones in
sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from .frame import LOSS_REASONS
from .ring import Word

MOST_SEGMENTS = 1000

# Plain ints: an IntEnum member costs a call each time it indexes, and develop reads these for every frame.
_LOSS_WORDS = tuple(
    int(word)
    for word in (
        Word.CAMERA_GAP,
        Word.INCOMPLETE,
        Word.NO_FREE_BUFFER,
        Word.SUPERSEDED,
        Word.ENGINE_ERROR,
        Word.STAGE_DIED,
        Word.STOPPED_GRAB,
        Word.STOPPED_MAIN,
    )
)


@dataclass
class Account:
    """Counts of frames over some span. `missing` are ids that never came, or not in time; `lost` is by reason, see
    LOSS_REASONS. `late` is the part of the missing that came behind a newer frame, and was dropped.
    """

    seen: int = 0
    missing: int = 0
    published: int = 0
    lost: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LOSS_REASONS, 0))
    late: int = 0

    @property
    def in_flight(self) -> int:
        """Frames seen that are neither published nor lost yet; 0 once the pipeline is drained."""
        return self.seen + self.missing - self.published - sum(self.lost.values())

    def plus(self, other: Account) -> Account:
        """Both together."""
        return Account(
            self.seen + other.seen,
            self.missing + other.missing,
            self.published + other.published,
            {reason: count + other.lost[reason] for reason, count in self.lost.items()},
            self.late + other.late,
        )

    def minus(self, other: Account) -> Account:
        """This account without what `other` already held."""
        return Account(
            self.seen - other.seen,
            self.missing - other.missing,
            self.published - other.published,
            {reason: count - other.lost[reason] for reason, count in self.lost.items()},
            self.late - other.late,
        )


@dataclass(frozen=True)
class Segment:
    """One acquisition: its number, its span (CLOCK_MONOTONIC ns), why it ended, and its account."""

    number: int
    start_ns: int
    end_ns: int
    ended_by: str
    account: Account


@dataclass(frozen=True)
class Outage:
    """The time between two segments, and the frames a camera at `fps` would have sent in it (an estimate)."""

    start_ns: int
    end_ns: int
    estimated_frames: int


def read_losses(words: Sequence[int]) -> tuple[int, ...]:
    """Frames lost so far, in the order of LOSS_REASONS, from a ring's words."""
    gap, incomplete, no_buffer, superseded, engine_error, died, stopped_grab, stopped_main = _LOSS_WORDS
    return (
        words[gap],
        words[incomplete],
        words[no_buffer],
        words[superseded],
        words[engine_error],
        words[died],
        words[stopped_grab] + words[stopped_main],
    )


def read_account(words: Sequence[int]) -> Account:
    """The account since the rings were made. Later stages are read first, so `in_flight` is never negative."""
    published = words[Word.PUBLISHED]
    losses = read_losses(words)
    lost: dict[str, int] = dict(zip(LOSS_REASONS, losses, strict=True))
    return Account(words[Word.SEEN], losses[0] + losses[2], published, lost, words[Word.LATE])


@dataclass
class Earlier:
    """Segments and outages that are no longer kept one by one: how many, their durations in s, and their account."""

    segments: int = 0
    duration_s: float = 0.0
    account: Account = field(default_factory=Account)
    balanced: bool = True
    outages: int = 0
    outage_s: float = 0.0
    estimated_frames: int = 0


class FrameLedger:
    """Keeps segments and outages. Used by the main process alone."""

    def __init__(self, words: Sequence[int]) -> None:
        self._words = words
        self.segments: list[Segment] = []
        self.outages: list[Outage] = []
        self.earlier = Earlier()
        self._open: tuple[int, Account] | None = None
        self._number = 0

    @property
    def segment_open(self) -> bool:
        """Whether an acquisition is running."""
        return self._open is not None

    def open_segment(self, now_ns: int, fps: float) -> int:
        """Starts a segment and records the outage before it (`fps`: the camera's rate, Hz). Returns its number."""
        if self._open is not None:
            raise RuntimeError("a segment is open already")
        self.end_outage(now_ns, fps)
        self._open = (now_ns, read_account(self._words))
        self._number += 1
        return self._number

    def end_outage(self, now_ns: int, fps: float) -> None:
        """Records the time since the last segment, if there was one; also at the end of a run without its camera."""
        if self.segments and self._open is None:
            start = self.segments[-1].end_ns
            self.outages.append(Outage(start, now_ns, round((now_ns - start) * 1e-9 * fps)))
            self._forget()

    def close_segment(self, now_ns: int, ended_by: str) -> Segment:
        """Ends the open segment, at its start if `now_ns` lies before that.

        The pipeline must be drained, or what it held be counted as lost, before.
        """
        if self._open is None:
            raise RuntimeError("no segment is open")
        start_ns, before = self._open
        segment = Segment(
            self._number, start_ns, max(start_ns, now_ns), ended_by, read_account(self._words).minus(before)
        )
        self.segments.append(segment)
        self._open = None
        self._forget()
        return segment

    def _forget(self) -> None:
        """Keeps what is too much in sum."""
        earlier = self.earlier
        while len(self.segments) > MOST_SEGMENTS:
            segment = self.segments.pop(0)
            earlier.segments += 1
            earlier.duration_s += (segment.end_ns - segment.start_ns) * 1e-9
            earlier.account = earlier.account.plus(segment.account)
            earlier.balanced &= segment.account.in_flight == 0
        while len(self.outages) > MOST_SEGMENTS:
            outage = self.outages.pop(0)
            earlier.outages += 1
            earlier.outage_s += (outage.end_ns - outage.start_ns) * 1e-9
            earlier.estimated_frames += outage.estimated_frames

    @property
    def balanced(self) -> bool:
        """Whether the sums are equal: of every segment and of the whole. Not before the last segment is closed."""
        accounts = [segment.account for segment in self.segments] + [read_account(self._words)]
        even = all(account.in_flight == 0 for account in accounts)
        return self._open is None and even and self.earlier.balanced

    def to_json(self) -> dict:
        """The whole account as a JSON-able dict."""
        total = read_account(self._words)
        return {
            "seen": total.seen,
            "missing": total.missing,
            "published": total.published,
            "lost": total.lost,
            "late": total.late,
            "in_flight": total.in_flight,
            "balanced": self.balanced,
            "segments": [
                {**asdict(segment), "duration_s": (segment.end_ns - segment.start_ns) * 1e-9}
                for segment in self.segments
            ],
            "outages": [
                {"duration_s": (o.end_ns - o.start_ns) * 1e-9, "estimated_frames": o.estimated_frames}
                for o in self.outages
            ],
            **({"earlier": asdict(self.earlier)} if self.earlier.segments or self.earlier.outages else {}),
        }
