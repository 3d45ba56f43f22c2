"""A whole training run: corpus to saved, evaluated captioner with its model card."""

import logging
import shutil
import sys
from dataclasses import asdict, replace

import keras
import numpy as np
from numpy.typing import NDArray

from capstan.errors import SettingError
from capstan.files import atomic_write
from capstan.train.captioner import Captioner, save_description, save_network
from capstan.train.card import model_card
from capstan.train.dataset import Corpus, Examples, pictures, read_features
from capstan.train.distribution import WorkerGroup, losing_workers
from capstan.train.embeddings import read_embeddings
from capstan.train.evaluate import evaluate, write_evaluation
from capstan.train.fit import fit
from capstan.train.history import CHECKPOINTS, History
from capstan.train.model import arithmetic, build_model
from capstan.train.settings import Architecture, TrainingPlan
from capstan.train.trainer import Trainer
from capstan.train.vocabulary import Vocabulary, build_vocabulary

logger = logging.getLogger(__name__)

CARD = "model_card.md"
NORMALISED_ON = 20_000  # pictures whose mean and variance stand for all


def train(corpus: Corpus, plan: TrainingPlan, group: WorkerGroup) -> None:
    """Fit a captioner, save and evaluate it, and print its scores: the last three the chief does.

    `model.json` is written last: until then the run is not done, and goes on when called again.
    LostWorkerError when one of the group is gone.
    """
    with losing_workers(group):
        _check_same(plan, group)
        fitted = _fit(corpus, plan, group)
        if group.is_chief:
            _finish(corpus, plan, *fitted)
        group.text_from_chief("done")  # should the chief die now, it needs the others to go on


def _check_same(plan: TrainingPlan, group: WorkerGroup) -> None:
    if group.text_from_chief(plan.fingerprint) != plan.fingerprint:
        raise SettingError(
            f"worker {group.rank} has other data or settings than worker 0; give all the same"
        )


def _finish(
    corpus: Corpus, plan: TrainingPlan, vocabulary: Vocabulary, model: keras.Model, history: History
) -> None:
    captioner = Captioner(
        model, vocabulary, corpus.extractor, corpus.cleaning, plan.settings.max_length
    )
    save_network(plan.saved, captioner)
    evaluation = evaluate(captioner, corpus, _judging_split(corpus))
    write_evaluation(plan.output, evaluation)
    card = model_card(plan, corpus, captioner, history, evaluation)
    with atomic_write(plan.output / CARD) as file:
        file.write(card.encode())
    save_description(
        plan.saved,
        captioner,
        {
            "fingerprint": plan.fingerprint,
            "profile": plan.profile,
            "architecture": asdict(plan.architecture)
            | {"embedding": model.get_layer("embedding").output_dim},
            "settings": asdict(plan.settings),
            "best_epoch": history.best,
            "shards": corpus.shards,
        },
    )
    shutil.rmtree(plan.output / CHECKPOINTS, ignore_errors=True)
    sys.stdout.write(evaluation.table())


def _fit(
    corpus: Corpus, plan: TrainingPlan, group: WorkerGroup
) -> tuple[Vocabulary, keras.Model, History]:
    settings = plan.settings
    keras.utils.set_random_seed(settings.seed)
    training, validation = corpus.select("train"), corpus.select("validation")
    vocabulary = build_vocabulary(
        training.pieces("cleaned"), settings.min_count, settings.max_words
    )
    architecture, embeddings = _embeddings(plan, vocabulary)
    sample = _sample(training)
    with arithmetic(settings.precision), group.strategy.scope():
        model = build_model(architecture, len(vocabulary), sample, embeddings)
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
    trainer = Trainer(model, examples, settings, group)
    history = fit(trainer, (examples, judge), settings, plan.output, plan.fingerprint)
    saved = build_model(architecture, len(vocabulary), sample)
    saved.set_weights(model.get_weights())
    return vocabulary, saved, history


def _embeddings(
    plan: TrainingPlan, vocabulary: Vocabulary
) -> tuple[Architecture, NDArray[np.float32] | None]:
    """Ready-made word vectors (V x E), if any, and the architecture with vectors of that length."""
    if plan.embeddings is None:
        return plan.architecture, None
    vectors, _ = read_embeddings(plan.embeddings, vocabulary, plan.settings.seed)
    return replace(plan.architecture, embedding=vectors.shape[1]), vectors


def _sample(training: Corpus) -> NDArray[np.float32]:
    """Features (N x D) of pictures drawn evenly, to normalise by."""
    indices = pictures(training)
    if len(indices) > NORMALISED_ON:
        chosen = np.random.default_rng(0).choice(len(indices), NORMALISED_ON, replace=False)
        indices = indices[np.sort(chosen)]
    return read_features(training, indices)


def _judging_split(corpus: Corpus) -> str:
    return next(split for split in ("test", "validation", "train") if len(corpus.select(split)))
