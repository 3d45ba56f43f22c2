"""The hops between files: what each shard says it was made of, held against what is there."""

from collections.abc import Iterator
from typing import Any

from capstan.feature_shards import EXAMPLES, FEATURES
from capstan.files import read_json, read_table
from capstan.records import MODEL_FORMAT, MODEL_VERSION
from capstan.report.lineage.source import RunFiles
from capstan.report.lineage.tree import Check, CheckState, agree
from capstan.shards import FUSED, IMAGES, STATS_SUFFIX, VERSION, read_image_stats
from capstan.train.settings import DESCRIPTION, NETWORK, VOCABULARY

Record = tuple[str, str | None]  # by whom, and the SHA-256 if any

BIG = (".tar", ".npy")


def is_file(source: RunFiles, repo: str, path: str, record: Record, deep: bool = True) -> Check:
    """Hold a file against its SHA-256 on record; unless `deep`, tars and arrays go unread."""
    by, recorded = record
    what, name = f"{repo}/{path} is the file that {by} recorded", source.name(repo, path)
    if recorded is None:
        return Check(what, CheckState.NOT_RECORDED, name)
    if not source.has(repo):
        return Check(what, CheckState.ABSENT, name)
    if not deep and path.endswith(BIG):
        return Check(what, CheckState.LEFT_OUT, name)
    found = source.sha256(repo, path)
    if found is None:
        return Check(what, CheckState.BROKEN, name, "it is missing")
    return agree(what, recorded, found, name)


def stats(source: RunFiles, chunk: str) -> tuple[str, dict[str, Any]] | None:
    """The repo of a chunk's outcomes and its stats: of an image shard, or of a fused one."""
    for repo, format in (("images", IMAGES), ("features", FUSED)):
        if path := source.file(repo, f"{chunk}{STATS_SUFFIX}"):
            return repo, read_image_stats(path, format)
    return None


def manifest(source: RunFiles, repo: str, chunk: str) -> dict[str, Any] | None:
    """What the parquet of a feature shard or a training shard says of itself."""
    path = source.file(repo, f"{chunk}.parquet")
    format = FEATURES if repo == "features" else EXAMPLES
    return None if path is None else read_table(path, format, VERSION, [])[1]


def description(source: RunFiles) -> dict[str, Any] | None:
    """The `model.json` of the source's model."""
    path = source.file("model", f"{source.saved}/{DESCRIPTION}")
    return None if path is None else read_json(path, MODEL_FORMAT, MODEL_VERSION)


def outcome_hops(source: RunFiles, chunk: str, deep: bool = True) -> Iterator[Check]:
    """The TSV chunk of an image shard, and the shard's own files."""
    if (found := stats(source, chunk)) is None:
        return
    repo, record = found
    yield is_file(source, "rawdata", chunk, (repo, record.get("source_sha256")))
    for suffix, file in record["files"].items():
        if "sha256" in file:  # not for a tar: its pictures have their own
            yield is_file(source, repo, f"{chunk}{suffix}", (repo, file["sha256"]), deep)


def feature_hops(source: RunFiles, chunk: str, deep: bool = True) -> Iterator[Check]:
    """The pictures of a feature shard, and its array. A fused one has the TSV chunk instead."""
    if (record := manifest(source, "features", chunk)) is None:
        return
    if source.file("features", f"{chunk}{STATS_SUFFIX}") is None:
        yield is_file(
            source, "images", f"{chunk}.tar", ("features", record.get("source_sha256")), deep
        )
    yield is_file(source, "features", f"{chunk}.npy", ("features", record["npy_sha256"]), deep)


def example_hops(source: RunFiles, chunk: str, deep: bool = True) -> Iterator[Check]:
    """The captions and features that a training shard joins, and its array."""
    if (record := manifest(source, "consolidate", chunk)) is None:
        return
    made_of = record["provenance"]
    for repo, path, recorded in (
        ("rawdata", chunk, made_of.get("chunk_sha256")),
        ("features", f"{chunk}.parquet", made_of.get("features_sha256")),
        ("consolidate", f"{chunk}.npy", record["npy_sha256"]),
    ):
        yield is_file(source, repo, path, ("consolidate", recorded), deep)


def model_hops(source: RunFiles, record: dict[str, Any]) -> Iterator[Check]:
    """The files of a model."""
    files = record.get("files") or dict.fromkeys((NETWORK, VOCABULARY))
    for name, sha256 in files.items():
        yield is_file(source, "model", f"{source.saved}/{name}", ("the model", sha256))


def trained_on(source: RunFiles, record: dict[str, Any], chunk: str) -> list[Check]:
    """The training shard that a model was made of: its parquet and, by its name, its array."""
    known = {shard["chunk"]: shard for shard in record.get("shards", ())}
    place = source.name("model", f"{source.saved}/{DESCRIPTION}")
    if not known:
        return [Check(f"the model was trained on {chunk}", CheckState.NOT_RECORDED, place)]
    if chunk not in known:
        return [Check(f"the model was trained on {chunk}", CheckState.BROKEN, place, "it was not")]
    shard, here = known[chunk], manifest(source, "consolidate", chunk)
    checks = [is_file(source, "consolidate", f"{chunk}.parquet", ("the model", shard["sha256"]))]
    if here is not None:
        what = f"consolidate/{chunk}.parquet names the array that the model was trained on"
        table = source.name("consolidate", f"{chunk}.parquet")
        checks.append(agree(what, shard["npy_sha256"], here["npy_sha256"], table))
    return checks
