"""Keeps a picture's features in the picture's place, and makes feature shards of them."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from socket import socketpair
from typing import Any

import numpy as np

from capstan.feature_shards import open_features, write_feature_shard
from capstan.featurize.config import DIMENSIONS, network_identity
from capstan.ingest.fused.config import NetworkOptions
from capstan.ingest.fused.remote import RemoteExtractor
from capstan.ingest.fused.serve import serve
from capstan.ingest.journal import Frame, Journal, no_envelope
from capstan.ingest.sink import Sink, Start, read_kept
from capstan.records import Failure, Feature, Image, Outcome, Row
from capstan.shards import FUSED, OUTCOMES_SUFFIX, outcome_row, write_outcomes


@dataclass(frozen=True)
class FeatureSink:
    """Feature shards; only a share of it, in an ingest process, has an extractor."""

    network: NetworkOptions
    identity: Mapping[str, Any]
    extractor: RemoteExtractor | None = None
    format: str = FUSED
    hashed: bool = False
    frame: Frame = no_envelope

    def shares(self, count: int, start: Start) -> Iterator[Sink]:
        """Start the extractor's process, and give each of `count` processes a way to it."""
        pairs = [socketpair() for _ in range(count)]
        start("extractor", serve, [theirs for _, theirs in pairs], self.network)
        for ours, theirs in pairs:
            with ours, theirs:  # closed here, so that each process hears when the other is gone
                yield replace(self, extractor=RemoteExtractor(ours, self.network))

    @property
    def _remote(self) -> RemoteExtractor:
        assert self.extractor is not None
        return self.extractor

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Wait for the extractor: nothing is asked of the web before it is known to work."""
        return self._remote.opened()

    async def room(self) -> None:
        """Wait until few enough pictures wait for the extractor."""
        await self._remote.room()

    async def keep(self, image: Image) -> Image | Failure:
        """The picture's record with its vector, (2048,) float16, in place of its JPEG."""
        vector = await self._remote.extract(image)
        return vector if isinstance(vector, Failure) else replace(image, data=vector)

    def write(
        self,
        directory: Path,
        chunk: str,
        rows: Iterable[Row | Outcome],
        journal: Journal,
        provenance: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Write a feature shard, the table of outcomes and, last, their stats."""
        lines: list[dict[str, Any]] = []
        found: list[Feature] = []
        vectors = bytearray()
        for row in rows:
            outcome = row if isinstance(row, Outcome) else journal.read(row)
            lines.append(outcome_row(outcome))
            if isinstance(outcome.result, Image):
                found.append(Feature(outcome.row.key, outcome.result.sha256, len(found)))
                vectors += outcome.result.data
        features = np.frombuffer(vectors, np.float16).reshape(-1, DIMENSIONS)
        write_feature_shard(directory, chunk, found, features, self._remote.identity, provenance)
        suffixes = (".npy", ".parquet", OUTCOMES_SUFFIX)
        return write_outcomes(directory, chunk, FUSED, lines, suffixes, provenance)

    def read(self, directory: Path, chunk: str) -> Iterator[Outcome]:
        """Read features and outcomes back."""
        features = open_features(directory / f"{chunk}.npy", None)
        vectors = (vector.tobytes() for vector in features)
        return read_kept(directory / f"{chunk}{OUTCOMES_SUFFIX}", vectors)


def feature_sink(network: NetworkOptions) -> FeatureSink:
    """What a run with this network keeps; SettingError for weights that are not there."""
    identity = network_identity(
        network.weights, network.feature_size, network.precision, network.runtime
    )
    return FeatureSink(network, identity)
