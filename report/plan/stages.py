"""The stages of a scenario: what each datum reads, works and writes, from rates and a web.

What `images` does with a chunk is simulated row by row for some chunks, which stand for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, log2

import numpy as np

from capstan.report.plan.cluster import SimStage, SimStore, SimTask
from capstan.report.plan.costs import Costs, FetchPolicy, SimStats
from capstan.report.plan.machine import MachineSize
from capstan.report.plan.rates import Rates
from capstan.report.plan.scenario import Scenario
from capstan.report.plan.web import IMAGE, WebModel
from capstan.report.plan.worker import simulate

MOST_ROWS = 10_000  # simulated one by one with a seed, or one chunk
MOST_TASKS = 100_000  # simulated one by one; beyond that one stands for several
COURSE = 20  # parts of a datum's time
TSV_ROW, FEATURES, FEATURE_ROW, EXAMPLE_ROW = 164, 2048 * 2, 120, 190  # bytes
BITS = 8e-9  # gigabits of a byte


@dataclass(frozen=True)
class Ingested:
    """What `images` was seen to do, for some chunks of so many rows."""

    samples: Sequence[SimStats]
    rows: int  # of the job

    @property
    def images(self) -> float:
        """Share of the rows that bring a picture."""
        rows = sum(seen.rows for seen in self.samples)
        return sum(seen.ends[IMAGE] for seen in self.samples) / rows

    def total(self, of_sample: Sequence[float]) -> float:
        """The sum over all rows of what was counted in each sample."""
        return sum(of_sample) * self.rows / sum(seen.rows for seen in self.samples)

    def ends(self) -> dict[str, int]:
        """How all rows end, the commonest first; they add up."""
        counts: dict[str, float] = {}
        for seen in self.samples:
            for end, count in seen.ends.items():
                counts[end] = counts.get(end, 0) + count
        scale = self.rows / sum(counts.values())
        ends = {end: round(count * scale) for end, count in counts.items()}
        ends[max(ends, key=lambda end: ends[end])] += self.rows - sum(ends.values())
        return dict(sorted(ends.items(), key=lambda item: -item[1]))


class Planner:
    """Makes stages of a scenario; the web is as the scenario changes it."""

    def __init__(self, scenario: Scenario, web: WebModel, rates: Rates) -> None:
        self._job, self._cluster = scenario.job, scenario.cluster
        self._scenario, self._rates = scenario, rates
        self.web = _changed(web, scenario)
        self.gpus, self.cores = scenario.cluster.gpus, scenario.cluster.cores

    # What is simulated row by row

    def costs(self) -> Costs:
        """What a row takes."""
        rates = self._rates
        kept = self._job.resize_mode == "no"
        decoding = ("verify" if kept else "resize") if self._job.decodes else None
        return Costs(
            start=rates["ingest_start"],
            row=rates["ingest_row"],
            byte=rates["ingest_byte"],
            shard=rates["ingest_shard_share"],
            connection=rates["connection"],
            secure_connection=rates["secure_connection"],
            connecting=rates["connecting"],
            picture=rates[f"{decoding}_picture"] if decoding else 0.0,
            picture_byte=rates[f"{decoding}_byte"] if decoding else 0.0,
            stored=None if kept else self.stored,
            serving=rates["serving_row"],
            serving_byte=rates["serving_byte"],
        )

    def size(self) -> MachineSize:
        """What a worker is."""
        bandwidth = self._cluster.bandwidth / BITS
        return MachineSize(self.cores, bandwidth, self._rates["disk"])

    def manner(self) -> FetchPolicy:
        """How a worker asks."""
        hosts, workers = self._scenario.hosts, 1 if self._cluster.machine else self._cluster.workers
        return FetchPolicy(
            self._scenario.load,
            self._scenario.patience,
            hosts.timeout,
            hosts.host_rate / min(workers, self._job.chunks),
        )

    def ingest(self, most_rows: int = MOST_ROWS) -> Ingested:
        """Simulate some chunks: each by itself on a cluster, all in one run on a machine."""
        job, size = self._job, self._chunk
        rows = min(job.rows, max(most_rows, 2 * size))
        if self._cluster.machine:
            sizes = [min(size, rows - done) for done in range(0, rows, size)]
            return Ingested([self._simulate(sizes)], job.rows)
        count = max(1, min(most_rows // size, job.chunks))
        return Ingested([self._simulate([size], number) for number in range(count)], job.rows)

    def _simulate(self, sizes: Sequence[int], number: int = 0) -> SimStats:
        """A worker over chunks of these sizes, the first of them with this number."""
        seed = self._scenario.seed
        chunks = [self.web.rows(size, (seed, number + index)) for index, size in enumerate(sizes)]
        return simulate(chunks, self.size(), self.costs(), self.manner(), seed)

    # Stages

    def stages(self, ingested: Ingested) -> list[SimStage]:
        """All of them, in order."""
        loading = [] if self._cluster.machine else [self._loading()]
        return [
            *loading,
            self._images(ingested),
            self._features(ingested),
            self._consolidate(ingested),
            self._model(ingested),
        ]

    @property
    def store(self) -> SimStore:
        """Where datums are."""
        if self._cluster.machine:
            return SimStore(inf, inf)
        return SimStore(self._rates["pfs_worker"], self._rates["pfs"])

    @property
    def stored(self) -> float:
        """Bytes of a picture in an image shard."""
        scale = (self._job.image_size / 256) ** 2
        resized = min(self._rates["stored_picture"] * scale, self.web.mean_bytes)
        kept = self._job.resize_mode == "no"
        return (self.web.mean_bytes if kept else resized) + self._rates["stored_overhead"]

    def _loading(self) -> SimStage:
        rows, rates = self._job.rows, self._rates
        return SimStage("load", "rows", 1, [(SimTask(rows, 0, rows / rates["load_rows"], 0), 1)])

    def _images(self, ingested: Ingested) -> SimStage:
        rows = self._job.rows
        if self._cluster.machine:
            seen = ingested.samples[0]
            seconds = seen.seconds + (rows - seen.rows) / seen.steady_rate
            return self._stage(
                "images", "rows", 1, [(SimTask(rows, 0, seconds, 0, _course(seen)), 1)]
            )
        kinds = []
        for seen in ingested.samples:
            writes = seen.ends[IMAGE] * self.stored
            kinds.append(
                SimTask(seen.rows, seen.rows * TSV_ROW, seen.seconds, writes, _course(seen))
            )
        return self._stage("images", "rows", self._cluster.workers, self._shared_out(kinds))

    def _features(self, ingested: Ingested) -> SimStage:
        rates = self._rates
        decoded = self.cores * rates["featurize_decode"]
        calculated = rates["gpu_pictures"] if self.gpus else self.cores * rates["featurize_core"]
        pictures = self._chunk * ingested.images
        task = SimTask(
            pictures,
            pictures * self.stored,
            pictures / min(decoded, calculated),
            pictures * (FEATURES + FEATURE_ROW),
        )
        workers = self.gpus or self._cluster.workers
        tasks = self._shared_out([task])
        return self._stage("features", "pictures", workers, tasks, rates["featurize_start"])

    def _consolidate(self, ingested: Ingested) -> SimStage:
        rates, rows = self._rates, self._chunk
        pictures = rows * ingested.images
        task = SimTask(
            rows,
            rows * TSV_ROW + pictures * FEATURE_ROW,
            rates["consolidate_start"] + rows / rates["consolidate_rows"],
            pictures * EXAMPLE_ROW,
        )
        workers = self._cluster.consolidate_workers
        return self._stage("consolidate", "rows", workers, self._shared_out([task]))

    def _model(self, ingested: Ingested) -> SimStage:
        rates, job = self._rates, self._job
        examples = job.rows * ingested.images
        size = examples * (FEATURES + EXAMPLE_ROW)
        judged = examples * job.test_share
        learned = (examples - judged) * job.epochs
        alone, beam = ("gpu_captions", "gpu_beam") if self.gpus else ("train_core", "caption_core")
        devices = self.gpus or self.cores
        rate = rates[alone] * devices * rates["train_scaling"] ** log2(devices)
        saying = rates[beam] * (1 if self.gpus else devices)
        seconds = rates["train_start"] + size / rates["hash_bytes"] + learned / rate
        task = SimTask(learned, size, seconds + judged / saying, 0)
        return self._stage("model", "captions", 1, [(task, 1)])

    @property
    def _chunk(self) -> int:
        """Rows of a full chunk."""
        return min(self._job.chunk_rows, self._job.rows)

    def _stage(
        self,
        name: str,
        unit: str,
        workers: int,
        tasks: Sequence[tuple[SimTask, int]],
        load: float = 0.0,
    ) -> SimStage:
        if self._cluster.machine:
            return SimStage(name, unit, 1, tasks, load=load)
        overhead = self._rates["datum"] * (1 if name == "model" else self._group)
        return SimStage(name, unit, workers, tasks, self._rates["job"], load, overhead)

    @property
    def _group(self) -> int:
        """Datums that one task stands for."""
        return -(-self._job.chunks // MOST_TASKS)

    def _shared_out(self, kinds: Sequence[SimTask]) -> list[tuple[SimTask, int]]:
        """Tasks for all chunks, in equal shares of some kinds, each made for a full chunk.

        So that all adds up to the job's rows, every task is a little smaller than a full chunk
        where the last one is not full, and larger where it stands for several.
        """
        tasks = -(-self._job.chunks // self._group)
        scale = self._job.rows / (self._chunk * tasks)
        each, more = divmod(tasks, len(kinds))
        return [(_times(task, scale), each + (n < more)) for n, task in enumerate(kinds)]


def _times(task: SimTask, factor: float) -> SimTask:
    return SimTask(
        task.rows * factor,
        task.reads * factor,
        task.seconds * factor,
        task.writes * factor,
        task.course,
    )


def _course(seen: SimStats) -> tuple[float, ...]:
    """When its rows ended, by equal parts of its time."""
    counts, _ = np.histogram(seen.times, COURSE, (0.0, seen.seconds))
    return tuple((counts / counts.sum()).tolist())


def _changed(web: WebModel, scenario: Scenario) -> WebModel:
    """The web of a mix as the scenario's flags have it, its hosts drawn by the seed."""
    hosts, web = scenario.hosts, replace(web, seed=scenario.seed)
    if hosts.latency:
        web = replace(web, latency=replace(web.latency, median=hosts.latency))
    return web if hosts.failures == 1 else web.with_failures(hosts.failures)
