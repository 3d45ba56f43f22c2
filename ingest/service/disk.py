"""How full the disk is, and when that is enough to wait."""

import shutil
from pathlib import Path

ROOM = 32 << 20  # bytes more than there were when a write failed, before work goes on


class Disk:
    """The disk of a folder. Looked at each second; a look takes microseconds."""

    def __init__(self, path: Path, least: int) -> None:
        self._path, self._least = path, least
        self._wanted = 0  # bytes free, while it is full
        self.free = 0
        self.look()

    def look(self) -> str | None:
        """Why nothing may be written, if that is so."""
        self.free = shutil.disk_usage(self._path).free
        if self.free < self._least:
            self._wanted = self._least + min(self._least // 10, ROOM)
        if self.free >= self._wanted:
            self._wanted = 0
            return None
        return (
            f"the disk of {self._path} has {self.free >> 20:,} MiB free; goes on by itself at "
            f"{(self._wanted >> 20) + 1:,} MiB"
        )

    def was_full(self) -> None:
        """Note that a write found no room."""
        self.look()
        self._wanted = max(self._wanted, self.free + ROOM)
