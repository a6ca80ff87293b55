"""LatencyHistogram: percentiles of durations in fixed memory, with a relative error of at most 1/64."""

from __future__ import annotations

from typing import Any

_SUB_BITS = 5
_SUB = 1 << _SUB_BITS
_OCTAVES = 41  # up to 2**45 ns, about ten hours
_BINS = (_OCTAVES + 1) * _SUB


class LatencyHistogram:
    """Counts durations (ns) in bins that double every 32: exact below 32 ns, within 1.6 % above.

    `max` and `count` are exact. A negative duration (clocks that disagree) counts as 0.
    """

    __slots__ = ("_bins", "count", "max")

    def __init__(self) -> None:
        self._bins = [0] * _BINS
        self.count = 0
        self.max = 0

    def add(self, ns: int) -> None:
        """Counts one duration."""
        if ns < _SUB:
            index = ns if ns > 0 else 0
        else:
            shift = ns.bit_length() - _SUB_BITS - 1
            index = (shift << _SUB_BITS) + (ns >> shift)
            if index >= _BINS:
                index = _BINS - 1
        self._bins[index] += 1
        self.count += 1
        if ns > self.max:
            self.max = ns

    def percentile(self, percent: float) -> int:
        """The duration (ns) that `percent` per cent of all do not exceed; 0 when empty."""
        if not 0 <= percent <= 100:
            raise ValueError(f"a percentile lies between 0 and 100, not {percent}")
        if percent == 100:
            return self.max
        rank, seen = self.count * percent / 100, 0
        for index, count in enumerate(self._bins):
            seen += count
            if count and seen >= rank:
                return min(_middle(index), self.max)
        return self.max

    def merge(self, other: LatencyHistogram) -> None:
        """Adds another histogram's counts to this one."""
        self._bins = [a + b for a, b in zip(self._bins, other._bins, strict=True)]
        self.count += other.count
        self.max = max(self.max, other.max)

    def clear(self) -> None:
        """Forgets everything."""
        self._bins = [0] * _BINS
        self.count = self.max = 0

    def summary_ms(self) -> dict[str, float]:
        """p50, p99, p99.9 (`p999`) and max in milliseconds, and the count."""
        values = {"p50": 50.0, "p99": 99.0, "p999": 99.9}
        summary: dict[str, float] = {name: round(self.percentile(p) * 1e-6, 4) for name, p in values.items()}
        return {**summary, "max": round(self.max * 1e-6, 4), "count": self.count}

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict with the bins that are not empty."""
        return {
            "bins": {str(index): count for index, count in enumerate(self._bins) if count},
            "count": self.count,
            "max": self.max,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> LatencyHistogram:
        """Restores what `to_json` gave."""
        histogram = cls()
        for index, count in values["bins"].items():
            histogram._bins[int(index)] = count
        histogram.count, histogram.max = values["count"], values["max"]
        return histogram


def _middle(index: int) -> int:
    if index < 2 * _SUB:
        return index
    shift = (index >> _SUB_BITS) - 1
    low = (index - (shift << _SUB_BITS)) << shift
    return low + (1 << shift) // 2
