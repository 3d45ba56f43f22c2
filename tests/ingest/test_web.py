import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from benchmarks.web import Fault, Web


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
    words = [sys.executable, "-m", "benchmarks.web", str(tmp_path), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.terminate()
