import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.evaluate import _derangement
from train.scores import best_constant, bleu, score

REFERENCES = [["a red star on a field", "the star is red"], ["two dogs run on grass"]]


def test_perfect_captions() -> None:
    scores = score(["a red star on a field", "two dogs run on grass"], REFERENCES)
    assert scores.bleu == pytest.approx((1, 1, 1, 1))
    assert scores.exact == 1


def test_bleu_against_a_hand_count() -> None:
    # 3 of 4 words and 1 of 3 pairs are in the reference; brevity penalty exp(1 - 5 / 4).
    penalty = 2.718281828 ** (1 - 5 / 4)
    values = bleu(["two dogs on green"], [["two dogs run on grass"]])
    assert values[0] == pytest.approx(penalty * 3 / 4)
    assert values[1] == pytest.approx(penalty * (3 / 4 * 1 / 3) ** 0.5)
    # Method 3 takes 1/2 for the first precision that is zero; the weights are 0.3 each.
    assert values[2] == pytest.approx(penalty * (3 / 4 * 1 / 3 * 1 / 2 / 2) ** 0.3)


def test_nothing_said() -> None:
    assert score(["", ""], REFERENCES).bleu == (0, 0, 0, 0)


def test_best_constant() -> None:
    assert best_constant(["x", "two dogs run on grass"], REFERENCES) == "two dogs run on grass"


@given(st.integers(2, 200))
def test_shuffling_moves_every_picture(count: int) -> None:
    order = _derangement(count)
    assert sorted(order) == list(range(count))
    assert all(i != j for i, j in enumerate(order))
