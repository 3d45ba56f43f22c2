"""Corpus BLEU-1 to BLEU-4 (Papineni et al. 2002), by the tutorial's protocol and by COCO's."""

import itertools
from collections.abc import Sequence

WEIGHTS = (  # as in the tutorial, whose BLEU-3 weighs 0.9 in all
    (1.0, 0, 0, 0),
    (0.5, 0.5, 0, 0),
    (0.3, 0.3, 0.3, 0),
    (0.25, 0.25, 0.25, 0.25),
)

# The packages are imported where they are used: `capstan evaluate --help` should not wait for them.


def tutorial_bleu(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[float, ...]:
    """NLTK's, with smoothing method 3 (Chen and Cherry 2014) and the tutorial's weights."""
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

    if not any(caption.split() for caption in captions):
        return (0.0,) * len(WEIGHTS)
    values = corpus_bleu(
        [[reference.split() for reference in known] for known in references],
        [caption.split() for caption in captions],
        weights=list(WEIGHTS),
        smoothing_function=SmoothingFunction().method3,
    )
    return tuple(float(value) for value in values)


def coco_bleu(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, ...]:
    """sacrebleu's without its tokenizer and smoothing, which is what coco-caption's scorer counts.

    0 from the first length of n-grams on that no caption shares with its references.
    """
    from sacrebleu.metrics.bleu import BLEU

    streams = list(itertools.zip_longest(*references))  # None where a picture has fewer
    orders = (
        BLEU(tokenize="none", smooth_method="none", max_ngram_order=order + 1, force=True)
        for order in range(len(WEIGHTS))
    )
    return tuple(bleu.corpus_score(captions, streams).score / 100 for bleu in orders)
