"""`capstan serve` as a process: it says where it serves, and stops without losing a request."""

import asyncio
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from capstan.cli import main
from tests.predict.conftest import png
from tests.predict.server.conftest import metric


@asynccontextmanager
async def serving(model: Path) -> AsyncIterator[tuple[Process, str]]:
    """A server and its address; it is killed if the block did not end it."""
    words = ("-m", "capstan.cli", "serve", "--model", str(model), "--port", "0")
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stderr=PIPE)
    assert process.stderr is not None
    try:
        said = b""
        while b"serving on " not in said:
            said = await process.stderr.readline()
            assert said, "ended before it served"
        yield process, said.split()[-1].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_sigterm_answers_what_is_in_hand(model: Path) -> None:
    picture, half = png(0), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield picture[:100]
        await half.wait()
        yield picture[100:]

    async def ask(session: aiohttp.ClientSession, data: object) -> int:
        async with session.post(f"{url}/caption", data=data) as response:
            return response.status

    async with serving(model) as (process, url), aiohttp.ClientSession() as session:
        statuses = await asyncio.gather(*(ask(session, png(seed)) for seed in range(12)))
        assert statuses == [200] * 12
        assert await metric(session, "capstan_batch_pictures_count", url) < 12
        slow = asyncio.create_task(ask(session, slowly()))
        while await metric(session, "capstan_held_pictures", url) < 1:
            pass
        process.send_signal(signal.SIGTERM)
        ready = 200
        while ready == 200:
            async with session.get(f"{url}/v2/health/ready") as response:
                ready = response.status
        assert ready == 503
        assert await ask(session, picture) == 503
        half.set()
        assert await slow == 200
        _, said = await process.communicate()
        assert process.returncode == 0
        assert said.split()[-1] == b"stopped"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--port", 0), "absent: no such folder; give the `saved` that `capstan train` wrote"),
        (("--port", 99_999), "127.0.0.1:99999: cannot serve there (no such port); give another"),
        (("--host", "192.0.2.1"), "192.0.2.1:8080: cannot serve there (Cannot assign requested"),
        (("--queue", 1), "--queue 1: a request may have 32 pictures"),
        (("--beam", 0), "--beam 0: give at least 1"),
    ],
)
def test_bad_settings_are_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[object, ...],
    message: str,
) -> None:
    assert main(["serve", "--model", str(tmp_path / "absent"), *map(str, words)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "--model", str(tmp_path), "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"127.0.0.1:{port}: cannot serve there (Address already in use)" in said
