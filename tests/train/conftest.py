"""A little world: pictures of coloured shapes as 12-d features, one row and caption each."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from capstan.feature_shards import write_feature_shard
from capstan.records import Extractor, Feature, row_key
from capstan.train.consolidate import ConsolidateFolders, ConsolidateSettings, consolidate

COLOURS = ("red", "green", "blue", "black")
SHAPES = ("circle", "square", "star")
EXTRACTOR = Extractor("resnet50-avg", "random:1", "1" * 64, 32, "caffe-center-crop")


@dataclass(frozen=True)
class World:
    """Raw data and feature shards below one folder, to consolidate."""

    root: Path

    @property
    def folders(self) -> ConsolidateFolders:
        features = self.root / "features"
        return ConsolidateFolders(
            self.root / "rawdata", features, features, self.root / "consolidated"
        )

    def add_chunk(
        self,
        chunk: str,
        lines: Sequence[bytes],
        features: Sequence[Feature],
        vectors: np.ndarray,
        extractor: Extractor = EXTRACTOR,
    ) -> None:
        path = self.folders.input / chunk
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(lines))
        write_feature_shard(self.folders.features, chunk, features, vectors, extractor, {})

    def add_shapes(self, chunk: str, rows: int, extractor: Extractor = EXTRACTOR) -> None:
        """Rows of random shapes; a picture's features are its colour and shape, and some noise."""
        random = np.random.default_rng(len(chunk) + rows)
        colours, shapes = random.integers(4, size=rows), random.integers(3, size=rows)
        vectors = random.normal(0, 0.1, (rows, 12))
        vectors[np.arange(rows), colours] += 1
        vectors[np.arange(rows), 4 + shapes] += 1
        lines = [
            f"A {COLOURS[c]} {SHAPES[s]}.\thttp://shapes.test/{i}\n".encode()
            for i, (c, s) in enumerate(zip(colours, shapes, strict=True))
        ]
        entries = [
            Feature(row_key(chunk, i), hashlib.sha256(f"{chunk}{i}".encode()).hexdigest(), i)
            for i in range(rows)
        ]
        self.add_chunk(chunk, lines, entries, vectors, extractor)

    def consolidate(self, settings: ConsolidateSettings | None = None) -> Path:
        consolidate(self.folders, settings or ConsolidateSettings())
        return self.folders.output


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Consolidated shards of 300 pictures in two chunks; to read only."""
    world = World(tmp_path_factory.mktemp("shapes"))
    world.add_shapes("shapes.tsv/0000000000000000", 200)
    world.add_shapes("shapes.tsv/0000000000000001", 100)
    return world.consolidate(ConsolidateSettings(validation_share=0.1, test_share=0.1))


Capstan = Callable[..., int]


@pytest.fixture
def capstan() -> Capstan:
    """The command, in this process."""
    from capstan.cli import main

    return lambda *words: main([str(word) for word in words])
