"""The model card: what a user of a model should know, written from what was measured.

Markdown, with the YAML front matter from which model hubs read task, tags and scores.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from capstan.train.consolidate import SPLITS
from capstan.train.dataset import Corpus, pictures
from capstan.train.evaluate import Evaluation, Prediction
from capstan.train.history import History
from capstan.train.settings import TrainingPlan
from capstan.train.vocabulary import UNKNOWN

if TYPE_CHECKING:
    from capstan.train.captioner import Captioner

EXAMPLES = 3  # of each kind
METRIC_TYPES = {"CIDEr-D": "cider", "ROUGE-L": "rouge", "exact": "exact_match"}  # the rest: bleu

ABOUT = """\
Says in a few words what a picture shows. It reads no pixels: an extractor first makes a vector of
the picture. `capstan predict --model saved PICTURE` does both."""

EXPLAINED = """\
"Shuffled features" is the same model shown some other picture, "blind" the best that it could say
of every picture without looking: what it scores above these it owes to the picture. BLEU (tutorial)
is NLTK's with smoothing method 3, BLEU-3 with weights of 0.3; with "startseq and endseq counted"
the marks around each caption are words too, which always agree: only for comparing with figures
counted so. BLEU (COCO), ROUGE-L and CIDEr-D are those of coco-caption, on cleaned captions. "Exact"
is the share that equals a reference. CIDEr-D goes from 0 to 10 and compares over the same pictures
only; all else goes from 0 to 1."""

KNOWN = {  # how well the model knew the pictures it is judged on
    "test": "",
    "validation": " There was no test split to judge by: the weights were chosen by the loss on "
    "these pictures, which flatters.",
    "train": " There was no other split: it has learned from these very pictures.",
}

USE = """\
For drafts that somebody looks over, for search, and for learning how captioning works. Not for
decisions about people, and not as the only description of a picture where an error does harm."""

LIMITS = (
    "It was judged on pictures like those it learned from; on others expect worse.",
    "It sees one vector of the whole picture: small things, counts, writing, and who does what to "
    "whom are often wrong. A wrong caption sounds as sure as a right one.",
    "It repeats what people wrote, with their habits and prejudices, and guesses at people's sex, "
    "age and trade from their looks.",
)

RIGHTS = """\
Photos and captions stay their owners'. Neither is part of the model, but what it says may stand
word for word in its training captions (how often: see the scores). This card grants no licence:
before passing the model on, see to those of the data and of the extractor's weights."""


def model_card(
    plan: TrainingPlan,
    corpus: Corpus,
    captioner: "Captioner",
    history: History,
    evaluation: Evaluation,
) -> str:
    """The card of a model that was trained on a corpus."""
    limits = [*LIMITS, _unknown_words(corpus, captioner, evaluation)]
    sections = {
        "Scores": _scores(evaluation),
        "Data": _data(corpus, captioner),
        "Network": _network(plan, captioner),
        "Training": _training(plan, history),
        "Examples": _examples(evaluation),
        "Intended use": USE,
        "Limits": "\n".join(f"- {limit}" for limit in limits),
        "Rights": RIGHTS,
    }
    parts = [_front_matter(plan, corpus, evaluation), f"# Image captioner\n\n{ABOUT}"]
    parts += [f"## {name}\n\n{text}" for name, text in sections.items()]
    return "\n\n".join(parts) + "\n"


def _front_matter(plan: TrainingPlan, corpus: Corpus, evaluation: Evaluation) -> str:
    """As https://huggingface.co/docs/hub/model-cards wants it; JSON's strings are YAML's too."""
    metrics = [
        f"    - type: {METRIC_TYPES.get(name, 'bleu')}\n"
        f"      name: {json.dumps(name)}\n"
        f"      value: {value:.4f}"
        for name, value in evaluation.model.named().items()
    ]
    return "\n".join(
        [
            "---",
            "library_name: keras",
            "pipeline_tag: image-to-text",
            "tags:",
            "- image-captioning",
            "- capstan",
            "metrics:",
            "- cider",
            "- rouge",
            "- bleu",
            "model-index:",
            f"- name: {json.dumps(f'capstan-captioner-{plan.profile}')}",
            "  results:",
            "  - task:",
            "      type: image-to-text",
            "      name: Image captioning",
            "    dataset:",
            "      type: image-caption-pairs",
            f"      name: {json.dumps(', '.join(_sources(corpus.select(evaluation.split))))}",
            f"      split: {evaluation.split}",
            "    metrics:",
            *metrics,
            "---",
        ]
    )


def _sources(examples: Corpus) -> list[str]:
    """Folders of the chunks that examples come from, as they stand in their keys."""
    names: set[str] = set()
    for keys in examples.pieces("key"):
        names.update(pc.replace_substring_regex(keys, r"-[^-]*-\d+$", "").unique().to_pylist())
    return sorted(names)


def _scores(evaluation: Evaluation) -> str:
    rows = [("", "model", "shuffled features", "blind"), *evaluation.rows()]
    return "\n\n".join(
        [
            f"On the {evaluation.split} split: {len(evaluation.predictions):,} pictures with "
            f"{evaluation.captions:,} captions.{KNOWN[evaluation.split]}",
            _table(rows),
            EXPLAINED,
            f"What it says: {evaluation.wording.sentence()}.",
            f"How it searches: {evaluation.search_sentence()}.",
            f"The blind caption: *{evaluation.blind_caption}*.",
        ]
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first row its head; all columns but the first are numbers."""
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|---|" + "---:|" * (len(rows[0]) - 1), *body])


def _data(corpus: Corpus, captioner: "Captioner") -> str:
    splits = {split: part for split in SPLITS if len(part := corpus.select(split))}
    rows = [
        (split, f"{len(pictures(part)):,}", f"{len(part):,}", ", ".join(_sources(part)))
        for split, part in splits.items()
    ]
    extractor = captioner.extractor
    facts = {
        "Features": f"{extractor.name}, pictures of {extractor.image_size} pixels, "
        f"`{extractor.preprocessing}`",
        "Weights of the extractor": f"`{extractor.weights}`, SHA-256 `{extractor.weights_sha256}`",
        "Captions": f"cleaned as `{captioner.cleaning}`, at most {captioner.max_length} words",
        "Vocabulary": f"{len(captioner.vocabulary):,} words, the marks included",
    }
    return f"{_table([('split', 'pictures', 'captions', 'from'), *rows])}\n\n{_list(facts)}"


def _network(plan: TrainingPlan, captioner: "Captioner") -> str:
    weights = f"{captioner.network.count_params():,} weights"
    return f"Profile `{plan.profile}`, {weights}:\n\n{_list(_words(asdict(plan.architecture)))}"


def _training(plan: TrainingPlan, history: History) -> str:
    best = next(curve for curve in history.curves if curve.epoch == history.best)
    judged = (
        "no validation split"
        if best.validation_loss is None
        else f"{best.validation_loss:.3f} in validation"
    )
    seconds = sum(curve.seconds for curve in history.curves)
    rate = fmean(curve.captions_per_second for curve in history.curves)
    facts = {
        "Done": f"{len(history.curves)} epochs, weights of epoch {history.best}",
        "Loss": f"{best.train_loss:.3f} nats a word in training, {judged}",
        "Speed": f"{rate:,.0f} captions/s, {seconds:,.0f} s in all",
    }
    return f"{_list(facts)}\n\nSettings:\n\n{_list(_words(asdict(plan.settings)))}"


def _words(settings: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", " ").capitalize(): value for name, value in settings.items()}


def _list(facts: dict[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _examples(evaluation: Evaluation) -> str:
    """The best, the middle and the worst captions by CIDEr-D."""
    ranked = sorted(evaluation.predictions, key=lambda one: (-one.scores.cider_d, one.sha256))
    middle = max(0, (len(ranked) - EXAMPLES) // 2)
    kinds = {
        "Best": ranked[:EXAMPLES],
        "Middle": ranked[middle : middle + EXAMPLES],
        "Worst": ranked[-EXAMPLES:],
    }
    return "\n\n".join(
        f"{name} by CIDEr-D:\n\n" + "\n".join(map(_example, some)) for name, some in kinds.items()
    )


def _example(prediction: Prediction) -> str:
    true = "; ".join(prediction.references)
    return (
        f"- **{prediction.caption}** ({prediction.scores.cider_d:.2f}), where people said: {true}"
    )


def _unknown_words(corpus: Corpus, captioner: "Captioner", evaluation: Evaluation) -> str:
    judged = corpus.select(evaluation.split).column("cleaned")
    unknown = (captioner.vocabulary.encode(judged).words == UNKNOWN).mean()
    return (
        f"It knows {len(captioner.vocabulary):,} words and says no others; {unknown:.1%} of the "
        f"words that people used of the {evaluation.split} pictures are not among them."
    )
