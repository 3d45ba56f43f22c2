"""A run's page: everything that its template shows."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capstan.files import data_files
from capstan.report.captions import draw, rank, read_held_out
from capstan.report.html import check_output, write_page
from capstan.report.learning import flatten, read_curves, read_settings
from capstan.report.pictures import read_new_pictures, stored_pictures
from capstan.report.rows import (
    ExampleCounts,
    Featurized,
    by_host,
    by_reason,
    funnel,
    read_examples,
    read_featurized,
    read_rows,
)
from capstan.report.run import Run, read_object
from capstan.report.scores import read_scores
from capstan.report.timeline import read_timeline
from capstan.shards import STATS_SUFFIX, read_image_stats

SHARD_FACTS = {"format", "version", "chunk", "rows", "images", "failures", "files"}


def write_report(run: Run, output: Path) -> None:
    """Draw a run into the HTML file `output`.

    SettingError when `output` cannot be written, DataError when something in the run is damaged.
    """
    check_output(output)
    write_page("template.html", gather(run), output)


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
    }


@dataclass(frozen=True)
class SettingsTable:
    """A named table of settings."""

    name: str
    command: str
    values: Mapping[str, str]


def _settings(
    run: Run, featurized: Featurized | None, examples: ExampleCounts | None
) -> Sequence[SettingsTable]:
    """Command and settings of each stage that ran, from what it wrote down."""
    values = {
        "images": _shard_settings(run),
        "features": flatten(dict(featurized.extractor)) if featurized else {},
        "consolidate": {"cleaning": examples.cleaning} if examples else {},
        "model": read_settings(run),
    }
    names = dict.fromkeys([*(pipeline.name for pipeline in run.pipelines), *values])
    tables = [SettingsTable(name, _command(run, name), values.get(name, {})) for name in names]
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
