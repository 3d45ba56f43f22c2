"""Train a captioner on consolidated shards.

Writes below --output: saved/ (saved_model.keras, vocabulary.json, model.json, which belong
together), curves.jsonl with a line per epoch, metrics.json and predictions.jsonl from the test
split (or the validation split where there is none), model_card.md and tensorboard/.

A run that was stopped goes on after its last whole epoch. A run whose data and settings are those
of the model already there does nothing.
"""

import argparse
import json
import logging
from dataclasses import asdict, fields, replace
from hashlib import sha256
from pathlib import Path

from pipeline.cli import import_tensorflow
from pipeline.errors import DataError
from pipeline.files import input_directory, output_directory
from train.dataset import fingerprint, load_corpus
from train.settings import (
    DESCRIPTION,
    NETWORK,
    PRECISIONS,
    PROFILES,
    VOCABULARY,
    Plan,
    Settings,
)

logger = logging.getLogger(__name__)

HELP = {
    "epochs": "passes over the training captions, at most",
    "epoch_captions": "captions between two validations and checkpoints; 0 for all",
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
    parser.add_argument(
        "--dropout", type=float, help="share dropped of features and states; else the profile's"
    )
    for field in fields(Settings):
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
    source = input_directory(arguments.input)
    plan = _plan(arguments, source)
    if _is_done(plan):
        logger.info("%s: trained on the same data and settings; nothing to do", plan.output)
        return
    corpus = load_corpus(source)
    if not len(corpus.select("train")):
        raise DataError(f"{source}: no example in the train split; lower the shares of the others")
    import_tensorflow()
    from train.run import train

    train(corpus, plan)


def _plan(arguments: argparse.Namespace, source: Path) -> Plan:
    settings = Settings(
        **{field.name: getattr(arguments, field.name) for field in fields(Settings)}
    )
    architecture = PROFILES[arguments.profile]
    if arguments.dropout is not None:
        architecture = replace(architecture, dropout=arguments.dropout)
    identity = [fingerprint(source), asdict(architecture), asdict(settings)]
    return Plan(
        output_directory(arguments.output),
        arguments.profile,
        architecture,
        settings,
        sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
    )


def _is_done(plan: Plan) -> bool:
    if not all((plan.saved / name).is_file() for name in (NETWORK, VOCABULARY, DESCRIPTION)):
        return False
    try:
        description = json.loads((plan.saved / DESCRIPTION).read_bytes())
    except ValueError:
        return False
    return isinstance(description, dict) and description.get("fingerprint") == plan.fingerprint
