"""LatencyHistogram against NumPy's percentiles, and its bounds."""

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ispeed.stream.histogram import LatencyHistogram


def filled(values):
    histogram = LatencyHistogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=300), st.sampled_from([0, 50, 90, 99, 99.9, 100]))
def test_percentiles_lie_within_the_bin_error(values, percent):
    got = filled(values).percentile(percent)
    exact = np.percentile(values, percent, method="inverted_cdf")
    assert abs(got - exact) <= max(1, exact / 32)


@given(st.integers(0, 10**13))
def test_a_single_value_is_its_own_percentile(value):
    assert abs(filled([value]).percentile(50) - value) <= value / 32


def test_count_and_max_are_exact_and_negative_counts_as_zero():
    histogram = filled([5, 70, 1_234_567_891, -3])
    assert (histogram.count, histogram.max) == (4, 1_234_567_891)
    assert histogram.percentile(0) == 0
    assert histogram.percentile(100) == 1_234_567_891


def test_merging_is_the_same_as_adding_all():
    numbers = random.Random(1)
    a, b = ([numbers.randrange(10**9) for _ in range(500)] for _ in range(2))
    merged, whole = filled(a), filled(a + b)
    merged.merge(filled(b))
    assert merged.to_json() == whole.to_json()


def test_json_restores_it():
    histogram = filled([1, 1_000, 1_000_000])
    again = LatencyHistogram.from_json(json.loads(json.dumps(histogram.to_json())))
    assert again.summary_ms() == histogram.summary_ms()
    again.clear()
    assert again.summary_ms() == {"p50": 0.0, "p99": 0.0, "p999": 0.0, "max": 0.0, "count": 0}


def test_a_percentile_out_of_range_is_refused():
    with pytest.raises(ValueError, match="between 0 and 100"):
        LatencyHistogram().percentile(101)
