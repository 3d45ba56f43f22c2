"""What the service and its workers tell each other."""

from dataclasses import dataclass
from pathlib import Path

from capstan.chunks import Chunk
from capstan.ingest.config import IngestSettings
from capstan.ingest.messages import Told


@dataclass(frozen=True, slots=True)
class ChunkPayload:
    """A chunk, and its contents if they are in no file yet."""

    chunk: Chunk
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class StartJob:
    """Do a job's chunk, and ask for more."""

    job: str
    settings: IngestSettings
    piece: ChunkPayload


@dataclass(frozen=True, slots=True)
class NextChunk:
    """The next chunk of a job; None: finish what there is and let it go."""

    job: str
    piece: ChunkPayload | None


@dataclass(frozen=True, slots=True)
class StopJob:
    """Begin nothing more of a job."""

    job: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Begin nothing more at all; end when what is out has ended."""


ToWorker = StartJob | NextChunk | StopJob | Drain


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The worker takes chunks."""


@dataclass(frozen=True, slots=True)
class ChunkRequest:
    """A job wants another chunk."""

    job: str


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """What a job's engine tells."""

    job: str
    told: Told


@dataclass(frozen=True, slots=True)
class EngineFailure:
    """Why an engine ended before its chunks."""

    text: str
    is_full: bool  # the disk


@dataclass(frozen=True, slots=True)
class EngineExited:
    """A job's engine is over."""

    job: str
    trouble: EngineFailure | None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Sent each second."""

    in_flight: int


FromWorker = (
    WorkerReady | ChunkRequest | EngineEvent | EngineExited | Heartbeat | Exception
)  # the last: why the worker ends


def write_payload(piece: ChunkPayload) -> None:
    """Make a chunk's file, if it is not there; what it holds is durable elsewhere."""
    path: Path = piece.chunk.path
    if piece.data is None or (path.is_file() and path.stat().st_size == len(piece.data)):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{path.name}")
    temporary.write_bytes(piece.data)
    temporary.rename(path)
