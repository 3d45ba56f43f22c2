"""The page: everything read from a run, put into the template and written in one piece."""

import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.errors import SettingError
from pipeline.files import atomic_write, data_files, output_directory
from pipeline.progress import duration
from pipeline.shards import STATS_SUFFIX, read_image_stats
from report.captions import draw, rank, read_held_out
from report.learning import flatten, read_curves, read_settings
from report.pictures import read_new_pictures, stored_pictures
from report.rows import (
    Examples,
    Featurized,
    by_host,
    by_reason,
    funnel,
    read_examples,
    read_featurized,
    read_rows,
)
from report.run import Run, read_object
from report.scores import read_scores
from report.timeline import read_timeline

LIBRARIES = ("capstan", "numpy", "pyarrow", "pillow", "aiohttp", "tensorflow", "keras")
LONGEST_LINK = 2000  # characters; browsers and servers agree on little more
LONGEST_TEXT = 300
SHARD_FACTS = {"format", "version", "chunk", "rows", "images", "failures", "files"}


def write_report(run: Run, output: Path) -> None:
    """Draw a run into the HTML file `output`.

    SettingError when `output` cannot be written, DataError when something in the run is damaged.
    """
    if output.is_dir():
        raise SettingError(f"{output}: is a folder; give a file name with --output")
    output_directory(output.parent, "--output")
    html = _environment().get_template("template.html").render(gather(run))
    with atomic_write(output) as file:
        file.write(html.encode(errors="replace"))  # hostile captions may hold half characters


def gather(run: Run) -> dict[str, Any]:
    """All that the template shows; None for what was not run."""
    held_out = read_held_out(run)
    sample, ranking = draw(held_out), rank(held_out)
    shown = [*sample.drawn, *sample.wrong] if sample else []
    shown += [*ranking.best, *ranking.middle, *ranking.worst] if ranking else []
    rows, tars = read_rows(run, {picture.key for picture in shown})
    featurized, examples = read_featurized(run), read_examples(run)
    scores, curves = read_scores(run), read_curves(run)
    trained = scores is not None or curves is not None
    return {
        "run": run,
        "cores": os.cpu_count(),
        "rows": rows,
        "steps": funnel(rows, featurized, examples, trained),
        "reasons": by_reason(rows, featurized) if rows else [],
        "hosts": by_host(rows) if rows else [],
        "examples": examples,
        "sample": sample,
        "ranking": ranking,
        "pictures": stored_pictures(tars),
        "new": read_new_pictures(run),
        "timeline": None if run.alone else read_timeline(run),
        "curves": curves,
        "scores": scores,
        "settings": _settings(run, featurized, examples),
        "card_text": _model_card(run),
        "versions": _versions(),
    }


@dataclass(frozen=True)
class Settings:
    """A named table of settings."""

    name: str
    command: str
    values: Mapping[str, str]


def _settings(
    run: Run, featurized: Featurized | None, examples: Examples | None
) -> Sequence[Settings]:
    """Command and settings of each stage that ran, from what it wrote down."""
    values = {
        "images": _shard_settings(run),
        "features": flatten(dict(featurized.extractor)) if featurized else {},
        "consolidate": {"cleaning": examples.cleaning} if examples else {},
        "model": read_settings(run),
    }
    names = dict.fromkeys([*(pipeline.name for pipeline in run.pipelines), *values])
    tables = [Settings(name, _command(run, name), values.get(name, {})) for name in names]
    return [table for table in tables if table.command or table.values]


def _shard_settings(run: Run) -> dict[str, str]:
    for path in data_files(run.repo("images"), STATS_SUFFIX):
        stats = read_image_stats(path)
        return flatten({name: value for name, value in stats.items() if name not in SHARD_FACTS})
    return {}


def _command(run: Run, pipeline: str) -> str:
    for path in data_files(run.path / "lineage" / pipeline, ".json"):
        command = read_object(path).get("command", "")
        return command if isinstance(command, str) else shlex.join(map(str, command))
    return ""


def _model_card(run: Run) -> str:
    path = run.repo("model") / "model_card.md"
    return path.read_text(errors="replace") if path.is_file() else ""


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "system": platform.platform(terse=True)}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda value: f"{value:,.0f}",
        "rate": _rate,
        "percent": _percent,
        "duration": lambda seconds: duration(seconds) if seconds >= 1 else f"{seconds:.1f}s",
        "moment": _moment,
        "link": safe_link,
        "short": shorten,
        "size": _size,
    }
    return environment


def safe_link(url: str) -> str | None:
    """The address when it may be a link: http or https, and not too long; else None."""
    web = url.lower().startswith(("http://", "https://"))
    return url if web and len(url) <= LONGEST_LINK else None


def shorten(text: str, longest: int = LONGEST_TEXT) -> str:
    """Cut a text that would spoil the page."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _percent(part: float) -> str:
    """A part of one; never rounded up to all or down to nothing."""
    percent = 100 * part
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.0f} %" if percent in (0, 100) else f"{percent:.1f} %"


def _moment(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds).astimezone()
    return f"{moment.day} {moment:%B %Y, %H:%M %Z}"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
