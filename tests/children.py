"""The processes that a process has started."""

from pathlib import Path


def children_of(parent: int) -> list[int]:
    """All of them, in the order of their start."""
    return [
        int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    ]


def workers_of(parent: int) -> list[int]:
    """Those that multiprocessing started to work, not its resource tracker."""
    return [
        child
        for child in children_of(parent)
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
