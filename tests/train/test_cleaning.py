from hypothesis import given
from hypothesis import strategies as st

from capstan.train.cleaning import PROFILES, standard, tutorial


def test_tutorial_cleans_as_the_tutorial_does() -> None:
    caption = "A child, in a PINK dress; it's well-known - 2 dogs & 3D glasses ."
    assert tutorial(caption) == "child in pink dress its wellknown dogs glasses"


def test_standard_keeps_one_letter_words_and_numbers() -> None:
    assert standard("A child, in a PINK dress - 2 dogs .") == "a child in a pink dress 2 dogs"
    assert standard("“Ça va ?” … l'été, 50 €") == "ça va lété 50"


@given(st.text(), st.sampled_from(sorted(PROFILES)))
def test_cleaned_is_lower_case_words_joined_by_single_spaces(caption: str, profile: str) -> None:
    cleaned = PROFILES[profile](caption)
    assert cleaned == " ".join(cleaned.split())
    assert cleaned == cleaned.lower()
    assert PROFILES[profile](cleaned) == cleaned


@given(st.text())
def test_tutorial_leaves_long_alphabetic_words_only(caption: str) -> None:
    assert all(len(word) > 1 and word.isalpha() for word in tutorial(caption).split())
