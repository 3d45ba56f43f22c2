"""CIDEr-D: how much a caption says what people agree on, weighted by what is said of few pictures.

Vedantam, Lawrence Zitnick and Parikh, "CIDEr: Consensus-based Image Description Evaluation", CVPR
2015, with the choices of coco-caption's `cider_scorer.py`, to whose figures this is equal: n-grams
of 1 to 4 words, counts clipped, Gaussian penalty on lengths (sigma 6; a length is the number of
word pairs), factor 10. In how many pictures an n-gram occurs is counted in the references judged
by, so figures compare only over the same pictures, and those of a single picture are 0.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

LONGEST = 4  # words of an n-gram
SIGMA = 6.0
FACTOR = 10.0

Words = Sequence[Hashable]


@dataclass(frozen=True)
class _Vector:
    """A caption's n-grams of each length, weighted, with the length of the vector they make."""

    weights: tuple[dict[Words, float], ...]
    norms: tuple[float, ...]
    pairs: int


class CiderD:
    """Scores captions by the references of their pictures, weighed once for all."""

    def __init__(self, references: Sequence[Sequence[Words]]) -> None:
        """`references` are the captions of each picture, at least one, as words or numbers."""
        pictures_with: Counter[Words] = Counter()
        for known in references:
            pictures_with.update({gram for words in known for gram in _grams(words)})
        self._all = math.log(max(1, len(references)))
        self._rarity = {gram: self._all - math.log(n) for gram, n in pictures_with.items()}
        self._references = [[self._vector(words) for words in known] for known in references]

    def score(self, picture: int, words: Words) -> float:
        """CIDEr-D, 0 to 10, of a caption for the picture of that number."""
        said, known = self._vector(words), self._references[picture]
        return FACTOR * sum(_similarity(said, reference) for reference in known) / len(known)

    def _vector(self, words: Words) -> _Vector:
        weights: list[dict[Words, float]] = [{} for _ in range(LONGEST)]
        for gram, count in Counter(_grams(words)).items():
            weights[len(gram) - 1][gram] = count * self._rarity.get(gram, self._all)
        norms = (math.sqrt(sum(w * w for w in each.values())) for each in weights)
        return _Vector(tuple(weights), tuple(norms), max(0, len(words) - 1))


def _grams(words: Words) -> Iterator[Words]:
    words = tuple(words)
    for length in range(1, LONGEST + 1):
        for start in range(len(words) - length + 1):
            yield words[start : start + length]


def _similarity(said: _Vector, reference: _Vector) -> float:
    """Mean over the lengths of n-grams of the clipped cosine, less for captions of other length."""
    total = 0.0
    for ours, theirs, norm in zip(
        said.weights,
        reference.weights,
        map(math.prod, zip(said.norms, reference.norms, strict=True)),
        strict=True,
    ):
        if norm:
            total += (
                sum(min(w, theirs[g]) * theirs[g] for g, w in ours.items() if g in theirs) / norm
            )
    apart = said.pairs - reference.pairs
    return total / LONGEST * math.exp(-(apart**2) / (2 * SIGMA**2))
