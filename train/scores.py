"""How good captions are, against several references each; pure functions over cleaned text."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from capstan.train.bleu import coco_bleu, tutorial_bleu
from capstan.train.cider import CiderD
from capstan.train.rouge import rouge_l
from capstan.train.vocabulary import END, SPECIALS, START


@dataclass(frozen=True)
class Scores:
    """Scores over a set of pictures, from 0 to 1; CIDEr-D from 0 to 10."""

    cider_d: float  # mean over the pictures
    rouge_l: float  # mean over the pictures
    bleu: tuple[float, ...]  # BLEU-1 to BLEU-4 by the tutorial's protocol, of the captions' words
    bleu_marked: tuple[float, ...]  # the same with `startseq` and `endseq` counted as words
    bleu_coco: tuple[float, ...]  # BLEU-1 to BLEU-4 as COCO's evaluation and sacrebleu count
    exact: float  # share of the captions that equal a reference

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def named(self) -> dict[str, float]:
        """Each figure under its full name, for people."""
        protocols = {
            "tutorial": self.bleu,
            "tutorial, startseq and endseq counted": self.bleu_marked,
            "COCO": self.bleu_coco,
        }
        return {
            "CIDEr-D": self.cider_d,
            "ROUGE-L": self.rouge_l,
            **{
                f"BLEU-{n} ({protocol})": value
                for protocol, values in protocols.items()
                for n, value in enumerate(values, start=1)
            },
            "exact": self.exact,
        }


@dataclass(frozen=True)
class PictureScores:
    """Scores of one caption."""

    cider_d: float
    rouge_l: float
    bleu_4: float  # by the tutorial's protocol


class CaptionScorer:
    """Scores captions, one for each picture, by references weighed once."""

    def __init__(self, references: Sequence[Sequence[str]], limit: int) -> None:
        """`references` are cleaned captions, at least one a picture and none of them empty.

        Captions of `limit` words count as cut off, so no `endseq` is put to them.
        """
        self._references, self._limit = references, limit
        self._marked = [[_mark(text) for text in known] for known in references]
        self._cider = CiderD([[text.split() for text in known] for known in references])

    def score(self, captions: Sequence[str]) -> tuple[Scores, list[PictureScores]]:
        """Scores of all captions, and of each."""
        of_each = [
            PictureScores(
                self._cider.score(picture, caption.split()),
                rouge_l(caption, known),
                tutorial_bleu([caption], [known])[-1],
            )
            for picture, (caption, known) in enumerate(zip(captions, self._references, strict=True))
        ]
        marked = [_mark(caption, len(caption.split()) < self._limit) for caption in captions]
        pairs = zip(captions, self._references, strict=True)
        scores = Scores(
            fmean(one.cider_d for one in of_each),
            fmean(one.rouge_l for one in of_each),
            tutorial_bleu(captions, self._references),
            tutorial_bleu(marked, self._marked),
            coco_bleu(captions, self._references),
            fmean(caption in known for caption, known in pairs),
        )
        return scores, of_each

    def best_constant(self, candidates: Sequence[str]) -> str:
        """The candidate that scores the highest BLEU-4 (tutorial) when said of every picture."""
        everywhere = len(self._references)
        return max(
            candidates,
            key=lambda caption: tutorial_bleu([caption] * everywhere, self._references)[-1],
        )


def _mark(text: str, ended: bool = True) -> str:
    return f"{SPECIALS[START]} {text} {SPECIALS[END]}" if ended else f"{SPECIALS[START]} {text}"


@dataclass(frozen=True)
class Lengths:
    """How many words texts have."""

    mean: float
    median: float
    longest: int


def lengths(texts: Sequence[str]) -> Lengths:
    """Lengths of at least one text."""
    words = [len(text.split()) for text in texts]
    return Lengths(fmean(words), float(median(words)), max(words))
