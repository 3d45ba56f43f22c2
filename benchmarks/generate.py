"""Caption generation, captions/s: ours beside the tutorial's loop, on the same network.

    python -m benchmarks.generate [--model SAVED --input CONSOLIDATED] [--rounds N]

The tutorial's loop takes a picture at a time and calls `model.predict` for every word, with the
words so far padded to the longest caption, and says the most probable one. Ours are greedy and a
beam of 3, with 64 pictures at once and one at a time. They run in turn, and medians over the rounds
are compared, by the clock and by processor time (which other work on the machine disturbs less).

Without --model: the default network with random weights, 10,000 words, random features, and 10
words to every caption. With it: its own captions of the pictures in --input, each as long as it is.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.train import LONGEST, WORDS, Round, measure, print_medians
from capstan.cli import import_tensorflow
from capstan.records import Extractor
from capstan.train.dataset import load_corpus, pictures, read_features
from capstan.train.search import Search
from capstan.train.settings import PROFILES
from capstan.train.vocabulary import END, PAD, SPECIALS, START, Vocabulary

if TYPE_CHECKING:
    from capstan.train.captioner import Captioner

LENGTH = 10  # words of a made-up caption, as people's
BATCH, BATCHES = 64, 8  # pictures at once, and times a round
FEW, FEWEST = 32, 4  # pictures a round one at a time, and by the tutorial's loop
GREEDY, BEAM = Search(beam=1, no_repeat=0), Search(beam=3)


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="the folder `saved` of a model; else made up")
    parser.add_argument("--input", type=Path, help="consolidated shards with pictures for it")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if bool(arguments.model) != bool(arguments.input):
        parser.error("--model and --input go together")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import_tensorflow()
    if arguments.model:
        captioner, features = real(arguments.model, arguments.input)
        longest = captioner.max_length
    else:
        captioner, features = random_captioner()
        longest = LONGEST
    loop = tutorial_loop(captioner, longest)
    same = sum(loop(one) == say(captioner, GREEDY, one[None])[0] for one in features[:FEWEST])
    print(
        f"{captioner.network.count_params() / 1e6:.1f} M weights, {len(captioner.vocabulary):,} "
        f"words, {os.cpu_count()} cores; the tutorial's loop and greedy search say the same of "
        f"{same} of {FEWEST} pictures"
    )

    def ours(search: Search, size: int, times: int) -> Round:
        batches = slices(features, size)
        return lambda: sum(len(say(captioner, search, b)) for b in islice(batches, times))

    ones = slices(features, 1)
    ways = {
        "the tutorial's loop": lambda: len([loop(one) for (one,) in islice(ones, FEWEST)]),
        "greedy, one picture at a time": ours(GREEDY, 1, FEW),
        f"greedy, {BATCH} pictures at once": ours(GREEDY, BATCH, BATCHES),
        "beam of 3, one picture at a time": ours(BEAM, 1, FEW),
        f"beam of 3, {BATCH} pictures at once": ours(BEAM, BATCH, BATCHES),
    }
    print_medians(measure(ways, arguments.rounds))


def slices(features: NDArray[Any], size: int) -> Iterator[NDArray[Any]]:
    """Pictures, so many at once, without end."""
    starts = range(0, len(features) - size + 1, size)
    return (features[start : start + size] for start in cycle(starts))


def say(captioner: "Captioner", search: Search, features: NDArray[Any]) -> list[str]:
    """The best captions."""
    return [best.text for best, *_ in captioner.captions(features, search)]


def real(model: Path, consolidated: Path) -> tuple["Captioner", NDArray[np.float32]]:
    """A trained captioner and the features of some pictures."""
    from capstan.train.captioner import load_captioner

    corpus = load_corpus(consolidated)
    return load_captioner(model), read_features(corpus, pictures(corpus)[-BATCH * BATCHES :])


def random_captioner() -> tuple["Captioner", NDArray[np.float32]]:
    """A captioner with random weights that never ends a caption before it must."""
    from capstan.train.captioner import Captioner
    from capstan.train.model import build_model

    extractor = Extractor("made-up", "random:0", "0" * 64, 224, "none")
    vocabulary = Vocabulary((*SPECIALS, *(f"w{word}" for word in range(len(SPECIALS), WORDS))))
    features = np.random.default_rng(0).gamma(0.5, 0.8, (BATCH * BATCHES, 2048)).astype(np.float32)
    network = build_model(PROFILES["default"], len(vocabulary), features[:BATCH])
    bias = np.zeros(len(vocabulary), np.float32)
    bias[: len(SPECIALS)] = -1e9
    network.get_layer("logits").bias.assign(bias)
    return Captioner(network, vocabulary, extractor, "standard", LENGTH), features


def tutorial_loop(captioner: "Captioner", longest: int) -> Callable[[NDArray[Any]], str]:
    """Captions one picture [D] as the tutorial does.

    Its model says one next word for a prefix; that is made here of the same layers. (It pads left
    and masks, here padding is right; both calculate all steps.)
    """
    import keras
    from keras import ops

    from capstan.train.model import decoder_states

    states = decoder_states(captioner.network)
    inputs = states.inputs
    last = ops.count_nonzero(inputs[1], axis=1) - 1
    state = ops.take_along_axis(states.output, last[:, None, None], axis=1)[:, 0]
    logits = captioner.network.get_layer("logits")(state)
    model = keras.Model(inputs, keras.layers.Softmax()(logits))

    def caption(feature: NDArray[Any]) -> str:
        said = [START]
        while len(said) <= captioner.max_length and said[-1] != END:
            words = np.full((1, longest + 1), PAD, np.int32)
            words[0, : len(said)] = said
            said.append(int(model.predict([feature[None], words], verbose=0)[0].argmax()))
        return captioner.vocabulary.decode(said)

    return caption


if __name__ == "__main__":
    main()
