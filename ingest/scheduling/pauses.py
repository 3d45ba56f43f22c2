"""Which hosts asked for a pause, known to all processes of a run.

A `Retry-After` is said to one process and meant for all. They share a table of fixed size, a host's
place in it given by its hash: read before every request, written when a host asks. A host whose
place another one takes is only forgotten.
"""

from collections.abc import MutableSequence
from dataclasses import dataclass
from hashlib import blake2b
from multiprocessing.context import BaseContext

PLACES = 1 << 16


def key_of(host: str) -> int:
    """The same number, never 0, for a host in every process."""
    return int.from_bytes(blake2b(host.encode(), digest_size=8).digest()) or 1


@dataclass(frozen=True)
class Pauses:
    """Times, by the machine's monotonic clock, until which hosts are left alone."""

    keys: MutableSequence[int]
    untils: MutableSequence[float]

    @classmethod
    def shared(cls, context: BaseContext) -> "Pauses":
        """A table for processes that `context` starts."""
        return cls(context.RawArray("Q", PLACES), context.RawArray("d", PLACES))

    @classmethod
    def local(cls) -> "Pauses":
        """A table for this process."""
        return cls([0] * PLACES, [0.0] * PLACES)

    def until(self, key: int) -> float:
        """Until when; long ago for a host that did not ask."""
        place = key % PLACES
        return self.untils[place] if self.keys[place] == key else float("-inf")

    def ask(self, key: int, until: float) -> None:
        """Leave a host alone until then."""
        place = key % PLACES
        if until > self.until(key):
            self.untils[place], self.keys[place] = until, key
