"""The run over time: when each pipeline worked on its datums, and how fast.

Both come from what the children left: the lineage records say when a datum began and ended, the
progress lines of the logs how much was done when. Datums run side by side, so rates are summed.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capstan.files import data_files
from capstan.records import PipelineResult
from capstan.report.charts import BINS, Tick, area, path, time_ticks
from capstan.report.run import Run, read_object

PROGRESS_MARK = b'"progress"'
MANY_LANES = 16
STAGES = ("images", "features", "consolidate", "model", "predict")


@dataclass(frozen=True)
class WorkSpan:
    """Some work from one moment to another, unix seconds. `amount` is units, or 0 for a datum."""

    begin: float
    end: float
    amount: float = 0


@dataclass(frozen=True)
class Speed:
    """Rate over time of one unit (`rows`, `pictures`, `captions`)."""

    unit: str
    done: float
    mean: float  # per second in which anything was under way
    peak: float
    path: str
    area: str


@dataclass(frozen=True)
class PipelineTrack:
    """One pipeline; `pipeline` is None when it was not run."""

    name: str
    pipeline: PipelineResult | None
    lanes: int
    bars: str  # SVG path data
    speeds: Sequence[Speed]


@dataclass(frozen=True)
class Timeline:
    """All pipelines over one axis."""

    tracks: Sequence[PipelineTrack]
    ticks: Sequence[Tick]
    seconds: float
    earlier: bool  # nothing new was done: the drawing shows the earlier runs


def read_timeline(run: Run) -> Timeline:
    """Draw a run; when all was unchanged, the earlier work that it rests on."""
    pipelines = {pipeline.name: pipeline for pipeline in run.pipelines}
    names = list(dict.fromkeys([*STAGES, *pipelines]))
    datums = {name: list(_datums(run.path / "lineage" / name)) for name in names}
    progress = {name: _progress(run.path / "logs" / name) for name in names}
    everything = [span for spans in datums.values() for span in spans]
    everything += [
        span for units in progress.values() for spans in units.values() for span in spans
    ]
    begin, end, earlier = _window(run, everything)
    axis = WorkSpan(begin, end)
    tracks = [
        _track(name, pipelines.get(name), datums[name], progress[name], axis) for name in names
    ]
    return Timeline(tracks, time_ticks(end - begin), end - begin, earlier)


def _window(run: Run, spans: Sequence[WorkSpan]) -> tuple[float, float, bool]:
    """From when to when to draw, and whether that is before this run."""
    latest = max((span.end for span in spans), default=run.started)
    earlier = bool(spans) and latest < run.started
    begin = min(span.begin for span in spans) if earlier else run.started
    end = latest if earlier else max(run.finished or 0, latest)
    return begin, max(end, begin + 1), earlier


def _datums(directory: Path) -> Iterator[WorkSpan]:
    for file in data_files(directory, ".json"):
        record = read_object(file)
        if "started" in record and "seconds" in record:
            begin = float(record["started"])
            yield WorkSpan(begin, begin + float(record["seconds"]))


def _progress(directory: Path) -> dict[str, list[WorkSpan]]:
    """Work by unit, from the progress lines of all logs of a pipeline."""
    units: dict[str, list[WorkSpan]] = defaultdict(list)
    for file in data_files(directory, ".log"):
        last: dict[tuple[str, str], tuple[float, float]] = {}
        for moment, entry in _progress_lines(file):
            series = (str(entry.get("label")), str(entry.get("unit")))
            done, begin = float(entry["done"]), moment - float(entry["seconds"])
            before, before_done = last.get(series, (begin, 0.0))
            if done < before_done or begin > before:  # the same work began anew
                before, before_done = begin, 0.0
            if done > before_done:
                units[series[1]].append(WorkSpan(before, moment, done - before_done))
            last[series] = (moment, done)
    return units


def _progress_lines(file: Path) -> Iterator[tuple[float, dict[str, Any]]]:
    """Moment and numbers of each progress line; whatever else a child wrote is passed over."""
    with file.open("rb") as lines:
        for line in lines:
            if PROGRESS_MARK not in line:
                continue
            try:
                entry = json.loads(line)
                progress = entry["progress"]
                float(progress["done"]), float(progress["seconds"])
                yield float(entry["time"]), progress
            except (KeyError, TypeError, ValueError):
                continue


def _track(
    name: str,
    pipeline: PipelineResult | None,
    datums: Iterable[WorkSpan],
    progress: dict[str, list[WorkSpan]],
    axis: WorkSpan,
) -> PipelineTrack:
    drawn = [span for span in datums if span.end > axis.begin]
    lanes = _lanes(drawn)
    speeds = [
        speed
        for unit, spans in sorted(progress.items())
        if (speed := _speed(unit, spans, axis)) is not None
    ]
    return PipelineTrack(name, pipeline, len(lanes), _bars(lanes, axis), speeds)


def _lanes(spans: Iterable[WorkSpan]) -> list[list[WorkSpan]]:
    """Spread spans over as few lanes as keep them from covering each other."""
    lanes: list[list[WorkSpan]] = []
    for span in sorted(spans, key=lambda span: span.begin):
        free = (lane for lane in lanes if lane[-1].end <= span.begin + 0.01)
        lane = next(free, None)
        if lane is None and len(lanes) < MANY_LANES:
            lanes.append([span])
        else:
            (lane or lanes[-1]).append(span)
    return lanes


def _bars(lanes: Sequence[Sequence[WorkSpan]], axis: WorkSpan) -> str:
    """A rectangle per datum as path data; at most one per thousandth of the axis and lane."""
    height = 1000 / max(1, len(lanes))
    widths: dict[tuple[int, int], int] = {}
    for index, lane in enumerate(lanes):
        for span in lane:
            left, right = (round(1000 * _place(at, axis)) for at in (span.begin, span.end))
            gap = 1 if right - left > 1 else 0
            widths[index, left] = max(widths.get((index, left), 1), right - left - gap)
    return "".join(
        f"M{left} {index * height:.0f}h{width}v{height * 0.86:.0f}h-{width}z"
        for (index, left), width in widths.items()
    )


def _speed(unit: str, spans: Iterable[WorkSpan], axis: WorkSpan) -> Speed | None:
    spans = [span for span in spans if span.end > axis.begin]
    width = (axis.end - axis.begin) / BINS
    amounts = [0.0] * BINS
    for span in spans:
        _spread(span, axis, amounts)
    if not any(amounts):
        return None
    peak = max(amounts)
    used = [index for index, amount in enumerate(amounts) if amount]
    shown = range(max(0, used[0] - 1), min(BINS, used[-1] + 2))
    places = [((index + 0.5) / BINS, 1 - 0.96 * amounts[index] / peak) for index in shown]
    done = sum(span.amount for span in spans)
    busy = _busy(spans)
    return Speed(
        unit, done, done / busy, max(peak / width, done / busy), path(places), area(places)
    )


def _spread(span: WorkSpan, axis: WorkSpan, amounts: list[float]) -> None:
    """Add a span's amount to the bins it covers, in proportion."""
    left, right = (BINS * _place(moment, axis) for moment in (span.begin, span.end))
    if right - left < 1e-9:
        amounts[min(BINS - 1, int(left))] += span.amount
        return
    for index in range(int(left), min(BINS, int(right) + 1)):
        overlap = min(right, index + 1) - max(left, index)
        amounts[index] += max(0.0, overlap) / (right - left) * span.amount


def _busy(spans: Iterable[WorkSpan]) -> float:
    """Seconds in which at least one span was under way."""
    seconds, reached = 0.0, 0.0
    for span in sorted(spans, key=lambda span: span.begin):
        seconds += max(0.0, span.end - max(span.begin, reached))
        reached = max(reached, span.end)
    return max(seconds, 1e-3)


def _place(moment: float, axis: WorkSpan) -> float:
    return min(1.0, max(0.0, (moment - axis.begin) / (axis.end - axis.begin)))
