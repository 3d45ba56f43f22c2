"""Score a captioner on a split of consolidated shards: CIDEr-D, ROUGE-L, BLEU and exact matches.

Every picture is captioned once and compared with all its captions. Beside the model stand two
baselines: the same model shown some other picture's features, and the best caption to say of
every picture blindly.

BLEU comes three ways. (tutorial): NLTK's with smoothing method 3, BLEU-3 with weights of 0.3.
(tutorial, startseq and endseq counted): the same with the marks as words that always agree, as the
tutorial's own code counts; only for comparing with figures of that kind. (COCO): unsmoothed, as
coco-caption's scorer and sacrebleu count, like CIDEr-D and ROUGE-L here.

Writes metrics.json below --output, and predictions.jsonl, a line for each picture with its scores.
"""

import argparse
import json
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from capstan.cli import import_tensorflow
from capstan.errors import DataError, SettingError
from capstan.files import atomic_write, input_directory, output_directory, write_json
from capstan.records import METRICS_FORMAT, METRICS_VERSION
from capstan.train.consolidate import SPLITS
from capstan.train.dataset import Corpus, load_corpus, pictures, read_features
from capstan.train.scores import CaptionScorer, Lengths, PictureScores, Scores, lengths
from capstan.train.search import Search, add_flags, given

if TYPE_CHECKING:
    from capstan.train.captioner import Captioner

METRICS, PREDICTIONS = "metrics.json", "predictions.jsonl"
CONSTANTS = 5  # captions tried as the blind baseline, beside the mean picture's


@dataclass(frozen=True)
class Prediction:
    """A picture's caption beside what people said."""

    key: str
    sha256: str
    references: tuple[str, ...]  # cleaned
    caption: str
    log_probability: float
    scores: PictureScores

    def as_dict(self) -> dict[str, Any]:
        """For JSON, in one level so that tables can be made of it."""
        entry = asdict(self)
        scores: dict[str, float] = entry.pop("scores")
        return {**entry, **scores}


@dataclass(frozen=True)
class Wording:
    """How the captions are worded, whatever they are said of."""

    words: Lengths
    reference_words: Lengths
    limit: int  # words of a caption at most
    cut: float  # share of the captions that reach it
    distinct: int  # different captions
    in_training: float  # share of the captions that stand word for word in the training split

    def sentence(self) -> str:
        """For people."""
        return (
            f"{self.words.mean:.1f} words on average (median {self.words.median:g}, longest "
            f"{self.words.longest}; people: {self.reference_words.mean:.1f}, "
            f"{self.reference_words.median:g}, {self.reference_words.longest}), {self.cut:.1%} cut "
            f"at {self.limit}; {self.distinct:,} different captions, {self.in_training:.1%} of all "
            "stand word for word in training"
        )


@dataclass(frozen=True)
class Evaluation:
    """How well a model captions a split."""

    split: str
    captions: int  # references in all
    predictions: tuple[Prediction, ...]
    model: Scores
    shuffled: Scores  # shown other pictures' features
    blind: Scores
    blind_caption: str
    wording: Wording
    search: Search  # how the captions were found

    def metrics(self) -> dict[str, Any]:
        """What goes into `metrics.json`."""
        return {
            "format": METRICS_FORMAT,
            "version": METRICS_VERSION,
            "split": self.split,
            "pictures": len(self.predictions),
            "captions": self.captions,
            "model": self.model.as_dict(),
            "shuffled": self.shuffled.as_dict(),
            "blind": self.blind.as_dict() | {"caption": self.blind_caption},
            "wording": asdict(self.wording),
            "search": asdict(self.search),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """The scores as text: name of the figure, model, shuffled features, blind."""
        columns = [scores.named() for scores in (self.model, self.shuffled, self.blind)]
        return [
            (name, *(f"{column[name]:{'.1%' if name == 'exact' else '.3f'}}" for column in columns))
            for name in columns[0]
        ]

    def table(self) -> str:
        """The scores for people, in 100 columns."""
        title = f"{self.split}: {len(self.predictions):,} pictures, {self.captions:,} captions"
        head = (title, "model", "shuffled features", "blind")
        lines = [f"{a:<47} {b:>8} {c:>18} {d:>8}" for a, b, c, d in (head, *self.rows())]
        facts = (
            f"captions: {self.wording.sentence()}",
            f"search: {self.search_sentence()}",
            f"blind: {self.blind_caption}",
        )
        lines += [textwrap.fill(fact, 100, subsequent_indent="  ") for fact in facts]
        return "\n".join(lines) + "\n"

    def search_sentence(self) -> str:
        """How the captions were found, for people."""
        return ", ".join(
            f"{name.replace('_', ' ')} {value:g}" for name, value in asdict(self.search).items()
        )


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `capstan evaluate`."""
    parser.add_argument("--model", type=Path, required=True, help="`saved` folder of a model")
    parser.add_argument("--input", type=Path, required=True, help="consolidated shards")
    parser.add_argument("--split", choices=SPLITS, default="test", help="pictures to score")
    parser.add_argument("--output", type=Path, help="where metrics and predictions are written")
    add_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Evaluate and print a table."""
    search = given(arguments)
    model = input_directory(arguments.model, "--model")
    corpus = load_corpus(input_directory(arguments.input))
    import_tensorflow()
    from capstan.train.captioner import load_captioner

    captioner = load_captioner(model)
    captioner = replace(captioner, search=replace(captioner.search, **search))
    evaluation = evaluate(captioner, corpus, arguments.split)
    if arguments.output is not None:
        write_evaluation(output_directory(arguments.output), evaluation)
    sys.stdout.write(evaluation.table())


def evaluate(captioner: "Captioner", corpus: Corpus, split: str) -> Evaluation:
    """Caption each picture of a split and score the captions against all its references."""
    _check_fits(captioner, corpus)
    examples = corpus.select(split)
    if not len(examples):
        raise SettingError(f"no example in the split {split!r}; give another with --split")
    one_each = examples.take(pictures(examples))
    features = read_features(one_each)
    said = [best for best, *_ in captioner.captions(features)]
    captions = [caption.text for caption in said]
    known = _references(examples)
    keys, hashes = (one_each.column(name).to_pylist() for name in ("key", "sha256"))
    references = [known[sha256] for sha256 in hashes]
    judge = CaptionScorer(references, captioner.max_length)
    scores, of_each = judge.score(captions)
    # Decoding looks at one picture at a time: captions of shuffled features are shuffled captions.
    shuffled = [captions[i] for i in _derangement(len(captions))]
    mean = captioner.captions(features.mean(axis=0, keepdims=True))[0][0].text
    common = [caption for caption, _ in Counter(captions).most_common(CONSTANTS)]
    blind = judge.best_constant([mean, *common])
    return Evaluation(
        split,
        len(examples),
        tuple(
            Prediction(key, sha256, tuple(known), caption.text, caption.log_probability, own)
            for key, sha256, known, caption, own in zip(
                keys, hashes, references, said, of_each, strict=True
            )
        ),
        scores,
        judge.score(shuffled)[0],
        judge.score([blind] * len(references))[0],
        blind,
        _wording(captions, references, captioner.max_length, corpus),
        captioner.search,
    )


def _wording(
    captions: Sequence[str], references: Sequence[Sequence[str]], limit: int, corpus: Corpus
) -> Wording:
    said = pa.array(sorted(set(captions)))
    repeated: set[str] = set()
    for learnt in corpus.select("train").pieces("cleaned"):
        repeated.update(learnt.filter(pc.is_in(learnt, value_set=said)).to_pylist())
    return Wording(
        lengths(captions),
        lengths([reference for known in references for reference in known]),
        limit,
        fmean(len(caption.split()) >= limit for caption in captions),
        len(said),
        fmean(caption in repeated for caption in captions),
    )


def _check_fits(captioner: "Captioner", corpus: Corpus) -> None:
    if not captioner.extractor.same_features(corpus.extractor):
        raise DataError(
            f"the model reads features of {captioner.extractor}, but the shards have "
            f"{corpus.extractor}; featurize with the model's extractor"
        )
    if captioner.cleaning != corpus.cleaning:
        raise DataError(
            f"the model speaks {captioner.cleaning!r} text, but the shards were cleaned as "
            f"{corpus.cleaning!r}; consolidate with --cleaning {captioner.cleaning}"
        )


def _references(examples: Corpus) -> dict[str, list[str]]:
    references: dict[str, list[str]] = {}
    columns = (examples.column(name).to_pylist() for name in ("sha256", "cleaned"))
    for sha256, cleaned in zip(*columns, strict=True):
        references.setdefault(sha256, []).append(cleaned)
    return references


def _derangement(count: int) -> Sequence[int]:
    """An order in which nothing stays where it was; the same each time."""
    order = np.random.default_rng(0).permutation(count)
    place = np.empty(count, np.int64)
    place[order] = np.roll(order, 1)
    return [int(i) for i in place]


def write_evaluation(directory: Path, evaluation: Evaluation) -> None:
    """Write `predictions.jsonl`, one line per picture, and `metrics.json`."""
    with atomic_write(directory / PREDICTIONS) as file:
        for prediction in evaluation.predictions:
            line = json.dumps(prediction.as_dict(), ensure_ascii=False)
            file.write(line.encode() + b"\n")
    write_json(directory / METRICS, evaluation.metrics())
