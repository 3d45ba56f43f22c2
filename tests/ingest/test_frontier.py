import asyncio
from dataclasses import dataclass

import pytest

from ingest.frontier import Frontier, Verdict
from ingest.hosts import HostLimits
from ingest.pauses import Pauses, key_of
from pipeline.records import Reason


@dataclass(frozen=True)
class Page:
    host: str
    name: str = ""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def given_up() -> list[tuple[str, Reason]]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pauses() -> Pauses:
    return Pauses.local()


@pytest.fixture
def frontier(given_up: list[tuple[str, Reason]], pauses: Pauses, clock: Clock) -> Frontier[Page]:
    def give_up(page: Page, reason: Reason) -> None:
        given_up.append((page.name, reason))

    return Frontier(HostLimits(2, 100.0, 100.0), give_up, pauses, clock)


async def taken(frontier: Frontier[Page]) -> list[str]:
    """What may go at once."""
    names = []
    while frontier.ready:
        names.append((await frontier.take()).name)
    return names


async def test_hosts_take_turns_and_have_so_many_each(frontier: Frontier[Page]) -> None:
    for host in "ab":
        for number in range(3):
            frontier.add(Page(host, f"{host}{number}"))
    assert await taken(frontier) == ["a0", "b0", "a1", "b1"]
    assert frontier.size == 2
    frontier.leave("b", Verdict(0.0, None))
    assert await taken(frontier) == ["b2"]
    frontier.add(Page("a", "first"), first=True)
    frontier.leave("a", Verdict(0.0, None))
    assert await taken(frontier) == ["first"]
    assert repr(frontier) == "<Frontier: 1 waiting, 0 hosts ready>"


async def test_who_waits_for_an_entry_gets_the_next(frontier: Frontier[Page]) -> None:
    waiting = asyncio.create_task(frontier.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    frontier.add(Page("a", "late"))
    assert (await waiting).name == "late"


async def test_a_pause_holds_the_whole_host_and_no_other(
    frontier: Frontier[Page], clock: Clock
) -> None:
    for host in "ab":
        frontier.add(Page(host, host))
    assert await taken(frontier) == ["a", "b"]
    frontier.leave("a", Verdict(0.0, Reason.RATE_LIMITED, 0.01))
    frontier.add(Page("a", "later"))
    frontier.add(Page("b", "now"))
    assert await taken(frontier) == ["now"]
    clock.now = 0.02
    assert (await frontier.take()).name == "later"


async def test_a_closed_host_gives_up_its_rows_and_those_that_come(
    frontier: Frontier[Page], given_up: list[tuple[str, Reason]], clock: Clock
) -> None:
    for name in "xyz":
        frontier.add(Page("a", name))
    await taken(frontier)
    frontier.leave("a", Verdict(0.0, Reason.RATE_LIMITED, 1_000.0))
    assert given_up == [("z", Reason.RATE_LIMITED)]
    frontier.add(Page("a", "later"))
    assert given_up[1:] == [("later", Reason.RATE_LIMITED)]
    assert frontier.size == 0
    frontier.leave("a")
    clock.now = 1_001.0
    frontier.add(Page("a", "open again"))
    assert await taken(frontier) == ["open again"]


async def test_what_is_deferred_comes_back_and_counts_meanwhile(frontier: Frontier[Page]) -> None:
    frontier.defer(Page("a", "again"), 0.0)
    assert (frontier.size, frontier.ready) == (1, 0)
    assert (await frontier.take()).name == "again"
    assert frontier.size == 0


async def test_troubles_are_remembered_when_nobody_waits(frontier: Frontier[Page]) -> None:
    frontier.add(Page("a"))
    await frontier.take()
    frontier.leave("a", Verdict(0.0, Reason.CONNECT))
    for number in range(2):
        frontier.add(Page("a", str(number)))
    assert await taken(frontier) == ["0"]  # two were allowed before


async def test_room_is_waited_for(frontier: Frontier[Page]) -> None:
    frontier.add(Page("a"))
    waiting = asyncio.create_task(frontier.room(ready=1, size=9))
    await asyncio.sleep(0)
    assert not waiting.done()
    await frontier.take()
    await waiting


async def test_a_pause_asked_of_another_process_is_kept_here_too(
    frontier: Frontier[Page], pauses: Pauses, given_up: list[tuple[str, Reason]], clock: Clock
) -> None:
    for host in "abc":
        frontier.add(Page(host, host))
    pauses.ask(key_of("a"), 0.01)
    pauses.ask(key_of("b"), 1_000.0)
    assert (await frontier.take()).name == "c"
    assert given_up == [("b", Reason.RATE_LIMITED)]
    clock.now = 0.02
    assert (await frontier.take()).name == "a"
    frontier.leave("c", Verdict(0.0, Reason.RATE_LIMITED, 7.0))
    assert pauses.until(key_of("c")) == 7.02
