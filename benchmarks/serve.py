"""`capstan serve` under load: captions/s, latency, start-up, memory, hostile uploads, overload.

    python -m benchmarks.serve MODEL --image FILE... [--only PART...] [flags of capstan serve]

Each part starts the real command with MODEL (the folder `saved`) on a free port:

bare      the model itself in this process: pictures one at a time, and --max-batch at once
load      requests one at a time, then from 32 clients at once: captions/s, and the ratio of both
start     from the command to the first caption, median of three starts
memory    anonymous memory after every 1,000 of --requests requests from 32 clients
hostile   1,000 uploads that are broken, huge, slow or no pictures: what they are answered
overload  arrivals on a schedule that waits for no answer, at half and at twice the captions/s of 32
          clients: how many are refused and how soon, and what accepted ones wait
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Thread

import numpy as np
from aiohttp import ClientSession

from benchmarks.clients import Answers, ask, be_clients, closed_loop, open_loop
from benchmarks.hostile import HostileUploads

CLIENTS = 32
STARTS = 3
HOSTILE, AT_ONCE = 1_000, 20
IMPATIENCE = "2s"  # of the server with hostile clients, so that slow ones do not take hours


@dataclass(frozen=True)
class ServeBench:
    """What is measured."""

    model: Path
    weights: str | None
    pictures: Sequence[bytes]
    flags: Sequence[str]  # of `capstan serve`
    requests: int  # of the memory part
    seconds: float  # of each measurement of load


@dataclass(frozen=True)
class ServeProcess:
    """A `capstan serve` that runs."""

    process: subprocess.Popen[str]
    url: str

    def anonymous_mib(self) -> float:
        """Its anonymous memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0]) / 1024


def main() -> None:
    """Run the parts asked for and print a line for each figure."""
    parts: dict[str, Callable[[ServeBench], None]] = {
        "bare": bare,
        "load": load,
        "start": start,
        "memory": memory,
        "hostile": hostile,
        "overload": overload,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="the folder `saved` of a model")
    parser.add_argument("--image", type=Path, nargs="+", required=True, help="pictures to send")
    parser.add_argument("--weights", help="the extractor's weights, as for capstan serve")
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts), metavar="PART")
    parser.add_argument("--requests", type=int, default=10_000, help="of the memory part")
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement of load")
    arguments, flags = parser.parse_known_args()
    pictures = [path.read_bytes() for path in arguments.image]
    if arguments.weights:
        flags += ["--weights", arguments.weights]
    bench = ServeBench(
        arguments.model,
        arguments.weights,
        pictures,
        flags,
        arguments.requests,
        arguments.seconds,
    )
    print(f"{os.cpu_count()} cores; capstan serve {' '.join(flags)}")
    for part in arguments.only:
        parts[part](bench)


@contextmanager
def serving(bench: ServeBench, *more: str) -> Iterator[ServeProcess]:
    """The command, from when it says that it serves until it was told to stop."""
    command = [sys.executable, "-m", "capstan.cli", "serve", "--port", "0"]
    words = [*command, "--model", str(bench.model), *bench.flags, *more]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = deque[str](maxlen=20)
        drain = Thread(target=said.extend, args=(process.stderr,))
        try:
            url = ""
            while not url and (line := process.stderr.readline()):
                said.append(line)
                url = "".join(re.findall(r"serving on (http://\S+)", line))
            if not url:
                raise SystemExit("".join(said))
            drain.start()
            yield ServeProcess(process, url)
        finally:
            process.terminate()
            if drain.ident:
                drain.join()


def for_seconds(bench: ServeBench, server: ServeProcess, clients: int) -> Answers:
    """Closed-loop load for a while, after a little that is not counted."""

    async def work(session: ClientSession) -> Answers:
        await closed_loop(session, bench.pictures, clients, lambda asked, _: asked < 2 * clients)
        return await closed_loop(
            session, bench.pictures, clients, lambda _, passed: passed < bench.seconds
        )

    return be_clients(server.url, work)


def bare(bench: ServeBench) -> None:
    """The model without a server."""
    from capstan.predict.captions import Predictor, PredictSettings

    predictor = Predictor(PredictSettings(bench.model, bench.weights))
    predictor.warm_up()
    for size in (1, predictor.batch_size):
        times: list[float] = []
        end = time.perf_counter() + bench.seconds / 2
        while time.perf_counter() < end:
            begin = time.perf_counter()
            pixels = [
                predictor.pixels(bench.pictures[i % len(bench.pictures)]) for i in range(size)
            ]
            predictor.captions([one for one in pixels if isinstance(one, np.ndarray)])
            times.append(time.perf_counter() - begin)
        middle = median(times)
        print(f"bare      {size} at once: {middle * 1e3:,.0f} ms, {size / middle:,.1f} captions/s")


def load(bench: ServeBench) -> None:
    """One client, many clients."""
    with serving(bench) as server:
        one, many = (for_seconds(bench, server, clients) for clients in (1, CLIENTS))
    for clients, answers in ((1, one), (CLIENTS, many)):
        print(f"load      {clients} clients: {answers.rate:,.1f} captions/s, {answers.latency()}")
    print(f"load      ratio {many.rate / one.rate:.2f}")


def start(bench: ServeBench) -> None:
    """From nothing to a caption."""
    times = []
    for _ in range(STARTS):
        begin = time.perf_counter()
        with serving(bench) as server:
            ready = time.perf_counter() - begin
            be_clients(
                server.url,
                lambda session: closed_loop(session, bench.pictures, 1, lambda n, _: n < 1),
            )
            times.append((time.perf_counter() - begin, ready))
    first, ready = map(median, zip(*times, strict=True))
    print(f"start     {first:.1f} s to the first caption, {ready:.1f} s until it serves")


def memory(bench: ServeBench) -> None:
    """Whether it grows."""
    with serving(bench) as server:
        for_seconds(bench, server, CLIENTS)  # until then it may
        print(f"memory    {server.anonymous_mib():,.0f} MiB after {bench.seconds:g} s of load")
        for thousand in range(1, bench.requests // 1_000 + 1):
            be_clients(
                server.url,
                lambda session: closed_loop(
                    session, bench.pictures, CLIENTS, lambda asked, _: asked < 1_000
                ),
            )
            print(f"memory    {server.anonymous_mib():,.0f} MiB after {thousand:,} thousand")


def hostile(bench: ServeBench) -> None:
    """Whether it lives, and what it says."""
    uploads = HostileUploads(bench.pictures[0])

    async def attack(session: ClientSession) -> Answers:
        answers, queue = Answers(), iter(range(HOSTILE))

        async def attacker() -> None:
            for number in queue:
                began = asyncio.get_running_loop().time()
                try:
                    status = await uploads.send(session, number)
                except uploads.unanswered as error:
                    answers.failed[type(error).__name__] += 1
                else:
                    answers.add(status, asyncio.get_running_loop().time() - began)

        await asyncio.gather(*(attacker() for _ in range(AT_ONCE)))
        await ask(session, bench.pictures[0], alive, asyncio.get_running_loop().time())
        return answers

    alive = Answers()
    with serving(bench, "--timeout", IMPATIENCE) as server:
        before = server.anonymous_mib()
        answers = be_clients(server.url, attack)
        after, lives = server.anonymous_mib(), server.process.poll() is None
    counts = {str(status): answers.count(status) for status in sorted(answers.by_status)}
    told = ", ".join(f"{what} {count}" for what, count in {**counts, **answers.failed}.items())
    print(f"hostile   {HOSTILE:,} uploads: {told}; {before:,.0f} to {after:,.0f} MiB")
    faults = sum(answers.count(status) for status in answers.by_status if status >= 500)
    verdict = "alive" if lives and alive.count() == 1 else "DEAD"
    print(f"hostile   {faults} answers of 5xx; the server is {verdict}")


def overload(bench: ServeBench) -> None:
    """More than it can do."""
    with serving(bench) as server:
        capacity = for_seconds(bench, server, CLIENTS).rate
        for share in (0.5, 2.0):

            async def work(session: ClientSession, rate: float = share * capacity) -> Answers:
                return await open_loop(session, bench.pictures, rate, bench.seconds)

            answers = be_clients(server.url, work)
            asked = sum(map(len, answers.by_status.values()))
            print(
                f"overload  {share:g} x {capacity:,.1f}/s: {answers.count():,} of {asked:,} "
                f"captioned, {answers.latency()}; {answers.count(429):,} refused, "
                f"{answers.latency(429)}"
            )


if __name__ == "__main__":
    main()
