"""How many rows of a process are at work at a time, without letting slow hosts idle the rest."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

SLOW = 0.5  # seconds after which a request no longer counts among the fast ones


class Slots:
    """So many rows at work, and so many more that wait for a slow answer.

    A row that is being fetched for longer than SLOW seconds steps aside: its slot goes to another
    row, while there are fewer than `aside` such rows; of a host that is failing it does so at
    once. So dead hosts and trickling ones cost memory, which is bounded, and little of the speed
    of the rest. While this process is itself what is slow, none steps aside for being slow: more
    rows would only make each take longer.
    """

    def __init__(self, count: int, aside: int, is_saturated: Callable[[], bool]) -> None:
        self._free = asyncio.Semaphore(count)
        self._aside, self._most_aside = 0, aside
        self._at_work = 0
        self._is_saturated = is_saturated
        # Oldest first; one timer for all is cheaper than one for each.
        self._fetching: dict[Slot, float] = {}  # until when each keeps its slot
        self._timer: asyncio.TimerHandle | None = None

    @property
    def at_work(self) -> int:
        """Rows being fetched or decoded, those aside among them."""
        return self._at_work

    async def take(self) -> None:
        """Wait for a slot, in turn; it is held by the `Slot` made next."""
        await self._free.acquire()

    def put_back(self) -> None:
        """Give back a slot that was taken and not used."""
        self._free.release()

    def begin(self, slot: "Slot") -> None:
        """Count a row at work, and watch how long it is fetched."""
        self._at_work += 1
        loop = asyncio.get_running_loop()
        self._fetching[slot] = loop.time() + SLOW
        if self._timer is None:
            self._timer = loop.call_later(SLOW, self._look)

    def _look(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        if self._fetching and self._is_saturated():
            self._timer = loop.call_later(SLOW, self._look)
            return
        for slot, until in tuple(self._fetching.items()):
            if until > loop.time():
                self._timer = loop.call_at(until, self._look)
                break
            del self._fetching[slot]
            slot.release_slow()

    def fetched(self, slot: "Slot") -> None:
        """Watch a row no more."""
        self._fetching.pop(slot, None)

    def release_slow(self) -> bool:
        """Free a slot for a place aside, if there is one."""
        if self._aside == self._most_aside:
            return False
        self._aside += 1
        self._free.release()
        return True

    def give_back(self, aside: bool) -> None:
        """Let another row have a slot, or a place aside."""
        self._at_work -= 1
        if aside:
            self._aside -= 1
        else:
            self._free.release()

    def __repr__(self) -> str:
        return f"<Slots: {self._at_work} at work, {self._aside} of them aside>"


class Slot:
    """The slot of one row, taken before, while its `with` block runs; `failing` is of its host."""

    def __init__(self, slots: Slots, failing: bool) -> None:
        self._slots, self._is_aside = slots, False
        slots.begin(self)
        if failing:
            self.release_slow()

    def release_slow(self) -> None:
        """Let another row have the slot, if there may be more aside."""
        self._is_aside = self._is_aside or self._slots.release_slow()

    def fetched(self) -> None:
        """Stay from now on: what comes next is our own work and must not pile up."""
        self._slots.fetched(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._slots.fetched(self)
        self._slots.give_back(self._is_aside)
