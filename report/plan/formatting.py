"""Amounts for people, and a plan as plain text."""

from collections.abc import Iterator, Sequence

from capstan.progress import duration
from capstan.report.plan.forecast import WHOLE, Forecast, Span, percent
from capstan.report.plan.rates import RateSource
from capstan.report.plan.requirements import Need
from capstan.report.plan.what_if import Change

DAY = 86_400.0
SIZES = ("bytes", "kB", "MB", "GB", "TB", "PB")
WORTH = 0.01  # share of the time below which a change saves nothing to speak of


def text(plan: Forecast, changes: Sequence[Change]) -> str:
    """The whole plan, a part after another."""
    parts = (
        [title(plan)],
        _stages(plan),
        [f"longest: {plan.bottleneck.stage.name}: {plan.why(plan.bottleneck)}"],
        _changes(changes),
        _ends(plan),
        _needs(plan.needs),
        _guesses(plan),
    )
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def title(plan: Forecast) -> str:
    """What is done, by what, in which time."""
    job, cluster = plan.scenario.job, plan.scenario.cluster
    gpus = f", {cluster.gpus:,} GPUs" if cluster.gpus else ", no GPU"
    who = (
        f"one machine of {cluster.cores:,} cores"
        if cluster.machine
        else f"{cluster.workers:,} workers of {cluster.cores:,} cores"
    )
    return f"{job.rows:,} rows, {who}{gpus}: {time(plan.seconds)}{_between(plan.spans[WHOLE])}"


def time(seconds: float) -> str:
    """Seconds, minutes, hours or days."""
    return f"{seconds / DAY:,.1f} days" if seconds >= 2 * DAY else duration(seconds)


def between(span: Span) -> str:
    """The times of a span; nothing where they are one."""
    low, high = time(span.low), time(span.high)
    return "" if low == high else f"{low} to {high}"


def _between(span: Span) -> str:
    times = between(span)
    return f" ({times} by the lot of rows and hosts)" if times else ""


def amount(need: Need) -> str:
    """With its unit."""
    if not need.unit.startswith("bytes"):
        return f"{need.amount:,.0f}{need.unit}"
    return size(need.amount) + need.unit.removeprefix("bytes")


def size(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in SIZES:
        if count < 1000 or unit == SIZES[-1]:
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if count >= 100 or unit == "bytes" else f"{count:.1f} {unit}"


def saving(change: Change) -> str:
    """What a change saves, or costs."""
    if abs(change.saved) < WORTH:
        return "no difference"
    words = "less" if change.saved > 0 else "more"
    return f"{percent(abs(change.saved))} {words}"


def _stages(plan: Forecast) -> list[str]:
    lines = [("stage", "time", "by the lot", "datums", "workers", "at work", "rate")]
    for ran in plan.course:
        stage = ran.stage
        rate = f"{ran.rows / max(ran.seconds, 1e-9):,.0f} {stage.unit}/s"
        busy = percent(ran.shares["work"])
        span = between(plan.spans[stage.name]) or "the same"
        figures = (f"{stage.datums:,}", f"{stage.workers:,}", busy, rate)
        lines.append((stage.name, time(ran.seconds), span, *figures))
    return _table(lines)


def _changes(changes: Sequence[Change]) -> list[str]:
    lines = [
        (change.what, saving(change), f"then longest: {change.bottleneck}") for change in changes
    ]
    return ["the whole time, if changed alone:", *_indented(lines)] if lines else []


def _ends(plan: Forecast) -> list[str]:
    rows = plan.scenario.job.rows
    lines = [
        (end.replace("_", " "), f"{count:,}", f"{100 * count / rows:.2f} %")
        for end, count in plan.ingested.ends().items()
    ]
    return ["how rows end:", *_indented(lines)]


def _needs(needs: Sequence[Need]) -> list[str]:
    lines = []
    for group in dict.fromkeys(need.group for need in needs):
        lines.append(f"{group}:")
        lines += _indented(
            [(need.name, amount(need), need.how) for need in needs if need.group == group]
        )
    return lines


def _guesses(plan: Forecast) -> list[str]:
    assumed = [name for name, rate in plan.rates.known.items() if rate.origin is RateSource.ASSUMED]
    lines = [f"web: {plan.web.source}"]
    if plan.web.guess:
        lines.append(f"guessed of it: {plan.web.guess}")
    return [*lines, f"assumed, not measured: {', '.join(assumed)}; give yours with --rates"]


def _indented(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    return (f"  {line}" for line in _table(lines))


def _table(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
