"""Training speed, captions/s: ours beside the tutorial's formulation, on the same network and data.

    python -m benchmarks.train [--input CONSOLIDATED] [--rounds N]

The tutorial makes a sample of every prefix of every caption, padded to the longest caption, with a
one-hot target over the vocabulary, and calls Keras `fit`. Ours runs each caption once. Both take
the same captions at each step; they run in turn, and medians over the rounds are compared, by the
clock and by processor time (which other work on the machine disturbs less). Without --input,
captions are made up: lengths as people's, 10,000 words with Zipf frequencies.
"""

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from capstan.cli import import_tensorflow
from capstan.records import Extractor
from capstan.train.dataset import Corpus, Examples, epoch_order, find_places, load_corpus
from capstan.train.settings import PROFILES, TrainSettings
from capstan.train.vocabulary import SPECIALS, Vocabulary, build_vocabulary

WORDS = 10_000
CAPTIONS = 4_096  # made up
LONGEST = 34  # words, as in Flickr8k
BATCH = 128  # captions a step, for all
OUR_STEPS, TUTORIAL_STEPS = 32, 1  # a round: all made-up captions, so no size is new after one
Round = Callable[[], int]  # trains a little; returns how many captions


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, help="consolidated shards; else made up")
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import_tensorflow()
    corpus, vocabulary = made_up() if arguments.input is None else real(arguments.input)
    examples = Examples(corpus, vocabulary, LONGEST)
    words = len(vocabulary)
    formulations = {
        "the tutorial's: a sample per prefix, one-hot, fit": tutorial(examples, words),
        "ours, the tutorial's network, float32": ours(examples, words, "tutorial", "float32"),
        "ours, the tutorial's network": ours(examples, words, "tutorial", "auto"),
        "ours, the default network": ours(examples, words, "default", "auto"),
    }
    print(
        f"{len(examples):,} captions of {examples.lengths.mean():.1f} words (longest "
        f"{examples.lengths.max()}), {len(vocabulary):,} words, {BATCH} captions a step, "
        f"{os.cpu_count()} cores"
    )
    print_medians(measure(formulations, arguments.rounds))


def print_medians(rates: dict[str, list[tuple[float, float]]], of: str = "captions") -> None:
    """Print the medians of what `measure` found, with their ratios to those of the first."""
    width = max(map(len, rates)) + 2
    first = np.median(rates[next(iter(rates))], axis=0)
    print(f"{f'medians of {of} per':<{width}}{'second':>9}{'':>9}{'processor second':>18}")
    for name, values in rates.items():
        clock, processor = np.median(values, axis=0)
        ratios = np.median(values, axis=0) / first
        print(f"{name:<{width}}{clock:>9.2f}{ratios[0]:>8.1f}x{processor:>10.2f}{ratios[1]:>7.1f}x")


def measure(formulations: dict[str, Round], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Captions per second and per processor second of each formulation, run in turn.

    The first round warms up and does not count.
    """
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in formulations}
    for index in range(rounds + 1):
        for name, run in formulations.items():
            clock, processor = time.perf_counter(), time.process_time()
            captions = run()
            clock, processor = time.perf_counter() - clock, time.process_time() - processor
            if index:
                rates[name].append((captions / clock, captions / processor))
    return rates


def made_up() -> tuple[Corpus, Vocabulary]:
    """Captions of around 10 words over a Zipf vocabulary; random features."""
    random = np.random.default_rng(0)
    lengths = np.clip(np.rint(random.gamma(8, 1.3, CAPTIONS)), 4, LONGEST).astype(int)
    lengths[0] = LONGEST
    frequencies = 1 / np.arange(1, WORDS - len(SPECIALS) + 1)
    drawn = random.choice(len(frequencies), lengths.sum(), p=frequencies / frequencies.sum())
    pieces = np.split(drawn, np.cumsum(lengths)[:-1])
    table = pa.table(
        {
            "cleaned": [" ".join(f"w{word}" for word in piece) for piece in pieces],
            "row": np.arange(CAPTIONS, dtype=np.int32),
            "split": ["train"] * CAPTIONS,
        }
    )
    features = random.gamma(0.5, 0.8, (CAPTIONS, 2048)).astype(np.float16)
    extractor = Extractor("made-up", "random:0", "0" * 64, 224, "none")
    words = (*SPECIALS, *(f"w{word}" for word in range(len(frequencies))))
    corpus = Corpus(extractor, "standard", (features,), (table,), find_places([table]))
    return corpus, Vocabulary(words)


def real(directory: Path) -> tuple[Corpus, Vocabulary]:
    """The train split of consolidated shards, with all its words up to 10,000."""
    corpus = load_corpus(directory).select("train")
    return corpus, build_vocabulary(corpus.pieces("cleaned"), 1, WORDS)


def orders(examples: Examples) -> Iterator[NDArray[np.int64]]:
    """Batches of example indices without end."""
    for epoch in itertools.count():
        yield from epoch_order(examples.lengths, BATCH, 0, epoch)


def ours(examples: Examples, words: int, profile: str, precision: str) -> Round:
    """A round of `capstan train`'s own steps, batches made as it makes them."""
    from capstan.train.fit import run_batches
    from capstan.train.model import arithmetic, build_model
    from capstan.train.trainer import Trainer

    sample = np.random.default_rng(0).random((64, examples.feature_size), np.float32)
    with arithmetic(precision):
        model = build_model(PROFILES[profile], words, sample)
    settings = TrainSettings(batch_size=BATCH)
    if profile == "tutorial":  # which has neither
        settings = replace(settings, label_smoothing=0.0, average=0.0)
    trainer = Trainer(model, examples, settings)
    batches = orders(examples)

    def run() -> int:
        order = list(itertools.islice(batches, OUR_STEPS))
        run_batches(trainer.train_step, examples, order)
        return sum(map(len, order))

    return run


def tutorial(examples: Examples, words: int) -> Round:
    """A round of Keras `fit` over prefixes with one-hot targets."""
    longest = int(examples.lengths.max()) + 1
    model = tutorial_model(words, longest, examples.feature_size)
    batches = orders(examples)

    def samples(order: list[NDArray[np.int64]]) -> Iterator[Any]:
        for batch in examples.batches(order):
            yield prefixes(batch.features, batch.words, batch.targets, longest, words)

    def run() -> int:
        order = list(itertools.islice(batches, TUTORIAL_STEPS))
        model.fit(samples(order), steps_per_epoch=len(order), epochs=1, shuffle=False, verbose=0)
        return sum(map(len, order))

    return run


def prefixes(
    features: NDArray[np.float16],
    words: NDArray[np.int32],
    targets: NDArray[np.int32],
    longest: int,
    vocabulary: int,
) -> tuple[tuple[NDArray[Any], NDArray[Any]], NDArray[np.float32]]:
    """Every prefix of every caption (padded left), and its next word, one-hot."""
    rows, steps = np.nonzero(targets)
    inputs = np.zeros((len(rows), longest), np.int32)
    for sample, (row, step) in enumerate(zip(rows, steps, strict=True)):
        inputs[sample, longest - step - 1 :] = words[row, : step + 1]
    one_hot = np.zeros((len(rows), vocabulary), np.float32)
    one_hot[np.arange(len(rows)), targets[rows, steps]] = 1
    return (features[rows], inputs), one_hot


def tutorial_model(words: int, longest: int, feature_size: int) -> Any:
    """The tutorial's network as it is compiled there, for one next word per prefix."""
    import keras
    from keras import layers

    picture, prefix = keras.Input((feature_size,)), keras.Input((longest,))
    image = layers.RepeatVector(longest)(layers.Dense(128, "relu", name="image")(picture))
    text = layers.Embedding(words, 50, mask_zero=True, name="embedding")(prefix)
    text = layers.LSTM(256, return_sequences=True, name="language")(text)
    text = layers.TimeDistributed(layers.Dense(128, "relu"), name="text")(text)
    # Given by hand: Keras 3 joins the masks of concatenated inputs by `any`, where the Keras of the
    # tutorial took `all`, and so would run over the padding.
    merged = layers.concatenate([image, text])
    state = layers.LSTM(500, name="decoder")(merged, mask=keras.ops.not_equal(prefix, 0))
    state = layers.Dense(500, "relu", name="hidden")(state)
    model = keras.Model([picture, prefix], layers.Dense(words, "softmax", name="logits")(state))
    model.compile(loss="categorical_crossentropy", optimizer="adam")
    return model


if __name__ == "__main__":
    main()
