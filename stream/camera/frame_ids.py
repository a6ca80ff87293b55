"""Frame ids of a camera, unwrapped to numbers that only rise."""

from __future__ import annotations

#: A step back of at most this many ids is a frame that came late; a larger one is a camera that began anew.
LATE_WINDOW = 32
#: A step over the end of the id range counts as a wrap only if it skips fewer ids than this.
WRAP_WINDOW = 1 << 14

_RANGES = (1 << 16, 1 << 32)


class FrameIds:
    """Unwraps the ids of one acquisition and finds the gaps between them.

    Ids of 16 bits (GigE Vision, which skips 0), 32 bits and 64 bits are told apart by where they wrap: an id that
    falls from near the end of a range to near its start has wrapped, anything else that falls is late or new.
    """

    def __init__(self) -> None:
        self._last = -1  # raw id of the newest frame, -1 before the first
        self._base = 0  # what to add to a raw id
        self._zero = False  # whether the camera uses id 0
        self._late_run = 0

    def feed(self, raw: int) -> tuple[int, int]:
        """(unwrapped id, ids missing before it) of the frame with the camera's id `raw`.

        The second is -1 for a frame that came after a newer one: it was reported as missing before. The first frame
        has no ids missing before it, nor has the first after a camera began to count anew.
        """
        last = self._last
        if raw == last + 1 or last < 0:  # the common case first
            if last < 0:
                self._zero = raw == 0
            self._last = raw
            self._late_run = 0
            return self._base + raw, 0
        if raw > last:
            self._last = raw
            self._late_run = 0
            return self._base + raw, raw - last - 1
        return self._fell(raw, last)

    def _fell(self, raw: int, last: int) -> tuple[int, int]:
        for size in _RANGES:
            if last < size:
                # Without 0 in use, the range holds one id fewer.
                modulus = size if raw == 0 or self._zero or size > 1 << 16 else size - 1
                ahead = raw + modulus - last
                if ahead <= WRAP_WINDOW:
                    self._base += modulus
                    self._last = raw
                    self._late_run = 0
                    return self._base + raw, ahead - 1
                break
        if last - raw <= LATE_WINDOW and self._late_run < LATE_WINDOW:
            self._late_run += 1
            return self._base + raw, -1
        self._base += last + 1 - raw  # begun anew: go on from the newest id, with nothing known to be missing
        self._last = raw
        self._late_run = 0
        return self._base + raw, 0
