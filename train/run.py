"""A whole training run: corpus to saved, evaluated captioner with its model card."""

import logging
import shutil
import sys
from dataclasses import asdict
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.files import atomic_write
from train.captioner import Captioner, save_description, save_network
from train.dataset import Corpus, Examples, pictures, read_features
from train.evaluate import Evaluation, evaluate, write_evaluation
from train.fit import CHECKPOINTS, Trainer, fit
from train.history import History
from train.model import arithmetic, build_model
from train.settings import Plan
from train.vocabulary import Vocabulary, build_vocabulary

logger = logging.getLogger(__name__)

CARD = "model_card.md"
NORMALISED_ON = 20_000  # pictures whose mean and variance stand for all


def train(corpus: Corpus, plan: Plan) -> None:
    """Fit a captioner, save and evaluate it, and print its scores.

    `model.json` is written last: until then the run is not done, and goes on when called again.
    """
    vocabulary, model, history = _fit(corpus, plan)
    captioner = Captioner(
        model, vocabulary, corpus.extractor, corpus.cleaning, plan.settings.max_length
    )
    save_network(plan.saved, captioner)
    evaluation = evaluate(captioner, corpus, _judging_split(corpus))
    write_evaluation(plan.output, evaluation)
    card = model_card(plan, captioner, history, evaluation)
    with atomic_write(plan.output / CARD) as file:
        file.write(card.encode())
    save_description(
        plan.saved,
        captioner,
        {
            "fingerprint": plan.fingerprint,
            "profile": plan.profile,
            "architecture": asdict(plan.architecture),
            "settings": asdict(plan.settings),
            "best_epoch": history.best,
        },
    )
    shutil.rmtree(plan.output / CHECKPOINTS, ignore_errors=True)
    sys.stdout.write(evaluation.table())


def _fit(corpus: Corpus, plan: Plan) -> tuple[Vocabulary, keras.Model, History]:
    settings = plan.settings
    keras.utils.set_random_seed(settings.seed)
    training, validation = corpus.select("train"), corpus.select("validation")
    vocabulary = build_vocabulary(
        training.examples["cleaned"], settings.min_count, settings.max_words
    )
    sample = _sample(training)
    with arithmetic(settings.precision):
        model = build_model(plan.architecture, len(vocabulary), sample)
    examples = Examples(training, vocabulary, settings.max_length)
    judge = Examples(validation, vocabulary, settings.max_length) if len(validation) else None
    logger.info(
        "%d captions to learn from, %d to judge by; %d words, %.1f M weights, %s",
        len(training),
        len(validation),
        len(vocabulary),
        model.count_params() / 1e6,
        model.get_layer("logits").compute_dtype,
    )
    trainer = Trainer(model, examples, settings)
    history = fit(trainer, (examples, judge), settings, plan.output, plan.fingerprint)
    saved = build_model(plan.architecture, len(vocabulary), sample)
    saved.set_weights(model.get_weights())
    return vocabulary, saved, history


def _sample(training: Corpus) -> NDArray[np.float32]:
    """Features (N x D) of pictures drawn evenly, to normalise by."""
    indices = pictures(training)
    if len(indices) > NORMALISED_ON:
        chosen = np.random.default_rng(0).choice(len(indices), NORMALISED_ON, replace=False)
        indices = indices[np.sort(chosen)]
    return read_features(training, indices)


def _judging_split(corpus: Corpus) -> str:
    return next(split for split in ("test", "validation", "train") if len(corpus.select(split)))


def model_card(plan: Plan, captioner: Captioner, history: History, evaluation: Evaluation) -> str:
    """What a user of the model should know, from what was measured (Markdown)."""
    best = next(curve for curve in history.curves if curve.epoch == history.best)
    loss = best.validation_loss
    judged = "no validation split" if loss is None else f"{loss:.3f} in validation"
    facts: dict[str, Any] = {
        "Features": captioner.extractor,
        "Captions": f"cleaned as `{captioner.cleaning}`, at most {captioner.max_length} words",
        "Vocabulary": f"{len(captioner.vocabulary):,} words",
        "Network": f"profile `{plan.profile}`, {captioner.network.count_params():,} weights",
        "Training": f"{len(history.curves)} epochs, weights of epoch {history.best}",
        "Loss": f"{best.train_loss:.3f} nats a word in training, {judged}",
        "Settings": ", ".join(f"{name} {value}" for name, value in asdict(plan.settings).items()),
    }
    lines = ["# Model card", "", *(f"- {name}: {value}" for name, value in facts.items())]
    seen = "" if evaluation.split == "test" else " No test split was there to judge by."
    return "\n".join(
        [
            *lines,
            "",
            "## Scores",
            "",
            f"On the {evaluation.split} split.{seen} `shuffled features`: the same model shown",
            "other pictures; `blind`: one caption for all. BLEU by NLTK, smoothing method 3.",
            "",
            "```",
            evaluation.table().rstrip(),
            "```",
            "",
            "## Limits",
            "",
            "It says only words of its vocabulary and was judged on pictures like those it learned",
            "from; on others expect worse. Captions repeat what people wrote, prejudice included.",
            "",
        ]
    )
