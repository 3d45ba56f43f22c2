"""What the commands ask of a Pachyderm, in their own words; its errors become one clear line.

`connect` has what speaks to one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

STOPPED = frozenset({"failure", "paused"})  # states in which a pipeline does no job
UNDER_WAY = frozenset({"unknown", "created", "starting", "running", "egressing", "finishing"})


@dataclass(frozen=True)
class File:
    """A file of a commit; `hash` is the server's own, of its blocks."""

    path: str  # starts with a slash
    size: int
    hash: bytes


@dataclass(frozen=True)
class Put:
    """Give a file these contents, in place of any that it has. A piece has at most 20 MB."""

    path: str
    pieces: Iterable[bytes]


@dataclass(frozen=True)
class Delete:
    """Remove a file."""

    path: str


Change = Put | Delete


@dataclass(frozen=True)
class Commit:
    """A commit of a repo, none of whose files change any more once it is finished."""

    repo: str
    id: str
    open: bool = False  # still written to
    finished: bool = True
    error: str = ""
    parent: str = ""


@dataclass(frozen=True)
class PipelineJob:
    """What a pipeline did, or does, for a commit; its numbers are of datums."""

    id: str
    state: str  # success, failure, running...
    total: int = 0
    processed: int = 0
    skipped: int = 0  # unchanged since an earlier job
    failed: int = 0
    recovered: int = 0  # failed, but its pipeline's err_cmd did not
    started: datetime | None = None
    finished: datetime | None = None
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state not in UNDER_WAY

    @classmethod
    def of(cls, info: Any, state: str, time: Callable[[Any], datetime | None]) -> "PipelineJob":
        """From a JobInfo of either client; they differ in how they name states and tell times."""
        return cls(
            info.job.id,
            state,
            info.data_total,
            info.data_processed,
            info.data_skipped,
            info.data_failed,
            info.data_recovered,
            time(info.started),
            time(info.finished),
            info.reason,
        )

    @property
    def done(self) -> int:
        """Datums that are through, for good or ill."""
        return self.processed + self.skipped + self.lost

    @property
    def lost(self) -> int:
        """Datums without outputs, be it that err_cmd had the job go on."""
        return self.failed + self.recovered


@dataclass(frozen=True)
class Pipeline:
    """A pipeline as the server has it."""

    name: str
    version: int
    state: str  # running, standby, paused, failure, crashing...
    reason: str
    spec: str  # the JSON that it was made of
    inputs: tuple[str, ...]  # repos


@dataclass(frozen=True)
class LogFilter:
    """Which log lines are wanted."""

    pipeline: str
    job: str | None = None
    follow: bool = False
    tail: int = 0  # lines of each worker, 0 for all
    everything: bool = False  # what the worker itself says too


@dataclass(frozen=True)
class LogLine:
    """A line that a pipeline's program or its worker wrote."""

    time: datetime | None
    worker: str
    datum: str
    message: str


class Server(Protocol):
    """A project on a Pachyderm. What is not there is None or absent, never an error."""

    project: str

    def close(self) -> None:
        """End what is under way, and the connection."""

    def check(self) -> None:
        """Ask for the version, to see that a Pachyderm answers."""

    def repos(self) -> list[str]:
        """All repos that people see, those of pipelines too."""

    def create_repo(self, name: str) -> None:
        """Make an empty repo."""

    def delete_repo(self, name: str) -> None:
        """Delete a repo and all it holds."""

    def pipelines(self) -> list[Pipeline]:
        """All of the project."""

    def put_pipeline(self, spec: str, *, update: bool, reprocess: bool, dry_run: bool) -> None:
        """Make or update a pipeline of this JSON."""

    def delete_pipeline(self, name: str) -> None:
        """Delete a pipeline and its output repo."""

    def job(self, pipeline: str) -> PipelineJob | None:
        """The newest."""

    def wait_job(self, pipeline: str, id: str) -> PipelineJob | None:
        """The job for a commit, once it has ended."""

    def logs(self, wanted: LogFilter) -> Iterator[LogLine]:
        """Log lines; without end if they are followed."""

    def commit(self, repo: str, name: str = "master") -> Commit | None:
        """A commit by its id, or the head of a branch."""

    def wait_commit(self, commit: Commit) -> Commit:
        """The same, finished."""

    def files(self, commit: Commit, path: str = "/") -> Iterator[File]:
        """All files at or below a path, in order."""

    def read(self, commit: Commit, path: str) -> Iterator[bytes]:
        """A file's contents, in pieces."""

    def modify(self, repo: str, changes: Iterable[Change]) -> None:
        """Make all changes as one commit of master, or none if anything fails, `changes` too."""
