"""A row on its way from the frontier to the journal."""

import time
from dataclasses import dataclass, field

from capstan.ingest.job import ChunkJob
from capstan.ingest.rows import host_of
from capstan.records import Answer, Row


@dataclass(slots=True)
class FetchTask:
    """A row on its way, and where it is to be asked for next."""

    job: ChunkJob
    row: Row
    url: str
    host: str
    hops: int = 0  # redirects followed in this attempt
    began: float | None = None  # its first request, by a monotonic clock
    asked: float = 0.0  # its last
    took: float = 0.0  # seconds
    answer: Answer = field(default_factory=Answer)  # to the last attempt

    @classmethod
    def of(cls, job: ChunkJob, row: Row) -> "FetchTask":
        """A row that nothing was asked for yet."""
        url = row.url.strip()
        return cls(job, row, url, host_of(url) or "")

    def set_out(self) -> bool:
        """Note that a request begins; tell whether it is the row's first."""
        self.asked = time.monotonic()
        if self.hops == 0:
            self.answer = Answer(attempts=self.answer.attempts + 1)
        if self.began is not None:
            return False
        self.began = self.asked
        return True

    def left(self, deadline: float) -> float:
        """Seconds that the row has left for a request that begins, of those it has in all."""
        return (self.began or self.asked) + deadline - self.asked

    def start_again(self) -> None:
        """Ask for the row's own address next, as a new attempt."""
        self.go_to(self.row.url.strip(), 0)

    def go_to(self, url: str, hops: int) -> None:
        """Ask there next."""
        self.url, self.host, self.hops = url, host_of(url) or "", hops
