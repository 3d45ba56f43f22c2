"""How good captions are, against several references each; pure functions over cleaned text."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

BLEU_WEIGHTS = (  # as in the tutorial, whose BLEU-3 weighs 0.9 in all
    (1.0, 0, 0, 0),
    (0.5, 0.5, 0, 0),
    (0.3, 0.3, 0.3, 0),
    (0.25, 0.25, 0.25, 0.25),
)


@dataclass(frozen=True)
class Scores:
    """Scores over a set of pictures, each from 0 to 1."""

    bleu: tuple[float, ...]  # BLEU-1 to BLEU-4
    exact: float  # share of the captions that equal a reference

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def score(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """Scores of one caption per picture against its references."""
    exact = sum(
        caption in known for caption, known in zip(captions, references, strict=True)
    ) / max(1, len(captions))
    return Scores(bleu(captions, references), exact)


def bleu(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, ...]:
    """Corpus BLEU-1 to BLEU-4 by the tutorial's protocol: NLTK, smoothing method 3."""
    if not any(caption.split() for caption in captions):
        return (0.0,) * len(BLEU_WEIGHTS)
    # Here, for `capstan evaluate --help` should not wait for it.
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

    values = corpus_bleu(
        [[reference.split() for reference in known] for known in references],
        [caption.split() for caption in captions],
        weights=list(BLEU_WEIGHTS),
        smoothing_function=SmoothingFunction().method3,
    )
    return tuple(float(value) for value in values)


def best_constant(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> str:
    """The candidate that scores the highest BLEU-4 when said of every picture."""
    return max(candidates, key=lambda caption: bleu([caption] * len(references), references)[-1])
