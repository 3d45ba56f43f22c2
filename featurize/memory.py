"""How much memory a process may still take: on a processor nothing else stops a batch too large.

A GPU's allocator says when it has no more; the system's ends the process, or the container.
"""

from collections.abc import Iterator
from pathlib import Path

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
LIMIT, USED = "memory.max", "memory.current"  # of cgroup v2; a container sees its own at the root


def available() -> int | None:
    """Bytes, by the system and by the container's limit; None where neither is told."""
    return min((*_of_system(), *_of_container()), default=None)


def _of_system() -> Iterator[int]:
    path = PROC / "meminfo"
    if path.is_file():
        for line in path.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024


def _of_container() -> Iterator[int]:
    if (CGROUP / LIMIT).is_file() and (limit := (CGROUP / LIMIT).read_text().strip()) != "max":
        yield max(0, int(limit) - int((CGROUP / USED).read_text()))
