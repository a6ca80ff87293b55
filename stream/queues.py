"""Single-producer, single-consumer queues inside the raw ring, and the eventfds that wake their consumers.

Each queue has a head word (written by the producer alone) and a tail word (by the consumer alone), both counting
entries since the ring was made. An entry is written before the head moves, so a producer that dies in between leaves
nothing half visible, and head and tail are exact counts that outlive both processes.
"""

from __future__ import annotations

from .frame import RECORD_SIZE, FrameRecord, pack_record, unpack_record
from .ring import Ring, Word

# Plain ints: an IntEnum member costs a call each time it indexes.
_GRANT_HEAD, _GRANT_TAIL = int(Word.GRANT_HEAD), int(Word.GRANT_TAIL)
_RETURN_HEAD, _RETURN_TAIL = int(Word.RETURN_HEAD), int(Word.RETURN_TAIL)


class GrantQueue:
    """grab -> develop: 64-byte frame records. Never holds more entries than there are slots, so it cannot overflow."""

    def __init__(self, ring: Ring) -> None:
        self._words = ring.words
        self._memory = ring.memory
        self._base = ring.layout.queue_offset
        self._mask = ring.layout.queue_capacity - 1

    def put(self, record: FrameRecord) -> None:
        """Appends a record (grab only)."""
        self.write(record)
        self.publish()

    def write(self, record: FrameRecord) -> None:
        """Writes the next record without appending it; its `grant` must be the head (grab only)."""
        head = self._words[_GRANT_HEAD]
        pack_record(self._memory, self._base + (head & self._mask) * RECORD_SIZE, record)

    def publish(self) -> None:
        """Appends the record that was written (grab only)."""
        self._words[_GRANT_HEAD] += 1

    def unpublished(self) -> int:
        """Slot of a record that a grab process wrote and died before it was appended; -1 if there is none."""
        head = self._words[_GRANT_HEAD]
        record = unpack_record(self._memory, self._base + (head & self._mask) * RECORD_SIZE)
        # The first lap finds zeros where nothing was written yet; a real record has a time stamp.
        return record.slot if record.grant == head and record.grabbed_ns else -1

    def peek(self, limit: int, skip: int = 0) -> list[FrameRecord]:
        """Up to `limit` records not yet taken, oldest first, without the `skip` oldest (develop only)."""
        tail = self._words[_GRANT_TAIL] + skip
        count = min(limit, self._words[_GRANT_HEAD] - tail)
        return [unpack_record(self._memory, self._base + ((tail + i) & self._mask) * RECORD_SIZE) for i in range(count)]

    def take(self, count: int) -> None:
        """Removes the `count` oldest records (develop only; grab after develop has died)."""
        self._words[_GRANT_TAIL] += count

    def __len__(self) -> int:
        return self._words[_GRANT_HEAD] - self._words[_GRANT_TAIL]


class ReturnQueue:
    """develop -> grab: slots whose raw bytes are no longer needed, each with the epoch that returns it."""

    def __init__(self, ring: Ring) -> None:
        self._words = ring.words
        capacity = ring.layout.queue_capacity
        start = ring.layout.queue_offset + capacity * RECORD_SIZE
        self._entries = ring.memory[start : start + 8 * capacity].cast("Q")
        self._mask = capacity - 1

    def put(self, slot: int, epoch: int) -> None:
        """Gives a slot back (develop only)."""
        head = self._words[_RETURN_HEAD]
        self._entries[head & self._mask] = epoch << 32 | slot
        self._words[_RETURN_HEAD] = head + 1

    def peek_all(self) -> list[tuple[int, int]]:
        """All (slot, epoch) given back and not yet dropped, oldest first (grab only)."""
        entries, mask = self._entries, self._mask
        taken = [entries[i & mask] for i in range(self._words[_RETURN_TAIL], self._words[_RETURN_HEAD])]
        return [(entry & 0xFFFFFFFF, entry >> 32) for entry in taken]

    def drop(self, count: int) -> None:
        """Removes the `count` oldest entries, once they are dealt with (grab only)."""
        self._words[_RETURN_TAIL] += count

    def take_all(self) -> list[tuple[int, int]]:
        """All (slot, epoch) given back since the last call, oldest first (grab only)."""
        taken = self.peek_all()
        self.drop(len(taken))
        return taken
