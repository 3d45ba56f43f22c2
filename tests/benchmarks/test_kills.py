"""What counts as asked for again without need."""

from benchmarks.kills import Asked


def test_a_row_asked_for_again_counts_for_the_kill_it_was_lost_with() -> None:
    asked = Asked()
    asked.note(0, {"a", "b", "c"})
    asked.note(1, {"d"})  # killed before it came to the others
    asked.note(2, {"a", "b", "d"})
    asked.note(3, {"a"})
    assert asked.again == {0: 2, 1: 1, 2: 1}
