"""Frame ids of a camera, unwrapped to numbers that only rise."""

from __future__ import annotations

from collections.abc import Callable

#: A frame may come this many ids after it was missed, and is late then. Within as many ids that of an incomplete
#: frame is believed.
LATE_WINDOW = 32
#: A step over the end of the id range counts as a wrap only if it skips fewer ids than this.
WRAP_WINDOW = 1 << 14
#: No camera counts so far: what some producers tell where there is no id.
_NO_ID = 1 << 63

_RANGES = (1 << 16, 1 << 32)


def _nothing() -> None:
    pass


class FrameIds:
    """Unwraps the ids of one acquisition and finds the gaps between them.

    Ids of 16 bits (GigE Vision, which skips 0), 32 bits and 64 bits are told apart by where they wrap: an id that
    falls from near the end of a range to near its start has wrapped. One that falls and was missed before is late; one
    that falls far is of a camera that began anew. Ids that stand still, or come twice, are good for nothing: frames are
    numbered here from then on, and `unusable` is called.
    """

    def __init__(self, unusable: Callable[[], None] = _nothing) -> None:
        self._unusable = unusable
        self._last = -1  # raw id of the newest frame, -1 before the first and while ids are unusable
        self._base = 0  # what to add to a raw id
        self._before = 0  # what was to add before the last wrap
        self._zero = False  # whether the camera uses id 0
        self._holes: set[int] = set()  # unwrapped ids that are missing, a window's worth at most
        self._counted = -1  # the newest number, once frames are numbered here

    def feed(self, raw: int) -> tuple[int, int]:
        """(unwrapped id, ids missing before it) of the frame with the camera's id `raw`.

        The second is -1 for a frame that came after a newer one: it was reported as missing before. The first frame
        has no ids missing before it, nor has the first after a camera began to count anew.
        """
        last = self._last
        if raw == last + 1 and last >= 0:  # the common case first
            self._last = raw
            return self._base + raw, 0
        if last < 0:
            return self._without_last(raw)
        if raw > last:
            return self._rose(raw, last)
        return self._fell(raw, last)

    def feed_incomplete(self, raw: int) -> tuple[int, int] | None:
        """As `feed`, for the id of a frame of which a part was lost, maybe that with its id; None for one not believed.

        It is believed where it was missed before, or is a little more than the newest.
        """
        last = self._last
        if last < 0:
            return self._without_last(raw) if self._counted >= 0 else None
        if self._base + raw in self._holes:
            return self._late(self._base + raw)
        if last < raw <= last + LATE_WINDOW:
            return self.feed(raw)
        modulus = self._modulus(raw, last)
        if 0 < raw < last and modulus and raw + modulus - last <= LATE_WINDOW:
            return self.feed(raw)
        return None

    def _without_last(self, raw: int) -> tuple[int, int]:
        if self._counted >= 0:
            self._counted += 1
            return self._counted, 0
        if raw >= _NO_ID:
            return self._give_up(0)
        self._last, self._zero = raw, raw == 0
        return raw, 0

    def _rose(self, raw: int, last: int) -> tuple[int, int]:
        if self._before + raw in self._holes:  # from before the last wrap; without one it is no hole
            return self._late(self._before + raw)
        if raw >= _NO_ID:
            return self._give_up(self._base + last)
        return self._go_on(raw, raw - last - 1)

    def _fell(self, raw: int, last: int) -> tuple[int, int]:
        unwrapped = self._base + raw
        if unwrapped in self._holes:
            return self._late(unwrapped)
        modulus = self._modulus(raw, last)
        ahead = raw + modulus - last
        if modulus and ahead <= WRAP_WINDOW:
            self._zero = self._zero or raw == 0
            self._before, self._base = self._base, self._base + modulus
            return self._go_on(raw, ahead - 1)
        if last - raw <= LATE_WINDOW:  # it came before
            return self._give_up(self._base + last)
        self._base += last + 1 - raw  # begun anew: go on from the newest id, with nothing known to be missing
        self._before = self._base
        self._holes.clear()
        return self._go_on(raw, 0)

    def _modulus(self, raw: int, last: int) -> int:
        """How many ids there are up to a wrap from `last` to `raw`; 0 where ids of this size do not wrap."""
        for size in _RANGES:
            if last < size:
                # Without 0 in use, the range holds one id fewer.
                return size if raw == 0 or self._zero or size > 1 << 16 else size - 1
        return 0

    def _go_on(self, raw: int, missing: int) -> tuple[int, int]:
        self._last = raw
        newest = self._base + raw
        if missing:
            oldest = newest - LATE_WINDOW
            if self._holes:
                self._holes = {hole for hole in self._holes if hole >= oldest}
            self._holes.update(range(max(oldest, newest - missing), newest))
        return newest, missing

    def _late(self, unwrapped: int) -> tuple[int, int]:
        self._holes.remove(unwrapped)
        return unwrapped, -1

    def _give_up(self, newest: int) -> tuple[int, int]:
        self._last, self._counted = -1, newest + 1
        self._holes.clear()
        self._unusable()
        return self._counted, 0
