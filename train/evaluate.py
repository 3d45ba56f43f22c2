"""Score a captioner on a split of consolidated shards: BLEU-1 to BLEU-4 and exact matches.

Every picture is captioned once and compared with all its captions. Beside the model stand two
baselines: the same model shown some other picture's features, and the best caption to say of
every picture blindly. BLEU is NLTK's with smoothing method 3 and the tutorial's weights.

Writes metrics.json and predictions.jsonl below --output.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.cli import import_tensorflow
from pipeline.errors import DataError, SettingError
from pipeline.files import atomic_write, input_directory, output_directory, write_json
from pipeline.records import METRICS_FORMAT, METRICS_VERSION
from train.consolidate import SPLITS
from train.dataset import Corpus, load_corpus, pictures, read_features
from train.scores import Scores, best_constant, score

if TYPE_CHECKING:
    from train.captioner import Captioner

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
        }

    def table(self) -> str:
        """The scores for people."""
        lines = [
            f"{self.split}: {len(self.predictions):,} pictures, {self.captions:,} captions",
            f"{'':<20}BLEU-1  BLEU-2  BLEU-3  BLEU-4   exact",
        ]
        for name, scores in (
            ("model", self.model),
            ("shuffled features", self.shuffled),
            ("blind", self.blind),
        ):
            values = "".join(f"{value:>8.3f}" for value in scores.bleu)
            lines.append(f"{name:<18}{values}{scores.exact:>8.1%}")
        return "\n".join(lines) + "\n"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `capstan evaluate`."""
    parser.add_argument("--model", type=Path, required=True, help="`saved` folder of a model")
    parser.add_argument("--input", type=Path, required=True, help="consolidated shards")
    parser.add_argument("--split", choices=SPLITS, default="test", help="pictures to score")
    parser.add_argument("--output", type=Path, help="where metrics and predictions are written")


def run(arguments: argparse.Namespace) -> None:
    """Evaluate and print a table."""
    model = input_directory(arguments.model, "--model")
    corpus = load_corpus(input_directory(arguments.input))
    import_tensorflow()
    from train.captioner import load_captioner

    evaluation = evaluate(load_captioner(model), corpus, arguments.split)
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
    said = captioner.captions(features)
    captions = [caption for caption, _ in said]
    known = _references(examples)
    rows = one_each.examples.select(["key", "sha256"]).to_pylist()
    references = [known[row["sha256"]] for row in rows]
    # Decoding looks at one picture at a time: captions of shuffled features are shuffled captions.
    shuffled = [captions[i] for i in _derangement(len(captions))]
    mean = captioner.captions(features.mean(axis=0, keepdims=True))[0][0]
    common = [caption for caption, _ in Counter(captions).most_common(CONSTANTS)]
    blind = best_constant([mean, *common], references)
    return Evaluation(
        split,
        len(examples),
        tuple(
            Prediction(row["key"], row["sha256"], tuple(known), caption, log_probability)
            for row, known, (caption, log_probability) in zip(rows, references, said, strict=True)
        ),
        score(captions, references),
        score(shuffled, references),
        score([blind] * len(references), references),
        blind,
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
    columns = (examples.examples[name].to_pylist() for name in ("sha256", "cleaned"))
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
            line = {name: getattr(prediction, name) for name in prediction.__dataclass_fields__}
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    write_json(directory / METRICS, evaluation.metrics())
