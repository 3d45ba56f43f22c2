"""Charts as plain numbers: paths for stretchable SVG, and ticks that the page writes as text.

The drawings stretch with the page and the words do not, so a phone can read them. A chart's box
is 1000 x 1000 units whatever its size on the page; the page draws lines that do not scale.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from capstan.progress import duration

BOX = 1000
BINS = 120  # of a time axis
Points = Sequence[tuple[float, float]]
TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True)
class Tick:
    """A label at a place along an axis, in percent from the left or from the top."""

    place: float
    label: str


@dataclass(frozen=True)
class Dot:
    """A marked point, in percent, with what it says when pointed at."""

    left: float
    top: float
    label: str


@dataclass(frozen=True)
class ChartLine:
    """One series."""

    name: str
    path: str  # SVG path data
    dots: Sequence[Dot]
    area: str = ""  # SVG path data of what is beneath, where that says something


@dataclass(frozen=True)
class Chart:
    """Series over shared axes."""

    lines: Sequence[ChartLine]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]


@dataclass(frozen=True)
class Scale:
    """A range of values along an axis."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Where a value lies, 0 at the low end to 1 at the high end."""
        return min(1.0, max(0.0, (value - self.low) / ((self.high - self.low) or 1.0)))


def line_chart(series: Mapping[str, Points], label: Callable[[str, float, float], str]) -> Chart:
    """Series of (whole number, value), e.g. losses per epoch; `label(name, x, y)` names a dot."""
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    x_scale = Scale(min(xs), max(xs))
    y_values = round_steps(min(ys), max(ys), 4)
    y_scale = Scale(min(y_values[0], *ys), max(y_values[-1], *ys))
    x_values = [
        x for x in round_steps(x_scale.low, x_scale.high, 8) if x.is_integer() and x >= x_scale.low
    ]
    return Chart(
        [_line(name, points, x_scale, y_scale, label) for name, points in series.items()],
        [
            Tick(_percent(x_scale.place(x)), f"{x:,.0f}")
            for x in dict.fromkeys([x_scale.low, *x_values, x_scale.high])
            if x in (x_scale.low, x_scale.high) or _apart(x, x_scale)
        ],
        [Tick(_percent(1 - y_scale.place(y)), f"{y:,g}") for y in y_values],
    )


def _line(
    name: str,
    points: Points,
    x_scale: Scale,
    y_scale: Scale,
    label: Callable[[str, float, float], str],
) -> ChartLine:
    places = [(x_scale.place(x), 1 - y_scale.place(y)) for x, y in points]
    dots = [
        Dot(_percent(left), _percent(top), label(name, *point))
        for (left, top), point in zip(places, points, strict=True)
    ]
    return ChartLine(name, path(places), dots)


def _apart(value: float, scale: Scale) -> bool:
    """Whether a tick keeps clear of the ends of its axis."""
    return 0.06 < scale.place(value) < 0.94


def rate_chart(name: str, amounts: Mapping[int, float], seconds: float) -> Chart:
    """What came per second, from amounts by whole second; means of at most `BINS` stretches."""
    width = math.ceil(max(1.0, seconds) / BINS)
    edges = [index * width for index in range(max(1, round(seconds / width)))]
    totals = [0.0] * len(edges)
    for second, amount in amounts.items():
        totals[min(len(edges) - 1, max(0, second) // width)] += amount
    end = max(seconds, 1e-3)
    spans = list(pairwise([*edges, end]))  # the last is half to one and a half as wide
    rates = [total / (after - before) for total, (before, after) in zip(totals, spans, strict=True)]
    steps = round_steps(0, max(rates), 4)
    places = [
        (edge / end, 1 - rate / steps[-1])
        for rate, span in zip(rates, spans, strict=True)
        for edge in span
    ]
    ticks = [Tick(_percent(1 - step / steps[-1]), f"{step:,g}") for step in steps]
    return Chart([ChartLine(name, path(places), [], area(places))], time_ticks(end), ticks)


def path(places: Iterable[tuple[float, float]]) -> str:
    """SVG path data through places given as parts of the box."""
    words = [f"{left * BOX:.0f} {top * BOX:.0f}" for left, top in places]
    return f"M{'L'.join(words)}" if words else ""


def area(places: Sequence[tuple[float, float]]) -> str:
    """The same, closed along the bottom of the box."""
    if not places:
        return ""
    return path([(places[0][0], 1.0), *places, (places[-1][0], 1.0)]) + "Z"


def round_steps(low: float, high: float, count: int) -> list[float]:
    """About `count` round values that cover a range."""
    rough = (high - low) / count
    if rough <= 1e-9 * max(1.0, abs(low), abs(high)):  # one value, to all intents
        rough = abs(high) if abs(high) > 1e-9 else 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, max(last, first + 1) + 1)]


def time_ticks(seconds: float, count: int = 6) -> list[Tick]:
    """Round times from 0 to `seconds`."""
    step = next((step for step in TIME_STEPS if seconds / step <= count), 86400 * count)
    last = int(seconds // step)
    return [
        Tick(_percent(index * step / seconds), _short_time(index * step))
        for index in range(last + 1)
    ]


def _short_time(seconds: float) -> str:
    return "0" if seconds == 0 else re.sub(r"(?<=\D)00[ms]$", "", duration(seconds))


def _percent(part: float) -> float:
    return round(100 * part, 2)
