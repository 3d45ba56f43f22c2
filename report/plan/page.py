"""A plan as one HTML page: stages over time with rates and workers, storage, needs, changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capstan.report.charts import Chart, ChartLine, Tick, area, path, round_steps, time_ticks
from capstan.report.html import write_page
from capstan.report.plan import formatting
from capstan.report.plan.cluster import StageRun
from capstan.report.plan.forecast import WHOLE, Forecast
from capstan.report.plan.requirements import Need
from capstan.report.plan.what_if import Change

Floats = NDArray[np.float64]
HERE = Path(__file__).parent
KEPT = {"images": "image shards", "features": "feature shards", "consolidate": "training shards"}
POINTS = 120  # of a curve


@dataclass(frozen=True)
class Track:
    """A stage over the time of all."""

    ran: StageRun
    time: str
    span: str
    why: str
    bar: Sequence[float]  # percent from the left, and wide
    rate: ChartLine  # what was done a second, the tallest as high as the box
    active: ChartLine  # share of its workers that have a datum
    peak: float


def write_plan(plan: Forecast, changes: Sequence[Change], output: Path) -> None:
    """Draw a plan; SettingError when the file cannot be written."""
    values = {
        "title": formatting.title(plan),
        "plan": plan,
        "time": formatting.time(plan.seconds),
        "span": formatting.between(plan.spans[WHOLE]),
        "tracks": [_track(plan, ran) for ran in plan.course],
        "ticks": time_ticks(plan.seconds),
        "storage": _storage(plan),
        "busy": plan.busy,
        "changes": [(change, formatting.saving(change)) for change in changes],
        "longest": max((abs(change.saved) for change in changes), default=1.0) or 1.0,
        "needs": _grouped(plan.needs),
        "ends": plan.ingested.ends(),
    }
    write_page("plan.html", values, output, HERE)


def _track(plan: Forecast, ran: StageRun) -> Track:
    begin, end = ran.begin / plan.seconds, ran.end / plan.seconds
    curve = _means(ran.curve) / max(ran.seconds / len(ran.curve), 1e-9)
    peak = max(float(curve.max()), 1e-9)
    active = _means(ran.active) / ran.stage.workers
    span = formatting.between(plan.spans[ran.stage.name])
    bar = (100 * begin, max(0.2, 100 * (end - begin)))
    lines = (_line("rate", curve / peak, begin, end), _line("active", active, begin, end))
    return Track(ran, formatting.time(ran.seconds), span, plan.why(ran), bar, *lines, peak)


def _means(curve: Floats) -> Floats:
    """Fewer points of the same curve."""
    return np.asarray(curve.reshape(POINTS, -1).mean(axis=1), np.float64)


def _line(name: str, heights: Floats, begin: float, end: float) -> ChartLine:
    """A curve of heights from 0 to 1 between two places of the box, as steps."""
    edges = np.linspace(begin, end, len(heights) + 1)
    tops = 1 - np.clip(heights, 0.0, 1.0)
    steps = np.column_stack([edges[:-1], tops, edges[1:], tops]).reshape(-1, 2).tolist()
    places = [(left, top) for left, top in steps]
    return ChartLine(name, path(places), [], area(places))


def _storage(plan: Forecast) -> Chart:
    """Bytes in the repos over time: each stage's shards as they come."""
    sizes = {need.name: need.amount for need in plan.needs if need.group == "storage"}
    times, grown = [0.0], [sizes["TSV"]]
    for ran in plan.course:
        size = sizes.get(KEPT.get(ran.stage.name, ran.stage.name), 0.0)
        done = np.cumsum(_means(ran.curve))
        times += np.linspace(ran.begin, ran.end, len(done) + 1)[1:].tolist()
        grown += (grown[-1] + size * done / max(done[-1], 1e-9)).tolist()
    steps = round_steps(0, max(grown), 4)
    places = [
        (when / plan.seconds, 1 - size / steps[-1]) for when, size in zip(times, grown, strict=True)
    ]
    ticks = [Tick(round(100 * (1 - step / steps[-1]), 2), formatting.size(step)) for step in steps]
    line = ChartLine("storage", path(places), [], area(places))
    return Chart([line], time_ticks(plan.seconds), ticks)


def _grouped(needs: Sequence[Need]) -> dict[str, list[tuple[Need, str]]]:
    groups: dict[str, list[tuple[Need, str]]] = {}
    for need in needs:
        groups.setdefault(need.group, []).append((need, formatting.amount(need)))
    return groups
