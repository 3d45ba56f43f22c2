"""Jobs as clients see them, and what they may do wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Of a job; the last three are ended."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({State.DONE, State.FAILED, State.CANCELLED})


@dataclass(frozen=True, slots=True)
class Job:
    """A job at one moment. Times are seconds since 1970."""

    id: str  # sorts by time
    name: str
    state: State
    why: str | None  # it failed, or the service paused it
    created: float
    started: float | None
    finished: float | None
    options: Mapping[str, Any]
    rows: int
    done: int  # rows that have ended
    images: int
    failures: Mapping[str, int]  # rows by reason
    bytes: int  # of all bodies
    chunks: int
    shards: int  # whole ones
    delivered: int | None  # shards that the sink has; None where that is the folder itself
    rate: float  # rows a second, of late; 0 unless it runs
    eta: float | None  # seconds


@dataclass(frozen=True, slots=True)
class Second:
    """What ended in one second."""

    t: int  # seconds since 1970
    rows: int = 0
    images: int = 0
    failures: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class HostLine:
    """What became of a host's rows."""

    host: str
    rows: int
    failures: int
    top_reason: str | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the service did of late."""

    since: float  # seconds since 1970
    seconds: tuple[Second, ...]  # the last ones, the newest last
    reasons: Mapping[str, int]  # rows that failed since the start, as the next three
    rows: int
    images: int
    bytes: int
    jobs: Mapping[State, int]  # how many there are now; a state without any may be left out
    hosts: tuple[HostLine, ...]  # those with the most rows, at most 50
    in_flight: int
    queued_rows: int
    disk_free: int  # bytes
    processes: int  # workers that are alive


@dataclass(frozen=True, slots=True)
class Changes:
    """What a watcher was told since it last looked."""

    jobs: frozenset[str] = field(default_factory=frozenset)  # ids; removed ones too
    second: bool = False  # another second is over: statistics are new


class ServiceError(Exception):
    """What a client asked for and cannot have; the message is one line for it."""


class NoSuchJobError(ServiceError):
    """There is no job of this id."""

    def __init__(self, id: str) -> None:
        super().__init__(f"no job {id}; GET /api/jobs lists them")


class WrongStateError(ServiceError):
    """The job's state does not allow it."""


class BadSubmissionError(ServiceError):
    """A name, an option or rows that cannot be used."""


class ForbiddenPathError(ServiceError):
    """A path that is not below --tsv-root."""


class TooLargeError(ServiceError):
    """More bytes than the service takes."""


class FullError(ServiceError):
    """The disk has no room for it."""


class UnavailableError(ServiceError):
    """The service is stopping."""


class BusyError(ServiceError):
    """As many jobs as the service takes are unfinished."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after  # seconds
