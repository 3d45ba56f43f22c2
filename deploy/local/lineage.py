"""What each datum was made from and what it made: why the next run can skip it.

A datum's id is a hash of its inputs' contents and of the program that reads them; its record in
`lineage/<pipeline>/<id>.json` is written when its outputs are in place. So a datum whose record
is there and whose outputs are as recorded needs no work; a file that no record names is left over.
"""

import hashlib
import json
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from capstan.deploy.local.datums import Datum, Repo
from capstan.deploy.specs.read import Spec
from capstan.errors import DataError
from capstan.files import data_files, read_json, sha256_file, write_json

FORMAT = "capstan-lineage"
HASHES = "capstan-hashes"
VERSION = 1


class Hashes:
    """SHA-256 of files, remembered by path, size and time of change from run to run."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, list[Any]] = (
            read_json(file, HASHES, VERSION)["files"] if file.exists() else {}
        )

    def sha256(self, path: Path) -> str:
        """Hex SHA-256 of a file; reads it only when it is new or was changed."""
        status = path.stat()
        entry = self._known.get(str(path))
        if entry is None or entry[:2] != [status.st_size, status.st_mtime_ns]:
            entry = [status.st_size, status.st_mtime_ns, sha256_file(path)]
            self._known[str(path)] = entry
        return str(entry[2])

    def save(self) -> None:
        """Write the hashes of the files that are still there."""
        files = {name: entry for name, entry in self._known.items() if Path(name).exists()}
        write_json(self._file, {"format": HASHES, "version": VERSION, "files": files})


@dataclass(frozen=True)
class DatumInput:
    """A file that a datum reads."""

    name: str  # of the input
    repo: str
    path: str  # in the repo
    sha256: str
    empty: bool  # shown as an empty file


@dataclass(frozen=True)
class Output:
    """A file that a datum wrote; `path` is relative to the pipeline's repo."""

    path: str
    bytes: int
    sha256: str


def sources(datum: Datum, repos: Mapping[str, Repo], hashes: Hashes) -> tuple[DatumInput, ...]:
    """All files of a datum, with their hashes."""
    return tuple(
        DatumInput(
            piece.input.name,
            piece.input.repo,
            name,
            hashes.sha256(repos[piece.input.repo].directory / name),
            piece.input.empty_files,
        )
        for piece in datum
        for name in piece.files
    )


def datum_id(spec: Spec, inputs: Iterable[DatumInput], hashes: Hashes) -> str:
    """Hash of all that a datum's outputs depend on, as 32 hex digits."""
    settings = [word.partition("=")[2] or word for word in spec.command]
    files = [hashes.sha256(Path(word)) for word in settings if _is_local_file(word)]
    transform = {**spec.document["transform"], "cmd": spec.command}
    everything = [spec.name, transform, files, [asdict(source) for source in inputs]]
    text = json.dumps(everything, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _is_local_file(word: str) -> bool:
    """Whether a word of a command names a file that no repo holds, such as a network's weights."""
    try:
        return not word.startswith("/pfs/") and Path(word).is_file()
    except OSError:  # a script, say, too long to be a name
        return False


class DatumRecords:
    """The records of a pipeline's datums, and which of them wrote each file and folder."""

    def __init__(self, run: Path, pipeline: str, hashes: Hashes) -> None:
        self.directory = run / "lineage" / pipeline
        self.repo = run / "repos" / pipeline
        self.logs = run / "logs" / pipeline
        self._hashes = hashes
        self._owners: dict[str, str] = {}  # datum by path; a folder's path ends in a slash
        self._names: dict[str, str] = {}
        self._lock = threading.Lock()
        self.records: dict[str, dict[str, Any]] = {
            file.stem: read_json(file, FORMAT, VERSION)
            for file in data_files(self.directory, ".json")
        }

    def keep(self, names: Mapping[str, str]) -> None:
        """Keep the datums of these ids whose outputs are intact, and delete all else.

        `names` maps ids to what to call the datums in messages.
        """
        self._names = dict(names)
        for name, record in list(self.records.items()):
            if name in names and self._is_intact(record):
                self._own(name, [output["path"] for output in record["outputs"]])
            else:
                (self.directory / f"{name}.json").unlink()
                del self.records[name]
        for file in _files(self.repo):
            if file.relative_to(self.repo).as_posix() not in self._owners:
                file.unlink()
        for log in _files(self.logs):
            if log.stem not in names:
                log.unlink()
        _remove_empty_folders(self.repo)

    def _is_intact(self, record: Mapping[str, Any]) -> bool:
        for output in record["outputs"]:
            path = self.repo / output["path"]
            if not path.is_file() or self._hashes.sha256(path) != output["sha256"]:
                return False
        return True

    def _own(self, datum: str, paths: Iterable[str]) -> None:
        for path in paths:
            self._owners[path] = datum
            for parent in PurePosixPath(path).parents:
                self._owners.setdefault(f"{parent}/", datum)

    def claim(self, datum: str, paths: Collection[str]) -> None:
        """Take paths for a datum; DataError when another one has them already."""
        with self._lock:
            for path in paths:
                self._check_rivals(datum, path)
            self._own(datum, paths)

    def _check_rivals(self, datum: str, path: str) -> None:
        for rival in (path, f"{path}/", *map(str, PurePosixPath(path).parents)):
            owner = self._owners.get(rival, datum)
            if owner != datum:
                raise DataError(
                    f"{path} is written by two datums, {self._names[owner]} ({owner}) and "
                    f"{self._names[datum]} ({datum}); let each write paths of its own"
                )

    def outputs(self, paths: Iterable[str]) -> list[Output]:
        """Sizes and hashes of files of the repo."""
        return [
            Output(path, (self.repo / path).stat().st_size, self._hashes.sha256(self.repo / path))
            for path in sorted(paths)
        ]

    def record(self, datum: str, entry: Mapping[str, Any]) -> None:
        """Write a datum's record: from now on it is done."""
        self.records[datum] = {"format": FORMAT, "version": VERSION, **entry}
        write_json(self.directory / f"{datum}.json", self.records[datum])


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if not path.is_dir() or path.is_symlink()]


def _remove_empty_folders(directory: Path) -> None:
    for folder in sorted((path for path in directory.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
