"""What the engines of one event loop share, so that their jobs are one guest to the web."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from capstan.ingest.config import IngestSettings
from capstan.ingest.decode.pool import Decoders
from capstan.ingest.http.fetch import open_connections
from capstan.ingest.http.pool import Connections
from capstan.ingest.robots import Robots
from capstan.ingest.scheduling.pauses import Pauses
from capstan.ingest.scheduling.registry import HostRegistry
from capstan.ingest.scheduling.saturation import Saturation
from capstan.ingest.scheduling.slots import Slots


@dataclass(frozen=True)
class PoolInfo:
    """The processes of a run, of which this is one."""

    processes: int = 1
    pauses: Pauses = field(default_factory=Pauses.local)


@dataclass(frozen=True)
class EngineResources:
    """Connections, decoders, slots and what is known of hosts."""

    connections: Connections
    decoders: Decoders
    hosts: HostRegistry
    slots: Slots
    robots: Robots | None
    writer: ThreadPoolExecutor  # of shards
    engines: set[object] = field(default_factory=set)  # that run here, and share what is bounded


@asynccontextmanager
async def open_resources(
    settings: IngestSettings, pool_info: PoolInfo
) -> AsyncIterator[EngineResources]:
    """A place for the engines of jobs that have these settings of Web and Load."""
    load, web = settings.load, settings.web
    writer = ThreadPoolExecutor(1, "shards")
    try:
        async with (
            Decoders(settings.decoders(pool_info.processes)) as decoders,
            open_connections(web) as connections,
        ):
            if settings.pictures.check == "full":
                decoders.start()
            yield EngineResources(
                connections,
                decoders,
                HostRegistry(settings.host_limits(pool_info.processes), pool_info.pauses),
                Slots(load.in_flight, load.aside, Saturation().is_full),
                Robots(connections, web) if web.robots else None,
                writer,
            )
    finally:
        await asyncio.to_thread(writer.shutdown)
