"""What a report is drawn of: a run folder as the dry run leaves it, or a model's folder alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capstan.errors import DataError, SettingError
from capstan.files import read_json
from capstan.records import RUN_FORMAT, RUN_VERSION, PipelineResult

MODEL_FILES = ("metrics.json", "curves.jsonl")


@dataclass(frozen=True)
class Run:
    """A run folder; every stage in it may be missing. A model alone is a run of nothing else."""

    path: Path
    started: float  # unix seconds; 0 for a model alone
    finished: float | None  # None while it runs, or when it was killed
    pipelines: Sequence[PipelineResult]
    repos: Mapping[str, str]
    title: str
    notes: Sequence[str]
    alone: bool = False  # no run, but a model's folder

    def repo(self, name: str) -> Path:
        """Folder of a repo. The run folder goes first, for it may have moved since."""
        own = self.path / "repos" / name
        return own if own.is_dir() else Path(self.repos.get(name, own))


def read_run(path: Path) -> Run:
    """Read `run.json` and `notes.json`; SettingError when `path` is not a run folder."""
    if not path.is_dir():
        raise SettingError(f"{path}: no such folder; give one that `capstan run` wrote")
    if not (path / "run.json").is_file():
        raise SettingError(
            f"{path}: holds no run.json, so it is no run; give a folder that `capstan run` wrote"
        )
    record = read_json(path / "run.json", RUN_FORMAT, RUN_VERSION)
    notes = read_object(path / "notes.json") if (path / "notes.json").is_file() else {}
    try:
        return Run(
            path=path,
            started=float(record["started"]),
            finished=None if record.get("finished") is None else float(record["finished"]),
            pipelines=[_pipeline(entry) for entry in record["pipelines"]],
            repos=record["repos"],
            title=str(notes.get("title") or path.resolve().name),
            notes=[str(note) for note in notes.get("notes", [])],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path / 'run.json'}: damaged ({error!r}); run again") from error


def read_model(path: Path, images: Path | None = None) -> Run:
    """Take what `capstan train` or `capstan evaluate` wrote as a run, with shards of its pictures.

    SettingError when `path` holds nothing of a model.
    """
    if not any((path / name).is_file() for name in MODEL_FILES):
        raise SettingError(
            f"{path}: holds no {' or '.join(MODEL_FILES)}; give the --output folder of "
            "`capstan train` or `capstan evaluate`"
        )
    repos = {"model": path} if images is None else {"model": path, "images": images}
    names = {name: str(folder) for name, folder in repos.items()}
    return Run(path, 0, None, [], names, path.resolve().name, [], alone=True)


def _pipeline(entry: Mapping[str, Any]) -> PipelineResult:
    counts = {name: int(entry.get(name, 0)) for name in ("datums", "done", "skipped", "failed")}
    return PipelineResult(str(entry["name"]), **counts, seconds=float(entry.get("seconds") or 0))


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object that carries no format of its own."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); mend or delete it") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: not a JSON object; mend or delete it")
    return value


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read JSON Lines; nothing when the file is missing."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                value = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not JSON; make it again") from error
            if not isinstance(value, dict):
                raise DataError(f"{path}, line {number}: not a JSON object; make it again")
            yield value
