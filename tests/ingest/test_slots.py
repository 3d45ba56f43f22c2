"""Rows that wait for slow hosts keep no slot from the others."""

import asyncio

import pytest

from capstan.ingest.scheduling import slots as slots_module
from capstan.ingest.scheduling.slots import Slot, Slots


def never() -> bool:
    """What a process says that has time left."""
    return False


async def test_a_row_of_a_failing_host_gives_its_slot_away_at_once() -> None:
    slots = Slots(1, 1, never)
    await slots.take()
    with Slot(slots, failing=True):
        await slots.take()  # would wait for ever
        with Slot(slots, failing=False):
            for _ in range(5):
                await asyncio.sleep(0)
            assert repr(slots) == "<Slots: 2 at work, 1 of them aside>"
    assert repr(slots) == "<Slots: 0 at work, 0 of them aside>"


async def test_a_row_that_takes_long_gives_its_slot_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots_module, "SLOW", 0.01)
    slots = Slots(1, 1, never)
    await slots.take()
    with Slot(slots, failing=False):
        await slots.take()


async def test_no_more_rows_than_that_are_aside() -> None:
    slots = Slots(2, 1, never)
    for failing in (True, True):
        await slots.take()
        Slot(slots, failing)
    await slots.take()  # of the first
    Slot(slots, failing=False)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await slots.take()
    assert repr(slots) == "<Slots: 3 at work, 1 of them aside>"


async def test_a_row_that_is_decoded_keeps_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots_module, "SLOW", 0.01)
    slots = Slots(2, 2, never)
    await slots.take()
    await slots.take()
    with Slot(slots, failing=False) as decoded, Slot(slots, failing=False):
        decoded.fetched()
        await slots.take()  # of the other, which is younger and took long as well
        assert repr(slots) == "<Slots: 2 at work, 1 of them aside>"


async def test_a_row_is_not_slow_while_its_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots_module, "SLOW", 0.01)
    says = iter([True, True, False])
    slots = Slots(1, 1, says.__next__)
    await slots.take()
    with Slot(slots, failing=False):
        await slots.take()
        assert list(says) == []  # asked until it had time
