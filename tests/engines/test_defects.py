"""Which pixels stand in for defect ones."""

from __future__ import annotations

import pytest

from ispeed.engines import RawFormat, UserError
from ispeed.engines.defects import neighbours, tables


def test_neighbours_have_the_colour_of_the_defect():
    [near] = neighbours([(4, 5)], RawFormat(10, 10, "BayerRG8"))
    assert len(near) == 8
    assert {(x % 2, y % 2) for x, y in near} == {(0, 1)}
    assert (4, 5) not in near


def test_mono_takes_the_pixels_next_to_it():
    [near] = neighbours([(0, 0)], RawFormat(10, 10, "Mono8"))
    assert sorted(near) == [(0, 1), (1, 0), (1, 1)]


def test_other_defects_do_not_stand_in_and_the_ring_widens():
    fmt = RawFormat(12, 2, "BayerRG8")
    cluster = [(0, 0), (2, 0)]
    assert neighbours(cluster, fmt) == [[(4, 0)], [(4, 0)]]


def test_tables_are_ordered_by_row_and_leave_out_what_cannot_be_mended():
    fmt = RawFormat(6, 4, "Mono8")
    rows, table = tables([(5, 3), (0, 1), (3, 1), (0, 1)], fmt)
    assert rows.tolist() == [0, 0, 2, 2, 3]
    assert table[:, 0].tolist() == [0, 3, 5]
    assert set(table[2, 1:]) == {2 * 6 + 4, 2 * 6 + 5, 3 * 6 + 4, -1}
    rows, table = tables([(0, 0)], RawFormat(2, 2, "BayerRG8"))
    assert rows.tolist() == [0, 0, 0]
    assert table.shape == (0, 9)


def test_defects_outside_the_frame_are_refused():
    with pytest.raises(UserError, match=r"\(6, 0\) lies outside the 6x4 frame"):
        tables([(6, 0)], RawFormat(6, 4, "Mono8"))
