"""The search for the highest rate."""

from __future__ import annotations

import pytest

from ispeed.bench.maxrate import HIGHEST_FPS, LOWEST_FPS, RESOLUTION, highest


@pytest.mark.parametrize("limit", [LOWEST_FPS, 51.0, 333.3, 1234.0, 40_000.0, HIGHEST_FPS])
def test_finds_the_limit_from_below(limit: float):
    asked = []

    def holds(fps: float) -> bool:
        asked.append(fps)
        return fps <= limit

    found = highest(holds)
    assert found is not None
    assert limit / (1 + RESOLUTION) <= found <= limit
    assert len(asked) <= 20


def test_none_where_nothing_holds():
    assert highest(lambda fps: False) is None
