"""How well the model learned: losses per epoch, scores, and held-out captions to look at."""

import difflib
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import DataError
from pipeline.files import read_json
from pipeline.records import METRICS_FORMAT, METRICS_VERSION
from report.charts import Chart, line_chart
from report.run import Run, read_lines

SAMPLE = 24  # held-out pictures drawn by lot
WRONG = 8  # at least this many wrong ones are shown, if there are
ALIKE = 0.3  # captions less alike than this are not compared word by word


@dataclass(frozen=True)
class Word:
    """A word of a caption, and whether it is where two captions part."""

    text: str
    differs: bool


@dataclass(frozen=True)
class Verdict:
    """A caption beside the true one nearest to it."""

    right: bool | None  # None when nobody knows the truth
    said: Sequence[Word]
    true: Sequence[Word]
    others: Sequence[str]  # further true captions


@dataclass(frozen=True)
class HeldOut:
    """What the model says of a picture it never saw in training."""

    key: str
    verdict: Verdict


@dataclass(frozen=True)
class Sample:
    """Held-out pictures to show: some by lot, and more that went wrong."""

    total: int
    right: int
    drawn: Sequence[HeldOut]
    wrong: Sequence[HeldOut]  # beyond those drawn

    @property
    def keys(self) -> set[str]:
        """Keys of all pictures to show."""
        return {held_out.key for held_out in (*self.drawn, *self.wrong)}


@dataclass(frozen=True)
class Bar:
    """A score on a scale of 0 to 100; None when it was not taken."""

    who: str
    value: float | None


@dataclass(frozen=True)
class Score:
    """One measure, for the model and for those it must beat."""

    name: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Scores:
    """`metrics.json`, for people."""

    split: str
    pictures: int
    captions: int
    exact: float  # 0..1
    rows: Sequence[Score]


@dataclass(frozen=True)
class Curves:
    """`curves.jsonl`, drawn."""

    chart: Chart
    epochs: int
    best_epoch: int
    best_loss: float
    seconds: float
    captions_per_second: float | None


def read_scores(run: Run) -> Scores | None:
    """Read the model's scores, or None when it has none yet."""
    path = run.repo("model") / "metrics.json"
    if not path.is_file():
        return None
    metrics = read_json(path, METRICS_FORMAT, METRICS_VERSION)
    who = [name for name in ("model", "shuffled", "blind") if metrics.get(name)]
    try:
        rows = [
            Score(f"BLEU-{n + 1}", [Bar(name, 100 * metrics[name]["bleu"][n]) for name in who])
            for n in range(4)
        ]
        exact = [Bar(name, _percent(metrics[name].get("exact"))) for name in who]
        return Scores(
            str(metrics["split"]),
            int(metrics["pictures"]),
            int(metrics["captions"]),
            float(metrics["model"]["exact"]),
            [*rows, Score("word for word", exact)],
        )
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error!r}); run `capstan evaluate` again") from error


def _percent(part: float | None) -> float | None:
    return None if part is None else 100 * part


def read_curves(run: Run) -> Curves | None:
    """Read the losses per epoch, or None before the first."""
    path = run.repo("model") / "curves.jsonl"
    epochs = list(read_lines(path))
    try:
        losses = {
            name: [(float(e["epoch"]), float(e[column])) for e in epochs if _is_number(e[column])]
            for name, column in (("training", "train_loss"), ("validation", "validation_loss"))
        }
        seconds = sum(float(epoch["seconds"]) for epoch in epochs)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error!r}); train again") from error
    losses = {name: points for name, points in losses.items() if points}
    if not losses:
        return None
    judged = losses.get("validation") or losses["training"]
    best_epoch, best_loss = min(judged, key=lambda point: point[1])
    rates = [e["captions_per_second"] for e in epochs if e.get("captions_per_second")]
    chart = line_chart(losses, lambda name, x, y: f"epoch {x:,.0f}: {name} loss {y:.3f}")
    rate = sum(rates) / len(rates) if rates else None
    return Curves(chart, len(epochs), int(best_epoch), best_loss, seconds, rate)


def _is_number(loss: float | None) -> bool:
    """Whether there is a loss at all, and training has not gone astray."""
    return loss is not None and math.isfinite(loss)


def read_sample(run: Run) -> Sample | None:
    """Choose held-out pictures to show, by lot: the order is that of their keys' SHA-256."""
    path = run.repo("model") / "predictions.jsonl"
    pictures: dict[str, HeldOut] = {}
    for line in read_lines(path):
        try:
            shown = HeldOut(line["key"], judge(line["caption"], line["references"]))
            pictures.setdefault(line["sha256"], shown)
        except (AttributeError, KeyError, TypeError) as error:
            raise DataError(f"{path}: damaged ({error!r}); train again") from error
    if not pictures:
        return None
    order = sorted(pictures.values(), key=lambda held_out: lot(held_out.key))
    drawn, rest = order[:SAMPLE], order[SAMPLE:]
    missing = max(0, WRONG - sum(not held_out.verdict.right for held_out in drawn))
    wrong = [held_out for held_out in rest if not held_out.verdict.right][:missing]
    return Sample(
        len(order), sum(held_out.verdict.right is True for held_out in order), drawn, wrong
    )


def lot(name: str) -> str:
    """A draw that nobody can tilt and that falls the same way each time."""
    return hashlib.sha256(name.encode(errors="replace")).hexdigest()


def judge(caption: str, references: Sequence[str]) -> Verdict:
    """Compare a caption word by word with the reference nearest to it."""
    said = caption.split()
    matchers = [
        difflib.SequenceMatcher(None, said, reference.split(), autojunk=False)
        for reference in references
    ]
    likeness = [matcher.ratio() for matcher in matchers]
    if not matchers:
        return Verdict(None, [Word(word, False) for word in said], [], [])
    nearest = likeness.index(max(likeness))
    alike = likeness[nearest] >= ALIKE
    blocks = matchers[nearest].get_matching_blocks()
    same_said = {block.a + step for block in blocks for step in range(block.size)}
    same_true = {block.b + step for block in blocks for step in range(block.size)}
    true = references[nearest].split()
    return Verdict(
        said == true,
        [Word(word, alike and index not in same_said) for index, word in enumerate(said)],
        [Word(word, alike and index not in same_true) for index, word in enumerate(true)],
        [reference for index, reference in enumerate(references) if index != nearest],
    )


def read_settings(run: Run) -> dict[str, str]:
    """What the saved model says of itself, for a table."""
    path = run.repo("model") / "saved" / "model.json"
    if not path.is_file():
        return {}
    try:
        return flatten(json.loads(path.read_bytes()))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); train again") from error


def flatten(value: Any, name: str = "") -> dict[str, str]:
    """Nested JSON as `outer inner: text`, long lists by their length alone."""
    if isinstance(value, dict):
        flat: dict[str, str] = {}
        for key, inner in value.items():
            flat |= flatten(inner, f"{name} {key}".strip().replace("_", " "))
        return flat
    if isinstance(value, list) and len(value) > 6:
        return {name: f"{len(value):,} entries"}
    return {name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}
