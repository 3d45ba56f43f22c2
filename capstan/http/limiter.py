"""Who is let in: as many as there is room for, and none any more while draining."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from capstan.http.errors import RequestError

RETRY_AFTER = 1  # seconds


class ConcurrencyLimiter:
    """Counts the pictures in hand, or other `things`, from a request's arrival to its answer.

    So memory is bounded too: by `room` times the largest body.
    """

    def __init__(
        self, room: int, retry_after: int = RETRY_AFTER, things: str = "pictures in hand"
    ) -> None:
        self.room, self.held, self.draining = room, 0, False
        self._retry_after, self._things = retry_after, things  # the former in seconds
        self._left = asyncio.Event()

    @contextmanager
    def enter(self, places: int = 1) -> Iterator[None]:
        """Hold places; raises RefusedError at once, 429 where there is no room."""
        if self.held + places > self.room:
            raise RequestError(
                429, f"too many {self._things}; try again soon", retry_after=self._retry_after
            )
        self.held += places
        try:
            yield
        finally:
            self.held -= places
            self._left.set()

    def check_open(self) -> None:
        """Raise RefusedError, 503, while draining."""
        if self.draining:
            raise RequestError(503, "shutting down; ask another server", retry_after=RETRY_AFTER)

    async def drain(self, seconds: float) -> None:
        """Let nobody in any more; return when all have left, at the latest after that time."""
        self.draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.held:
                    self._left.clear()
                    await self._left.wait()

    def __repr__(self) -> str:
        return f"<Gate {self.held}/{self.room}{' draining' if self.draining else ''}>"
