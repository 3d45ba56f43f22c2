"""Image shards in, feature shards out: skip what is unchanged, compute each picture once."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from capstan.errors import DataError
from capstan.featurize.config import Config
from capstan.featurize.processes import make_shards_in, places
from capstan.featurize.tasks import to_do
from capstan.featurize.work import Totals, load_extractor, make_shards
from capstan.pachyderm.datums import for_each_datum
from capstan.progress import Progress

if TYPE_CHECKING:
    from capstan.featurize.extractor import ResNetExtractor

logger = logging.getLogger(__name__)

Load = Callable[[Config], "ResNetExtractor"]


def featurize(config: Config, load: Load = load_extractor) -> None:
    """Write a feature shard for every image shard that has none, or one of other make.

    Raises DataError, after all others are made, if image shards are damaged.
    """
    todo = to_do(config)
    if not todo:
        return
    where = places(config.workers)
    with Progress("featurize", "pictures") as progress:

        def tell(tally: Counter[str | None]) -> None:
            for reason, count in tally.items():
                progress.add(count, reason)

        if len(where) > 1:
            logger.info("%d processes", len(where))
            totals = make_shards_in(where, todo, config, tell)
        else:
            totals = make_shards(todo, load(config), config, tell)
    _report(totals)
    if totals.damaged:
        raise DataError("; ".join(totals.damaged))


def featurize_datums(config: Config) -> NoReturn:
    """Featurize each datum that this Pachyderm worker has, with the network loaded once."""
    config = replace(config, workers=1)
    extractor = load_extractor(config)
    for_each_datum(lambda: featurize(config, lambda _: extractor))


def _report(totals: Totals) -> None:
    logger.info(
        "%d pictures in the network, which waited for them %.1f %% of the time; %d repeated ones "
        "spared",
        totals.pictures,
        100 * totals.waiting,
        totals.repeated,
        extra={
            "event": {
                "featurized": {
                    "pictures": totals.pictures,
                    "repeated": totals.repeated,
                    "seconds": round(totals.seconds, 3),
                    "waited": round(totals.waited, 3),
                }
            }
        },
    )
