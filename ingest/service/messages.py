"""What the service and its workers tell each other."""

from dataclasses import dataclass
from pathlib import Path

from capstan.chunks import Chunk
from capstan.ingest.config import Settings
from capstan.ingest.messages import Told


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk, and its contents if they are in no file yet."""

    chunk: Chunk
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Begin:
    """Do a job's chunk, and ask for more."""

    job: str
    settings: Settings
    piece: Piece


@dataclass(frozen=True, slots=True)
class More:
    """The next chunk of a job; None: finish what there is and let it go."""

    job: str
    piece: Piece | None


@dataclass(frozen=True, slots=True)
class Halt:
    """Begin nothing more of a job."""

    job: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Begin nothing more at all; end when what is out has ended."""


ToWorker = Begin | More | Halt | Drain


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker takes chunks."""


@dataclass(frozen=True, slots=True)
class Asks:
    """A job wants another chunk."""

    job: str


@dataclass(frozen=True, slots=True)
class Says:
    """What a job's engine tells."""

    job: str
    told: Told


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why an engine ended before its chunks."""

    text: str
    is_full: bool  # the disk


@dataclass(frozen=True, slots=True)
class Ended:
    """A job's engine is over."""

    job: str
    trouble: Trouble | None


@dataclass(frozen=True, slots=True)
class Beat:
    """Sent each second."""

    in_flight: int


FromWorker = Ready | Asks | Says | Ended | Beat | Exception  # the last: why the worker ends


def write_piece(piece: Piece) -> None:
    """Make a chunk's file, if it is not there; what it holds is durable elsewhere."""
    path: Path = piece.chunk.path
    if piece.data is None or (path.is_file() and path.stat().st_size == len(piece.data)):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{path.name}")
    temporary.write_bytes(piece.data)
    temporary.rename(path)
