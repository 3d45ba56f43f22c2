"""Train a captioner on consolidated shards.

Writes below --output: saved/ (saved_model.keras, vocabulary.json, model.json, which belong
together), curves.jsonl with a line per epoch, metrics.json and predictions.jsonl from the test
split (or the validation split where there is none), model_card.md and tensorboard/.

A run that was stopped goes on after its last whole epoch, with as many workers as it is now given.
A run whose data and settings are those of the model already there does nothing.

With --workers N, or with TF_CONFIG as TensorFlow's MultiWorkerMirroredStrategy reads it, several
processes train as one: each takes its share of every batch. Worker 0 alone writes. When one dies,
is stopped or cannot be reached, all end within half a minute; --workers starts them again from the
last epoch, TF_CONFIG leaves that to who started them (exit status 75). A process uses all GPUs it
sees.
"""

import argparse
import json
import logging
import sys
from dataclasses import asdict, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from capstan.cli import import_tensorflow
from capstan.errors import DataError, SettingError
from capstan.files import input_directory, output_directory, sha256_file
from capstan.train.dataset import fingerprint, load_corpus
from capstan.train.embeddings import existing
from capstan.train.history import CHECKPOINTS, checkpoints
from capstan.train.settings import (
    DESCRIPTION,
    NETWORK,
    PRECISIONS,
    PROFILES,
    VOCABULARY,
    TrainingPlan,
    TrainSettings,
)
from capstan.train.workers import Place, end_with_supervisor, is_supervised, place, supervise

logger = logging.getLogger(__name__)

HELP = {
    "epochs": "epochs at most: each ends with a validation and a checkpoint",
    "epoch_captions": "captions of an epoch, about; 0 for all. Where there are more, an epoch is a "
    "part of a pass over them, and so many more --epochs make a pass",
    "batch_size": "captions per step, over all workers",
    "learning_rate": "highest learning rate, after the warm-up",
    "warmup": "share of the steps in which the learning rate rises",
    "weight_decay": "of AdamW",
    "clip": "largest norm of a gradient",
    "label_smoothing": "share of each target spread over all words",
    "average": "decay per step of the averaged weights that are judged and saved; 0 for the last",
    "patience": "epochs without a better validation loss before stopping",
    "min_count": "times a word must occur to be in the vocabulary",
    "max_words": "size of the vocabulary",
    "max_length": "words of a caption",
    "seed": "of weights, dropout and order",
    "precision": "of the arithmetic; auto is bfloat16 where the processor or GPU has it",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `capstan train`."""
    parser.add_argument("--input", type=Path, required=True, help="consolidated shards")
    parser.add_argument("--output", type=Path, required=True, help="where the model goes")
    parser.add_argument(
        "--profile", choices=sorted(PROFILES), default="default", help="the network's layers"
    )
    for name, of in (("dropout", "features and words"), ("state-dropout", "the last states")):
        parser.add_argument(
            f"--{name}", type=float, metavar="X", help=f"share dropped of {of}; else the profile's"
        )
    parser.add_argument(
        "--embeddings",
        type=Path,
        metavar="PATH",
        help="word vectors to start from: GloVe's text, or .npz with words and weights",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that train together on this machine; each opens a port that other machines "
        "reach and anyone may use: have a firewall before it",
    )
    for field in fields(TrainSettings):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            choices=PRECISIONS if field.name == "precision" else None,
            metavar={int: "N", float: "X"}.get(type(field.default)),
            help=HELP[field.name],
        )


def run(arguments: argparse.Namespace) -> None:
    """Train, evaluate and save, unless that is done already."""
    end_with_supervisor()
    if arguments.workers < 1:
        raise SettingError(f"--workers {arguments.workers}: give at least 1")
    here = place()
    plan = _plan(arguments, input_directory(arguments.input), here)
    if here.size == 1 and arguments.workers > 1 and not _said_done(plan):
        supervise(
            _command(arguments), arguments.workers, lambda: checkpoints(plan.output / CHECKPOINTS)
        )
    elif here.size > 1 or not _said_done(plan):
        _train(arguments.input, plan, here)


def _train(source: Path, plan: TrainingPlan, here: Place) -> None:
    # What the chief checks the others of the same machine need not.
    corpus = load_corpus(source, check=here.rank == 0 or not is_supervised())
    if not len(corpus.select("train")):
        raise DataError(f"{source}: no example in the train split; lower the shares of the others")
    import_tensorflow()
    from capstan.train.distribution import join
    from capstan.train.run import train

    group = join()
    if group.size == 1 or group.text_from_chief("" if _is_done(plan) else "train"):
        train(corpus, plan, group)


def _command(arguments: argparse.Namespace) -> list[str]:
    """The command line of each worker."""
    flags = {name: value for name, value in vars(arguments).items() if name != "workers"}
    return [
        *(sys.executable, "-m", "capstan.cli", "train"),
        *(
            f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
            for name, value in flags.items()
            if value is not None and value is not False
        ),
    ]


def _plan(arguments: argparse.Namespace, source: Path, here: Place) -> TrainingPlan:
    settings = TrainSettings(
        **{field.name: getattr(arguments, field.name) for field in fields(TrainSettings)}
    )
    architecture = PROFILES[arguments.profile]
    given = {name: getattr(arguments, name) for name in ("dropout", "state_dropout")}
    architecture = replace(
        architecture, **{name: value for name, value in given.items() if value is not None}
    )
    identity: list[Any] = [fingerprint(source), asdict(architecture), asdict(settings)]
    if arguments.embeddings is not None:
        identity.append(sha256_file(existing(arguments.embeddings)))
    return TrainingPlan(
        output_directory(arguments.output) if here.rank == 0 else arguments.output,
        arguments.profile,
        architecture,
        settings,
        sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
        arguments.embeddings,
    )


def _said_done(plan: TrainingPlan) -> bool:
    done = _is_done(plan)
    if done:
        logger.info("%s: trained on the same data and settings; nothing to do", plan.output)
    return done


def _is_done(plan: TrainingPlan) -> bool:
    if not all((plan.saved / name).is_file() for name in (NETWORK, VOCABULARY, DESCRIPTION)):
        return False
    try:
        description = json.loads((plan.saved / DESCRIPTION).read_bytes())
    except ValueError:
        return False
    return isinstance(description, dict) and description.get("fingerprint") == plan.fingerprint
