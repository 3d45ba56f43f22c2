"""One row's way: its TSV line, what became of it, picture, feature row, training row, model."""

import hashlib
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from capstan.chunks import boundaries
from capstan.errors import DataError
from capstan.ingest.rows import parse_line
from capstan.records import Extractor, Outcome, row_key
from capstan.report.lineage.shards import (
    description,
    example_hops,
    feature_hops,
    manifest,
    model_hops,
    outcome_hops,
    stats,
    trained_on,
)
from capstan.report.lineage.source import RunFiles, chunks
from capstan.report.lineage.tree import Check, CheckState, TraceStep, agree, attempt
from capstan.shards import OUTCOMES_SUFFIX
from capstan.train.cleaning import PROFILES

REASON = "reason"  # a fact that ends a row's way


@dataclass(frozen=True)
class ChunkLine:
    """A line of a chunk: the bytes from `start` to before `end`, and what they say."""

    start: int
    end: int
    caption: str
    url: str


@dataclass(frozen=True)
class TracedRow:
    """A row as every stage has it; None where a stage has not, DataError where it is damaged."""

    source: RunFiles
    chunk: str
    index: int  # line number within the chunk, from 0

    @property
    def key(self) -> str:
        """Its name in all stages."""
        return row_key(self.chunk, self.index)

    @cached_property
    def line(self) -> ChunkLine | None:
        """Its TSV line."""
        path = self.source.file("rawdata", self.chunk)
        return None if path is None else _read_line(path, self.chunk, self.index)

    @cached_property
    def outcomes(self) -> tuple[str, str]:
        """Repo and path of the table of outcomes: an image shard's, or else a fused one's."""
        found = stats(self.source, self.chunk)
        fused = found is not None and found[0] == "features"
        suffix = OUTCOMES_SUFFIX if fused else ".parquet"
        return "features" if fused else "images", f"{self.chunk}{suffix}"

    @cached_property
    def outcome(self) -> dict[str, Any] | None:
        """A line of OUTCOME_SCHEMA."""
        return self._find(*self.outcomes)

    @cached_property
    def feature(self) -> dict[str, Any] | None:
        """A line of FEATURE_SCHEMA."""
        return self._find("features", f"{self.chunk}.parquet")

    @cached_property
    def example(self) -> dict[str, Any] | None:
        """A line of EXAMPLE_SCHEMA."""
        return self._find("consolidate", f"{self.chunk}.parquet")

    def _find(self, repo: str, path: str) -> dict[str, Any] | None:
        file = self.source.file(repo, path)
        return (
            None if file is None else next(iter(find_rows(file, pc.field("key") == self.key)), None)
        )

    def place(self, repo: str, suffix: str = "") -> str:
        """What to call the chunk's file of a stage."""
        return self.source.name(repo, f"{self.chunk}{suffix}")


def find_rows(path: Path, condition: pc.Expression) -> list[dict[str, Any]]:
    """The rows of a parquet file that meet a condition; only these are kept in memory."""
    try:
        table = pq.read_table(path, filters=condition, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        message = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be searched ({message}); make it again") from error
    return list(table.to_pylist())


def _read_line(path: Path, chunk: str, index: int) -> ChunkLine | None:
    with path.open("rb") as file:
        place = next(islice(boundaries(file, 1), index, None), None)
        if place is None:
            return None
        file.seek(place[0])
        parsed = parse_line(file.read(place[1] - place[0]).removesuffix(b"\n"), chunk, index)
    row = parsed.row if isinstance(parsed, Outcome) else parsed
    return ChunkLine(*place, row.caption, row.url)


def find_row(source: RunFiles, word: str) -> tuple[str, int] | None:
    """Chunk and line number of a key, or of `CHUNK/NUMBER`; None if it is neither."""
    for separator in "-/":
        name, _, number = word.rpartition(separator)
        if name and number.isascii() and number.isdigit():
            for chunk in chunks(source):
                if word == row_key(chunk, int(number)) or (separator, name) == ("/", chunk):
                    return chunk, int(number)
    return None


def trace_row(source: RunFiles, chunk: str, index: int) -> TraceStep:
    """All stations of a row, up to where it was lost, and the model that learned from it.

    DataError if its chunk has no such line.
    """
    row = TracedRow(source, chunk, index)
    if source.file("rawdata", chunk) is not None and row.line is None:
        raise DataError(f"{row.place('rawdata')}: has no line {index:,} (from 0); give another key")
    stages: Sequence[tuple[str, str, Callable[[TracedRow], TraceStep]]] = (
        ("TSV line", row.place("rawdata"), _line_step),
        ("outcome", row.place("images", ".parquet"), _outcome_step),
        ("picture", row.place("images", ".tar"), _picture_step),
        ("feature row", row.place("features", ".parquet"), _feature_step),
        ("training row", row.place("consolidate", ".parquet"), _example_step),
        ("model", source.name("model", source.saved), _model_step),
    )
    steps: list[TraceStep] = []
    for name, place, make in stages:
        steps.append(attempt(name, place, lambda: make(row)))  # noqa: B023
        if REASON in steps[-1].facts:
            break
    return TraceStep(f"row {row.key}", "", steps=steps)


def _absent(name: str, place: str, checks: Sequence[Check] = ()) -> TraceStep:
    return TraceStep(name, place, checks=[Check("is there", CheckState.ABSENT, place), *checks])


def _line_step(row: TracedRow) -> TraceStep:
    place, line = row.place("rawdata"), row.line
    if line is None:
        return _absent("TSV line", place)
    facts = {
        "line": row.index + 1,
        "bytes": f"{line.start} to {line.end}",
        "caption": line.caption,
        "url": line.url,
    }
    return TraceStep("TSV line", place, facts)


OUTCOME_FACTS = ("status", REASON, "http_status", "attempts", "final_url", "sha256")


def _outcome_step(row: TracedRow) -> TraceStep:
    place, outcome = row.source.name(*row.outcomes), row.outcome
    checks = list(outcome_hops(row.source, row.chunk))
    if outcome is None:
        return _absent("outcome", place, checks)
    facts = {name: value for name in OUTCOME_FACTS if (value := outcome[name]) is not None}
    if row.line is not None:
        said = (row.line.caption, row.line.url)
        found = (outcome["caption"], outcome["url"])
        checks.append(agree("caption and URL are those of the TSV line", said, found, place))
    return TraceStep("outcome", place, facts, checks)


def _picture_step(row: TracedRow) -> TraceStep:
    place, member = row.place("images", ".tar"), f"{row.key}.jpg"
    if row.outcomes[0] == "features":
        return TraceStep("picture", "", {"kept": "no, its features alone (ingest --featurize)"})
    file = row.source.file("images", f"{row.chunk}.tar")
    if file is None:
        return _absent("picture", place)
    data = _read_member(file, member)
    sha256 = hashlib.sha256(data).hexdigest()
    recorded = row.outcome["sha256"] if row.outcome else None
    check = agree("sha256 of the picture is the outcome's", recorded, sha256, place)
    return TraceStep(
        "picture", place, {"member": member, "bytes": len(data), "sha256": sha256}, [check]
    )


def _read_member(path: Path, name: str) -> bytes:
    try:
        with tarfile.open(path, "r:") as tar:
            file = tar.extractfile(name)
            return b"" if file is None else file.read()
    except (tarfile.TarError, KeyError) as error:
        raise DataError(f"{path}: no {name} to be had ({error}); make the shard again") from error


def _feature_step(row: TracedRow) -> TraceStep:
    place, feature = row.place("features", ".parquet"), row.feature
    record = manifest(row.source, "features", row.chunk)
    if record is None:
        return _absent("feature row", place)
    checks = list(feature_hops(row.source, row.chunk))
    if feature is None:
        checks.append(Check(f"has {row.key}", CheckState.BROKEN, place, "it has not"))
        return TraceStep("feature row", place, checks=checks)
    if row.outcome is not None:
        what = "sha256 of the picture is the outcome's"
        checks.append(agree(what, row.outcome["sha256"], feature["sha256"], place))
    facts: dict[str, Any] = {"extractor": Extractor(**record["extractor"])}
    if feature["reason"] is not None:
        return TraceStep("feature row", place, {**facts, REASON: feature["reason"]}, checks)
    array = row.place("features", ".npy")
    return TraceStep("feature row", place, {"row": feature["row"], "array": array, **facts}, checks)


def _example_step(row: TracedRow) -> TraceStep:
    place, example = row.place("consolidate", ".parquet"), row.example
    record = manifest(row.source, "consolidate", row.chunk)
    if record is None:
        return _absent("training row", place)
    checks = list(example_hops(row.source, row.chunk))
    clean = PROFILES[record["cleaning"]]
    if example is None:
        if row.line is None or clean(row.line.caption):
            checks.append(Check(f"has {row.key}", CheckState.BROKEN, place, "it has not"))
            return TraceStep("training row", place, checks=checks)
        return TraceStep("training row", place, {REASON: "empty after cleaning"}, checks)
    what = "caption is that of the TSV line, cleaned by the profile on record"
    wanted = None if row.line is None else (row.line.caption, clean(row.line.caption))
    checks.append(agree(what, wanted, (example["caption"], example["cleaned"]), place))
    if row.feature is not None:
        wanted = (row.feature["sha256"], row.feature["row"])
        what = "picture and row of the array are the feature row's"
        checks.append(agree(what, wanted, (example["sha256"], example["row"]), place))
    facts = {"cleaned": example["cleaned"], "by": record["cleaning"], "split": example["split"]}
    return TraceStep("training row", place, facts, checks)


def _model_step(row: TracedRow) -> TraceStep:
    place, record = row.source.name("model", row.source.saved), description(row.source)
    if record is None:
        return _absent("model", place)
    known = {shard["chunk"] for shard in record.get("shards", ())}
    if known and row.chunk not in known:
        return TraceStep("model", place, {"learned from it": "no, it was made without this chunk"})
    use = {
        "train": "yes",
        "validation": "no, it was chosen by it",
        "test": "no, it was judged by it",
    }
    facts = {"learned from it": use[row.example["split"]]} if row.example else {}
    checks = [*trained_on(row.source, record, row.chunk), *model_hops(row.source, record)]
    return TraceStep("model", place, facts, checks)
