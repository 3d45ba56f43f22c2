"""Captions to words: named cleaning profiles, so that figures can say how text was counted.

A cleaned caption is words joined by single spaces; it may be empty.
"""

import string
import unicodedata
from collections.abc import Callable, Mapping

PUNCTUATION = str.maketrans("", "", string.punctuation)


def tutorial(caption: str) -> str:
    """Clean as the well-known Flickr8k captioning tutorial does.

    Lower case, ASCII punctuation stripped, one-letter words ("a") and words that hold anything
    but letters dropped. Published figures of that family are counted on such text.
    """
    words = (word.lower().translate(PUNCTUATION) for word in caption.split())
    return " ".join(word for word in words if len(word) > 1 and word.isalpha())


def standard(caption: str) -> str:
    """Lower case without punctuation, symbols and control characters; "a" and numbers stay."""
    words = ("".join(filter(_is_text, word)) for word in caption.lower().split())
    return " ".join(word for word in words if word)


def _is_text(character: str) -> bool:
    return unicodedata.category(character)[0] not in "PSC"


PROFILES: Mapping[str, Callable[[str], str]] = {"standard": standard, "tutorial": tutorial}
