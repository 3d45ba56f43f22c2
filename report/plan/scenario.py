"""What is to be planned: the job, the cluster and the way that ingest asks, as flags."""

import argparse
from dataclasses import dataclass, field, fields
from typing import Self

from capstan.errors import SettingError
from capstan.ingest.config import DAY, Concurrency, Flags, ImageOptions, RetryPolicy, flag

MOST_CHUNK_ROWS = 100_000  # a chunk is simulated row by row
CHOICES = {item.name: item.metadata["choices"] for item in fields(ImageOptions)}


@dataclass(frozen=True)
class PlannedJob(Flags):
    """what is to be done."""

    rows: int = flag(3_300_000, "rows of the TSV", 1, 100_000_000_000)
    chunk_rows: int = flag(10_000, "rows of a chunk", 1, MOST_CHUNK_ROWS)
    resize_mode: str = flag(
        "keep_ratio", "as `capstan ingest` has it", choices=CHOICES["resize_mode"]
    )
    image_size: int = flag(256, "pixels that the resize mode aims at", 1, 16_384)
    check: str = flag("full", "as `capstan ingest` has it", choices=CHOICES["check"])
    epochs: int = flag(10, "epochs of training", 1)
    test_share: float = flag(
        0.05, "share of the pictures that the model is judged by", 0.0, 1.0, metavar="SHARE"
    )

    @property
    def chunks(self) -> int:
        """So many, the last one perhaps not full."""
        return -(-self.rows // self.chunk_rows)

    @property
    def decodes(self) -> bool:
        """Whether pixels are looked at."""
        return self.resize_mode != "no" or self.check == "full"


@dataclass(frozen=True)
class Cluster(Flags):
    """what does it."""

    workers: int = flag(8, "workers of the pipeline images", 1, 100_000)
    gpus: int = flag(
        0, "GPUs: each a worker of features, and all of them train; 0: the workers' cores do it", 0
    )
    cores: int = flag(4, "cores of a worker", 1, 1_024)
    consolidate_workers: int = flag(2, "workers of the pipeline consolidate", 1, 100_000)
    bandwidth: float = flag(
        1.0, "gigabits per second of a worker from the web", 1e-6, 10_000.0, metavar="GBIT"
    )
    machine: bool = flag(
        False, "no Pachyderm: one machine with these cores runs each stage over all chunks"
    )


@dataclass(frozen=True)
class Hosts(Flags):
    """who has the pictures."""

    host_rate: float = flag(
        1e9, "requests a second that one host answers, of all workers", 1e-3, 1e9, metavar="RATE"
    )
    latency: float = flag(0.0, "median time to a first byte; 0: as the mix has it", 0.0, DAY)
    failures: float = flag(
        1.0, "times as many failures as the mix has", 0.0, 1_000.0, metavar="FACTOR"
    )
    timeout: float = flag(30.0, "time for one request", 0.001, DAY)


@dataclass(frozen=True)
class Scenario:
    """All of it."""

    job: PlannedJob = field(default_factory=PlannedJob)
    cluster: Cluster = field(default_factory=Cluster)
    hosts: Hosts = field(default_factory=Hosts)
    load: Concurrency = field(default_factory=Concurrency)
    patience: RetryPolicy = field(default_factory=RetryPolicy)
    seed: int = 0

    @classmethod
    def configure(cls, parser: argparse.ArgumentParser) -> None:
        """Add all flags to a parser."""
        for group in (PlannedJob, Cluster, Hosts, Concurrency, RetryPolicy):
            group.configure(parser)
        parser.add_argument(
            "--seed", type=int, default=0, metavar="N", help="of what the simulation draws"
        )

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Self:
        """Read all flags back; raises SettingError for a value out of range."""
        if arguments.seed < 0:
            raise SettingError(f"--seed {arguments.seed}: give at least 0")
        return cls(
            PlannedJob.from_arguments(arguments),
            Cluster.from_arguments(arguments),
            Hosts.from_arguments(arguments),
            Concurrency.from_arguments(arguments),
            RetryPolicy.from_arguments(arguments),
            arguments.seed,
        )
