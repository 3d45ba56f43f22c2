"""Which part of a picture each word of its caption leaned on, found by covering parts of it.

Occlusion sensitivity (Zeiler & Fergus 2014, Visualizing and Understanding Convolutional Networks,
arXiv:1311.2901, section 4.2): each cell of a grid is covered in turn by the picture's mean colour,
and the same caption is judged again, word by word. How far a word leaned on a cell is

    log p(word | picture, words before) - log p(word | picture with that cell covered, words before)

in nats: above 0 where the word needed what is there, below 0 where that spoke against it.

Cost: as many pictures through the network as the grid has cells, and one; 50 times a caption's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from capstan.predict.captions import Pixels, View

if TYPE_CHECKING:
    from capstan.train.captioner import Caption

GRID = 7  # cells a side: as many as the network's last maps have at its usual 224 pixels


@dataclass(frozen=True)
class Explanation:
    """A caption, and what each of its words leaned on."""

    caption: "Caption"
    leaning: NDArray[np.float32]  # (words, GRID, GRID), rows from the top, in nats
    share: tuple[float, float]  # of the picture's width and height that the grid covers, centred


def views(pixels: Pixels) -> Iterator[Pixels]:
    """The picture, then with each cell covered, row by row: GRID * GRID + 1 pictures."""
    yield pixels
    colour = pixels.mean(axis=(0, 1)).round().astype(np.uint8)
    edges = np.linspace(0, len(pixels), GRID + 1).round().astype(int)
    cells = [slice(*edge) for edge in pairwise(edges)]
    for row in cells:
        for column in cells:
            covered = pixels.copy()
            covered[row, column] = colour
            yield covered


def explanation(caption: "Caption", view: View, log_probabilities: NDArray[Any]) -> Explanation:
    """From what the words' log-probabilities are in each of `views`: (views, words + 1)."""
    whole, covered = log_probabilities[0], log_probabilities[1:]
    leaning = (whole - covered)[:, :-1].T.reshape(-1, GRID, GRID)
    return Explanation(caption, leaning, view.share)


def said(found: Explanation) -> dict[str, Any]:
    """An explanation as JSON."""
    words = words_said(found.caption)
    for word, leaning in zip(words["words"], found.leaning, strict=True):
        word["leaning"] = leaning.astype(float).round(4).tolist()
    width, height = found.share
    return {
        "caption": found.caption.text,
        "log_probability": found.caption.log_probability,
        **words,
        "window": {
            "left": (1 - width) / 2,
            "top": (1 - height) / 2,
            "width": width,
            "height": height,
        },
    }


def words_said(caption: "Caption") -> dict[str, Any]:
    """A caption's words as JSON, and how sure the model was of each and of ending there."""
    *each, end = caption.word_log_probabilities
    words = caption.text.split(" ") if each else []
    return {
        "words": [
            {"word": word, "log_probability": log_probability}
            for word, log_probability in zip(words, each, strict=True)
        ],
        "end_log_probability": end,
    }
