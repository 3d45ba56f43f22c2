import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from capstan.errors import CapstanError
from capstan.ingest.config import ImageOptions
from capstan.ingest.decode.images import prepare
from capstan.ingest.decode.pool import Decoders
from capstan.records import Failure, Image, Reason
from tests.ingest.conftest import encode, gradient
from tests.ingest.crashing import CRASH, GOOD, HANG, ODD, crash_at_first, decode
from tests.paths import ROOT

PICTURES = ImageOptions(image_size=32)
CRASHED = Failure(Reason.DECODER_CRASH)
PATIENCE = 20_000  # milliseconds


async def all_of(decoders: Decoders, bodies: list[bytes]) -> list[Image | Failure]:
    async with decoders:
        return await asyncio.gather(*(decoders.prepare(body, PICTURES) for body in bodies))


async def process_of(decoders: Decoders) -> int:
    image = await decoders.prepare(GOOD, PICTURES)
    assert isinstance(image, Image)
    return image.height


def wait_for_end(process: int) -> None:
    """Wait until a process that need not be our child has ended."""
    try:
        file = os.pidfd_open(process)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(file, select.POLLIN)
    assert poll.poll(PATIENCE)
    os.close(file)


async def test_pictures_come_out_as_they_would_in_this_process() -> None:
    bodies = [encode(gradient(width, 60), kind) for width in (40, 90) for kind in ("JPEG", "PNG")]
    bodies += [b"", b"<html>", bodies[0][:400], os.urandom(3 << 20)]
    found = await all_of(Decoders(2), bodies)
    assert found == [prepare(body, PICTURES) for body in bodies]


@pytest.mark.parametrize("count", [1, 2])
async def test_a_crash_costs_one_picture(count: int) -> None:
    bodies = [GOOD + bytes(index) for index in range(100)]
    for place in (0, 40, 41):
        bodies.insert(place, CRASH)
    results = await all_of(Decoders(count, decode), bodies)
    for body, result in zip(bodies, results, strict=True):
        if body == CRASH:
            assert result == CRASHED
        else:
            assert isinstance(result, Image)
            assert result.data == body


async def test_a_hang_costs_one_picture() -> None:
    bodies = [GOOD, HANG, GOOD, GOOD]
    first, hung, *rest = await all_of(Decoders(1, decode, time_limit=0.2), bodies)
    assert hung == Failure(Reason.DECODER_TIMEOUT)
    assert all(isinstance(result, Image) for result in (first, *rest))


async def test_a_defect_costs_one_picture_and_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    found = await all_of(Decoders(1, decode), [ODD, GOOD])
    assert found[0] == CRASHED
    assert isinstance(found[1], Image)
    assert "a defect of ours" in capfd.readouterr().err


async def test_a_picture_whose_process_was_killed_is_tried_again(tmp_path: Path) -> None:
    bodies = [CRASH + str(tmp_path / str(number)).encode() for number in range(2)]
    found = await all_of(Decoders(1, crash_at_first), [*bodies, GOOD])
    assert all(isinstance(result, Image) for result in found)


async def test_an_idle_process_may_be_killed() -> None:
    async with Decoders(1, decode) as decoders:
        process = await process_of(decoders)
        os.kill(process, signal.SIGKILL)
        assert await process_of(decoders) != process


async def test_rows_that_are_given_up_do_not_disturb_others() -> None:
    async with Decoders(1, decode, time_limit=0.5) as decoders:
        await process_of(decoders)
        given_up = [
            asyncio.create_task(decoders.prepare(body, PICTURES)) for body in (HANG, GOOD, CRASH)
        ]
        kept = asyncio.create_task(decoders.prepare(GOOD, PICTURES))
        await asyncio.sleep(0)
        for task in given_up:
            task.cancel()
        assert isinstance(await kept, Image)


async def test_what_the_header_decides_needs_no_process() -> None:
    data = encode(gradient(90, 60))
    pictures = ImageOptions(resize_mode="no", check="header")
    decoders = Decoders()  # not entered: it has no processes
    assert await decoders.prepare(data, pictures) == prepare(data, pictures)
    assert await decoders.prepare(b"<html>", pictures) == Failure(Reason.NOT_AN_IMAGE)


async def test_processes_that_do_not_start_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capstan.ingest.decode.pool.START", "raise SystemExit(3)")
    with pytest.raises(CapstanError, match=r"does not start \(status 3\)"):
        await all_of(Decoders(), [b"\xff\xd8\xff"])


async def test_each_picture_has_its_own_settings() -> None:
    data = encode(gradient(90, 60))
    several = [ImageOptions(image_size=size) for size in (20, 30)]
    async with Decoders() as decoders:
        found = await asyncio.gather(*(decoders.prepare(data, one) for one in several))
    assert found == [prepare(data, one) for one in several]


async def test_no_process_is_left() -> None:
    async with Decoders(1, decode) as decoders:
        process = await process_of(decoders)
    wait_for_end(process)


OWNER = """
import asyncio
from functools import partial
from capstan.ingest.config import ImageOptions
from capstan.ingest.decode.pool import Decoders
from tests.ingest.crashing import GOOD, HANG, decode

async def main():
    async with Decoders(2, decode, time_limit=1.0) as decoders:
        prepare = partial(decoders.prepare, pictures=ImageOptions())
        idle, busy = await asyncio.gather(prepare(GOOD), prepare(GOOD))
        hung = asyncio.create_task(prepare(HANG))
        print(idle.height, busy.height, flush=True)
        await hung

asyncio.run(main())
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_a_killed_parent(end: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with owner:
        assert owner.stdout
        processes = [int(number) for number in owner.stdout.readline().split()]
        assert len(set(processes)) == 2
        owner.send_signal(end)
    for process in processes:
        wait_for_end(process)


async def test_what_a_header_decides_starts_no_process(pictures: dict[str, bytes]) -> None:
    undecoded = ImageOptions(resize_mode="no", check="header")
    here = psutil.Process()
    before = len(here.children())
    async with Decoders() as decoders:
        assert isinstance(await decoders.prepare(pictures["wide.jpg"], undecoded), Image)
        assert len(here.children()) == before
        assert isinstance(await decoders.prepare(pictures["tall.png"], undecoded), Image)
        assert len(here.children()) == before + 1
