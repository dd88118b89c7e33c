"""What communication hides behind computation, by hand-worked spans."""

from trainer.measure.spans import Overlap, outside, overlap_of, union


def test_spans_that_touch_or_overlap_are_one() -> None:
    assert union([(3, 4), (0, 1), (1, 2), (1.5, 2.5)]) == [(0, 2.5), (3, 4)]


def test_only_what_runs_beside_no_computation_is_exposed() -> None:
    communication = [(0.0, 4.0), (3.0, 5.0), (8.0, 9.0)]
    computation = [(1.0, 2.0), (4.5, 6.0)]
    assert overlap_of(communication, computation) == Overlap(communication_s=6.0, computation_s=2.5, exposed_s=4.5)


def test_nothing_ran() -> None:
    assert overlap_of([], []) == Overlap(0, 0, 0)


def test_what_lies_outside_of_others() -> None:
    assert outside([(0, 4), (6, 9)], [(1, 2), (3, 7), (8, 8.5)]) == [(0, 1), (2, 3), (7, 8), (8.5, 9)]
    assert outside([(0, 4)], [(0, 4)]) == []
    assert outside([(0, 4)], []) == [(0, 4)]
