"""Several extractors on one machine: a process for each GPU or NUMA node, shards shared out."""

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capstan.cli import LOG_FORMAT_VARIABLE, import_tensorflow, set_up_logging
from capstan.errors import CapstanError, SettingError
from capstan.featurize.config import Config
from capstan.featurize.tasks import ShardTask
from capstan.featurize.work import Tell, Totals, load_extractor, make_shards
from capstan.progress import INTERVAL_VARIABLE

if TYPE_CHECKING:
    from capstan.featurize.extractor import ResNetExtractor

VISIBLE = "CUDA_VISIBLE_DEVICES"
NODES = Path("/sys/devices/system/node")
PORTIONS = 8  # for each process: large enough to fill batches, small enough to end together


@dataclass(frozen=True)
class ProcessPlace:
    """Where a process runs: on these cores, and with these environment variables."""

    cores: frozenset[int]
    environment: dict[str, str] = field(default_factory=dict)


def places(workers: int) -> list[ProcessPlace]:
    """Where processes are to run; 0: as many as there are GPUs, or else NUMA nodes.

    Raises SettingError for more than there are GPUs or cores.
    """
    import_tensorflow()
    import tensorflow as tf

    cores = frozenset(os.sched_getaffinity(0))
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus:
        names = os.environ.get(VISIBLE, ",".join(map(str, range(gpus)))).split(",")
        found = [ProcessPlace(cores, {VISIBLE: name}) for name in names[:gpus]]
    elif workers:
        found = [ProcessPlace(part) for part in _parts(cores, workers)]
    else:
        found = [ProcessPlace(part) for node in _nodes() if (part := node & cores)] or [
            ProcessPlace(cores)
        ]
    if workers > len(found):
        raise SettingError(f"--workers {workers}: there are {gpus or len(cores)}; give no more")
    return found[: workers or None]


def _nodes() -> list[frozenset[int]]:
    """The cores of each NUMA node."""
    return [
        frozenset(
            core
            for part in (node / "cpulist").read_text().strip().split(",")
            if part
            for first, _, last in [part.partition("-")]
            for core in range(int(first), int(last or first) + 1)
        )
        for node in sorted(NODES.glob("node[0-9]*"))
    ]


def _parts(cores: frozenset[int], count: int) -> list[frozenset[int]]:
    """Cores in up to `count` parts of neighbours, as even as can be."""
    ordered, count = sorted(cores), min(count, len(cores))
    bounds = [len(ordered) * part // count for part in range(count + 1)]
    return [frozenset(ordered[a:b]) for a, b in pairwise(bounds)]


def make_shards_in(
    where: Sequence[ProcessPlace], tasks: Sequence[ShardTask], config: Config, tell: Tell
) -> Totals:
    """As `make_shards`, in a process for each place; raises CapstanError when one is killed."""
    context = multiprocessing.get_context("spawn")
    free, tallies = context.SimpleQueue(), context.SimpleQueue()
    for place in where:
        free.put(place)
    size = max(1, len(tasks) // (PORTIONS * len(where)))
    portions = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    listener = threading.Thread(target=_listen, args=(tallies, tell), daemon=True)
    listener.start()
    total = Totals()
    with ProcessPoolExecutor(len(where), context, _begin, (free, tallies, config)) as pool:
        try:
            for future in as_completed([pool.submit(_work, portion) for portion in portions]):
                total.add(future.result())
        except BrokenProcessPool as error:
            raise CapstanError(
                "a process of capstan featurize was killed; what it had finished is kept, so run "
                "the same command again"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
    tallies.put(None)
    listener.join()
    return total


def _listen(tallies: Any, tell: Tell) -> None:
    for tally in iter(tallies.get, None):
        tell(tally)


# The child's side


@dataclass
class _Process:
    """What a process keeps from one portion of shards to the next."""

    config: Config
    extractor: "ResNetExtractor"
    tell: Tell


_process: _Process


def _begin(free: Any, tallies: Any, config: Config) -> None:
    global _process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    set_up_logging(os.environ[LOG_FORMAT_VARIABLE], float(os.environ[INTERVAL_VARIABLE]))
    place = free.get()
    os.environ.update(place.environment)  # before TensorFlow looks for devices and cores
    os.sched_setaffinity(0, place.cores)
    _process = _Process(config, load_extractor(config), tallies.put)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _work(portion: Sequence[ShardTask]) -> Totals:
    return make_shards(portion, _process.extractor, _process.config, _process.tell)
