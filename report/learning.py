"""How the model learned: losses per epoch, and the settings it was made with."""

import json
import math
from dataclasses import dataclass
from typing import Any

from capstan.errors import DataError
from capstan.report.charts import Chart, line_chart
from capstan.report.run import Run, read_lines


@dataclass(frozen=True)
class Curves:
    """`curves.jsonl`, drawn."""

    chart: Chart
    epochs: int
    best_epoch: int
    best_loss: float
    seconds: float
    captions_per_second: float | None


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
