"""The processes that a process has started."""

from pathlib import Path


def children_of(parent: int) -> list[int]:
    """All of them, in the order of their start."""
    return [
        int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    ]


def workers_of(parent: int) -> list[int]:
    """Those that multiprocessing started to work, not its resource tracker.

    They are spawned, or forked by a server that is itself a child.
    """
    workers = []
    for child in children_of(parent):
        started_as = Path(f"/proc/{child}/cmdline").read_bytes()
        if b"spawn_main" in started_as:
            workers.append(child)
        elif b"multiprocessing.forkserver" in started_as:
            workers += children_of(child)
    return workers
