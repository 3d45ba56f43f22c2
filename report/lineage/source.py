"""The seam to the files of a run: repos by name, be they folders or commits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Protocol

from capstan.errors import SettingError
from capstan.files import data_files, read_json, sha256_file
from capstan.records import RUN_FORMAT, RUN_VERSION
from capstan.train.settings import DESCRIPTION

CHUNKS = {"rawdata": "", "images": ".tar", "features": ".npy", "consolidate": ".npy"}
REPOS = (*CHUNKS, "model", "inpredict", "predict")


class RunFiles(Protocol):
    """Files of the pipelines' repos; paths are relative to their repo."""

    @property
    def saved(self) -> str:
        """Folder of the model in repo `model`."""

    def has(self, repo: str) -> bool:
        """Whether the repo is there at all."""

    def files(self, repo: str) -> list[str]:
        """All its files, sorted."""

    def file(self, repo: str, path: str) -> Path | None:
        """A file to read, None if it is not there."""

    def sha256(self, repo: str, path: str, /) -> str | None:
        """Hex SHA-256 of a file, None if it is not there; a file is read once for it."""

    def name(self, repo: str, path: str = "") -> str:
        """What to call a file in messages."""


@dataclass(frozen=True)
class FolderFiles:
    """Repos that are folders."""

    repos: Mapping[str, Path]
    saved: str = "saved"

    def has(self, repo: str) -> bool:
        """Whether there is such a folder."""
        return repo in self.repos

    def files(self, repo: str) -> list[str]:
        """All visible files below the folder."""
        folder = self.repos.get(repo)
        if folder is None:
            return []
        return [path.relative_to(folder).as_posix() for path in data_files(folder)]

    def file(self, repo: str, path: str) -> Path | None:
        """The file itself."""
        found = self.repos[repo] / path if repo in self.repos else None
        return found if found is not None and found.is_file() else None

    @cached_property
    def sha256(self) -> Callable[[str, str], str | None]:
        """Reads the file."""
        return cache(self._sha256)

    def _sha256(self, repo: str, path: str) -> str | None:
        found = self.file(repo, path)
        return None if found is None else sha256_file(found)

    def name(self, repo: str, path: str = "") -> str:
        """Its path."""
        return str(self.repos.get(repo, Path(repo)) / path)

    def with_model(self, saved: Path) -> "FolderFiles":
        """The same with another model's folder in place of the run's."""
        saved = saved.absolute()
        return replace(self, repos={**self.repos, "model": saved.parent}, saved=saved.name)


def open_folder(run: Path) -> FolderFiles:
    """A folder of `capstan run`, or one that holds the stages' own (rawdata, images, features...).

    Raises SettingError if it holds neither. The run's own repos go first: it may have moved.
    """
    elsewhere = {}
    if (run / "run.json").is_file():
        elsewhere = read_json(run / "run.json", RUN_FORMAT, RUN_VERSION)["repos"]
    candidates = {
        name: [run / "repos" / name, run / name, Path(elsewhere.get(name, run / name))]
        for name in REPOS
    }
    found = {
        name: folder
        for name, folders in candidates.items()
        if (folder := next(filter(Path.is_dir, folders), None))
    }
    if not found:
        raise SettingError(
            f"{run}: neither a run of `capstan run` nor a folder with any of {', '.join(REPOS)}; "
            "give one with --run"
        )
    return FolderFiles(found)


def run_of(path: Path) -> Path | None:
    """The run folder that a path lies in, if any."""
    return next((each for each in path.resolve().parents if (each / "run.json").is_file()), None)


def chunks(source: RunFiles) -> list[str]:
    """The chunks of a run, be they left in one repo only."""
    found = {
        path.removesuffix(suffix)
        for repo, suffix in CHUNKS.items()
        for path in source.files(repo)
        if path.endswith(suffix)
    }
    return sorted(found)


def model_folder(path: Path) -> Path | None:
    """The model's own folder, if `path` is one or what `capstan train` wrote around it."""
    try:
        return next(
            (each for each in (path, path / "saved") if (each / DESCRIPTION).is_file()), None
        )
    except OSError:  # a caption, say, too long to be a name
        return None
