"""What the server does not take on: it says so at once, and keeps answering the others."""

import argparse
import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import pytest

from capstan.errors import SettingError
from capstan.predict.captions import Captions, Pixels
from capstan.predict.server.config import ServerLimits, duration
from tests.predict.server.conftest import SAID, Client, Held, Start, begun, metric


async def ask(client: Client) -> tuple[int, Any]:
    async with client.post("/caption", data=b"a picture") as response:
        return response.status, await response.json()


async def test_429_when_full(start: Start) -> None:
    held = Held()
    client, service = await start(
        held, ServerLimits(max_batch=1, max_wait=0, queue=3, max_pictures=3)
    )
    first = asyncio.create_task(ask(client))
    await begun(held)
    others = [asyncio.create_task(ask(client)) for _ in range(2)]
    while service.gate.held < 3:
        await metric(client, "capstan_held_pictures")
    async with client.post("/caption", data=b"a picture") as response:
        assert response.status == 429
        assert response.headers["Retry-After"] == "1"
        assert "too many pictures in hand" in (await response.json())["error"]
    held.go.set()
    for status, answer in await asyncio.gather(first, *others):
        assert (status, answer["caption"]) == (200, SAID[0].text)
    assert service.gate.held == 0
    assert (await ask(client))[0] == 200
    assert await metric(client, 'capstan_requests_total{endpoint="/caption",status="4xx"}') == 1


async def test_a_request_needs_room_for_all_its_pictures(start: Start) -> None:
    held = Held()
    client, _ = await start(held, ServerLimits(queue=3, max_pictures=3))
    first = asyncio.create_task(ask(client))
    await begun(held)
    instances = [{"b64": base64.b64encode(b"a picture").decode()}] * 3
    content = {"instances": instances}
    async with client.post("/v1/models/capstan:predict", json=content) as response:
        assert response.status == 429
    held.go.set()
    await first
    async with client.post("/v1/models/capstan:predict", json=content) as response:
        assert len((await response.json())["predictions"]) == 3
    content = {"instances": instances + instances}
    async with client.post("/v1/models/capstan:predict", json=content) as response:
        assert (response.status, await response.json()) == (
            413,
            {"error": "6 pictures; send at most 3 at once"},
        )


async def test_time_to_answer_runs_out(start: Start) -> None:
    held = Held()
    client, service = await start(held, ServerLimits(timeout=0.05))
    status, answer = await ask(client)
    assert (status, answer) == (503, {"error": "no answer within 0.05 s; try again later"})
    assert service.gate.held == 0
    held.go.set()


async def test_time_to_send_runs_out(start: Start) -> None:
    client, service = await start(Held(), ServerLimits(timeout=0.05))
    assert client.port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(b"POST /caption HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nslow")
    assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    writer.close()
    assert service.gate.held == 0


async def test_a_client_that_leaves_gives_its_place_back(start: Start) -> None:
    held = Held()
    client, service = await start(held, ServerLimits(queue=1, max_pictures=1))
    request = asyncio.create_task(ask(client))
    await begun(held)
    request.cancel()
    while service.gate.held:
        await metric(client, "capstan_held_pictures")
    held.go.set()
    assert (await ask(client))[0] == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_that_are_too_long(start: Start, chunked: bool) -> None:
    held = Held()
    held.go.set()
    client, _ = await start(held, ServerLimits(max_bytes=1_000))
    long = b"a" * 1_001
    form = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n' + long
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    for data, more in ((long, {}), (form + b"\r\n--x--\r\n", headers)):
        body = _pieces(data) if chunked else data
        async with client.post("/caption", data=body, headers=more) as response:
            assert response.status == 413
            assert await response.json() == {"error": "send at most 1,000 bytes"}
    async with client.post("/caption", data=b"a" * 1_000) as response:
        assert response.status == 200


async def _pieces(data: bytes) -> Any:
    yield data[:500]
    yield data[500:]


async def test_draining(start: Start) -> None:
    held = Held()
    client, service = await start(held, ServerLimits())
    first = asyncio.create_task(ask(client))
    await begun(held)
    drained = asyncio.create_task(service.gate.drain(30))
    await asyncio.sleep(0)  # it begins
    async with client.get("/v2/health/ready") as response:
        assert (response.status, await response.json()) == (503, {"live": True, "ready": False})
    async with client.get("/v1/models/capstan") as response:
        (version,) = (await response.json())["model_version_status"]
        assert version["state"] == "UNLOADING"
    status, answer = await ask(client)
    assert (status, answer["error"]) == (503, "shutting down; ask another server")
    assert not drained.done()
    held.go.set()
    assert (await first)[0] == 200
    await drained


async def test_draining_does_not_last_for_ever(start: Start) -> None:
    held = Held()
    client, service = await start(held, ServerLimits())
    first = asyncio.create_task(ask(client))
    await begun(held)
    await service.gate.drain(0.01)
    assert service.gate.held == 1
    held.go.set()
    await first


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_batch": 0}, "--max-batch 0: give at least 1"),
        ({"max_bytes": -1}, "--max-bytes -1: give at least 1"),
        ({"explanations": -1}, "--explanations -1: give 0 or more"),
        ({"timeout": 0.0}, "--timeout 0s: give more than 0"),
        ({"queue": 8}, "--queue 8: a request may have 32 pictures; .* or --max-pictures 8"),
    ],
)
def test_limits_that_cannot_be(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        ServerLimits(**limits)


def test_durations() -> None:
    texts = ("10ms", "2s", "1m", "0.5", "0")
    assert [duration(text) for text in texts] == [0.01, 2.0, 60.0, 0.5, 0.0]
    for text in ("", "ms", "-1s", "1h", "1 s", "1e3", "inf"):
        with pytest.raises(argparse.ArgumentTypeError, match="give a time such as 10ms"):
            duration(text)


async def test_a_model_that_fails_does_not_end_the_server(start: Start) -> None:
    class Failing(Held):
        def captions(self, pixels: Sequence[Pixels]) -> list[Captions]:
            if self.sizes:
                return super().captions(pixels)
            self.sizes.append(0)
            raise RuntimeError("a fault of our own")

    failing = Failing()
    failing.go.set()
    client, service = await start(failing, ServerLimits())
    async with client.post("/caption", data=b"a picture") as response:
        assert response.status == 500
        assert await response.json() == {"error": "a fault of the server; its log tells"}
    assert (await ask(client))[0] == 200
    assert service.gate.held == 0
    assert await metric(client, 'capstan_requests_total{endpoint="/caption",status="5xx"}') == 1
