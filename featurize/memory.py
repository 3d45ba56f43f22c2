"""How much memory a process may still take: on a processor nothing else stops a batch too large.

A GPU's allocator says when it has no more; the system's ends the process, or the container.
"""

from collections.abc import Iterator
from pathlib import Path

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
# Of cgroup v2, whose root a container sees as its own. Files read before count as used until the
# memory is wanted for something else.
LIMIT, USED, STATISTICS = "memory.max", "memory.current", "memory.stat"


def available() -> int | None:
    """Bytes, by the system and by the container's limit; None where neither is told."""
    return min((*_of_system(), *_of_container()), default=None)


def _of_system() -> Iterator[int]:
    if (PROC / "meminfo").is_file():
        yield _number(PROC / "meminfo", "MemAvailable:") * 1024


def _of_container() -> Iterator[int]:
    if (CGROUP / LIMIT).is_file() and (limit := (CGROUP / LIMIT).read_text().strip()) != "max":
        used = int((CGROUP / USED).read_text()) - _number(CGROUP / STATISTICS, "inactive_file")
        yield max(0, int(limit) - used)


def _number(table: Path, name: str) -> int:
    """The number after a name at the start of a line."""
    lines = (line.split() for line in table.read_text().splitlines())
    return next(int(words[1]) for words in lines if words[0] == name)
