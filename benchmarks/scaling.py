"""Training speed of two processes on two cores beside one process on one core, captions/s.

    python -m benchmarks.scaling [--input CONSOLIDATED] [--rounds N] [--batch N] [--profile NAME]

One process takes --batch captions a step. Two take as many together, and then twice as many, which
is the same per process. All are the steps of `capstan train --workers`, over gRPC on 127.0.0.1.
The groups are all there from the start and run in turn, each process on a core of its own, and
medians over the rounds are compared: by the clock, which other work on the machine disturbs, and by
processor time, which tells what two free cores would do if neither ever waited for the other.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.train import made_up, real
from capstan.cli import import_tensorflow
from capstan.train.dataset import Examples, epoch_order
from capstan.train.settings import PROFILES, TrainSettings
from capstan.train.workers import environments

LONGEST = 40  # words
STEPS = 16  # of twice the batch, a round: all made-up captions, so no size is new after one
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


@dataclass(frozen=True)
class ProcessGroup:
    """Processes that train together, waiting for rounds to run."""

    name: str
    batch: int  # captions a step, of all
    processes: list["subprocess.Popen[str]"]

    def run(self) -> dict[str, float]:
        """One round: captions per second, share of it waited, captions per processor second."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = []
        for process in self.processes:
            assert process.stdout is not None
            answers.append(json.loads(process.stdout.readline()))
        captions, seconds = answers[0]["captions"], max(each["seconds"] for each in answers)
        return {
            "rate": captions / seconds,
            "waited": max(each["waited"] for each in answers) / seconds,
            "frugality": captions / sum(each["processor"] for each in answers),
        }


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", type=Path, help="consolidated shards; else made up")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--batch", type=int, default=TrainSettings.batch_size, help="captions a step"
    )
    parser.add_argument("--profile", choices=sorted(PROFILES), default="default")
    parser.add_argument("--precision", default="auto")
    # For a process of a group: its core, and how many steps it makes of twice --batch captions.
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--parts", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.core is not None:
        serve(arguments)
        return
    with ExitStack() as stack:
        groups = [
            ProcessGroup("1 process", arguments.batch, start(stack, 1, 2)),
            ProcessGroup("2 processes, the same batch", arguments.batch, start(stack, 2, 2)),
            ProcessGroup("2 processes, twice the batch", 2 * arguments.batch, start(stack, 2, 1)),
        ]
        for group in groups:  # warms up
            group.run()
        rounds = [[group.run() for group in groups] for _ in range(arguments.rounds)]
    print(f"{'medians of captions per':<32}{'second':>16}{'waited':>16}{'processor second':>20}")
    print_table(groups, rounds)


def print_table(groups: list[ProcessGroup], rounds: list[list[dict[str, float]]]) -> None:
    """Medians over the rounds; by processor time, as if each process had its core for itself."""
    names = rounds[0][0]
    medians = [
        {name: np.median([each[index][name] for each in rounds]) for name in names}
        for index in range(len(groups))
    ]
    first = medians[0]
    for group, found in zip(groups, medians, strict=True):
        ideal = len(group.processes) * found["frugality"] / first["frugality"]
        print(
            f"{group.name:<28}{group.batch:>4}{found['rate']:>8.1f}"
            f"{found['rate'] / first['rate']:>7.2f}x{found['waited']:>16.1%}"
            f"{found['frugality']:>12.1f}{ideal:>7.2f}x"
        )


def start(stack: ExitStack, size: int, parts: int) -> list["subprocess.Popen[str]"]:
    """Start the processes of a group, each on a core of its own."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < size:
        sys.exit(f"{size} processes need {size} cores, but there are {len(cores)}")
    processes = []
    for core, environment in zip(cores, environments(size), strict=False):
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.scaling", *sys.argv[1:]),
                *("--core", str(core), "--parts", str(parts)),
            ],
            env=os.environ | environment | dict.fromkeys(THREADS, "1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(process.kill)
        processes.append(process)
    return processes


# A process of a group


def serve(arguments: argparse.Namespace) -> None:
    """Run a round for each line that comes, and answer with what it took."""
    os.sched_setaffinity(0, {arguments.core})
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import_tensorflow()
    from capstan.train.distribution import join
    from capstan.train.fit import run_batches
    from capstan.train.model import arithmetic, build_model
    from capstan.train.trainer import Trainer

    group = join()
    corpus, vocabulary = made_up() if arguments.input is None else real(arguments.input)
    examples = Examples(corpus, vocabulary, LONGEST)
    sample = np.random.default_rng(0).random((64, examples.feature_size), np.float32)
    settings = TrainSettings(batch_size=2 * arguments.batch // arguments.parts)
    with arithmetic(arguments.precision), group.strategy.scope():
        model = build_model(PROFILES[arguments.profile], len(vocabulary), sample)
    trainer = Trainer(model, examples, settings, group)
    batches = orders(examples, 2 * arguments.batch, arguments.parts)
    for _ in sys.stdin:
        order = list(islice(batches, STEPS * arguments.parts))
        clock, processor = time.perf_counter(), time.process_time()
        _, waited = run_batches(trainer.train_step, examples, order, group)
        answer = {
            "captions": sum(map(len, order)),
            "seconds": time.perf_counter() - clock,
            "processor": time.process_time() - processor,
            "waited": waited,
        }
        print(json.dumps(answer), flush=True)


def orders(examples: Examples, batch: int, parts: int) -> Iterator[NDArray[np.int64]]:
    """Batches of example indices without end, each in parts: all groups see the same captions."""
    for epoch in count():
        for indices in epoch_order(examples.lengths, batch, 0, epoch):
            yield from (indices[part::parts] for part in range(parts))


if __name__ == "__main__":
    main()
