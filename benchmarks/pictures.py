"""How ingest's decoding fares: on hostile pictures, in quality, and in speed.

    python -m benchmarks.pictures hostile [--count 5000] [--folder DIR]
    python -m benchmarks.pictures quality [FOLDER]
    python -m benchmarks.pictures speed [FOLDER] [--seconds 5] [--rounds 3]

FOLDER holds JPEGs; without one, photo-like pictures of about 90 KB are made. `quality` needs
scikit-image, and compares with img2dataset's way when OpenCV is installed too.
"""

import argparse
import asyncio
import io
import multiprocessing
import os
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import PIL
import PIL.Image
import psutil
import uvloop

from benchmarks.broken_pictures import corpus
from capstan.ingest.config import ImageOptions
from capstan.ingest.decode.images import prepare
from capstan.ingest.decode.pool import Decoders
from capstan.records import Failure, Image, Reason
from capstan.testing.photolike import photos

RESIZED = ImageOptions()
KEPT = ImageOptions(resize_mode="no")
LIMIT = 30.0  # seconds for one hostile picture
WARM = 8  # pictures before the clock starts

Prepare = Callable[[bytes], Awaitable[object]]
Arrangement = Callable[[Sequence[bytes], float], Coroutine[Any, Any, "DecodeRate"]]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("hostile", help="does any picture crash or hang the decoder?")
    command.add_argument("--count", type=int, default=5_000, help="pictures to make")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--folder", type=Path, help="take the files below it instead")
    command.set_defaults(run=hostile)
    command = commands.add_parser("quality", help="PSNR, SSIM and time against Lanczos")
    command.add_argument("folder", type=Path, nargs="?")
    command.add_argument("--count", type=int, default=200, help="pictures at most")
    command.add_argument(
        "--side", type=int, default=ImageOptions.image_size, help="pixels to aim at"
    )
    command.set_defaults(run=quality)
    command = commands.add_parser("speed", help="images/s from memory on all cores")
    command.add_argument("folder", type=Path, nargs="?")
    command.add_argument("--count", type=int, default=100, help="pictures at most")
    command.add_argument("--seconds", type=float, default=5.0)
    command.add_argument("--rounds", type=int, default=3)
    command.set_defaults(run=speed)
    arguments = parser.parse_args()
    arguments.run(arguments)


def load(folder: Path | None, count: int) -> Sequence[bytes]:
    """The JPEGs of a folder, or made ones."""
    if folder is None:
        return photos(min(count, 24))
    found = [path.read_bytes() for path in sorted(folder.glob("*.jp*g"))[:count]]
    if not found:
        sys.exit(f"{folder}: no .jpg or .jpeg in it; give a folder of JPEGs")
    return found


# Hostile


def hostile(arguments: argparse.Namespace) -> None:
    """Assert that every picture ends as one that other readers read, or as a reason."""
    if arguments.folder:
        files = (path for path in sorted(arguments.folder.rglob("*")) if path.is_file())
        bodies: Iterable[tuple[str, bytes]] = ((str(path), path.read_bytes()) for path in files)
    else:
        bodies = corpus(arguments.count, arguments.seed)
    counts, slowest, failed = asyncio.run(judge_all(iter(bodies)))
    for result, count in counts.most_common():
        print(f"{count:8,}  {result}")
    print(f"slowest: {slowest[0]:.2f} s, {slowest[1]}")
    for line in failed:
        print(line)
    print(f"{counts.total():,} pictures, {len(failed)} crashes, hangs or bad results")
    sys.exit(bool(failed))


async def judge_all(
    bodies: Iterator[tuple[str, bytes]],
) -> tuple[Counter[str], tuple[float, str], list[str]]:
    """Results, the slowest picture, and a line for each that did not end as it should."""
    counts, slowest, failed = Counter[str](), (0.0, ""), list[str]()
    async with (
        Decoders(time_limit=LIMIT) as resizing,
        Decoders(time_limit=LIMIT) as keeping,
    ):
        for name, body in bodies:
            started = time.perf_counter()
            for result in await asyncio.gather(
                resizing.prepare(body, RESIZED), keeping.prepare(body, KEPT)
            ):
                counts[result.reason if isinstance(result, Failure) else "image"] += 1
                if fault := judge(result):
                    failed.append(f"{name}: {fault}")
            slowest = max(slowest, (time.perf_counter() - started, name))
    return counts, slowest, failed


def judge(result: Image | Failure) -> str:
    """What is wrong with a result, if anything."""
    if isinstance(result, Failure):
        crashed = result.reason in (Reason.DECODER_CRASH, Reason.DECODER_TIMEOUT)
        return result.reason if crashed else ""
    try:
        with PIL.Image.open(io.BytesIO(result.data), formats=("JPEG",)) as stored:
            stored.load()
            as_said = stored.size == (result.width, result.height) and stored.mode == "RGB"
            return "" if as_said else "not the size or mode that it should have"
    except (OSError, SyntaxError) as error:
        return f"stored, but unreadable: {error}"


def quality(arguments: argparse.Namespace) -> None:
    """Compare ways to resize."""
    if find_spec("skimage") is None:
        sys.exit("quality needs scikit-image; pip install 'capstan-captions[bench]'")
    from benchmarks.picture_quality import compare

    compare(load(arguments.folder, arguments.count), arguments.side)


# Speed


def speed(arguments: argparse.Namespace) -> None:
    """Print images/s of each arrangement, over alternated rounds."""
    data = load(arguments.folder, arguments.count)
    cores = len(os.sched_getaffinity(0))
    measured: dict[str, list[DecodeRate]] = {name: [] for name in ARRANGEMENTS}
    context = multiprocessing.get_context("spawn")
    for _ in range(arguments.rounds):
        for name, taken in measured.items():
            barrier = context.Barrier(cores)
            with ProcessPoolExecutor(
                cores, context, initializer=share_barrier, initargs=(barrier,)
            ) as pool:
                runs = [pool.submit(measure, name, data, arguments.seconds) for _ in range(cores)]
                each = [run.result() for run in runs]
            total = sum(one.images for one in each)
            taken.append(DecodeRate(total, statistics.mean(one.processor for one in each)))
    size = statistics.mean(map(len, data)) / 1e3
    print(f"{len(data)} JPEGs of {size:.0f} KB, default settings, Pillow {PIL.__version__}")
    print(f"{cores} event loops; medians of {arguments.rounds} rounds, range of images/s")
    print(f"{'':<32} images/s   range      processor ms/image")
    for name, taken in measured.items():
        images = [one.images for one in taken]
        processor = statistics.median(one.processor for one in taken) * 1e3
        middle = statistics.median(images)
        print(f"{name:<32} {middle:8.0f}   {min(images):.0f}-{max(images):.0f}   {processor:8.2f}")


@dataclass(frozen=True)
class DecodeRate:
    """How fast pictures were done, and at what cost with all processes counted."""

    images: float  # per second
    processor: float  # seconds of one core for each


def share_barrier(barrier: Any) -> None:
    """Remember what processes wait at, so that they start together."""
    global at_start
    at_start = barrier


at_start: Any = None


def measure(name: str, data: Sequence[bytes], seconds: float) -> DecodeRate:
    """The rate of one event loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(ARRANGEMENTS[name](data, seconds))


async def here(data: Sequence[bytes], seconds: float) -> DecodeRate:
    """In the loop's own thread."""

    async def one(body: bytes) -> object:
        return prepare(body, RESIZED)

    return await rate(one, data, seconds, 1)


async def in_a_thread(data: Sequence[bytes], seconds: float) -> DecodeRate:
    """In one other thread."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        return await rate(
            lambda body: loop.run_in_executor(pool, prepare, body, RESIZED), data, seconds, 16
        )


async def in_decoders(data: Sequence[bytes], seconds: float, count: int = 1) -> DecodeRate:
    """In processes that may crash, as ingest does."""
    async with Decoders(count) as decoders:
        return await rate(lambda body: decoders.prepare(body, RESIZED), data, seconds, 16)


async def in_executor(data: Sequence[bytes], seconds: float, count: int = 1) -> DecodeRate:
    """In the standard library's processes."""
    loop = asyncio.get_running_loop()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context) as pool:
        return await rate(
            lambda body: loop.run_in_executor(pool, prepare, body, RESIZED), data, seconds, 16
        )


ARRANGEMENTS: dict[str, Arrangement] = {
    "in the loop": here,
    "a thread": in_a_thread,
    "Decoders, 1 process": in_decoders,
    "Decoders, 2 processes": partial(in_decoders, count=2),
    "ProcessPoolExecutor, 1 process": in_executor,
    "ProcessPoolExecutor, 2 processes": partial(in_executor, count=2),
}


async def rate(one: Prepare, data: Sequence[bytes], seconds: float, ahead: int) -> DecodeRate:
    """How fast pictures are done with so many asked for at a time."""
    bodies = cycle(data)
    for _ in range(WARM):
        await one(next(bodies))
    await asyncio.to_thread(at_start.wait)
    done, start, processor = 0, time.perf_counter(), processor_seconds()

    async def ask() -> None:
        nonlocal done
        while time.perf_counter() < start + seconds:
            await one(next(bodies))
            done += 1

    await asyncio.gather(*(ask() for _ in range(ahead)))
    taken = time.perf_counter() - start
    return DecodeRate(done / taken, (processor_seconds() - processor) / done)


def processor_seconds() -> float:
    """What this process and its children have used."""
    here = psutil.Process()
    times = [process.cpu_times() for process in (here, *here.children(recursive=True))]
    return sum(time.user + time.system for time in times)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", module="PIL")
    main()
