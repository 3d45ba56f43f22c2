import asyncio
import subprocess
import sys
from contextlib import suppress
from math import inf
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.testing.connection import read_head
from capstan.testing.replies import Reply, parse, reply_to
from capstan.testing.web import Fault, Web


async def read(url: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.read()


async def test_a_folder_is_served(tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(b"picture")
    with Web(tmp_path) as web:
        assert await read(web.url("a b.png")) == (200, b"picture")
        assert (await read(web.url("none.png")))[0] == 404
        assert (await read(f"{web.address}/nonsense/a%20b.png"))[0] == 404
    assert repr(web) == f"<Web {web.address}: 3 requests, 0 open>"


async def test_faults_that_pass_do_so_by_address(web: Web) -> None:
    for fault, status in ((Fault.FLAKY, 500), (Fault.BUSY, 429)):
        for row in (1, 2):
            url = web.url("wide.jpg", fault, row)
            assert [(await read(url))[0] for _ in range(3)] == [status, 200, 200]


async def test_the_log_can_be_waited_for(web: Web) -> None:
    await read(web.url("wide.jpg"))
    web.wait_for(1, timeout=0)
    with pytest.raises(TimeoutError, match="1 requests of 2"):
        web.wait_for(2, timeout=0)
    assert web.paths() == {"/none/wide.jpg": 1}


def test_a_port_that_is_taken_is_an_error(web: Web) -> None:
    port = int(web.address.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"), Web({}, port=port):
        pass


def test_it_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "capstan.testing.web", str(tmp_path), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.terminate()


async def say(web: Web, text: bytes) -> bytes:
    """Send bytes to the web and read until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(web.address.rpartition(":")[2]))
    writer.write(text)
    heard = await reader.read()
    writer.close()
    return heard


@pytest.mark.parametrize("text", [b"nonsense\r\n\r\n", b"POST /none/a HTTP/1.1\r\n\r\n"])
async def test_what_is_no_request_is_refused(web: Web, text: bytes) -> None:
    assert (await say(web, text)).startswith(b"HTTP/1.1 400 ")
    assert web.log == []


async def test_a_head_without_end_is_not_listened_to(web: Web) -> None:
    heard = b""
    with suppress(ConnectionError):  # which comes as a reset when it had more to say
        heard = await say(web, b"GET /none/wide.jpg HTTP/1.1\r\n" + b"X: y\r\n" * 20_000)
    assert (heard, web.log) == (b"", [])


async def test_heads_alone_and_the_end_of_connections(web: Web, pictures: dict[str, bytes]) -> None:
    asked = b"HEAD /none/wide.jpg HTTP/1.1\r\nConnection: close\r\n\r\n"
    heard = await say(web, asked)
    assert heard.endswith(b"Connection: close\r\n\r\n")
    assert f"Content-Length: {len(pictures['wide.jpg'])}\r\n".encode() in heard
    assert (await say(web, b"GET /none/flat.bmp HTTP/1.0\r\n\r\n")).endswith(pictures["flat.bmp"])


async def test_stalled_addresses_answer_once_released(web: Web) -> None:
    asking = asyncio.create_task(read(web.url("wide.jpg", Fault.STALLED)))
    await asyncio.to_thread(web.wait_for, 1)
    assert not asking.done()
    web.release()
    assert (await asking)[0] == 200
    assert (await read(web.url("wide.jpg", Fault.STALLED)))[0] == 200


@given(st.sampled_from(Fault), st.binary(min_size=2), st.integers(1, 3), st.integers(0, 4))
def test_replies_are_a_function_of_their_address(
    fault: Fault, body: bytes, times: int, hop: int
) -> None:
    target = parse(f"/{fault}/a%20b.png?row=7&hop={hop}")
    assert (target.fault, target.name, target.hop) == (fault, "a b.png", hop)
    reply = reply_to(target, body, times, slow=0.5)
    assert reply == reply_to(target, body, times, slow=0.5)
    if fault is Fault.RESET:
        assert reply == Reply(0, b"", close=True)
        return
    whole = len(body) if fault is Fault.TRUNCATED else len(reply.body)
    assert reply.head.startswith(f"HTTP/1.1 {reply.status} ".encode())
    assert f"\r\nContent-Length: {whole}\r\n".encode() in reply.head
    assert (reply.pace < inf) == (fault is Fault.TRICKLE)


@given(st.text())
def test_any_text_is_a_head_or_none(text: str) -> None:
    method, request, closes = read_head(text)
    assert (request is None) == (method == "")
    assert closes or request is not None
