"""What a plan needs besides time: storage, memory, connections, look-ups, traffic, files."""

from collections.abc import Sequence
from dataclasses import dataclass

from capstan.report.plan.cluster import StageRun
from capstan.report.plan.rates import Rates
from capstan.report.plan.scenario import Scenario
from capstan.report.plan.stages import (
    EXAMPLE_ROW,
    FEATURE_ROW,
    FEATURES,
    TSV_ROW,
    Ingested,
    Planner,
)
from capstan.report.plan.web import WebModel

OUTCOME_ROW = 90  # bytes of a row in an image shard's table
EXAMPLE_MEMORY = 13  # bytes of a caption that is trained from (docs/log.md)
TRAINER_MEMORY = 1.26e9  # bytes, beside those
RESULT = 60e6  # bytes of a model with two checkpoints, about
FILES = {"images": 3, "features": 2, "consolidate": 2}  # a chunk
SPOOLED = 2  # times a chunk's pictures lie on a worker's disk while its shard is written


@dataclass(frozen=True)
class Need:
    """An amount of something."""

    group: str
    name: str
    amount: float
    unit: str
    how: str  # it comes about


def needs(
    scenario: Scenario,
    planner: Planner,
    ingested: Ingested,
    course: Sequence[StageRun],
    rates: Rates,
) -> list[Need]:
    """All of them."""
    return [
        *_storage(scenario, planner, ingested),
        *_worker(scenario, planner, ingested, rates),
        *_web(scenario, planner.web, ingested, course),
        *_pachyderm(scenario, course),
    ]


def _storage(scenario: Scenario, planner: Planner, ingested: Ingested) -> list[Need]:
    rows = scenario.job.rows
    pictures = rows * ingested.images
    shards = {
        "TSV": (rows * TSV_ROW, f"{TSV_ROW} bytes a row"),
        "image shards": (
            pictures * planner.stored + rows * OUTCOME_ROW,
            f"{planner.stored:,.0f} bytes a picture, {OUTCOME_ROW} a row",
        ),
        "feature shards": (pictures * (FEATURES + FEATURE_ROW), "2,048 float16 and a line each"),
        "training shards": (
            pictures * EXAMPLE_ROW,
            "the tables; the arrays are those of the feature shards, passed on by reference",
        ),
        "model": (RESULT, "weights, vocabulary, two checkpoints"),
    }
    listed = [Need("storage", name, size, "bytes", how) for name, (size, how) in shards.items()]
    total = sum(need.amount for need in listed)
    return [*listed, Need("storage", "in all", total, "bytes", "the sum")]


def _worker(scenario: Scenario, planner: Planner, ingested: Ingested, rates: Rates) -> list[Need]:
    seen = max(ingested.samples, key=lambda seen: seen.connections)
    machine = scenario.cluster.machine
    chunks = -(-sum(each.rows for each in ingested.samples) // scenario.job.chunk_rows)
    processes = min(scenario.load.processes or planner.cores, chunks) if machine else 1
    memory = (
        rates["ingest_memory"]
        + (processes - 1) * rates["ingest_process_memory"]
        + planner.cores * rates["decoder_memory"] * scenario.job.decodes
        + seen.connections * planner.web.mean_bytes
    )
    chunk = min(scenario.job.chunk_rows, scenario.job.rows) * ingested.images * planner.stored
    examples = scenario.job.rows * ingested.images
    return [
        Need("worker", "memory, images", memory, "bytes", "processes, decoders, bodies in flight"),
        Need("worker", "disk, images", SPOOLED * chunk * processes, "bytes", "spool and shard"),
        Need(
            "worker",
            "memory, model",
            TRAINER_MEMORY + EXAMPLE_MEMORY * examples,
            "bytes",
            "besides the features, mapped, which the system may drop",
        ),
        Need("worker", "disk, model", examples * (FEATURES + EXAMPLE_ROW), "bytes", "its input"),
    ]


def _web(
    scenario: Scenario, web: WebModel, ingested: Ingested, course: Sequence[StageRun]
) -> list[Need]:
    samples, cluster = ingested.samples, scenario.cluster
    workers = 1 if cluster.machine else min(cluster.workers, scenario.job.chunks)
    seconds = next(ran.seconds for ran in course if ran.stage.name == "images")
    requests = ingested.total([seen.requests for seen in samples])
    size = ingested.total([seen.bytes for seen in samples])
    names = ingested.total([seen.hosts for seen in samples])
    open_ = max(seen.connections for seen in samples)
    busiest = max([*web.shares, 1 / max(1, web.tail_hosts)])
    to_one = max(seen.per_host for seen in samples)
    return [
        Need("web", "downloaded", size, "bytes", "bodies"),
        Need("web", "downloaded at a time", size / seconds, "bytes/s", "mean of the stage"),
        Need("web", "requests", requests, "", "attempts"),
        Need("web", "requests at a time", requests / seconds, "/s", "mean of the stage"),
        Need("web", "connections", open_ * workers, "", f"at most {open_:,} a worker"),
        Need(
            "web", "connections to one host", to_one * workers, "", f"at most {to_one:,} a worker"
        ),
        Need(
            "web",
            "requests to one host",
            requests * busiest / seconds,
            "/s",
            f"{100 * busiest:.1f} % of all, mean of the stage",
        ),
        Need("web", "names looked up", names, "", "each chunk asks for its hosts again"),
        Need("web", "names at a time", names / seconds, "/s", "mean of the stage"),
    ]


def _pachyderm(scenario: Scenario, course: Sequence[StageRun]) -> list[Need]:
    if scenario.cluster.machine:
        return []
    chunks = scenario.job.chunks
    moved = sum(
        times * (task.reads + task.writes) for ran in course for task, times in ran.stage.tasks
    )
    return [
        Need("Pachyderm", "datums", len(FILES) * chunks + 1, "", "one a chunk and stage"),
        Need(
            "Pachyderm",
            "files",
            sum(FILES.values()) * chunks,
            "",
            "in the repos; as many again in the meta repos",
        ),
        Need("Pachyderm", "files of one commit", FILES["images"] * chunks, "", "of images"),
        Need("Pachyderm", "moved", moved, "bytes", "between workers and its file system"),
    ]
