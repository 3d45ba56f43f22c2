"""The service and its HTTP, from start to SIGTERM."""

import asyncio
import signal

import uvloop

from ingestd.config import ServiceSettings
from ingestd.service import open_service


def run(settings: ServiceSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))


async def serve(settings: ServiceSettings) -> None:
    """Serve until SIGTERM or SIGINT; what is under way then has 10 s to end."""
    from ingestd.app import listening  # async context manager of a Service: it listens inside

    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with open_service(settings) as service, listening(service):
        await stopping.wait()
