"""The files stand where those of `capstan featurize` do, and what lies beside disturbs nobody."""

from pathlib import Path

import pytest

from capstan.deploy.local.datums import datums, open_repo
from capstan.deploy.specs.read import read_file
from capstan.ingest.config import IngestSettings
from capstan.report.rows import read_featurized, read_rows
from capstan.report.run import Run
from capstan.testing.web import Fault, Web
from capstan.train.consolidate import ConsolidateFolders, consolidate
from capstan.train.consolidate import ConsolidateSettings as Joining
from capstan.train.dataset import load_corpus
from tests.ingest.conftest import write_chunk
from tests.ingest.fused.conftest import Fake, fuse
from tests.paths import PIPELINES


@pytest.fixture
def fused(web: Web, settings: IngestSettings) -> Path:
    """A folder of two chunks of four rows, of each of which one fails."""
    for chunk in ("cc.tsv/0", "cc.tsv/1"):
        good = [(f"picture {n}", web.url(f"{n}.jpg", row=n)) for n in range(3)]
        write_chunk(settings, chunk, [*good, ("lost", web.url("0.jpg", Fault.NOT_FOUND))])
    fuse(settings)
    return settings.output


def test_captions_are_joined_to_it(fused: Path, settings: IngestSettings, tmp_path: Path) -> None:
    folders = ConsolidateFolders(settings.input, fused, fused, tmp_path / "examples")
    folders.output.mkdir()
    counts = consolidate(folders, Joining())
    assert (counts["joined"], counts["without features"]) == (6, 2)
    corpus = load_corpus(folders.output)
    assert corpus.extractor == Fake().identity
    assert [len(array) for array in corpus.arrays] == [3, 3]


def test_a_dry_run_joins_each_chunk_once(fused: Path, settings: IngestSettings) -> None:
    (spec,) = read_file(PIPELINES / "consolidate.json")
    assert spec.input is not None
    repos = {
        "rawdata": open_repo("rawdata", settings.input),
        "features": open_repo("features", fused),
    }
    found = datums(spec.input, repos)
    assert [piece.path for datum in found for piece in datum if piece.input.name == "features"] == [
        "/cc.tsv/0.parquet",
        "/cc.tsv/1.parquet",
    ]


def test_a_report_counts_its_rows_and_asks_for_no_picture(fused: Path) -> None:
    run = Run(fused, 0, None, [], {"features": str(fused)}, "fused", [])
    rows, tars = read_rows(run, {"cc_tsv-0-000000"})
    assert rows is not None
    assert (rows.total, rows.images, tars) == (8, 6, {})
    featurized = read_featurized(run)
    assert featurized is not None
    assert featurized.rows == 6
