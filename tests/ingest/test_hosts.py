import asyncio

from ingest.hosts import Hosts


async def test_a_host_has_so_many_slots_and_others_are_not_held_up() -> None:
    hosts, held, gate = Hosts(2), 0, asyncio.Event()
    most = 0

    async def use(name: str) -> None:
        nonlocal held, most
        async with hosts.slot(name):
            held += name == "slow"
            most = max(most, held)
            if name == "slow":
                await gate.wait()
            held -= name == "slow"

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(use("slow"))
        await asyncio.sleep(0)
        await use("other")
        assert repr(hosts) == "<Hosts limit 2, in use {'slow': 5}>"
        gate.set()
    assert most == 2
    assert repr(hosts) == "<Hosts limit 2, in use {}>"


async def test_a_cancelled_wait_is_forgotten() -> None:
    hosts = Hosts(1)
    async with hosts.slot("h"):
        waiting = asyncio.create_task(hosts.slot("h").__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert repr(hosts) == "<Hosts limit 1, in use {'h': 1}>"
