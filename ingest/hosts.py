"""At most so many connections to one host at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class _Host:
    slots: asyncio.Semaphore
    users: int = 0  # holding a slot or waiting for one


class Hosts:
    """Slots for each host; hosts that nobody uses are forgotten, so memory stays flat."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._hosts: dict[str, _Host] = {}

    @asynccontextmanager
    async def slot(self, name: str) -> AsyncIterator[None]:
        """Hold one of a host's slots; waits while all are taken."""
        host = self._hosts.setdefault(name, _Host(asyncio.Semaphore(self._limit)))
        host.users += 1
        try:
            async with host.slots:
                yield
        finally:
            host.users -= 1
            if host.users == 0:
                del self._hosts[name]

    def __repr__(self) -> str:
        users = {name: host.users for name, host in self._hosts.items()}
        return f"<Hosts limit {self._limit}, in use {users}>"
