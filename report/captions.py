"""What the model says of held-out pictures: some by lot, and the best, middle and worst."""

import difflib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from capstan.errors import DataError
from capstan.report.run import Run, read_lines

SAMPLE = 24  # held-out pictures drawn by lot
WRONG = 8  # at least this many wrong ones are shown, if there are
RANKED = 8  # of the best, as many of the middle and of the worst
ALIKE = 0.3  # captions less alike than this are not compared word by word


@dataclass(frozen=True)
class Word:
    """A word of a caption, and whether it is where two captions part."""

    text: str
    differs: bool


@dataclass(frozen=True)
class JudgedCaption:
    """A caption beside the true one nearest to it."""

    right: bool | None  # None when nobody knows the truth
    said: Sequence[Word]
    true: Sequence[Word]
    others: Sequence[str]  # further true captions


@dataclass(frozen=True)
class HeldOut:
    """What the model says of a picture it never saw in training."""

    key: str
    caption: str
    references: Sequence[str]
    right: bool
    cider_d: float | None  # None in files of older versions

    @cached_property
    def verdict(self) -> JudgedCaption:
        """The comparison with what people said; slow, so only of what is shown."""
        return judge(self.caption, self.references)


@dataclass(frozen=True)
class Sample:
    """Held-out pictures to show: some by lot, and more that went wrong."""

    total: int
    right: int
    drawn: Sequence[HeldOut]
    wrong: Sequence[HeldOut]  # beyond those drawn


@dataclass(frozen=True)
class Ranking:
    """Held-out pictures by CIDEr-D, from both ends and around the middle; no picture twice."""

    total: int
    best: Sequence[HeldOut]
    middle: Sequence[HeldOut]
    worst: Sequence[HeldOut]


def read_held_out(run: Run) -> list[HeldOut]:
    """Read `predictions.jsonl`, each picture once; empty when there is none yet."""
    path = run.repo("model") / "predictions.jsonl"
    pictures: dict[str, HeldOut] = {}
    for line in read_lines(path):
        try:
            caption, references = line["caption"], line["references"]
            right = caption.split() in [reference.split() for reference in references]
            cider_d = None if line.get("cider_d") is None else float(line["cider_d"])
            held_out = HeldOut(line["key"], caption, references, right, cider_d)
            pictures.setdefault(line["sha256"], held_out)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: damaged ({error!r}); train again") from error
    return list(pictures.values())


def draw(pictures: Iterable[HeldOut]) -> Sample | None:
    """Choose pictures to show by lot: the order is that of their keys' SHA-256."""
    order = sorted(pictures, key=lambda held_out: lot(held_out.key))
    if not order:
        return None
    drawn, rest = order[:SAMPLE], order[SAMPLE:]
    missing = max(0, WRONG - sum(not held_out.right for held_out in drawn))
    wrong = [held_out for held_out in rest if not held_out.right][:missing]
    return Sample(len(order), sum(held_out.right for held_out in order), drawn, wrong)


def rank(pictures: Iterable[HeldOut]) -> Ranking | None:
    """The best, middle and worst captions by CIDEr-D; None when they were not scored one by one."""
    scored = [(held_out.cider_d, held_out) for held_out in pictures]
    order = sorted(
        ((-score, lot(held_out.key), held_out) for score, held_out in scored if score is not None),
        key=lambda entry: entry[:2],
    )
    ranked = [held_out for _, _, held_out in order]
    if not ranked:
        return None
    each = min(RANKED, max(1, len(ranked) // 3))
    between = ranked[each : max(each, len(ranked) - each)]
    start = (len(between) - each) // 2 if len(between) > each else 0
    return Ranking(
        len(ranked),
        ranked[:each],
        between[start : start + each],
        ranked[max(each, len(ranked) - each) :],
    )


def lot(name: str) -> str:
    """A draw that nobody can tilt and that falls the same way each time."""
    return hashlib.sha256(name.encode(errors="replace")).hexdigest()


def judge(caption: str, references: Sequence[str]) -> JudgedCaption:
    """Compare a caption word by word with the reference nearest to it."""
    said = caption.split()
    matchers = [
        difflib.SequenceMatcher(None, said, reference.split(), autojunk=False)
        for reference in references
    ]
    likeness = [matcher.ratio() for matcher in matchers]
    if not matchers:
        return JudgedCaption(None, [Word(word, False) for word in said], [], [])
    nearest = likeness.index(max(likeness))
    alike = likeness[nearest] >= ALIKE
    blocks = matchers[nearest].get_matching_blocks()
    same_said = {block.a + step for block in blocks for step in range(block.size)}
    same_true = {block.b + step for block in blocks for step in range(block.size)}
    true = references[nearest].split()
    return JudgedCaption(
        said == true,
        [Word(word, alike and index not in same_said) for index, word in enumerate(said)],
        [Word(word, alike and index not in same_true) for index, word in enumerate(true)],
        [reference for index, reference in enumerate(references) if index != nearest],
    )
