"""ROUGE-L: the longest common subsequence of words that a caption has with its references.

Lin 2004, with the choices of coco-caption's `rouge.py`, to whose figures this is equal: beta 1.2,
precision and recall each the best over the references.
"""

from collections.abc import Sequence

BETA = 1.2  # how much more recall counts than precision


def rouge_l(caption: str, references: Sequence[str]) -> float:
    """ROUGE-L, 0 to 1, of a caption against at least one reference, none of them empty."""
    words = caption.split()
    if not words:
        return 0.0
    true = [reference.split() for reference in references]
    common = [_common(words, text) for text in true]
    precision = max(common) / len(words)
    recall = max(count / len(text) for count, text in zip(common, true, strict=True))
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common(words: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    lengths = [0] * (len(words) + 1)  # of the other's words so far with each beginning of words
    for theirs in other:
        diagonal = 0
        for index, ours in enumerate(words, start=1):
            above = lengths[index]
            lengths[index] = diagonal + 1 if ours == theirs else max(above, lengths[index - 1])
            diagonal = above
    return lengths[-1]
