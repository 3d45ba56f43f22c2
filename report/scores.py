"""The figures of `metrics.json`, for people: bars, and a table that says what each one means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from capstan.errors import DataError
from capstan.files import read_json
from capstan.records import METRICS_FORMAT, METRICS_VERSION
from capstan.report.run import Run

WHO = ("model", "shuffled", "blind")


@dataclass(frozen=True)
class Measure:
    """A figure of `metrics.json`."""

    key: str
    name: str
    words: str
    unit: str = ""
    factor: float = 100


MEASURES = (
    Measure(
        "cider_d",
        "CIDEr-D",
        "how much of what people agree on is said, telling words weighing most; 0 to 10, and only "
        "comparable over the same pictures",
        factor=1,
    ),
    Measure(
        "rouge_l",
        "ROUGE-L",
        "words that stand in the same order as in a true caption, with others in between",
    ),
    Measure(
        "bleu",
        "BLEU-1 to 4 (tutorial)",
        "words, pairs, triples and quadruples of words that a true caption has too; counted as "
        "NLTK does, smoothing method 3",
    ),
    Measure(
        "bleu_marked",
        "BLEU-1 to 4 (tutorial, startseq and endseq counted)",
        "the same, with the marks around each caption as words that always agree; only for "
        "comparing with figures counted so",
    ),
    Measure(
        "bleu_coco",
        "BLEU-1 to 4 (COCO)",
        "the same as COCO's evaluation and sacrebleu count: without smoothing and marks",
    ),
    Measure("exact", "word for word", "captions that equal a true one", " %"),
)


@dataclass(frozen=True)
class Bar:
    """A score on a scale of 0 to 100; None when it was not taken."""

    who: str
    value: float | None


@dataclass(frozen=True)
class Score:
    """One measure as bars, for the model and for those it must beat."""

    name: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Figure:
    """One measure as text; `values` are (who, figures)."""

    name: str
    words: str
    values: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class ScoresSection:
    """`metrics.json`, for people."""

    split: str
    pictures: int
    captions: int
    exact: float  # 0..1
    rows: Sequence[Score]
    table: Sequence[Figure]
    wording: Mapping[str, str]  # of the captions as such; empty in files of older versions
    blind_caption: str


def read_scores(run: Run) -> ScoresSection | None:
    """Read the model's scores, or None when it has none yet."""
    path = run.repo("model") / "metrics.json"
    if not path.is_file():
        return None
    metrics = read_json(path, METRICS_FORMAT, METRICS_VERSION)
    try:
        return ScoresSection(
            str(metrics["split"]),
            int(metrics["pictures"]),
            int(metrics["captions"]),
            float(metrics["model"]["exact"]),
            _bars(metrics),
            [figure for measure in MEASURES if (figure := _figure(measure, metrics)).values],
            _wording(metrics.get("wording")) | _search(metrics.get("search")),
            str(metrics.get("blind", {}).get("caption") or ""),
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error!r}); run `capstan evaluate` again") from error


def _bars(metrics: Mapping[str, Any]) -> list[Score]:
    who = [name for name in WHO if metrics.get(name)]
    bleu = [
        Score(f"BLEU-{n + 1}", [Bar(name, 100 * metrics[name]["bleu"][n]) for name in who])
        for n in range(4)
    ]
    others = {"rouge_l": "ROUGE-L", "exact": "word for word"}
    more = [
        Score(title, [Bar(name, _percent(metrics[name].get(key))) for name in who])
        for key, title in others.items()
        if key in metrics["model"]
    ]
    return [*bleu, *more]


def _percent(part: float | None) -> float | None:
    return None if part is None else 100 * part


def _figure(measure: Measure, metrics: Mapping[str, Any]) -> Figure:
    values = [
        (who, [f"{measure.factor * number:{_form(measure)}}{measure.unit}" for number in numbers])
        for who in WHO
        if (numbers := _numbers(metrics.get(who), measure.key))
    ]
    return Figure(measure.name, measure.words, values)


def _form(measure: Measure) -> str:
    return ".1f" if measure.factor == 100 else ".3f"


def _numbers(scores: Mapping[str, Any] | None, key: str) -> list[float]:
    value = (scores or {}).get(key)
    if value is None:
        return []
    return [float(number) for number in (value if isinstance(value, list) else [value])]


def _wording(wording: Mapping[str, Any] | None) -> dict[str, str]:
    if wording is None:
        return {}
    return {
        "words of a caption": _lengths(wording["words"]),
        "words of a true caption": _lengths(wording["reference_words"]),
        f"cut off at {wording['limit']} words": f"{100 * wording['cut']:.1f} %",
        "different captions": f"{wording['distinct']:,}",
        "said word for word in training": f"{100 * wording['in_training']:.1f} %",
    }


def _search(search: Mapping[str, Any] | None) -> dict[str, str]:
    if not search:
        return {}
    return {"found with": ", ".join(f"{key.replace('_', ' ')} {search[key]}" for key in search)}


def _lengths(lengths: Mapping[str, float]) -> str:
    return (
        f"{lengths['mean']:.1f} on average, median {lengths['median']:g}, "
        f"longest {lengths['longest']}"
    )
