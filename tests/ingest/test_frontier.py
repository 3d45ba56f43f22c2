import asyncio
from dataclasses import dataclass

import pytest

from capstan.ingest.scheduling.frontier import Frontier
from capstan.ingest.scheduling.host import HostLimits
from capstan.ingest.scheduling.pauses import Pauses, key_of
from capstan.ingest.scheduling.registry import HostFeedback, HostRegistry
from capstan.records import Reason


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
def book(pauses: Pauses, clock: Clock) -> HostRegistry:
    return HostRegistry(HostLimits(2, 100.0, 100.0), pauses, clock)


@pytest.fixture
def frontier(given_up: list[tuple[str, Reason]], book: HostRegistry) -> Frontier[Page]:
    def give_up(page: Page, reason: Reason) -> None:
        given_up.append((page.name, reason))

    return Frontier(book, give_up)


def taken(frontier: Frontier[Page]) -> list[str]:
    """What may go at once."""
    names = []
    while entry := frontier.take():
        names.append(entry.name)
    return names


async def next_of(frontier: Frontier[Page]) -> str:
    """What may go next, now or later."""
    await frontier.some_ready()
    entry = frontier.take()
    assert entry is not None
    return entry.name


async def test_hosts_take_turns_and_have_so_many_each(frontier: Frontier[Page]) -> None:
    for host in "ab":
        for number in range(3):
            frontier.add(Page(host, f"{host}{number}"))
    assert taken(frontier) == ["a0", "b0", "a1", "b1"]
    assert frontier.size == 2
    frontier.book.leave("b", HostFeedback(0.0, None))
    assert taken(frontier) == ["b2"]
    frontier.add(Page("a", "first"), first=True)
    frontier.book.leave("a", HostFeedback(0.0, None))
    assert taken(frontier) == ["first"]
    assert repr(frontier) == "<Frontier: 1 waiting, 0 hosts ready>"


async def test_who_waits_for_an_entry_gets_the_next(frontier: Frontier[Page]) -> None:
    waiting = asyncio.create_task(next_of(frontier))
    await asyncio.sleep(0)
    assert not waiting.done()
    frontier.add(Page("a", "late"))
    assert await waiting == "late"


async def test_a_pause_holds_the_whole_host_and_no_other(
    frontier: Frontier[Page], clock: Clock
) -> None:
    for host in "ab":
        frontier.add(Page(host, host))
    assert taken(frontier) == ["a", "b"]
    frontier.book.leave("a", HostFeedback(0.0, Reason.RATE_LIMITED, 0.01))
    frontier.add(Page("a", "later"))
    frontier.add(Page("b", "now"))
    assert taken(frontier) == ["now"]
    clock.now = 0.02
    assert await next_of(frontier) == "later"


async def test_a_closed_host_gives_up_its_rows_and_those_that_come(
    frontier: Frontier[Page], given_up: list[tuple[str, Reason]], clock: Clock
) -> None:
    for name in "xyz":
        frontier.add(Page("a", name))
    taken(frontier)
    frontier.book.leave("a", HostFeedback(0.0, Reason.RATE_LIMITED, 1_000.0))
    assert given_up == [("z", Reason.RATE_LIMITED)]
    frontier.add(Page("a", "later"))
    assert given_up[1:] == [("later", Reason.RATE_LIMITED)]
    assert frontier.size == 0
    frontier.book.leave("a", None)
    clock.now = 1_001.0
    frontier.add(Page("a", "open again"))
    assert taken(frontier) == ["open again"]


async def test_what_is_deferred_comes_back_and_counts_meanwhile(frontier: Frontier[Page]) -> None:
    frontier.defer(Page("a", "again"), 0.0)
    assert (frontier.size, frontier.ready) == (1, 0)
    assert await next_of(frontier) == "again"
    assert frontier.size == 0


async def test_troubles_are_remembered_when_nobody_waits(frontier: Frontier[Page]) -> None:
    frontier.add(Page("a"))
    assert frontier.take()
    frontier.book.leave("a", HostFeedback(0.0, Reason.CONNECT))
    for number in range(2):
        frontier.add(Page("a", str(number)))
    assert taken(frontier) == ["0"]  # two were allowed before


async def test_room_is_waited_for(frontier: Frontier[Page]) -> None:
    frontier.add(Page("a"))
    waiting = asyncio.create_task(frontier.room(ready=1, size=9))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert frontier.take()
    await waiting


async def test_a_pause_asked_of_another_process_is_kept_here_too(
    frontier: Frontier[Page], pauses: Pauses, given_up: list[tuple[str, Reason]], clock: Clock
) -> None:
    for host in "abc":
        frontier.add(Page(host, host))
    pauses.ask(key_of("a"), 0.01)
    pauses.ask(key_of("b"), 1_000.0)
    assert await next_of(frontier) == "c"
    assert given_up == [("b", Reason.RATE_LIMITED)]
    clock.now = 0.02
    assert await next_of(frontier) == "a"
    frontier.book.leave("c", HostFeedback(0.0, Reason.RATE_LIMITED, 7.0))
    assert pauses.until(key_of("c")) == 7.02


async def test_frontiers_of_one_book_share_the_room_at_a_host_by_turns(
    frontier: Frontier[Page], book: HostRegistry
) -> None:
    other = Frontier[Page](book, lambda page, reason: None)
    gone: list[str] = []

    async def take_all(frontier: Frontier[Page]) -> None:
        while len(gone) < 8:
            await frontier.some_ready()
            if entry := frontier.take():
                gone.append(entry.name)

    for number in range(4):
        frontier.add(Page("a", f"ours{number}"))
        other.add(Page("a", f"theirs{number}"))
    taking = [asyncio.create_task(take_all(one)) for one in (frontier, other)]
    for expected in range(2, 9):  # two at a time are allowed
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(gone) == expected
        if expected < 8:
            book.leave("a", None)
    assert [name[:4] for name in gone] == ["ours", "ours", *["thei", "ours"] * 2, "thei", "thei"]
    for task in taking:
        task.cancel()


async def test_a_closed_frontier_wants_nothing_more(
    frontier: Frontier[Page], book: HostRegistry
) -> None:
    frontier.add(Page("a"))
    frontier.defer(Page("b"), 0.0)
    frontier.close()
    await asyncio.sleep(0.001)
    assert frontier.take() is None
    other = Frontier[Page](book, lambda page, reason: None)
    other.add(Page("a", "other"))
    assert taken(other) == ["other"]
